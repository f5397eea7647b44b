"""Names of files: a layer's or snapshot's name may be any text, a file's may not."""

from __future__ import annotations

import hashlib
import re

LONGEST_BYTES = 160  # a file's name has 255, with a number, the pass and an ending
FOREIGN = re.compile(r"[/\\\0]|^\.")


def stem(name: str, *, unique: bool = False) -> str:
    """A name as part of a file's name: in one folder, visible, and not too long.

    ``unique`` : whether two names must stay two where no number tells them apart.
    """
    plain = FOREIGN.sub("-", name)
    cut = plain.encode("utf-8", "replace")[:LONGEST_BYTES].decode("utf-8", "ignore")
    if cut == plain and not (unique and plain != name):
        return plain
    return f"{cut}~{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"
