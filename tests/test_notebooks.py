"""Do the notebooks run from top to bottom, and are they committed without outputs?"""

import json
from pathlib import Path

import pytest

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_small_settings(path, monkeypatch):
    pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, value in {"STEPS": "6", "MODEL": "cifar_resnet20", "BATCH": "16"}.items():
        monkeypatch.setenv(f"ACCELSIM_{name}", value)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("ACCELSIM_CIFAR10", raising=False)
    nbclient.NotebookClient(nbformat.read(path, as_version=4), timeout=300).execute()


def test_there_are_notebooks():
    assert NOTEBOOKS
