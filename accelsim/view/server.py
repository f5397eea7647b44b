"""Serves the page to this machine alone: the loopback address, a random token in the address, no other origin."""

from __future__ import annotations

import logging
import secrets
import socket
import webbrowser
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import flask
from werkzeug.serving import BaseWSGIServer, make_server

from accelsim.errors import OutputError, ResultsError, TraceError
from accelsim.files import find
from accelsim.view.app import View
from accelsim.view.live import Live
from accelsim.view.results import Results, read
from accelsim.workload.trace import Trace

HOST = "127.0.0.1"
# Scripts are Dash's own and those it says the digests of; nothing is loaded from, sent to or shown in any other place.
POLICY = (
    "default-src 'self'; script-src 'self' {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
)
HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


def serve(
    sources: list[str],
    machines: dict[str, str | Path],
    *,
    port: int = 0,
    allow_code: bool = False,
    ready: Callable[[str], None],
    browse: bool = False,
) -> None:
    """Serves until it is interrupted.

    Parameters
    ----------
    sources : list of str
        Traces, and folders of runs and sweeps.
    machines : dict
        Machine files by the name that they are chosen by.
    port : int
        0: a free one.
    allow_code : bool
        As ``load_machine``'s.
    ready : callable
        Called with the address, once it answers.
    browse : bool
        Open it in the browser.

    Raises
    ------
    AccelsimError
        If a source is none, or damaged; OutputError if the port is taken.
    KeyboardInterrupt
        Always in the end.
    """
    with ExitStack() as stack:
        traces: dict[str, Trace] = {}
        results: dict[str, Results] = {}
        for name in sources:
            if Path(name).is_dir():
                results[name] = read(Path(name))
            elif name.lower().endswith(".npz"):
                traces[name] = stack.enter_context(Trace.open(find(name, "traces", TraceError)))
            else:
                raise ResultsError(
                    f"{name}: must be a trace (.npz), or a folder that accelsim run --out or sweep wrote"
                )
        view = View(Live(traces, machines, allow_code=allow_code), results)
        server, address = started(view, port)
        stack.callback(server.server_close)
        ready(address)
        if browse:
            webbrowser.open(address)
        server.serve_forever()  # it takes KeyboardInterrupt for its end, and says nothing
    raise KeyboardInterrupt("the page is closed")


def started(view: View, port: int, token: str | None = None) -> tuple[BaseWSGIServer, str]:
    """A server that listens, and the address of its page. Raises OutputError where the port is taken."""
    prefix = f"/{token or secrets.token_urlsafe(24)}/"
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = view.app(prefix)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # of a page that has just been closed
    try:  # werkzeug prints why it cannot, and ends the program
        listening.bind((HOST, port))
        listening.listen(128)
    except OSError as error:
        listening.close()
        raise OutputError(f"--port: {HOST}:{port} cannot be listened on: {error.strerror}") from error
    with listening:
        server = make_server(HOST, port, app.server, threaded=True, fd=listening.fileno())
    guard(app.server, f"{HOST}:{server.port}", app.csp_hashes())
    return server, f"http://{HOST}:{server.port}{prefix}"


def guard(server: flask.Flask, host: str, scripts: list[str]) -> None:
    """Answers only who asks for this host, from no other origin; and forbids the page all but itself."""
    policy = POLICY.format(scripts=" ".join(scripts))

    def refuse_strangers() -> None:
        origin = flask.request.headers.get("Origin", f"http://{host}")
        if flask.request.host != host or origin != f"http://{host}":
            flask.abort(403)

    def forbid(response: Any) -> Any:
        response.headers.update(HEADERS)
        if "corner" not in flask.request.path:  # which brings its own, stricter one
            response.headers["Content-Security-Policy"] = policy
        return response

    server.before_request(refuse_strangers)
    server.after_request(forbid)
