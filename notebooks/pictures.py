"""Runs the numbered notebooks and keeps the figures that README.md shows: ``python notebooks/pictures.py [NUMBER …]``.

A figure is named after its notebook and its place in it: ``pictures/1_table6_2.png``. With the same versions of what is
installed the files come out the same to the byte.
"""

import os
import re
import sys
from base64 import b64decode
from collections.abc import Iterator
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def figures(notebook: Path) -> Iterator[bytes]:
    """The PNG files that a notebook shows, one after another."""
    document = nbformat.read(notebook, as_version=4)
    NotebookClient(document, timeout=3600, resources={"metadata": {"path": HERE}}).execute()
    for cell in document.cells:
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                yield b64decode(output["data"]["image/png"])


def main(numbers: list[str]) -> None:
    """Writes the pictures of the notebooks with these numbers; of all without."""
    os.environ.pop("MPLBACKEND", None)
    shown = re.findall(r"\]\((pictures/.*\.png)\)", (HERE / "README.md").read_text(encoding="utf-8"))
    for notebook in sorted(HERE.glob(f"[{''.join(numbers) or '0-9'}]_*.ipynb")):
        for count, figure in enumerate(figures(notebook), start=1):
            name = f"pictures/{notebook.stem}_{count}.png"
            if name in shown:
                (HERE / name).write_bytes(figure)
                print(name)


if __name__ == "__main__":
    main(sys.argv[1:])
