"""Pages that are files of the repository: those of docs/, the notebooks, READMEs, CONTRIBUTING, CHANGELOG.

A link that leads to one of them leads to its page; one to another file of the repository leads to where that is read.
"""

from __future__ import annotations

import json
import os.path
import re
from functools import partial
from pathlib import Path, PurePosixPath
from posixpath import dirname, normpath, relpath

from setup import address, relinked
from writers.markdown import toctree

ROOT = Path(__file__).parents[2]
# Files outside docs/ → their pages.
PAGES = {
    "README.md": "readme.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
    "notebooks/README.md": "notebooks/index.md",
    "traces/README.md": "traces.md",
}


def sources() -> dict[str, str]:
    """Files of the repository that are pages and pictures of the site → where they are there."""
    found = dict(PAGES)
    for folder, site in (("docs", "."), ("notebooks", "notebooks")):
        for file in sorted((ROOT / folder).rglob("*")):
            path = file.relative_to(ROOT).as_posix()
            if path not in found and file.suffix in (".md", ".png", ".ipynb"):
                page = PurePosixPath(site, file.relative_to(ROOT / folder).as_posix())
                found[path] = str(page.with_suffix(".md") if file.suffix == ".ipynb" else page)
    return found


def pages() -> dict[str, str | bytes]:
    """Each of them with its links led to pages, by its path on the site."""
    where = sources()
    made: dict[str, str | bytes] = {}
    for path, page in where.items():
        file = ROOT / path
        if file.suffix == ".png":
            made[page] = file.read_bytes()
        else:
            text = notebook(file) if file.suffix == ".ipynb" else file.read_text(encoding="utf-8")
            made[page] = relinked(text, partial(led, path=path, where=where))
    names = [PurePosixPath(page).stem for path, page in where.items() if path.endswith(".ipynb")]
    made["notebooks/index.md"] = f"{made['notebooks/index.md']!s}\n{toctree(names, ':caption: The notebooks')}\n"
    return made


def led(link: str, path: str, where: dict[str, str]) -> str | None:
    """Where a relative link in a file of the repository leads on the site.

    One that leads nowhere stays as it is, and the build says so.
    """
    file, hash, anchor = link.partition("#")
    target = normpath(os.path.join(dirname(path), file))
    if f"{target}/README.md" in where:
        target += "/README.md"
    if target in where:
        return relpath(where[target], dirname(where[path]) or ".") + hash + anchor
    return address(target) if (ROOT / target).exists() else link


def notebook(file: Path) -> str:
    """A notebook, which is committed without outputs, as Markdown; below it the pictures that README.md shows of it."""
    cells = json.loads(file.read_text(encoding="utf-8"))["cells"]
    parts = []
    for cell in cells:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    readme = (ROOT / "notebooks" / "README.md").read_text(encoding="utf-8")
    section = re.search(rf"^## `{file.stem}\.ipynb`(.*?)(?=^## |\Z)", readme, re.M | re.S)
    pictures = re.findall(r"^!\[.*$", section[1] if section else "", re.M)
    note = f"This page is `notebooks/{file.name}`, without what its cells print."
    return "\n\n".join([*parts, "## What it draws", *pictures, note]) + "\n"
