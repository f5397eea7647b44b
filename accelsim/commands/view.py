"""``accelsim view``: a local page over traces, runs and sweeps."""

from __future__ import annotations

import argparse
from pathlib import Path

from accelsim.commands.shared import Commands, add_code, show
from accelsim.errors import AccelsimError, ConfigError


def add(commands: Commands, common: argparse.ArgumentParser) -> None:
    """Adds the command and its arguments."""
    command = commands.add_parser(
        "view",
        parents=[common],
        help="a local page over traces, runs and sweeps, with sliders that simulate again",
        description="Serves a page to this machine alone until Ctrl-C: sliders for zeros, PEs, lookahead and "
        "bandwidth, points of cycles, energy and multipliers, each layer's account. Needs Dash: pip install "
        "'accelsim-sparse[view]'.",
    )
    text = "traces (.npz), and folders that run --out or sweep wrote (default: resnet20-int8.npz)"
    command.add_argument("sources", nargs="*", metavar="SOURCE", help=text)
    text = "a machine to choose besides those shipped; repeatable"
    command.add_argument("--config", dest="configs", action="append", default=[], metavar="FILE", help=text)
    command.add_argument("--port", type=_port, default=0, metavar="N", help="port to listen on (default: a free one)")
    command.add_argument("--browse", action="store_true", help="open the page in the browser")
    add_code(command)
    command.set_defaults(command=view)


def view(options: argparse.Namespace) -> None:
    """Sources → a page, until it is interrupted."""
    from accelsim.files import find, shipped

    machines: dict[str, str | Path] = {Path(name).name: find(name, "configs", ConfigError) for name in options.configs}
    machines |= {path.name: path for path in sorted(shipped("configs").glob("*.yaml")) if path.name not in machines}
    try:
        from accelsim.view.server import serve
    except ModuleNotFoundError as error:
        if error.name not in ("dash", "flask", "werkzeug"):
            raise
        raise AccelsimError("view needs Dash: pip install 'accelsim-sparse[view]'") from error
    serve(
        options.sources or ["resnet20-int8.npz"], machines, port=options.port, allow_code=options.allow_code,
        ready=lambda address: show(f"{address}\nCtrl-C ends it.\n"), browse=options.browse,
    )  # fmt: skip


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) <= 5 and int(text) <= 65535):
        raise argparse.ArgumentTypeError(f"must be an integer in 0…65535, got {text[:20]}")
    return int(text)
