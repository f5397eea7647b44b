"""What is counted: one row a count. Whoever folds, prices, exports, draws or documents counts loops over these rows.

A row says what a count is called, what it means, its unit, where it happens, what it costs and how it adds up. Who
counts uses a row's name; nothing else needs to know it. A new count is one more row at the end of this file, or one
that a package adds (``add``) when it is imported. The documentation's page of counts is made of the rows.

======== ======================================================== ==================================
group    what                                                     where a ``Record`` has it
======== ======================================================== ==================================
time     cycles, and the work that they are for                   a field of the count's name
slots    multiplier slots, by what they were used for or lost to  ``slots[name]``
actions  what costs energy                                        ``actions[name]``
energy   pJ, by component                                         ``energy[name]``
total    of all components                                        made of ``energy``
moved    bytes of several memories together                       made of ``actions``
reads    values that PEs read; they become bytes of an action     ``Activity.accesses[name]`` only
======== ======================================================== ==================================
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal

from accelsim.errors import AccelsimError

Group = Literal["time", "slots", "actions", "energy", "total", "moved", "reads"]
# The accelerator's ``run``, movement between memories, what comes on top of multiplying; or made of other counts.
Source = Literal["accelerator", "movement", "overheads", "derived"]
# Of each group the units that its counts may have, and what the names of their columns end in.
UNITS = {
    "time": ("cycles", "multiplications"), "slots": ("slots",), "actions": ("actions", "bytes"), "energy": ("pJ",),
    "total": ("pJ",), "moved": ("bytes",), "reads": ("values",),
}  # fmt: skip
ENDINGS = {"slots": "_slots", "energy": "_pj", "total": "_pj", "moved": "_bytes"}
# Where something happens → how far from the multipliers that is.
PLACES = {
    "multipliers": "PE", "adders": "PE", "accumulators": "PE", "chip": "chip",
    "activation_buffer": "buffer", "weight_buffer": "buffer",
    "activation_memory": "onchip", "weight_memory": "onchip", "onchip": "onchip", "offchip": "offchip",
}  # fmt: skip
# What an action costs, in words; ``accelsim.hardware.pricing`` has the pJ.
RATES = {
    "multiply": "`multiply_pj`",
    "bit operation": "`bit_operation_pj`",
    "add": "`add_pj`",
    "partial sum": "SRAM of the array that holds the partial sum, × `accumulator_bits` / 32",
    "buffer": "SRAM of `capacity_bytes`",
    "memory": "`edram_pj`",
    "offchip": "`offchip_pj`",
    "leakage": "`leakage_mw_per_multiplier`, `leakage_mw_per_mib` × capacity of both memories",
}


@dataclass(frozen=True)
class Bar:
    """How a picture shows slots: the name in its legend, the fill, the hatch and its colour."""

    label: str
    fill: str = "#ffffff"
    hatch: str = "xx"
    ink: str = "#b00020"


@dataclass(frozen=True)
class Price:
    """What a count costs: so many times ``rate``, on a component's account.

    ``component`` is the name of a row of energy, ``rate`` one of ``RATES``; ``uses`` what the component does for each,
    in Accelergy's words ("read", "write", "add"), and each use costs ``rate``. ``if_counted_as``: only where these of
    the accelerator, "additions" or "multiplications", are this count (``Accelerator.summation``).
    """

    component: str
    rate: str
    uses: tuple[str, ...]
    if_counted_as: Literal["", "additions", "multiplications"] = ""


@dataclass(frozen=True, kw_only=True)
class Count:
    """One row.

    Parameters
    ----------
    name : str
        What those who count call it.
    meaning : str
        What is counted, in a phrase.
    group, unit : str
        One of ``UNITS``.
    source : str
        Who counts it.
    place : str
        Where it happens, one of ``PLACES``.
    words : str
        What people call it; by default its name.
    way : str
        Of bytes "read" or "write"; of waiting, the operand that is waited for.
    always : bool
        Whether each who counts must tell it; else not told is none.
    adds_up : str
        Over layers, passes and points: "sum", or "most", the largest. With a part that is not known neither is known.
    prices : tuple of Price
        What it costs; empty: nothing.
    estimator : str
        Of a component, Accelergy's class, "array" for SRAM or registers; empty: not exported.
    bar : Bar
        Of slots, what shows them in a picture; counts may share one. By default a bar of their own.
    colour : tuple of str
        Of slots, in the charts of a report: a colour, and the hatch if there is one.
    """

    name: str
    meaning: str
    group: Group
    unit: str
    source: Source
    place: str
    words: str = ""
    way: str = ""
    always: bool = False
    adds_up: Literal["sum", "most"] = "sum"
    prices: tuple[Price, ...] = ()
    estimator: str = ""
    bar: Bar | None = None
    colour: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "words", self.words or spelled(self.name))
        if self.group == "slots" and self.bar is None:
            object.__setattr__(self, "bar", Bar(self.words))
        for key, fine, rule in (
            ("name", self.name.isidentifier(), "must be a word"),
            ("meaning", self.meaning.strip(), "must say what is counted"),
            ("group", self.group in UNITS, f"must be one of {', '.join(UNITS)}"),
            ("unit", self.unit in UNITS.get(self.group, ()), f"must be a unit of {self.group}"),
            ("place", self.place in PLACES, f"must be one of {', '.join(PLACES)}"),
            ("way", self.group != "actions" or self.unit != "bytes" or self.way in ("read", "write"), "must say which"),
            ("adds_up", self.adds_up in ("sum", "most"), "must be sum or most"),
        ):
            if not fine:
                raise AccelsimError(f"ledger: {self.name}: {key}: {rule}, got {getattr(self, key)!r}")

    @property
    def column(self) -> str:
        """Its column in tables."""
        return f"{self.name}{ENDINGS.get(self.group, '')}"

    @property
    def level(self) -> str:
        """How far from the multipliers its place is."""
        return PLACES[self.place]

    @property
    def needs_memory(self) -> bool:
        """Whether it is known only where the machine has a memory: bytes, and what they cost."""
        return self.unit == "bytes" or any(row.needs_memory for row, _ in priced(self))

    @property
    def parts(self) -> tuple[Count, ...]:
        """What it is the sum of, in a record; empty where it is counted."""
        if self.group == "total":
            return rows("energy")
        return rows("actions", unit=self.unit, level=self.level) if self.group == "moved" else ()


def spelled(name: str) -> str:
    """A name as people write it: ``offchip_weight`` is "off-chip weight"."""
    return name.replace("_", " ").replace("offchip", "off-chip").replace("onchip", "on-chip")


_ROWS: dict[str, Count] = {}
_PLACED: dict[tuple[str, str, str], str] = {}  # (group, place, way) → name, of the first that is so


def add(row: Count) -> Count:
    """One more row, behind the others of its group.

    Raises
    ------
    AccelsimError
        If another has its column, or a price has no such rate or component.
    """
    if row.column in _ROWS:
        raise AccelsimError(f"ledger: {row.name}: must not be there yet, but {row.column} is")
    for price in row.prices:
        for key, known in (("rate", tuple(RATES)), ("component", names("energy"))):
            if (got := getattr(price, key)) not in known:
                rule = f"must be one of {', '.join(known)}, got {got!r}"
                raise AccelsimError(f"ledger: {row.name}: prices: {key}: {rule}")
    _ROWS[row.column] = row
    _PLACED.setdefault((row.group, row.place, row.way), row.name)
    for question in (rows, priced):
        question.cache_clear()
    return row


@cache  # asked for each record, and there are few questions
def rows(group: Group | None = None, **wanted: Hashable) -> tuple[Count, ...]:
    """The rows of a group, or of all; with ``place="offchip"`` and the like only those that are so."""
    own = (row for row in _ROWS.values() if group in (None, row.group))
    return tuple(row for row in own if all(getattr(row, key) == value for key, value in wanted.items()))


def names(group: Group, **wanted: Hashable) -> tuple[str, ...]:
    """The names of rows."""
    return tuple(row.name for row in rows(group, **wanted))


def columns(*groups: Group, **wanted: Hashable) -> list[str]:
    """The columns of rows, group after group."""
    return [row.column for group in groups for row in rows(group, **wanted)]


@cache
def priced(component: Count) -> tuple[tuple[Count, Price], ...]:
    """The counts that a component's energy is made of, and their prices."""
    name = component.name if component.group == "energy" else None
    return tuple((row, price) for row in _ROWS.values() for price in row.prices if price.component == name)


