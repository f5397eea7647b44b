"""Which bytes a pass moves where memories hold all that it needs (docs/memory.md), and what they cost (energy.md)."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from math import sqrt

from .array import pe_array
from .bits import BIT_LEVEL, bit_level
from .lowering import Layer, problems
from .machines import cambricon_x, cnvlutin, dcnn, dstc, ideal, sigma, tiles
from .moved import Moved, Operand, bytes_of, one_after_another

MODELS = {
    "dadiannao": tiles, "bit_tactical": tiles, "tensordash": tiles, "structured": tiles, "cambricon_x": cambricon_x,
    "cnvlutin": cnvlutin, "ideal": ideal, "pe_array": pe_array, "scnn": pe_array, "dcnn": dcnn,
    "sigma": sigma, "dstc": dstc, **dict.fromkeys(BIT_LEVEL, bit_level),
}  # fmt: skip
WITH_ADDER_TREES = ("dadiannao", "bit_tactical", "tensordash", "structured", "cambricon_x", "cnvlutin", "dcnn", "sigma")


class Refused(Exception):
    """The machine cannot run the layer."""


@dataclass
class Run:
    """A layer's pass on a machine, with the batch that it is a part of."""

    layer: Layer
    moved: Moved
    samples: int
    batch: int
    turn: int | None = None


def count(machine: dict, layers: list[Layer], which: str, batch: int) -> dict[str, Counter]:
    """Actions of each layer that has the pass, by name. ``machine``: its YAML, sections filled in.

    Raises
    ------
    Refused
        Where neither operand of a layer fits its buffer on the PE array.
    """
    runs = []
    for layer in layers if which == "fwd" else layers[::-1]:
        own = machine["accelerator"]
        made = [MODELS[own["model"]](own, p) for p in problems(layer, which, own.get("strided_input_grad", "phase"))]
        if made:
            samples = len(layer.masks["activation"])
            runs.append(Run(layer, one_after_another(made, phases=True), samples, batch))
    order = {id(layer): i for i, layer in enumerate(layers)}
    found, kept = defaultdict(Counter), False
    if machine["memory"]["order"] == "sample" and which != "weight_grad":
        most = max(run.samples for run in runs)
        runs = [replace(run, moved=run.moved.of_sample(n), turn=n) for n in range(most) for run in runs]
    for i, run in enumerate(runs):
        after = runs[i + 1] if i + 1 < len(runs) else None
        reads = after if after and _feeds(run, after, which, order) else None
        found[run.layer.name] += _of_layer(machine, run, which, kept, reads)
        kept = reads is not None
    return found


def _feeds(run, after, which, order) -> bool:
    """Whether the next layer reads this one's result: its neighbour, if the shapes agree."""
    forth = 1 if which == "fwd" else -1
    if which == "weight_grad" or order[id(after.layer)] - order[id(run.layer)] != forth:
        return False
    first, second = (run.layer, after.layer) if which == "fwd" else (after.layer, run.layer)
    return first.masks["gradient"].shape[1:] == second.masks["activation"].shape[1:]


def _handed_on(moved: Moved, which: str) -> Operand:
    return next(o for o in moved.operands if o.tensor == ("activation" if which == "fwd" else "gradient"))


