"""A headless Chromium, driven over its DevTools protocol: pages are opened, measured and photographed."""

import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
import urllib.request
from contextlib import contextmanager
from pathlib import Path

DESKTOP, PHONE = (1280, 800), (390, 844)
NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
KEYS = {"Tab": 9, "Home": 36, "End": 35, "ArrowLeft": 37, "ArrowRight": 39, " ": 32, "Enter": 13}
# Text whose contrast with what is behind it is below WCAG's 4.5 : 1 (3 : 1 where it is large); colours as computed.
CONTRAST = """(() => {
  const number = (text) => (text.match(/[\\d.]+/g) || []).map(Number);
  const light = (colour) => colour.slice(0, 3).map((v) => v / 255)
    .map((v) => v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const back = (element) => {
    for (let e = element; e; e = e.parentElement) {
      const c = number(getComputedStyle(e).backgroundColor);
      if (c.length === 3 || c[3] > 0.99) return c.slice(0, 3);
    }
    return [255, 255, 255];
  };
  const found = [];
  for (const e of document.body.querySelectorAll("*")) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || !e.getClientRects().length || e.closest("svg, noscript, script, style") || e.disabled) continue;
    const style = getComputedStyle(e);
    if (style.visibility === "hidden" || Number(style.opacity) === 0) continue;
    const [a, b] = [light(number(style.color)), light(back(e))].sort((x, y) => y - x);
    const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
    const ratio = (a + 0.05) / (b + 0.05);
    const name = `${e.tagName} ${e.className} "${e.textContent.trim().slice(0, 30)}"`;
    if (ratio < (large ? 3 : 4.5)) found.push(`${name} ${ratio.toFixed(2)}`);
  }
  return found;
})()"""


def executable():
    """Where a Chromium is; None: nowhere."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page of a browser."""

    def __init__(self, socket):
        self._socket, self._number, self.messages = socket, 0, []
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method, **parameters):
        """One command; meanwhile events are kept: what the console was told, failures and requests."""
        self._number += 1
        self._socket.send(json.dumps({"id": self._number, "method": method, "params": parameters}))
        while True:
            message = json.loads(self._socket.recv())
            if message.get("id") == self._number:
                assert "error" not in message, (method, message)
                return message["result"]
            self.messages.append(message)

    def size(self, width, height):
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1,
                  mobile=width < 500)  # fmt: skip

    def open(self, url, ready="document.documentElement?.dataset.ready === 'yes'"):
        self.messages.clear()
        self.send("Page.navigate", url=url)
        self.until(ready)

    def ask(self, expression):
        """The value of an expression, promises awaited."""
        found = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, expression, seconds=30):
        end = time.monotonic() + seconds
        while not self.ask(f"Boolean({expression})"):
            assert time.monotonic() < end, f"not within {seconds} s: {expression}; {self.errors()}"
            time.sleep(0.03)

    def press(self, key, shift=False):
        more = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" else {}
        code = {"windowsVirtualKeyCode": KEYS.get(key, ord(key.upper()[0])), "modifiers": 8 * shift}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **code, **more)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, **code)

    def errors(self):
        """What the console was told of errors and warnings, and what threw."""
        found = []
        for message in self.messages:
            what = message.get("params", {})
            if message["method"] == "Runtime.exceptionThrown":
                found.append(what["exceptionDetails"].get("exception", {}).get("description", "thrown"))
            if message["method"] == "Log.entryAdded" and what["entry"]["level"] in ("error", "warning"):
                found.append(what["entry"]["text"] + " " + what["entry"].get("url", ""))
            if message["method"] == "Runtime.consoleAPICalled" and what["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(arg.get("value", arg.get("description"))) for arg in what["args"]))
        return found

    def requests(self):
        """What was asked for."""
        return [m["params"]["request"]["url"] for m in self.messages if m["method"] == "Network.requestWillBeSent"]

    def overflows(self):
        """Pixels by which the page is wider than its window."""
        return self.ask("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def reached(self, most=60):
        """What Tab gets to, in order, by id or text, until it comes round."""
        start = "document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute('tabindex')"
        self.ask(f"document.activeElement.blur(); {start}")
        found = []
        for _ in range(most):
            self.press("Tab")
            name = self.ask("(e => e === document.body ? '' : e.id || e.name || e.getAttribute('aria-label') || "
                            "e.textContent.trim().slice(0, 30) || e.tagName)(document.activeElement)")  # fmt: skip
            if not name or found[:1] == [name]:
                break
            found.append(name)
        return found

    def picture(self, path, height=None):
        """A PNG of the window, or of so many pixels of the page."""
        clip = {}
        if height:
            width = self.ask("innerWidth")
            clip = {"clip": {"x": 0, "y": 0, "width": width, "height": height, "scale": 1}}
        found = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=bool(height), **clip)
        Path(path).write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser():
    """A Chromium; what it yields opens pages."""
    import websocket

    with tempfile.TemporaryDirectory(prefix="accelsim-chromium-", ignore_cleanup_errors=True) as folder:
        command = [executable(), "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
                   "--remote-debugging-port=0", f"--user-data-dir={folder}", "--no-first-run", "--hide-scrollbars",
                   "--disable-background-networking", "--disable-component-update", "about:blank"]  # fmt: skip
        process = subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": folder}
        )
        sockets = []
        try:
            told = Path(folder, "DevToolsActivePort")
            end = time.monotonic() + 60
            while not (told.is_file() and told.read_text().count("\n")):
                assert process.poll() is None and time.monotonic() < end, "Chromium did not start"
                time.sleep(0.05)
            port = told.read_text().split()[0]

            def page():
                request = urllib.request.Request(f"http://127.0.0.1:{port}/json/new", method="PUT")
                with urllib.request.urlopen(request, timeout=30) as answer:
                    url = json.load(answer)["webSocketDebuggerUrl"]
                sockets.append(websocket.create_connection(url, suppress_origin=True, timeout=60))
                return Page(sockets[-1])

            yield page
        finally:
            for socket in sockets:
                socket.close()
            process.terminate()
            process.wait(30)
