"""The machine that ``accelsim new machine`` writes, imported as a stranger's."""

import atexit
import shutil
import sys
import tempfile
from pathlib import Path

from accelsim.commands.new import write_machine

ROOT = Path(tempfile.mkdtemp(prefix="accelsim-stranger-"))
atexit.register(shutil.rmtree, ROOT, ignore_errors=True)
FOLDER = write_machine("stranger_array", ROOT / "written")
sys.path.append(str(FOLDER))

from stranger_array.model import StrangerArray  # noqa: E402

__all__ = ["FOLDER", "StrangerArray"]
