"""What the scripts that write a table into a page share: ``--write PAGE`` puts it between two marks."""

import argparse
from collections.abc import Iterable
from pathlib import Path

END = "<!-- end -->\n"


def print_or_write(script: str, description: str, lines: Iterable[str]) -> None:
    """Prints the lines, or replaces what stands in a page between the script's mark and the end mark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--write", type=Path, metavar="PAGE", help="replace the table in this page")
    page = parser.parse_args().write
    text = "\n".join(lines) + "\n"
    if page is None:
        print(text, end="")
        return
    begin = f"<!-- begin: benchmarks/{script} -->\n"
    before, _, rest = page.read_text(encoding="utf-8").partition(begin)
    page.write_text(before + begin + text + END + rest.partition(END)[2], encoding="utf-8")
