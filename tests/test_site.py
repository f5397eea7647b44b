"""Is the documentation whole? What can be seen of the site without building it: pages, links, commands, modules."""

import argparse
import ast
import os
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from posixpath import dirname, join, normpath

import pytest

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs")]

import writers  # noqa: E402
from accelsim import cli, ledger, load_machine  # noqa: E402
from accelsim.study.describe import keys  # noqa: E402
from writers import api, commands, markdown, repository  # noqa: E402

LINK = re.compile(r"\]\((?![a-z+]+:)([^()\s]*)\)")
TOCTREE = re.compile(r"^```\{toctree\}\n(.*?)^```", re.M | re.S)


@pytest.fixture(scope="module")
def pages():
    """The site's Markdown by its path."""
    return {path: text for path, text in writers.pages().items() if path.endswith(".md")}


def prose(text):
    """A page without its blocks of code."""
    return re.sub(r"^```(?!\{toctree).*?^```$", "", text, flags=re.M | re.S)


def anchors(text):
    """Of the headings of a page, as a code host makes them."""
    headings = re.findall(r"^#+ (.*)$", prose(text), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def orphans(pages):
    """Pages that no table of contents leads to, and entries that lead nowhere."""
    listed = ["index.md"]
    for path, text in pages.items():
        for block in TOCTREE.findall(text):
            entries = [line for line in block.splitlines() if line and not line.startswith(":")]
            names = [re.sub(r".*<(.*)>", r"\1", entry) for entry in entries]
            listed += [normpath(join(dirname(path), name)) + ".md" for name in names]
    return sorted({*pages} ^ {*listed})


def dead(pages, files):
    """Links between pages that lead nowhere."""
    found = []
    for path, text in pages.items():
        for link in LINK.findall(prose(text)):
            file, _, anchor = link.partition("#")
            target = normpath(join(dirname(path), file)) if file else path
            if target not in files or (anchor and anchor not in anchors(pages[target])):
                found.append(f"{path}: {link}")
    return found


def test_every_page_is_in_a_table_of_contents(pages):
    assert orphans(pages) == []
    assert {
        "commands.md",
        "contributing.md",
        "machines/pe16x16.md",
        "api/accelsim.pipeline.md",
        "api/inside/accelsim.sweeps.md",
    } < {*pages}


def test_a_page_that_is_in_none_is_noticed(pages):
    assert orphans(pages | {"new.md": "# New"}) == ["new.md"]
    assert orphans({"index.md": "```{toctree}\n:hidden:\n\nA <a>\nb\n```", "a.md": ""}) == ["b.md"]


def test_links_between_pages_lead_somewhere(pages):
    assert dead(pages, {*writers.pages()}) == []


def test_a_dead_link_is_noticed():
    pages = {"a.md": "# A\n\n[b](b.md) [one](#a) [x](x.md) [two](d/b.md#no)", "d/b.md": "[up](../a.md#a)"}
    assert dead(pages, {*pages}) == ["a.md: b.md", "a.md: x.md", "a.md: d/b.md#no"]
    where = repository.sources()
    assert repository.led("no.md", "docs/model.md", where) == "no.md"
    assert repository.led("../traces/README.md#arrays", "docs/model.md", where) == "traces.md#arrays"
    assert repository.led("../notebooks", "docs/model.md", where) == "notebooks/index.md"


def test_relative_links_of_committed_pages_lead_to_files():
    """Where they are read on a code host."""
    committed = [ROOT / path for path in repository.sources() if path.endswith(".md")]
    links = [(file, link.partition("#")[0]) for file in committed for link in LINK.findall(prose(file.read_text()))]
    assert [(file.name, link) for file, link in links if not (file.parent / link).exists()] == []
    assert len(links) > 30


def whole(parser):
    """The parser and those of all commands, also of commands below commands."""
    yield parser
    for _, command in commands.subcommands(parser).values():
        yield from whole(command)


def unexplained(parser):
    """Commands and arguments without a help text."""
    for one in whole(parser):
        yield from (f"{one.prog} {name}" for name, (text, _) in commands.subcommands(one).items() if not text)
        yield from (f"{one.prog} {action.dest}" for action in commands.arguments(one) if not action.help)


def test_every_command_and_argument_says_what_it_is(pages):
    assert list(unexplained(cli.parser())) == []
    sections = dict(re.findall(r"^#+ (accelsim [^\n]*)\n(.*?)(?=^#+ |\Z)", pages["commands.md"], re.M | re.S))
    parsers = list(whole(cli.parser()))[1:]
    assert [*sections] == [parser.prog for parser in parsers]
    for parser in parsers:
        listed = "".join(re.findall(r"^:::\{option\} (.*)$", sections[parser.prog], re.M))
        for action in commands.arguments(parser):
            assert all(name in listed for name in action.option_strings or [action.metavar or action.dest])


def test_a_command_without_help_is_noticed():
    parser = argparse.ArgumentParser("tool")
    inner = parser.add_subparsers().add_parser("make", help="makes").add_subparsers().add_parser("it")
    inner.add_argument("--flag")
    assert list(unexplained(parser)) == ["tool make it", "tool make it flag"]


def test_a_notebook_is_its_cells_and_the_pictures_that_its_readme_shows(pages):
    page = pages["notebooks/1_table6.md"]
    assert page.startswith("# Table 6, step by step") and "```python\n" in page
    assert re.findall(r"\]\((.*\.png)\)", page) == ["pictures/1_table6_2.png", "pictures/1_table6_3.png"]


def test_names_that_a_package_passes_on_lead_to_their_modules(pages):
    assert "`Trace`, of [`accelsim.workload.trace`](accelsim.workload.trace.md)" in pages["api/accelsim.md"]
    assert (
        "`Recorder`, of [`accelsim.capture.recorder`](inside/accelsim.capture.md#" in pages["api/accelsim.capture.md"]
    )


def test_what_is_public_is_there():
    known = api.modules()
    assert [name for name in api.PUBLIC if not known.get(name)] == []


def rows(page):
    """Of the tables of keys on a machine's page: section and key → value, meaning and reason."""
    found, section = {}, ""
    for line in page.splitlines():
        heading, row = re.match(r"### (.*)", line), re.match(r"\| `(\w+)` \| (.*?) \| (.*) \|$", line)
        section = f"{heading[1]}." if heading else section
        found |= {section + row[1]: row.groups()[1:]} if row else {}
    return found


@pytest.mark.parametrize("file", sorted((ROOT / "configs").glob("*.yaml")), ids=lambda file: file.stem)
def test_the_page_of_a_machine_has_every_key(pages, file):
    """With its value, and whatever the file says behind it; sections that are files of their own are links."""
    page, machine = pages[f"machines/{file.stem}.md"], load_machine(file)
    shown = rows(page)
    for path, value, unit, meaning in keys(machine):
        section = path.partition(".")[0]
        if section in ("memory", "energy", "overheads"):
            assert shown[section][0] == "`none`" or f"machines/{shown[section][0][:-1].partition('(')[2]}" in pages
        elif path == "area":  # it is measured, not chosen: no shipped file has one
            assert shown[path] == ("`None`", meaning)
        elif path not in ("name", "description", "accelerator.model"):
            assert shown[path][0] == (f"`{value}`" if unit in ("count", "option", "") else f"`{value}` {unit}")
            assert shown[path][1].startswith(markdown.escaped(meaning)) and re.search(r"\. \*.+\*$", shown[path][1])
    assert f"{machine.accelerator.multipliers:,} multipliers" in page and file.read_text(encoding="utf-8") in page


def test_pages_of_machines_say_what_was_asked_of_them(pages):
    shown = rows(pages["machines/pe16x16.md"])
    assert shown["accelerator.pe_rows"] == ("`16`", "PEs along the height of the map. *Re-derived; SCNN has 8*")
    assert shown["memory"][0] == "[layer-at-a-time.yaml](memory/layer-at-a-time.md)"
    assert "| forward | activation, weight | each zero may save time" in pages["machines/pe16x16.md"]
    memory = rows(pages["machines/memory/layer-at-a-time.md"])
    assert memory["offchip.latency_ns"][0] == "`28` ns" and "tRCD + tAA" in memory["offchip.latency_ns"][1]


def test_the_page_of_counts_has_every_row_of_the_ledger(pages):
    shown = {row[1]: row[0] for row in re.finditer(r"^\| `(\w+)` \| .*$", pages["counts.md"], re.M)}
    assert sorted(shown) == sorted(count.column for count in ledger.rows())
    assert all(markdown.escaped(count.meaning) in shown[count.column] for count in ledger.rows())
    assert "`multiply_pj` (multipliers" in shown["multiplications"]


def test_a_count_that_is_added_is_on_the_page():
    """In a process of its own: the ledger forgets no row."""
    code = (
        "from accelsim import ledger; from writers import counts; from dataclasses import replace;"
        "ledger.add(replace(ledger.rows('slots')[0], name='napping', meaning='asleep'));"
        "assert '| `napping_slots` | slots |' in counts.page() and '| asleep |' in counts.page()"
    )
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "docs")])}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_sources_are_written_once_and_what_is_no_page_any_more_goes(tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "pages", lambda: {"a/b.md": "# B", "p.png": b"png"})
    writers.write(tmp_path)
    (tmp_path / "a" / "old.md").write_text("# Old")
    before = (tmp_path / "a" / "b.md").stat().st_mtime_ns
    writers.write(tmp_path)
    assert sorted(path.name for path in tmp_path.rglob("*.*")) == ["b.md", "p.png"]
    assert (tmp_path / "a" / "b.md").stat().st_mtime_ns == before


