"""Options of the whole suite."""

from pathlib import Path

import pytest

from accelsim import testing


def pytest_addoption(parser):
    testing.add_golden_option(parser)


def pytest_configure(config):
    folder = config.getoption("--golden")
    if folder is not None and not any(folder.glob("*.jsonl")):
        raise pytest.UsageError(f"--golden: must be a folder with .jsonl files, got {folder}")
    config.golden = folder or Path(__file__).parent / "golden"
