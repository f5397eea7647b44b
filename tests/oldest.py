"""The oldest versions that setup.cfg admits, as pip's constraints: ``python tests/oldest.py > oldest.txt``.

    pip install -c oldest.txt '.[test,import,report,cluster]'

then installs them, and the tests say whether the floors are true. PyTorch's are left out: one version of it is a
gigabyte.
"""

import re
import sys
from configparser import ConfigParser
from pathlib import Path

SETUP = Path(__file__).parents[1] / "setup.cfg"
EXTRAS = ("test", "import", "report", "cluster")
FLOOR = re.compile(r"([A-Za-z0-9._-]+)>=([0-9][0-9.]*)(?:,<[0-9.]+)?")


def requirements(text: str) -> list[str]:
    """What accelsim and its tests need, line by line, from the text of setup.cfg."""
    config = ConfigParser()
    config.read_string(text)
    groups = [config["options"]["install_requires"], *(config["options.extras_require"][name] for name in EXTRAS)]
    return [line.strip() for group in groups for line in group.splitlines() if line.strip()]


def constraints(text: str) -> dict[str, str]:
    """Name → floor. Raises ValueError where a requirement has none, or two lines have two."""
    floors: dict[str, str] = {}
    for line in requirements(text):
        match = FLOOR.fullmatch(line)
        if not match or floors.setdefault(match[1], match[2]) != match[2]:
            raise ValueError(f"setup.cfg: {line}: must be NAME>=FLOOR, the same wherever the name is required")
    return floors


if __name__ == "__main__":
    for name, floor in constraints(SETUP.read_text(encoding="utf-8")).items():
        sys.stdout.write(f"{name}=={floor}\n")
