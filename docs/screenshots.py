"""Makes the pictures of the documentation that show accelsim at work: ``python docs/screenshots.py [NAME …]``.

The terminal is what pyte, a terminal in a program, has on its 80 columns, drawn as SVG; pages are photographed in a
headless Chromium. Needs what the tests need, and a Chromium. ``PICTURES`` names them all; each stays below 100 KiB.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from html import escape
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "docs" / "pictures"
sys.path.insert(0, str(ROOT / "tests"))

COLUMNS = 80
LARGEST = 100 * 1024  # bytes of a picture
MOVES = ("lookahead", "ArrowRight", 2), ("pes", "ArrowLeft", 1), ("bandwidth", "ArrowLeft", 1)  # of sliders
TRACE, MACHINE = "resnet20-int8.npz", "tensordash.yaml"
RUN = ["accelsim", "run", "--config", "pe16x16.yaml", "--trace", "resnet50.npz"]
# What a terminal shows of each colour that is written to it.
COLOURS = {
    "default": "#e6eaef", "red": "#ff7b72", "green": "#7ee787", "brown": "#e3b341", "yellow": "#e3b341",
    "blue": "#79c0ff", "magenta": "#d2a8ff", "cyan": "#76e3ea", "white": "#ffffff", "black": "#8b949e",
}  # fmt: skip


def terminal(out: Path) -> None:
    """A run on 80 columns."""
    from terminal import screen

    command = [*RUN, "--quiet"]
    shown = screen(command, columns=COLUMNS, lines=100)
    last = max(number for number, line in enumerate(shown.display) if line.strip())
    asked = escape(f"$ {' '.join(command)}")
    text = [f'<text y="26" x="12" fill="#ffffff">{asked}</text>']
    for number in range(last + 1):
        text.append(
            f'<text y="{26 + 18 * (number + 1)}" x="12" xml:space="preserve">{_spans(shown.buffer[number])}</text>'
        )
    width, height = 24 + int(8.43 * COLUMNS), 40 + 18 * (last + 2)
    out.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" '
        'font-family="ui-monospace, Menlo, Consolas, DejaVu Sans Mono, monospace" font-size="14">\n'
        f'<rect width="{width}" height="{height}" rx="8" fill="#11151a"/>\n' + "\n".join(text) + "\n</svg>\n",
        encoding="utf-8",
    )  # fmt: skip


def _spans(cells: dict[int, object]) -> str:
    """A line of a terminal, cells of one look together."""
    spans: list[tuple[tuple[str, bool], str]] = []
    for column in range(COLUMNS):
        cell = cells[column]
        look = (COLOURS.get(cell.fg, COLOURS["default"]), cell.bold)
        if spans and spans[-1][0] == look:
            spans[-1] = look, spans[-1][1] + cell.data
        else:
            spans.append((look, cell.data))
    weights = {True: ' font-weight="bold"', False: ""}
    return "".join(f'<tspan fill="{c}"{weights[bold]}>{escape(t)}</tspan>' for (c, bold), t in spans)


def animation(out: Path) -> None:
    """A corner of a layer of ResNet-50 on TensorDash."""
    from browser import browser

    with tempfile.TemporaryDirectory() as folder, browser() as opened:
        page = Path(folder, "animation.html")
        cut = "channels=64,filters=16,height=6,width=6"
        command = ["accelsim", "animate", "--config", MACHINE, "--trace", "resnet50.npz", "--layer", "layer3.1.conv2"]
        subprocess.run([*command, "--cut", cut, "--out", str(page)], check=True, stdout=subprocess.DEVNULL)
        shown = opened()
        shown.size(1000, 760)
        shown.open(f"file://{page}")
        for _ in range(7):
            shown.press("ArrowRight")
        shown.picture(out, 1000)


def report(out: Path) -> None:
    """The report of a run."""
    from browser import browser

    with tempfile.TemporaryDirectory() as folder, browser() as opened:
        run = str(Path(folder, "run"))
        subprocess.run([*RUN, "--out", run, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        subprocess.run(["accelsim", "report", run], check=True, stdout=subprocess.DEVNULL)
        shown = opened()
        shown.size(1000, 800)
        shown.open(f"file://{run}/report.html")
        shown.picture(out, 1100)


def view(out: Path) -> None:
    """The page with sliders, some of them moved."""
    from browser import browser

    import accelsim
    from accelsim.view.app import View
    from accelsim.view.live import Live
    from accelsim.view.server import started

    machines = {path.name: path for path in sorted((ROOT / "configs").glob("*.yaml"))}
    with accelsim.open_trace(TRACE) as trace, browser() as opened:
        server, address = started(View(Live({TRACE: trace}, machines), {}), 0)
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            shown = opened()
            shown.size(1100, 800)
            shown.open(address, "document.querySelector('#layers .bars')")
            points = 1
            for name, key, times in (
                ("lookahead", "ArrowRight", 2),
                ("pes", "ArrowLeft", 1),
                ("bandwidth", "ArrowLeft", 1),
            ):
                shown.ask(f"document.getElementById('{name}').focus()")
                for _ in range(times):
                    shown.press(key)
                    points += 1
                    shown.until(f"document.getElementById('status').textContent && document.querySelectorAll("
                                f"'#pareto .points path.point').length === {points}")  # fmt: skip
            shown.until("document.querySelectorAll('#account tbody tr').length > 2")
            shown.picture(out, 1230)
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


def _shrink(path: Path) -> None:
    """A PNG of 128 colours, which is enough of a page."""
    from PIL import Image

    with Image.open(path) as picture:
        picture.convert("RGB").quantize(128).save(path, optimize=True)


PICTURES: dict[str, Callable[[Path], None]] = {
    "terminal.svg": terminal, "report.png": report, "view.png": view, "animation.png": animation,
}  # fmt: skip


def main() -> None:
    """Makes those named, or all."""
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    os.chdir(ROOT)
    for name in sys.argv[1:] or PICTURES:
        PICTURES[name](FOLDER / name)
        if name.endswith(".png"):
            _shrink(FOLDER / name)
        size = (FOLDER / name).stat().st_size
        print(f"docs/pictures/{name}: {size / 1024:.0f} KiB{'' if size <= LARGEST else ', too large'}")


if __name__ == "__main__":
    main()