def moved(place: str, way: str) -> str:
    """The name of the bytes read from or written to a place."""
    return _PLACED["actions", place, way]


def values_read(place: str) -> str:
    """The name of the values that PEs read from a buffer."""
    return _PLACED["reads", place, "read"]


def waiting(place: str, operand: str) -> str:
    """The name of the slots in which PEs wait for an operand, or with a result, at a place."""
    return _PLACED["slots", place, operand]


def among(told: Mapping[str, int], group: Group) -> dict[str, int]:
    """What is told of a group."""
    return {name: told[name] for name in names(group) if name in told}


def of_baseline(row: Count) -> str:
    """The column of the same count of the machine that another is compared with."""
    return f"baseline_{row.column}"


def checked(told: Iterable[str], may: Iterable[Count], who: str) -> None:
    """Whether who counts tells what it may, and all that it must. Raises AccelsimError with the name."""
    told, known = set(told), {row.name: row for row in may}
    for name in sorted(told - known.keys()):
        raise AccelsimError(f"{who}: counts {name}, which is not in the ledger; it may count {', '.join(known)}")
    for name in sorted(name for name, row in known.items() if row.always and name not in told):
        raise AccelsimError(f"{who}: must count {name}: {known[name].meaning}")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What one machine did for one pass of one layer of one snapshot; all zero for the first layer's input gradient.

    ``cycles`` is compute and stalls together. ``slots``, ``actions`` and ``energy`` hold counts by the names of their
    rows: multiplier slots, which add up to cycles × multipliers exactly; what costs energy, bytes only where the
    machine has a memory; pJ, None for components that are not known without one, and empty without an energy table.
    """

    snapshot: str
    sparsity: float
    step: int
    algorithm: str
    batch: int
    samples: int
    layer: str
    kind: str
    which: str
    machine: str
    multipliers: int
    clock_mhz: int
    cycles: int
    compute_cycles: int
    dense_multiplications: int
    slots: dict[str, int]
    actions: dict[str, int]
    energy: dict[str, float | None] = field(default_factory=dict)


# The rows: energy first, for prices are on its account --------------------------------------------------------------


def _row(group: Group, unit: str, source: Source, place: str, name: str, meaning: str, **more: Any) -> Count:
    return add(Count(name=name, meaning=meaning, group=group, unit=unit, source=source, place=place, **more))


def _energy(place: str, name: str, meaning: str, estimator: str = "") -> Count:
    return _row("energy", "pJ", "derived", place, name, meaning, estimator=estimator)


_energy("multipliers", "multipliers", "multiplications, of zeros too", "fpmultiplier")
_energy("adders", "adders", "products added up, in adder trees or one by one to partial sums", "fpadder")
_energy("accumulators", "accumulators", "partial sums read and written", "array")
_energy("chip", "comparators", "comparisons of Top-K, each a subtraction", "intadder")
_energy("chip", "leakage", "power that is drawn whatever is done")
_energy("activation_buffer", "activation_buffer", "buffers of activations, read and written", "array")
_energy("weight_buffer", "weight_buffer", "buffers of weights, read and written", "array")
_energy("activation_memory", "activation_memory", "memory of activations on chip, read and written", "array")
_energy("weight_memory", "weight_memory", "memory of weights on chip, read and written", "array")
_energy("offchip", "offchip", "off-chip memory, read and written in whole bursts", "DRAM")
ENERGY = _row("total", "pJ", "derived", "chip", "energy", "all components together")


def _time(name: str, meaning: str, unit: str = "cycles", *prices: Price) -> Count:
    return _row("time", unit, "derived", "chip", name, meaning, prices=prices)


CYCLES = _time("cycles", "of computing and of waiting", "cycles", Price("leakage", "leakage", ("leak",)))
COMPUTE_CYCLES = _time("compute_cycles", "of computing alone")
DENSE = _time("dense_multiplications", "those that the layer's shape asks for, of zeros too", "multiplications")


def _slots(name: str, meaning: str, bar: Bar, *colour: str, **more: Any) -> Count:
    kept: dict[str, Any] = {"source": "accelerator", "place": "multipliers"} | more
    return add(Count(name=name, meaning=meaning, group="slots", unit="slots", bar=bar, colour=colour, **kept))


def _waiting(place: str, operand: str, meaning: str, bar: Bar, *colour: str) -> Count:
    return _slots(f"{place}_{operand}", meaning, bar, *colour, source="movement", place=place, way=operand)


# Bars touch: neighbours differ in lightness, and where they hardly do in hatch.
EFFECTUAL = _slots("effectual", "both operands non-zero", Bar("effectual", "#12355b", "", "white"), "#009e73")
_meaning = "executed with an operand that is zero, or with a product that no output takes"
INEFFECTUAL = _slots("ineffectual", _meaning, Bar("ineffectual", "#e9c46a", "", "black"), "#56b4e9")
_slots("serial", "bits after the first of a product computed bit by bit", Bar("serial", "#9e9ac8", "oo", "white"))
_slots("precision", "bits of a product that only wider values have", Bar("precision", "#c6b7dd", "..", "#3f007d"))
_bar = Bar("synchronisation", "#756bb1", "**", "white")
_slots("synchronisation", "waiting for lanes or columns with more bits or powers of two to work on", _bar)
_meaning = "rows, columns, lanes, tiles or PEs that the layer leaves without work"
EDGE = _slots("edge", _meaning, Bar("edge", "#f2f2f2", "////", "#555555"), "#9aa0a6")
_meaning = "vectors or bricks of a PE that its non-zero operands do not fill"
_slots("imbalance", _meaning, Bar("imbalance", "#7f7f7f", "", "black"), "#e69f00")
_slots("barrier", "waiting for the slowest row, PE or tile", Bar("barrier", "#cfe1f2", "....", "#12355b"), "#d55e00")
_slots("bank_conflict", "waiting for an accumulator bank", Bar("bank conflict", "#8c2d04", "xxxx", "white"), "#cc79a7")
_bar = Bar("lookahead", "#a1d99b", "||||", "#1b5e20")
_slots("lookahead", "empty lanes that the lookahead window could not fill", _bar, "#c9b400")
_slots("exchange", "partial sums moving between PEs", Bar("exchange", "#54278f", "----", "white"), "#0072b2")
_OPERANDS = {"weight": "weights", "activation": "activations", "gradient": "output gradients"}
_slots("load", "waiting while what multipliers hold is loaded", Bar("load", "#c7e9b4", "++", "#1b5e20"), "#5ab4ac")
_bar = Bar("waiting off chip", "#000000", "////", "white")
for (_name, _what), _colour in zip(_OPERANDS.items(), ("#8e63c7", "#b48be6", "#7658c9"), strict=True):
    _waiting("offchip", _name, f"waiting for {_what} from off-chip memory", _bar, _colour, "/")
_waiting("offchip", "result", "waiting for results to leave for off-chip memory", _bar, "#d3bbf5", "/")
_bar = Bar("waiting on chip", "#fb9a99", "\\\\\\\\", "black")
for (_name, _what), _colour in zip(_OPERANDS.items(), ("#a0744a", "#b58a5c", "#8a6238"), strict=True):
    _waiting("onchip", _name, f"waiting for {_what} from the memory on chip", _bar, _colour, "x")
_waiting("onchip", "partial", "waiting for spilled partial sums from the memory on chip", _bar, "#d1b08a", "x")
_meaning = "waiting for results or spilled partial sums to enter the memory on chip"
_waiting("onchip", "result", _meaning, _bar, "#a0522d", "x")
_bar = Bar("overheads", "#dddddd", "++++", "#7a0177")
_slots("rotate", "all PEs wait while weights are rotated for the input gradient", _bar, source="overheads")
TOP_K = _slots("top_k", "all PEs wait for the Top-K search and its thresholds", _bar, source="overheads")
_slots("format", "all PEs wait while sparse formats are encoded and decoded", _bar, source="overheads")


def _actions(source: Source, place: str, name: str, meaning: str, *prices: Price, always: bool = False) -> Count:
    return _row("actions", "actions", source, place, name, meaning, prices=prices, always=always)


def _bytes(place: str, way: str, rate: str, meaning: str) -> Count:
    prices = (Price(place, rate, (way,)),)
    return _row("actions", "bytes", "movement", place, f"{place}_{way}_bytes", meaning, way=way, prices=prices)


_meaning = "multipliers that got two operands, zero or not"
_add = Price("adders", "add", ("add",), "additions")
_prices = Price("multipliers", "multiply", ("mult_random",), "multiplications"), _add
MULTIPLICATIONS = _actions("accelerator", "multipliers", "multiplications", _meaning, *_prices, always=True)
_meaning = "cycles in which a lane multiplied a bit or power of two of a value and added it up"
_bit = Price("multipliers", "bit operation", ("mult_random",), "multiplications")
_actions("accelerator", "multipliers", "bit_operations", _meaning, _bit)
_meaning = "partial sums read, added to, and written"
_prices = Price("accumulators", "partial sum", ("read", "write")), _add
ACCUMULATOR_UPDATES = _actions("accelerator", "accumulators", "accumulator_updates", _meaning, *_prices, always=True)
for _of in ("activation", "weight"):
    _bytes(f"{_of}_buffer", "read", "buffer", f"read by PEs from the buffers of {_of}s")
    _bytes(f"{_of}_buffer", "write", "buffer", f"written to the buffers of {_of}s, in each that holds them")
for _of in ("activation", "weight"):
    _bytes(f"{_of}_memory", "read", "memory", f"read from the {_of} memory, by PEs and buffers or to go off chip")
    _bytes(f"{_of}_memory", "write", "memory", f"written to the {_of} memory, from PEs or from off chip")
_bytes("offchip", "read", "offchip", "read from off-chip memory, in whole bursts")
_bytes("offchip", "write", "offchip", "written to off-chip memory, in whole bursts")
_meaning = "of values with each other or a threshold, by Top-K"
COMPARISONS = _actions("overheads", "chip", "comparisons", _meaning, Price("comparators", "add", ("add",)))

OFFCHIP_MOVED = _row("moved", "bytes", "derived", "offchip", "offchip", "read from and written to off-chip memory")
ONCHIP_MOVED = _row("moved", "bytes", "derived", "onchip", "onchip", "read from and written to the memories on chip")

for _of in ("activation", "weight"):
    _place, _meaning = f"{_of}_buffer", f"values read from the buffers of {_of}s"
    _row("reads", "values", "accelerator", _place, f"{_place}_reads", _meaning, way="read", always=True)
