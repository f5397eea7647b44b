"""What setup.cfg cannot say: README as a package index shows it, where links to files of the repository are dead, and
that a wheel depends on its source alone.
"""

import os
import re
from collections.abc import Callable
from configparser import ConfigParser
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parent
EPOCH = "1767225600"  # of what a wheel holds: 2026-01-01
FENCED = re.compile(r"(^```.*?^```$)", re.M | re.S)
RELATIVE = re.compile(r"(!?)\[([^][]*)\]\((?![a-z+]+:|#)([^()\s]+)\)")


def relinked(text: str, target: Callable[[str], str | None]) -> str:
    """Markdown with its relative links led elsewhere.

    Parameters
    ----------
    text : str
    target : callable
        Of a link's path the new one, or None: the link becomes its words and the path.
    """

    def link(match: re.Match[str]) -> str:
        mark, words, path = match.groups()
        new = target(path)
        if new is not None:
            return f"{mark}[{words}]({new})"
        return words if path in words else f"{words} ({path})"

    parts = FENCED.split(text)
    parts[::2] = [RELATIVE.sub(link, part) for part in parts[::2]]
    return "".join(parts)


def address(path: str) -> str | None:
    """Where a file of the repository is read: under the ``url`` of setup.cfg; None as long as that has none."""
    config = ConfigParser()
    config.read(ROOT / "setup.cfg", encoding="utf-8")
    url = config.get("metadata", "url", fallback=None)
    return url and f"{url.rstrip('/')}/blob/HEAD/{path}"


def long_description(address: Callable[[str], str | None] = address) -> str:
    """README.md without relative links."""
    return relinked((ROOT / "README.md").read_text(encoding="utf-8"), address)


if __name__ == "__main__":
    from setuptools import setup
    from setuptools.command.build_py import build_py

    class BuildPy(build_py):
        """Permissions are not those that the files had where they were checked out."""

        def run(self) -> None:
            super().run()
            for path in self.get_outputs():
                os.chmod(path, 0o644)

    # A wheel holds dates and permissions; two builds of the same source are the same bytes.
    os.environ.setdefault("SOURCE_DATE_EPOCH", EPOCH)
    os.umask(0o022)
    with suppress(OSError):
        (ROOT / "LICENSE").chmod(0o644)
    setup(
        long_description=long_description(),
        long_description_content_type="text/markdown",
        cmdclass={"build_py": BuildPy},
    )
