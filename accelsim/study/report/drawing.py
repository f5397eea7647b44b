"""The machine as a picture, drawn from its configuration: memories, the array, and one PE or tile enlarged."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from accelsim.study.report.page import details, esc, flat, table

WIDTH = 320  # of a panel; a phone shows one beside none
MOST = 32  # squares along a side; what has more is drawn as this many and says so


@dataclass
class Panel:
    """An SVG of ``WIDTH``, in the units that it is shown in."""

    title: str
    height: int = 0
    parts: list[str] = field(default_factory=list)

    def box(self, x: float, y: float, width: float, height: float, kind: str) -> None:
        """A rectangle; ``kind`` is its style."""
        rect = f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:g}" height="{height:g}" rx="2"/>'
        self.parts.append(rect)

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "middle") -> None:
        """A line of text."""
        self.parts.append(f'<text class="{kind}" x="{x:g}" y="{y:g}" text-anchor="{anchor}">{esc(text)}</text>')

    def arrow(self, x: float, top: float, bottom: float) -> None:
        """Traffic both ways."""
        up, down = f"M{x - 4:g} {top + 6:g}l4 -6l4 6", f"M{x - 4:g} {bottom - 6:g}l4 6l4 -6"
        self.parts.append(f'<path class="wire" d="M{x:g} {top:g}V{bottom:g}{up}{down}"/>')

    def grid(self, rows: int, columns: int, box: tuple[float, float, float, float], kind: str) -> tuple[float, float]:
        """Squares in a box of x, y, width and height, the first of them marked; returns the corner they end in."""
        x, y, width, height = box
        down, across = min(rows, MOST), min(columns, MOST)
        step = min(width / across, height / down, 40)
        x += (width - step * across) / 2
        gap = max(step * 0.12, 0.5)
        for i in range(down):
            for j in range(across):
                at = x + j * step, y + i * step
                self.box(*at, step - gap, step - gap, f"{kind} first" if i == j == 0 else kind)
        return x + step * across, y + step * down

    def html(self) -> str:
        """The picture with its title."""
        return (
            f'<figure class="panel"><figcaption>{esc(self.title)}</figcaption>'
            f'<svg viewBox="0 0 {WIDTH} {self.height}" role="img" aria-label="{esc(self.title)}">'
            f"{''.join(self.parts)}</svg></figure>"
        )


def machine_html(origin: dict[str, Any]) -> str:
    """The first machine of a run's provenance drawn, and every key of all of them in a table."""
    machines, drawings = origin["machines"], origin.get("drawings")
    machine = machines[0] if machines else {}
    array = drawings[0] if isinstance(drawings, list) and drawings and isinstance(drawings[0], dict) else {}
    panels = "".join(panel.html() for panel in _panels(machine, array))
    said = f"<p>{esc(machine['description'])}.</p>" if machine.get("description") else ""
    keys = {path: None for each in machines for path, _ in flat(each)}
    values = [dict(map(tuple, flat(each))) for each in machines]
    rows = [[key, *(each.get(key, "–") for each in values)] for key in keys]
    names = {str(i): each["name"] for i, each in enumerate(machines)}
    whole = table({"key": "key", **names}, rows, name="machine-keys", caption="Every key of the machine, resolved")
    return f'{said}<div class="panels">{panels}</div>' + details("Every key", whole)


