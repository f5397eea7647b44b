"""What tiles, Cambricon-X, Cnvlutin and the bounds read, multiply and add up: docs/actions.md."""

from __future__ import annotations

from itertools import product

import numpy as np

from .lowering import READS, Problem
from .moved import Moved, Operand, one_after_another
from .schedules import bit_tactical_lines, cambricon_x_steps, tensordash_lines
from .streams import Side, folded, sides

NAMES = ("multiplications", "accumulator_updates", "activation_buffer_reads", "weight_buffer_reads")


def chunks(items, size):
    return [items[i : i + size] for i in range(0, len(items), size)]


def tiles(machine: dict, problem: Problem) -> Moved:
    """dadiannao, bit_tactical, tensordash and structured."""
    seen, lanes = as_seen(machine, problem), machine["lanes"]
    if machine["model"] == "structured" and _has_pattern(machine, seen):
        lanes = lanes // machine["n"] * machine["m"]
    moved = []
    for group in range(problem.groups):
        both = sides(seen, group, lanes)
        for side, stored in zip(both, sides(problem, group, lanes), strict=True):
            side.pieces = stored.pieces  # folding moves no other values
        rows, columns = placed(machine, problem, both)
        moved.append(_of_tiles(machine, rows, columns, lanes, _elements(machine, seen, lanes)))
    return one_after_another(moved)


def as_seen(machine: dict, problem: Problem) -> Problem:
    """Folded, where it is a strided convolution of an image."""
    image = problem.which == "fwd" and problem.groups == 1 and problem.dilation == (1, 1)
    image = image and problem.padded.shape[1] == 3 and max(problem.stride) > 1
    return folded(problem) if image and machine.get("space_to_depth", True) else problem


def placed(machine, problem, both) -> tuple[Side, Side]:
    """What goes on the rows, and what on the columns."""
    if machine["model"] == "tensordash":
        return both if _scheduled(machine, problem) == 0 else both[::-1]
    on_rows = machine.get("weight_grad_rows", "activation")
    return both if problem.which == "weight_grad" and on_rows == "activation" else both[::-1]


def _scheduled(machine, problem) -> int:
    """TensorDash: the operand named, or the one with the larger share of zeros; a tie goes to the second."""
    names = READS[problem.which]
    if machine["scheduled_operand"] in names:
        return names.index(machine["scheduled_operand"])
    zeros = [int((~tensor).sum()) for tensor in problem.tensors]
    return 0 if zeros[0] * problem.tensors[1].size > zeros[1] * problem.tensors[0].size else 1


def _has_pattern(machine, problem) -> bool:
    for group in range(problem.groups):
        rows, _ = placed(machine, problem, sides(problem, group, machine["m"]))
        if any((block.sum(axis=2) > machine["n"]).any() for block in rows.blocks):
            return False
    return True


