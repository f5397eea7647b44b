"""The sources of the documentation site, written to a folder: nothing that is generated lies in the working tree.

Sphinx is not needed for it, so that the default tests check the pages; conf.py lets Sphinx build them.
"""

from __future__ import annotations

from pathlib import Path

from writers import api, commands, counts, machines, repository


def pages() -> dict[str, str | bytes]:
    """Every file of the site's sources by its path: Markdown, pictures."""
    alone = {"commands.md": commands.page(), "counts.md": counts.page()}
    return repository.pages() | alone | machines.pages() | api.pages()


def write(folder: Path) -> None:
    """Makes the folder hold these files and no others. One that is as it was is not touched: Sphinx skips it then."""
    wanted = {folder / path: text if isinstance(text, bytes) else text.encode() for path, text in pages().items()}
    for path in filter(Path.is_file, folder.rglob("*")):
        if path not in wanted:
            path.unlink()
    for path, data in wanted.items():
        if not path.is_file() or path.read_bytes() != data:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
