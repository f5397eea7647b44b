"""Is no line wider than the terminal, for the commands that other tests do not hold to it, and for all help?"""

import os
import re
import shutil
import sys

import pytest

from accelsim import cli
from accelsim.commands import shared

WIDTHS = (80, 100, 120)
LAYERS = ["--layers", "layer3.*", "--passes", "fwd"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two runs, a study and a machine, with short names, in a folder."""
    folder = tmp_path_factory.mktemp("t")
    before = os.getcwd()
    os.chdir(folder)
    try:
        for name, machine in (("a", "tensordash.yaml"), ("b", "dadiannao.yaml")):
            run = ["run", "--config", machine, "--trace", "resnet20-int8.npz", "--out", name, "--quiet", *LAYERS]
            assert cli.main([*run, "--baseline", "none"]) == 0
        (folder / "s.yaml").write_text(
            "trace: resnet20-int8.npz\nmachine: [tensordash.yaml, dadiannao.yaml]\npasses: [fwd]\n"
            "layers: ['layer3.*']\nsnapshots: [swat80]\ngrid: {accelerator.tiles: [4, 16]}\n",
            encoding="utf-8",
        )
        assert cli.main(["sweep", "s.yaml", "--out", "s", "--quiet", "--jobs", "1"]) == 0
        yield folder
    finally:
        os.chdir(before)


COMMANDS = {
    "ask": ["ask", "resnet20-int8.npz", "--layers", "layer3.2.*"],
    "sweep": ["sweep", "s.yaml", "--out", "s", "--quiet", "--jobs", "1"],
    "runs": ["diff", "a", "b"],
    "traces": ["diff", "resnet20-int8.npz", "resnet20-cifar10.npz"],
    "animate": ["animate", "--config", "tensordash.yaml", "--toy", "channels=8,filters=8", "--out", "x.html"],
    "guidance": ["run", "--config", "tensordash.yaml", "--trace", "resnet20-int8.npz", "--explain", *LAYERS],
    "values": ["info", "resnet20-int8.npz"],
    "bits": ["info", "tclp.yaml"],
}


def plain(text):
    return re.sub(r"\x1b\[[0-9;]*m", "", text).splitlines()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_fit_the_terminal(name, width, folder, monkeypatch, capsys):
    monkeypatch.chdir(folder)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(shared, "is_terminal", lambda *streams: sys.stdout in streams and len(streams) == 1)
    assert cli.main(COMMANDS[name]) == 0
    lines = plain(capsys.readouterr().out)
    assert len(lines) > 1 and max(map(len, lines)) <= width, max(lines, key=len)


def helps():
    """Every command, from the parser."""
    commands = next(action for action in cli.parser()._actions if action.choices and "run" in action.choices)
    return sorted(commands.choices)


@pytest.mark.parametrize("width", WIDTHS)
def test_help_fits_the_terminal(width, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", str(width))
    for arguments in ([], *([name] for name in helps())):
        with pytest.raises(SystemExit):
            cli.main([*arguments, "--help"])
        lines = capsys.readouterr().out.splitlines()
        assert max(map(len, lines)) <= width, (arguments, max(lines, key=len))


@pytest.mark.skipif(sys.platform != "linux", reason="asks a pseudo-terminal of Linux")
@pytest.mark.parametrize("width", [80, 120])
def test_what_a_person_sees_on_a_terminal_is_the_text(width, folder):
    """A line that is too long for a terminal goes on below: its screen is not that of one with room for it."""
    pyte = pytest.importorskip("pyte", reason="no pyte here: no terminal is looked at")
    from terminal import read

    told = read([shutil.which("accelsim") or "accelsim", *COMMANDS["runs"]], width)
    seen = []
    for columns in (width, 4 * width):
        screen = pyte.Screen(columns, 200)
        pyte.ByteStream(screen).feed(told)
        seen.append([line.rstrip() for line in screen.display])
    assert seen[0] == seen[1] and any("tensordash" in line for line in seen[0])