def _of_layer(machine, run, which, kept, reads) -> Counter:
    memory, counts = machine["memory"], Counter()
    bits, burst = memory["value_bits"], memory["offchip"]["burst_bytes"]
    bursts = lambda size: -(-size // burst) * burst  # noqa: E731
    share = lambda size: -(-size * run.samples // run.batch)  # noqa: E731
    moved, any_held = run.moved, False
    for operand in moved.operands:
        place = "weight_memory" if operand.tensor == "weight" else "activation_memory"
        stored = [part.stored_bytes(memory["formats"][operand.tensor], bits) for part in operand.parts]
        capacity = machine["buffers"][operand.buffer]["capacity_bytes"]
        # The weight gradient sums over the batch: to what each job reads of these samples comes that of the others.
        summed = (run.samples, run.batch) if which == "weight_grad" else (1, 1)
        held, loads = _loads(operand, stored, capacity, bits, summed)
        any_held |= held
        size = sum(size for _, size in loads)
        counts[f"{place}_read_bytes"] += size
        if held:
            counts[f"{operand.buffer}_buffer_write_bytes"] += size * operand.copies
            reads_bytes = 0 if run.turn else bytes_of(moved.counts[f"{operand.buffer}_buffer_reads"], bits)
            counts[f"{operand.buffer}_buffer_read_bytes"] += reads_bytes
        if not (kept and which != "weight_grad" and operand is _handed_on(moved, which)):
            for part in {part for part, _ in loads}:
                size = stored[part]
                if operand.tensor == "weight":  # once a batch, for they have room from sample to sample
                    size = 0 if run.turn else share(size)
                counts["offchip_read_bytes"] += bursts(size)
                counts[f"{place}_write_bytes"] += size
    if moved.crossed and not any_held:
        raise Refused(run.layer.name)
    place = "weight_memory" if which == "weight_grad" else "activation_memory"
    for size in _result_bytes(memory, run, which, reads):
        counts[f"{place}_write_bytes"] += size
        if memory["write_back"] == "always" or not reads:
            counts[f"{place}_read_bytes"] += size
            counts["offchip_write_bytes"] += bursts(size)
    for sums in moved.spilled:
        for way in ("read", "write"):
            counts[f"{place}_{way}_bytes"] += bytes_of(sums, memory["accumulator_bits"])
    for name in ("multiplications", "bit_operations", "accumulator_updates"):
        counts[name] = 0 if run.turn else moved.counts.get(name, 0)
    return counts


def _result_bytes(memory, run, which, reads) -> list[int]:
    """Of each job: as the next layer stores it, in proportion, or dense."""
    bits = memory["value_bits"]
    sizes = [bytes_of(values, bits) for values in run.moved.results]
    if reads:
        operand = _handed_on(reads.moved, which)
        read = [operand.parts[number] for number in {use for use in operand.uses if use is not None}]
        stored = sum(part.stored_bytes(memory["formats"][operand.tensor], bits) for part in read)
        dense = sum(bytes_of(part.values, bits) for part in read)
        return [-(-size * stored // dense) for size in sizes]
    if which == "weight_grad":
        return [-(-size * run.samples // run.batch) for size in sizes]
    return sizes


def _loads(operand, stored, capacity, bits, summed) -> tuple[bool, list[tuple[int, int]]]:
    """Whether a buffer holds the operand's parts, and what is loaded: (part, bytes), one after another."""
    uses = [(job, part) for job, part in enumerate(operand.uses) if part is not None]
    inside = [-(-size // operand.units) for size in stored]
    streamed = [(part, stored[part] if operand.passing is None else bytes_of(operand.passing[job], bits))
                for job, part in uses]  # fmt: skip
    streamed = [(part, size) for part, size in streamed if size]
    largest = max((inside[part] for _, part in uses), default=0)
    if largest > capacity:
        return False, streamed
    spans: dict[int, tuple[int, int]] = {}
    for job, part in uses:
        spans[part] = spans.get(part, (job, job))[0], job
    order = list(spans)
    most = len(order)
    some, every = summed
    for part, (first, last) in spans.items():  # held with those of all samples, if for another job
        inside[part] = -(-inside[part] * every // some) if first < last else inside[part]
    if _peak(spans, order, inside) > capacity:
        while most and _peak(spans, order[:most], inside) > max(0, capacity - 2 * largest):
            most -= 1
    stays, loads, before, there = set(order[:most]), [], None, set()
    for _, part in uses:
        if (part != before or every > some) and part not in there:
            loads.append((part, stored[part]))
            there |= {part} & stays
        before = part
    if sum(size for _, size in loads) > sum(size for _, size in streamed):
        return False, streamed
    return True, loads


def _peak(spans, parts, inside) -> int:
    """The most bytes at once of parts held from their first use to their last."""
    changes = Counter()
    for part in parts:
        first, last = spans[part]
        changes[2 * first] += inside[part]
        changes[2 * last + 1] -= inside[part]
    held = most = 0
    for _, change in sorted(changes.items()):
        held += change
        most = max(most, held)
    return most


def price(machine: dict, counts: Counter, cycles: int) -> dict[str, float]:
    """pJ by component."""
    table, memory, own = machine["energy"], machine["memory"], machine["accelerator"]

    def sram(size):
        return table["sram_pj"] * sqrt(max(size, table["sram_smallest_bytes"]) / table["sram_bytes"])

    bits = memory["accumulator_bits"]
    sums = own["accumulators"] // own["banks"] if own["model"] in ("pe_array", "scnn") else 1
    sums = own["tile_rows"] * own["tile_columns"] if own["model"] == "dstc" else sums
    held = sum(memory[place]["capacity_bytes"] for place in ("activation_memory", "weight_memory"))
    multipliers = machine["multipliers"]
    leakage = table["leakage_mw_per_multiplier"] * multipliers + table["leakage_mw_per_mib"] * held / 2**20
    added = "multiplications" if own["model"] in WITH_ADDER_TREES else "accumulator_updates"
    words = {
        "activation_buffer": sram(machine["buffers"]["activation"]["capacity_bytes"]),
        "weight_buffer": sram(machine["buffers"]["weight"]["capacity_bytes"]),
        "activation_memory": table["edram_pj"],
        "weight_memory": table["edram_pj"],
        "offchip": table["offchip_pj"],
    }
    return {
        "multipliers": counts["bit_operations"] * table["bit_operation_pj"]
        if own["model"] in BIT_LEVEL
        else counts["multiplications"] * table["multiply_pj"],
        "adders": counts[added] * table["add_pj"],
        "accumulators": 2 * counts["accumulator_updates"] * sram(sums * bits // 8) * bits / 32,
        "comparators": counts["comparisons"] * table["add_pj"],
        "leakage": leakage * cycles / machine["clock_mhz"] * 1000,
        **{name: (counts[f"{name}_read_bytes"] + counts[f"{name}_write_bytes"]) / 4 * pj for name, pj in words.items()},
    }
