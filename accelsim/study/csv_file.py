"""Tables as CSV that a spreadsheet may open: names come from traces and machine files, which anybody may have written.

A cell that a spreadsheet would take for a formula gets an apostrophe before it, as OWASP's page on CSV injection says;
``unquoted`` takes it away again. Numbers stay as they are.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

FORMULAS = tuple("=+-@\t\r'")


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """A table without its index; text is UTF-8."""
    from pandas.api.types import is_numeric_dtype  # here, for tables of text quote cells without it

    texts = {name: column.map(quoted) for name, column in table.items() if not is_numeric_dtype(column)}
    table.assign(**{str(name): column for name, column in texts.items()}).to_csv(path, index=False, encoding="utf-8")


def quoted(cell: Any) -> Any:
    """A cell as it is written."""
    if isinstance(cell, str) and cell.startswith(FORMULAS) and not _is_number(cell):
        return f"'{cell}"
    return cell


def unquoted(cell: Any) -> Any:
    """A cell as it was."""
    return cell[1:] if isinstance(cell, str) and cell[:1] == "'" and cell[1:].startswith(FORMULAS) else cell


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return cell.isascii() and not cell.isspace() and cell == cell.strip()
