"""JSON as any reader takes it."""

from __future__ import annotations

import json
from typing import Any


def to_json(data: dict[str, Any], ascii_only: bool = False, indent: int | None = 1) -> str:
    """Strict JSON, so that any reader takes it; for a stream of unknown encoding in ASCII; without indent in a line."""
    separators = None if indent else (",", ":")
    return json.dumps(data, indent=indent, separators=separators, ensure_ascii=ascii_only, allow_nan=False) + "\n"
