"""Is no line wider than the terminal, nothing lost in any form, and everything as it was where output is piped?"""

import csv
import io
import os
import re
import struct
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.text import Text

from accelsim import cli
from accelsim.commands import shared
from accelsim.study.layout import new_table, rendered

ESCAPES = re.compile(r"\x1b\[[0-9;]*m")
WORDS = st.text("abcdefgh|&_", min_size=1, max_size=12)


def plain(text):
    return ESCAPES.sub("", text).splitlines()


@st.composite
def tables(draw):
    """One or two columns of words, then numbers."""
    names, numbers = draw(st.integers(1, 2)), draw(st.integers(1, 12))
    table = new_table(draw(st.sampled_from(["", "What there is, in a title of many words, over all layers"])))
    for _ in range(names):
        table.add_column(draw(WORDS))
    for _ in range(numbers):
        table.add_column(draw(WORDS), justify="right")
    for _ in range(draw(st.integers(0, 5))):
        cells = [draw(WORDS) for _ in range(names)] + [f"{draw(st.integers(0, 10**9)):,}" for _ in range(numbers)]
        table.add_row(*cells, end_section=draw(st.booleans()))
    return table


def cells_of(table):
    return [str(cell) for column in table.columns for cell in column.cells]


@given(tables(), st.integers(40, 200))
@settings(max_examples=60, deadline=None)
def test_no_line_is_wider_than_the_terminal_and_no_row_is_folded(table, width):
    os.environ["COLUMNS"] = str(width)
    try:
        lines = plain(rendered([table], terminal=True))
    finally:
        del os.environ["COLUMNS"]
    assert max(map(len, lines)) <= width
    shown = " ".join(lines).split()
    assert all(shown.count(cell) >= cells_of(table).count(cell) for cell in cells_of(table))
    # A piece has its title at most, two rules' worth of lines, a heading, and a line for each row.
    headings = sum(set(line.strip()) == {"─"} for line in lines)
    assert sum(any(cell in line.split() for cell in cells_of(table)) for line in lines) >= len(table.rows)
    assert headings >= 1


@given(tables())
@settings(max_examples=40, deadline=None)
def test_other_forms_hold_every_cell(table):
    rows = [[str(cell) for cell in row] for row in zip(*(column.cells for column in table.columns), strict=True)]
    rows = rows if table.rows else []
    text = rendered([table, Text("a note")], "csv")
    read = list(csv.reader(line for line in io.StringIO(text) if line[0] != "#"))
    assert text.endswith("# a note\n")
    assert [row for row in read if len(row) == len(table.columns)][-len(rows) :] == rows or not rows
    lines = [line for line in rendered([table], "markdown").splitlines() if line.startswith("|")]
    split = [[cell.replace("\\|", "|") for cell in re.split(r"(?<!\\) \| ", line[2:-2])] for line in lines]
    assert split[2:] == rows and {cell.strip("-:") for cell in split[1]} == {""}
    latex = rendered([table], "latex")
    assert latex.count(r"\\") == 1 + len(rows) and latex.count("&") - latex.count(r"\&") == (len(table.columns) - 1) * (
        1 + len(rows)
    )


def test_forms_of_a_table_by_hand():
    table = new_table("Sizes, 90 %")
    table.add_column("machine_a")
    table.add_column("multi-\npliers", justify="right")
    table.add_row(Text("=x & y"), "1,024")
    assert rendered([table], "markdown") == (
        "**Sizes, 90 %**\n\n| machine_a | multipliers |\n| --- | --: |\n| =x & y | 1,024 |\n"
    )
    assert rendered([table, "n"], "csv") == '# Sizes, 90 %\nmachine_a,multipliers\n\'=x & y,"1,024"\n\n# n\n'
    assert rendered([table], "latex") == (
        "% Sizes, 90 %\n\\begin{tabular}{lr}\n\\toprule\nmachine\\_a & multipliers \\\\\n\\midrule\n"
        "=x \\& y & 1,024 \\\\\n\\bottomrule\n\\end{tabular}\n"
    )


def test_a_note_is_broken_between_words_under_its_first_letter(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    lines = plain(rendered([Text("  " + "word " * 20)], terminal=True))
    assert len(lines) == 3 and all(line.startswith("  word") and len(line) <= 40 for line in lines)


COMMANDS = {
    "run": ["run", "--config", "pe16x16.yaml", "--trace", "tiny.npz", "--explain"],
    "compare": ["compare", "--machines", "dadiannao.yaml,tensordash.yaml,scnn.yaml", "--trace", "tiny.npz"],
    "trace": ["info", "tiny.npz"],
    "machine": ["info", "pe16x16.yaml"],
    "diff": ["diff", "pe16x16.yaml", "tensordash.yaml"],
    "reproduce": ["reproduce", "table3"],
    "list": ["reproduce"],
}


@pytest.mark.parametrize("width", [80, 100, 120])
@pytest.mark.parametrize("name", COMMANDS)
def test_commands_fit_the_terminal(name, width, tiny, monkeypatch, capsys):
    monkeypatch.chdir(tiny.parent)
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setattr(shared, "is_terminal", lambda *streams: sys.stdout in streams and len(streams) == 1)
    assert cli.main(COMMANDS[name]) == 0
    lines = plain(capsys.readouterr().out)
    assert len(lines) > 5 and max(map(len, lines)) <= width


def test_a_form_is_one_of_five_and_json_is_one(tiny, monkeypatch, capsys):
    monkeypatch.chdir(tiny.parent)
    shown = {}
    for how in (["--json"], ["--format", "json"], ["--format", "csv"], ["--format", "table"], []):
        assert cli.main(["info", "tiny.npz", *how]) == 0
        shown[" ".join(how)] = capsys.readouterr().out
    assert shown["--json"] == shown["--format json"] != shown["--format csv"]
    assert shown["--format table"] == shown[""]
    with pytest.raises(SystemExit) as left:
        cli.main(["info", "tiny.npz", "--format", "html"])
    assert left.value.code == 2


@pytest.mark.skipif(sys.platform != "linux", reason="asks a pseudo-terminal of Linux")
def test_on_a_real_terminal_of_80_columns(tiny):
    import fcntl
    import pty
    import termios

    ours, its = pty.openpty()
    fcntl.ioctl(its, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES")} | {"TERM": "xterm"}
    code = [sys.executable, "-m", "accelsim.cli", "info", str(tiny)]
    process = subprocess.Popen(code, stdout=its, stderr=subprocess.DEVNULL, env=environment)
    os.close(its)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 1 << 16)
        except OSError:  # how Linux says that the other side is closed
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.wait() == 0
    lines = plain(shown.decode())
    assert any("conv1" in line for line in lines) and max(map(len, lines)) <= 80
    assert "\x1b[1m" in shown.decode()
