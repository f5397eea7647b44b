"""A few changed files of every format; ``python tests/fuzz/importers.py`` tries as many as one likes."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import importers as fuzz

from accelsim.workload.formats import readers

NEEDS = {"onnx": "onnx"}


@pytest.mark.parametrize("format", [row.name for row in readers()])
def test_changed_files_are_read_or_refused_in_a_line(format, tmp_path, monkeypatch):
    pytest.importorskip(NEEDS.get(format, "numpy"))
    monkeypatch.setattr(fuzz, "MOST_MEMORY", 1 << 40)  # the process has run other tests
    assert list(fuzz.faults(format, 60, seed=1, folder=tmp_path)) == []


def test_a_fault_is_seen(tmp_path, monkeypatch):
    def broken(path, format, topology=None):
        raise KeyError("x")

    monkeypatch.setattr(fuzz, "read", broken)
    (path, what), *_ = fuzz.faults("mask", 3, seed=1, folder=tmp_path)
    assert path.exists() and what == "KeyError: 'x'"
