"""The ``--golden DIR`` option of accelsim's own tests, as a pytest plugin.

Pytest takes the DIR of an option that it does not know yet for a folder with tests, and then does not read the
conftest.py that would make it known. So the option comes with the installed package; outside a checkout it is not
there.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """Called by pytest in every run: adds the option in a checkout of accelsim only."""
    if Path("tests/golden").is_dir() and Path("accelsim/testing.py").is_file():
        add_golden_option(parser)


def add_golden_option(parser: pytest.Parser) -> None:
    """Adds the option; tests/conftest.py does so too, for a checkout that is not installed."""
    text = "folder of .jsonl files with cycle counts to reproduce (default: tests/golden)"
    with suppress(ValueError):  # it is there already
        parser.addoption("--golden", type=Path, metavar="DIR", help=text)