def _panels(machine: dict[str, Any], array: dict[str, Any]) -> Iterator[Panel]:
    """What can be drawn of it: its memories, and what its accelerator declares (``Accelerator.drawing``)."""
    buffers = _section(machine, "buffers")
    if _section(machine, "memory"):
        yield _memories(_section(machine, "memory"), _number(machine, "clock_mhz"))
    count, rows, *sizes = (_number(array, key) for key in ("count", "rows", "down", "across", "lanes"))
    inner = [size for size in sizes if size]
    if not count or rows is None or len(inner) < len(sizes):
        return
    inside, units = array.get("inside"), array.get("units")
    shape = (rows, -(-count // rows)) if rows else _rectangle(count)
    title = f"{rows:,} × {shape[1]:,} {units}" if rows else f"{count:,} {units}"
    yield _array(title, *shape, f"{inner[2]} multipliers each" if inside == "lanes" else "the marked one is enlarged")
    if inside == "product":
        yield _pe(array, buffers)
    elif inside == "tree":
        yield _tile(inner, buffers)


def _rectangle(count: int) -> tuple[int, int]:
    """Rows and columns of so many squares, as near to a square as they go."""
    rows = next(n for n in range(min(int(count**0.5), MOST), 0, -1) if count % n == 0)
    return rows, count // rows


def _memories(memory: dict[str, Any], clock: int | None) -> Panel:
    """Off-chip memory, the memories on chip, and the bandwidths between."""
    panel = Panel("Memories", 250)
    offchip, middle = _section(memory, "offchip"), WIDTH / 2
    panel.box(20, 10, WIDTH - 40, 52, "memory")
    preset = offchip.get("preset")
    panel.text(middle, 31, "off-chip memory" + (f": {preset}" if preset not in (None, "none") else ""), "name")
    known = [
        f"{_number(offchip, 'channels')} channels" if _number(offchip, "channels") else "",
        f"bursts of {_bytes(_number(offchip, 'burst_bytes'))}" if _number(offchip, "burst_bytes") else "",
        f"{offchip['latency_ns']} ns" if "latency_ns" in offchip else "",
    ]
    panel.text(middle, 50, ", ".join(filter(None, known)))
    panel.arrow(90, 66, 108)
    panel.text(102, 91, _offchip_bandwidth(offchip, clock), anchor="start")
    for x, key in ((10, "activation_memory"), (middle + 5, "weight_memory")):
        own, width, centre = _section(memory, key), middle - 15, x + (middle - 15) / 2
        panel.box(x, 112, width, 62, "memory")
        panel.text(centre, 131, key.replace("_", " "), "name")
        panel.text(centre, 148, _bytes(_number(own, "capacity_bytes")))
        panel.text(centre, 165, f"{_number(own, 'banks') or 1} banks" if _number(own, "banks") != 1 else "1 bank")
        panel.arrow(centre, 178, 214)
        width_bytes, banks = _number(own, "width_bytes"), _number(own, "banks") or 1
        wide = f"{width_bytes * banks:,} B/cycle" if width_bytes else "unlimited"
        panel.text(centre + 10, 200, wide, anchor="start")
    panel.text(middle, 236, "the array" + (f", at {clock:,} MHz" if clock else ""), "name")
    return panel


def _offchip_bandwidth(offchip: dict[str, Any], clock: int | None) -> str:
    speed = (_number(offchip, "megabytes_per_second") or 0) * (_number(offchip, "channels") or 1)
    if not speed:
        return "unlimited"
    cycle = f" = {speed / clock:,.0f} B/cycle" if clock else ""
    return f"{speed / 1000:,g} GB/s{cycle}"


def _array(title: str, rows: int, columns: int, note: str) -> Panel:
    panel = Panel(title)
    _, bottom = panel.grid(rows, columns, (10, 10, WIDTH - 20, 210), "unit")
    drawn = f"; {min(rows, MOST)} × {min(columns, MOST)} drawn" if max(rows, columns) > MOST else ""
    panel.text(WIDTH / 2, bottom + 18, f"{note}{drawn}")
    panel.height = round(bottom + 28)
    return panel


def _pe(array: dict[str, Any], buffers: dict[str, Any]) -> Panel:
    """A PE of a Cartesian product: two vectors, their multipliers, the accumulators."""
    across, down = array["across"], array["down"]
    panel = Panel(f"One PE: {across} × {down} multipliers")
    panel.box(90, 10, 180, 40, "buffer")
    panel.text(180, 27, "activations", "name")
    panel.text(180, 43, f"{_buffer(buffers, 'activation')}{across} a cycle")
    panel.box(10, 60, 72, 110, "buffer")
    panel.text(46, 95, "weights", "name")
    for y, line in ((113, _buffer(buffers, "weight").rstrip(", ")), (131, f"{down} a cycle")):
        panel.text(46, y, line)
    panel.grid(down, across, (90, 60, 180, 110), "multiplier")
    panel.arrow(180, 174, 196)
    panel.box(40, 200, 240, 42, "buffer")
    panel.text(160, 218, f"{_number(array, 'accumulators') or 0:,} accumulators", "name")
    sets = _number(buffers, "accumulator_sets")
    panel.text(160, 235, f"{_number(array, 'banks') or 1} banks" + (f", {sets} sets" if sets else ""))
    panel.height = 252
    return panel


def _tile(sizes: list[int], buffers: dict[str, Any]) -> Panel:
    """A tile: rows of filters meet columns of windows; each PE has lanes and an adder tree."""
    rows, columns, lanes = sizes
    panel = Panel(f"One tile: {rows:,} × {columns:,} PEs of {lanes} lanes")
    panel.box(90, 10, 220, 40, "buffer")
    panel.text(200, 27, "columns: activations", "name")
    panel.text(200, 43, f"{_buffer(buffers, 'activation')}{columns:,} × {lanes} a cycle")
    panel.box(10, 60, 72, 130, "buffer")
    panel.text(46, 95, "rows:", "name")
    panel.text(46, 111, "weights", "name")
    for y, line in ((129, _buffer(buffers, "weight").rstrip(", ")), (147, f"{rows:,} × {lanes}"), (163, "a cycle")):
        panel.text(46, y, line)
    panel.grid(rows, columns, (90, 60, 220, 130), "unit")
    panel.text(160, 214, f"each PE: {lanes} lanes and an adder tree", "name")
    panel.height = 226
    return panel


def _buffer(buffers: dict[str, Any], key: str) -> str:
    """Its capacity, with a comma behind; nothing where the machine says nothing."""
    capacity = _number(_section(buffers, key), "capacity_bytes")
    return "" if capacity is None else f"{_bytes(capacity)}, " if capacity else "no buffer, "


def _section(value: dict[str, Any], key: str) -> dict[str, Any]:
    """A part of a machine; empty where it has none."""
    inner = value.get(key)
    return inner if isinstance(inner, dict) else {}


def _number(section: dict[str, Any], key: str) -> int | None:
    """A count of a machine; None where there is none."""
    value = section.get(key)
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 60 else None


def _bytes(count: int | None) -> str:
    """``4 MiB``."""
    for size, unit in ((1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if count and count >= size:
            return f"{count / size:g} {unit}" if count % (size // 1024) == 0 else f"{count:,} bytes"
    return "unknown" if count is None else f"{count:,} bytes"
