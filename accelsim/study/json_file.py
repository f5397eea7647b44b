"""JSON as any reader takes it."""

from __future__ import annotations

import json
from typing import Any


def to_json(data: dict[str, Any], ascii_only: bool = False) -> str:
    """Strict JSON, so that any reader takes it; for a stream of unknown encoding in ASCII."""
    return json.dumps(data, indent=1, ensure_ascii=ascii_only, allow_nan=False) + "\n"