SETUP = runpy.run_path(str(ROOT / "setup.py"))


def test_a_package_index_gets_no_relative_links():
    """Without an address they are words that name the file; with one they lead below it, to files that exist."""
    relative = SETUP["RELATIVE"]
    assert relative.search((ROOT / "README.md").read_text(encoding="utf-8"))
    bare = SETUP["long_description"](lambda path: None)
    assert not relative.search(bare) and "docs/model.md states what is simulated" in bare.replace("\n", " ")
    linked = SETUP["long_description"](lambda path: f"https://host.example/{path}")
    assert not relative.search(linked)
    paths = re.findall(r"\]\(https://host\.example/([^)]*)\)", linked)
    assert len(paths) > 10 and all((ROOT / path).exists() for path in paths)


def test_links_inside_code_stay():
    text = "[a](b.md)\n\n```python\nx[a](b)\n```\n![p](p.png) [web](https://x.example) [here](#a)"
    assert SETUP["relinked"](text, lambda path: f"to/{path}") == text.replace("(b.md)", "(to/b.md)").replace(
        "(p.p", "(to/p.p"
    )


def shown(text):
    """Commands that a page shows, in blocks of code and in its text."""
    joined = text.replace("\\\n", " ")
    blocks = "".join(re.findall(r"^```(?:sh|text)\n(.*?)^```", joined, re.M | re.S))
    lines = re.findall(r"^.*\baccelsim [a-z].*$", blocks + "\n".join(re.findall(r"^ {4}.*$", joined, re.M)), re.M)
    parts = (part for line in lines for part in re.split(r"&&|\||;|>", line.partition(" #")[0]))
    whole = [shlex.split(part)[1:] for part in parts if part.strip().startswith("accelsim ")]
    return whole, [code.split()[1:] for code in re.findall(r"`(accelsim [a-z][^`]*)`", joined.replace("\n", " "))]


