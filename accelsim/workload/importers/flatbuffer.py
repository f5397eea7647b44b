"""FlatBuffers, as far as a reader needs them: tables, their fields by number, vectors; each place is checked first.

A table begins with the distance back to its list of fields, a list with its size; a field that is not in the list has
its default. Everything is little-endian.
"""

from __future__ import annotations

from dataclasses import dataclass

from accelsim.errors import ImportFormatError

LONGEST_VECTOR = 1 << 20  # of what is not bytes


@dataclass(frozen=True)
class Table:
    """A table in a buffer.

    Parameters
    ----------
    buffer : bytes
    start : int
        Where it begins.

    Raises
    ------
    ImportFormatError
        Each method, if what it reads lies outside the buffer.
    """

    buffer: bytes
    start: int

    @classmethod
    def root(cls, buffer: bytes) -> Table:
        """The table of the whole."""
        return cls(buffer, _number(buffer, 0, 4))

    def number(self, field: int, size: int, default: int = 0, signed: bool = False) -> int:
        """An integer of so many bytes."""
        place = self._place(field)
        return _number(self.buffer, place, size, signed) if place else default

    def table(self, field: int) -> Table | None:
        """A table, if it is there."""
        place = self._place(field)
        return Table(self.buffer, place + _number(self.buffer, place, 4)) if place else None

    def tables(self, field: int) -> list[Table]:
        """A vector of tables."""
        start, count = self._vector(field, 4)
        places = (start + 4 * number for number in range(count))
        return [Table(self.buffer, place + _number(self.buffer, place, 4)) for place in places]

    def numbers(self, field: int, size: int = 4) -> list[int]:
        """A vector of signed integers."""
        start, count = self._vector(field, size)
        return [_number(self.buffer, start + size * number, size, True) for number in range(count)]

    def text(self, field: int) -> str:
        """A string."""
        start, count = self.span(field)
        return self.buffer[start : start + min(count, LONGEST_VECTOR)].decode("utf-8", "replace")

    def span(self, field: int) -> tuple[int, int]:
        """Where a vector of bytes begins, and how many there are."""
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + _number(self.buffer, place, 4)
        count = _number(self.buffer, start, 4)
        if start + 4 + count > len(self.buffer):
            raise ImportFormatError(f"{count} bytes at byte {start}: must lie in the {len(self.buffer)} of the file")
        return start + 4, count

    def _vector(self, field: int, size: int) -> tuple[int, int]:
        place = self._place(field)
        if not place:
            return 0, 0
        start = place + _number(self.buffer, place, 4)
        count = _number(self.buffer, start, 4)
        if count > LONGEST_VECTOR or start + 4 + size * count > len(self.buffer):
            raise ImportFormatError(f"{count} numbers at byte {start}: must lie in the {len(self.buffer)} of the file")
        return start + 4, count

    def _place(self, field: int) -> int:
        """Where a field is; 0 if it is not there."""
        fields = self.start - _number(self.buffer, self.start, 4, signed=True)
        if 4 + 2 * field >= _number(self.buffer, fields, 2):
            return 0
        offset = _number(self.buffer, fields + 4 + 2 * field, 2)
        return self.start + offset if offset else 0


def _number(buffer: bytes, place: int, size: int, signed: bool = False) -> int:
    if not 0 <= place <= len(buffer) - size:
        raise ImportFormatError(f"byte {place}: must lie in the {len(buffer)} of the file")
    return int.from_bytes(buffer[place : place + size], "little", signed=signed)
