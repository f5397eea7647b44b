"""Tables of cells: text with commas, tabs or semicolons between, quoted or not, or a sheet of an .xlsx."""

from __future__ import annotations

import csv
import re
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import LARGEST_TEXT, blame_all, check_file, read_text

Row = tuple[int, list[str]]
MOST_CELLS = 1 << 20
MOST_SHEETS = 16
LARGEST_COLUMN = 1 << 14
CELL = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
# What stands before a # that is not in quotes; a quote closes in its line, or is none.
COMMENT = re.compile(r'(?:[^"#]|"[^"]*"|")*')
MAIN = "{http://schemas.openxmlformats.org/spreadsheetml/2006/main}"


def rows(path: Path, is_header: Callable[[list[str]], bool]) -> Iterator[Row]:
    """Line numbers and cells, without what is blank and what follows a #.

    Parameters
    ----------
    path : Path
    is_header : callable
        Chooses among the sheets of a workbook the first that begins with what it is true of.

    Raises
    ------
    ImportFormatError
        If it is no table.
    """
    if path.suffix.lower() != ".xlsx":
        yield from _stripped(_text(path))
        return
    sheets = [list(_stripped(sheet)) for sheet in _sheets(path)]
    yield from next((sheet for sheet in sheets if sheet and is_header(sheet[0][1])), sheets[0])


def _stripped(lines: Iterable[Row]) -> Iterator[Row]:
    for number, cells in lines:
        cells = [cell.strip() for cell in cells]
        while cells and not cells[-1]:
            cells.pop()
        if cells:
            yield number, cells


def _text(path: Path) -> Iterator[Row]:
    text = read_text(path)
    comma = next((mark for mark in ",\t;" if mark in text), ",")
    for number, line in enumerate(text.splitlines(), start=1):
        found = COMMENT.match(line)
        bare = found[0] if found else ""
        if '"' in bare:
            yield number, next(csv.reader([bare], delimiter=comma, skipinitialspace=True), [])
        else:
            yield number, bare.split(comma)


def _sheets(path: Path) -> list[list[Row]]:
    check_file(path, LARGEST_TEXT)
    with blame_all(path, "must be an .xlsx workbook: "), zipfile.ZipFile(path) as book:
        names = [name for name in book.namelist() if re.fullmatch(r"xl/worksheets/sheet[0-9]{1,3}\.xml", name)]
        if not names:
            raise ImportFormatError("must hold a sheet, holds none")
        strings = []
        if "xl/sharedStrings.xml" in book.namelist():
            strings = [_joined(item) for item in _parsed(book, "xl/sharedStrings.xml").findall(f"{MAIN}si")]
        ordered = sorted(set(names), key=lambda name: (len(name), name))[:MOST_SHEETS]
        return [_sheet(_parsed(book, name), strings) for name in ordered]


def _sheet(sheet: ElementTree.Element, strings: list[str]) -> list[Row]:
    found: list[Row] = []
    count = 0
    for row in sheet.iter(f"{MAIN}row"):
        texts: list[str] = []
        for cell in row.findall(f"{MAIN}c"):
            column = _column(cell.get("r", ""), len(texts))
            count += 1 + column - len(texts)
            if count > MOST_CELLS:
                raise ImportFormatError(f"must have at most {MOST_CELLS} cells in a sheet")
            texts += [""] * (column - len(texts)) + [_value(cell, strings)]
        found.append((len(found) + 1, texts))
    return found


def _parsed(book: zipfile.ZipFile, name: str) -> ElementTree.Element:
    """XML without a document type, so that no entity can grow."""
    info = book.getinfo(name)
    if info.file_size > LARGEST_TEXT:
        raise ImportFormatError(f"{name}: must have at most {LARGEST_TEXT} bytes, has {info.file_size}")
    with book.open(info) as member:
        content = member.read(LARGEST_TEXT + 1)
    if len(content) > LARGEST_TEXT or b"<!" in content.replace(b"<![CDATA[", b"").replace(b"<!--", b""):
        raise ImportFormatError(f"{name}: must be plain XML of at most {LARGEST_TEXT} bytes")
    return ElementTree.fromstring(content)


def _column(reference: str, default: int) -> int:
    match = CELL.fullmatch(reference)
    if not match:
        return default
    column = 0
    for letter in match[1]:
        column = 26 * column + ord(letter) - 64
    if not default < column <= LARGEST_COLUMN:
        raise ImportFormatError(f"cell {reference}: must come after those before it in its row")
    return column - 1


def _value(cell: ElementTree.Element, strings: list[str]) -> str:
    if cell.get("t") == "inlineStr":
        return _joined(cell)
    value = cell.findtext(f"{MAIN}v") or ""
    if cell.get("t") == "s":
        return strings[int(value)]
    return value[:-2] if re.fullmatch(r"[0-9]+\.0", value) else value


def _joined(item: ElementTree.Element) -> str:
    return "".join(text.text or "" for text in item.iter(f"{MAIN}t"))