def refused(text):
    """Those of the commands that the parser does not take; in running text only the command's and the flags' names."""
    whole, named = shown(text)
    known = {name: parser for name, (_, parser) in commands.subcommands(cli.parser()).items()}
    for command in whole:
        try:
            cli.parser().parse_args(command)
        except SystemExit:
            yield " ".join(command)
    for name, *rest in named:
        flags = known[name]._option_string_actions if name in known else {}
        yield from (f"{name} {word}" for word in rest if word.startswith("--") and word not in flags)
        yield from [] if name in known else [name]


def test_every_command_on_every_page_is_one(pages):
    assert {path: found for path, text in pages.items() if (found := list(refused(text)))} == {}
    assert sum(len(shown(text)[0]) for text in pages.values()) > 50


def test_a_command_that_is_none_is_noticed(capsys):
    text = "    accelsim run --config a\n\n```sh\naccelsim info x.npz  # fine\n```\n`accelsim run --no x` `accelsim do`"
    assert list(refused(text)) == ["run --config a", "run --no", "do"]


def misread(text):
    """Docstrings whose code Sphinx does not see: not closed, empty, with a blank inside or a letter at its ends."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            parts = (ast.get_docstring(node) or "").split("``")
            letters = any(words[:1].isalnum() for words in parts[2::2]) or any(w[-1:].isalnum() for w in parts[:-1:2])
            if len(parts) % 2 == 0 or letters or any(code != code.strip() or not code for code in parts[1::2]):
                yield getattr(node, "name", "the module")


def test_docstrings_are_what_sphinx_reads():
    """What else is wrong in one, the build says."""
    files = sorted((ROOT / "accelsim").rglob("*.py"))
    assert {path.name: found for path in files if (found := list(misread(path.read_text(encoding="utf-8"))))} == {}


def test_a_docstring_that_is_misread_is_noticed():
    text = (
        "'''``fine`` A|W'''\ndef f():\n    '''``a: `` b'''\nclass C:\n    '''``open'''\n    def g(): '''not ```` it'''"
    )
    assert list(misread(text)) == ["f", "C", "g"]
    assert list(misread("'''``add``s'''")) == list(misread("'''re``add``'''")) == ["the module"]