def _elements(machine, problem, lanes) -> int:
    """Elements of a stream that are multiplied where nothing is skipped; what fills up lines is left out."""
    if problem.which == "weight_grad":
        pieces, elements = 1, len(problem.padded) * problem.places[0] * problem.places[1]
    else:
        pieces, elements = problem.taps[0] * problem.taps[1], problem.kernel.shape[1]
    return pieces * (elements if lanes == machine["lanes"] else -(-elements // machine["m"]) * machine["n"])


def _of_tiles(machine, rows: Side, columns: Side, lanes: int, elements: int) -> Moved:
    """Sets of ``rows`` streams to the tiles in turn; all tiles see the same ``columns`` streams."""
    width, depth = machine["columns"], rows.blocks[0].shape[1]
    sets = [chunks(block, machine["rows"]) for block in rows.blocks]
    runs = sets if rows.apart else [[own for block in sets for own in block]]
    rounds = [(number, i, run[i : i + machine["tiles"]])
              for number, run in enumerate(runs) for i in range(0, len(run), machine["tiles"])]  # fmt: skip
    grid = _Grid(machine["tiles"], machine["rows"], width, machine["tiles"])
    counts = dict.fromkeys(NAMES, 0)
    passing, results = {}, {}
    for (at, (_, _, held)), (repeat, block) in product(enumerate(rounds), enumerate(columns.blocks)):
        for visit, windows in enumerate(chunks(block, width)):
            passing[at, repeat, visit] = results[at, repeat, visit] = 0
            for own in held:
                executed, read = _lines_of(machine, own, windows)
                counts["multiplications"] += _products(machine, own, windows, elements)
                counts["accumulator_updates"] += len(windows) * len(own) * executed
                counts["activation_buffer_reads"] += len(windows) * depth * lanes
                counts["weight_buffer_reads"] += len(own) * read * machine["lanes"]
                passing[at, repeat, visit] += len(own) * read * machine["lanes"]
                results[at, repeat, visit] += len(own) * len(windows)
    return grid.moved(rows, columns, [(number, i) for number, i, _ in rounds], depth * lanes, passing, results, counts)


def _lines_of(machine, own, windows) -> tuple[int, int]:
    """Lines that a set executes on a visit, and lines of its rows that are read for it.

    A schedule made beforehand is stored as executed; a scheduler that looks at lines as they come sees all of them.
    """
    depth = own.shape[1]
    if machine["model"] == "bit_tactical":
        executed = bit_tactical_lines(own, machine)
        return executed, executed
    if machine["model"] == "tensordash":
        pairs = own
        if machine["skipping"] == "two_sided":
            pairs = (own[:, None] & windows[None]).reshape(-1, *own.shape[1:])
        return tensordash_lines(pairs, machine), depth
    return depth, depth


def _products(machine, own, windows, elements) -> int:
    """Multipliers that get two operands: by each model's rule of what is skipped."""
    if machine["model"] == "tensordash" and machine["skipping"] == "two_sided":
        return int((own[:, None] & windows[None]).sum())
    if machine["model"] in ("bit_tactical", "tensordash"):
        return int(own.sum()) * len(windows)
    return elements * len(own) * len(windows)


class _Grid:
    """Sets of rows in rounds, visits of columns in bands: who reads which part when."""

    def __init__(self, together, rows, width, buffers):
        self.together, self.rows, self.width, self.buffers = together, rows, width, buffers

    def moved(self, rows: Side, columns: Side, rounds, depth, passing, results, counts) -> Moved:
        """``rounds``: (block of a run, its first set); ``passing``, ``results``: by (round, repeat, visit)."""
        streams, windows = rows.streams, columns.streams
        sets = -(-streams // self.rows)
        visits = -(-windows // self.width)
        bands = max(n for n in (1, 2, 4, 8, 16) if n <= visits)
        cuts = [visits * band // bands for band in range(bands + 1)]
        row_ends = [min(streams, (i + self.together) * self.rows) for i in range(0, sets, self.together)]
        row_parts, row_reads = rows.parts(row_ends)
        column_parts, column_reads = columns.parts([min(windows, cut * self.width) for cut in cuts[1:]])
        on_rows = Operand(rows.tensor, "weight", min(self.buffers, sets), 1, row_parts, [], [])
        on_columns = Operand(columns.tensor, "activation", 1, self.buffers, column_parts, [], [])
        finished, sample = [], []
        for at, (block, first) in enumerate(rounds):
            for repeat, band in product(range(len(columns.blocks)), range(bands)):
                own = range(cuts[band], cuts[band + 1])
                on_rows.uses.append(row_reads[block if rows.apart else 0][first % sets // self.together])
                on_rows.passing.append(sum(passing[at, repeat, visit] for visit in own))
                on_columns.uses.append(column_reads[repeat][band])
                between = min(windows, cuts[band + 1] * self.width) - cuts[band] * self.width
                on_columns.passing.append(depth * between)
                finished.append(sum(results[at, repeat, visit] for visit in own))
                sample.append(block if rows.apart else repeat)
        by_sample = sample if rows.apart or columns.apart else None
        return Moved([on_columns, on_rows], finished, [0] * len(finished), False, counts, by_sample)


def dcnn(machine: dict, problem: Problem) -> Moved:
    """Every filter against the map, band by band; the map stays where it is, filters go to all PEs."""
    pes, moved = machine["pe_rows"] * machine["pe_columns"], []
    for group in range(problem.groups):
        columns, rows = sides(problem, group, machine["lanes"])
        tiled = {"model": "dadiannao", "tiles": 1, "rows": -(-rows.streams // 16), "columns": pes}
        own = _of_tiles(tiled | {"lanes": machine["lanes"]}, rows, columns, machine["lanes"],
                        _elements(machine, problem, machine["lanes"]))  # fmt: skip
        for operand in own.operands:
            operand.units, operand.copies = (pes, 1) if operand.buffer == "activation" else (1, pes)
        reads = own.counts["accumulator_updates"] * machine["lanes"]
        own.counts |= {"activation_buffer_reads": reads, "weight_buffer_reads": reads}
        moved.append(own)
    return one_after_another(moved)


def cambricon_x(machine: dict, problem: Problem) -> Moved:
    """A filter in each PE, all see the same inputs, one output after another."""
    moved = []
    for group in range(problem.groups):
        rows, columns = placed(machine, problem, sides(problem, group, 1))
        filters = [stream.ravel() for block in rows.blocks for stream in block]
        depth, pes = rows.blocks[0].shape[1], machine["pes"]
        outputs = len(columns.blocks) * columns.streams
        steps = [cambricon_x_steps(stream, machine["lanes"], machine["window"]) for stream in filters]
        products = sum(int(stream.sum()) for stream in filters) * outputs
        counts = dict.fromkeys(NAMES, products) | {"accumulator_updates": sum(steps) * outputs}
        rounds = [(0, i) for i in range(0, len(filters), pes)]
        every = list(product(range(len(rounds)), range(len(columns.blocks)), range(columns.streams)))
        passing = {(at, n, w): sum(steps[rounds[at][1] :][:pes]) * machine["lanes"] for at, n, w in every}
        results = {(at, n, w): len(filters[rounds[at][1] :][:pes]) for at, n, w in every}
        moved.append(_Grid(pes, 1, 1, pes).moved(rows, columns, rounds, depth, passing, results, counts))
    return one_after_another(moved)


def cnvlutin(machine: dict, problem: Problem) -> Moved:
    """Lanes walk the non-zeros of their bricks; filters of all tiles follow the same window."""
    if problem.which == "fwd" and problem.padded.shape[1] == 3 and not machine["image_encoded"]:
        return tiles(machine | {"model": "dadiannao", "columns": 1}, problem)
    moved = []
    for group in range(problem.groups):
        both = sides(problem, group, machine["brick"])
        skipped = problem.which != "weight_grad" or machine["weight_grad_skips"] == "activation"
        columns, rows = both if skipped else both[::-1]
        filters, together = sum(map(len, rows.blocks)), machine["tiles"] * machine["rows"]
        rounds = [(0, i) for i in range(0, filters, together)]
        counts, passing, results = dict.fromkeys(NAMES, 0), {}, {}
        for (repeat, block), at in product(enumerate(columns.blocks), range(len(rounds))):
            own = min(together, filters - at * together)
            for w, window in enumerate(block):
                lanes = [0] * machine["lanes"]
                for brick, values in enumerate(window):
                    lanes[brick % machine["lanes"]] += max(int(values.sum()), machine["empty_brick_cycles"])
                products, cycles = int(window.sum()), max(lanes)
                counts["multiplications"] += products * own
                counts["weight_buffer_reads"] += products * own
                counts["activation_buffer_reads"] += products * machine["tiles"]
                counts["accumulator_updates"] += cycles * own
                passing[at, repeat, w], results[at, repeat, w] = cycles * own * machine["lanes"], own
        depth = columns.blocks[0].shape[1] * machine["brick"]
        grid = _Grid(together, 1, 1, machine["tiles"])
        moved.append(grid.moved(rows, columns, rounds, depth, passing, results, counts))
    return one_after_another(moved)


def ideal(machine: dict, problem: Problem) -> Moved:
    """Every product that counts, and each operand once: filters in 16 bands at most, inputs with the first."""
    names, skips = READS[problem.which], machine[f"{problem.which}_skips"]
    moved = []
    for group in range(problem.groups):
        first, second = sides(problem, group, 1)
        keep = [skips in (name, "both") for name in names]
        counted = [
            [block if kept else np.ones_like(block) for block in side.blocks]
            for side, kept in zip((first, second), keep, strict=True)
        ]
        products = sum(int(np.einsum("ael,bel->", a.astype(int), b.astype(int))) for a, b in product(*counted))
        moved.append(_once(second, first, dict.fromkeys(NAMES, products)))
    return one_after_another(moved)


def _once(rows: Side, columns: Side, counts) -> Moved:
    """Each operand once: what is on rows in 16 bands at most, and the other with the first of them."""
    size = -(-rows.streams // 16)
    grid = _Grid(1, size, columns.streams, 1)
    bands = range(-(-rows.streams // size))
    rounds = [(number, i) for number in range(len(rows.blocks)) for i in bands]
    every = list(product(range(len(rounds)), range(len(columns.blocks)), [0]))
    results = {
        (at, n, 0): min(size, rows.streams - rounds[at][1] * size) * columns.streams for at, n, _ in every
    }  # fmt: skip
    own = grid.moved(rows, columns, rounds, 0, results, results, counts)
    for operand in own.operands:
        seen: set[tuple[int, int]] = set()
        operand.passing = None
        uses = list(zip(own.sample or [0] * len(operand.uses), operand.uses, strict=True))
        operand.uses = [None if use in seen else seen.add(use) or use[1] for use in uses]
    return own


def sigma(machine: dict, problem: Problem) -> Moved:
    """Non-zeros of one operand stand in the multipliers, cut by cut and in chunks; columns of the other stream by."""
    moved = []
    for group in range(problem.groups):
        rows, columns = placed(machine, problem, sides(problem, group, 1))
        partners = len(columns.blocks) * columns.streams
        counts = dict.fromkeys(NAMES, 0)
        for block in rows.blocks:
            elements = block.reshape(len(block), -1)
            for cut in chunks(range(elements.shape[1]), machine["reduction_cut"]):
                held = [stream for stream in range(len(elements)) for e in cut if elements[stream, e]]
                for chunk in chunks(held, machine["multipliers"]):
                    counts["multiplications"] += len(chunk) * partners
                    counts["weight_buffer_reads"] += len(chunk)
                    counts["activation_buffer_reads"] += len(cut) * partners
                    counts["accumulator_updates"] += len(set(chunk)) * partners
        moved.append(_once(rows, columns, counts))
    return one_after_another(moved)


def dstc(machine: dict, problem: Problem) -> Moved:
    """Outer products of the non-zeros of columns and rows of tiles."""
    moved = []
    for group in range(problem.groups):
        rows, columns = sides(problem, group, 1)
        counts = dict.fromkeys(NAMES, 0)
        for first, second in product(rows.blocks, columns.blocks):
            for left in chunks(first.reshape(len(first), -1), machine["tile_rows"]):
                for right in chunks(second.reshape(len(second), -1), machine["tile_columns"]):
                    a, b = left.sum(axis=0), right.sum(axis=0)
                    steps = int((-(-a // machine["step_rows"]) * -(-b // machine["step_columns"])).sum())
                    counts["activation_buffer_reads"] += steps * machine["step_rows"]
                    counts["weight_buffer_reads"] += steps * machine["step_columns"]
                    counts["multiplications"] += int(a @ b)
                    counts["accumulator_updates"] += int(a @ b)
        moved.append(_once(rows, columns, counts))
    return one_after_another(moved)
