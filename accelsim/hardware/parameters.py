"""Validated parameters: the one place, with ``machine``, that knows pydantic."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator


class Parameters(BaseModel):
    """Base of every section of a machine file: frozen, strictly typed, no unknown keys."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


def integer(low: int, high: int, description: str, *, default: Any = ..., unit: str = "count") -> Any:
    """An integer key in low…high, with its unit."""
    return Field(default, ge=low, le=high, description=description, json_schema_extra={"unit": unit})


def number(low: float, high: float, description: str, *, default: Any = ..., unit: str) -> Any:
    """A key in low…high that need not be an integer, with its unit."""
    return Field(default, ge=low, le=high, description=description, json_schema_extra={"unit": unit})


def option(description: str, *, default: Any = ...) -> Any:
    """A key with one of a few values."""
    return Field(default, description=description, json_schema_extra={"unit": "option"})


def line(description: str) -> Any:
    """A key with text of one line."""
    extra: dict[str, Any] = {"unit": "option"}
    return Field(max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$", description=description, json_schema_extra=extra)


# Marks a method that checks keys against each other: it raises ValueError or returns self.
check = model_validator(mode="after")

# Marks a class method that completes a section's data before they are validated.
fill = model_validator(mode="before")
