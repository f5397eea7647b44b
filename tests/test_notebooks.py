"""Do the notebooks run from top to bottom, are they committed without outputs, and are their pictures there?"""

import json
import re
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent.parent / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
NEEDS_TORCH = {"swat_training"}
SMALL = {"SMALL": "1", "STEPS": "6", "MODEL": "cifar_resnet20", "BATCH": "16"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_committed_without_outputs(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert all(not cell["outputs"] and cell["execution_count"] is None for cell in cells if cell["cell_type"] == "code")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_on_small_settings(path, monkeypatch):
    if path.stem in NEEDS_TORCH:
        pytest.importorskip("torch")
    pytest.importorskip("matplotlib")
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    for name, value in SMALL.items():
        monkeypatch.setenv(f"ACCELSIM_{name}", value)
    monkeypatch.setenv("MPLBACKEND", "agg")
    monkeypatch.delenv("ACCELSIM_CIFAR10", raising=False)
    nbclient.NotebookClient(nbformat.read(path, as_version=4), timeout=300).execute()


def test_there_are_notebooks():
    assert NOTEBOOKS


def test_the_readme_shows_a_picture_of_each_notebook_and_each_picture():
    readme = (FOLDER / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^## `(.*)\.ipynb`", readme, re.M) == [path.stem for path in NOTEBOOKS]
    shown = re.findall(r"!\[.+\]\(pictures/(.*\.png)\)", readme)
    pictures = sorted((FOLDER / "pictures").iterdir())
    assert sorted(shown) == [path.name for path in pictures]
    assert all(path.stat().st_size < 150_000 for path in pictures)
    for path in NOTEBOOKS:
        assert any(name.startswith(path.stem.removesuffix("_training")) for name in shown), path.stem
