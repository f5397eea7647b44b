"""What bit-level machines read, and in how many cycles their lanes multiply a bit: docs/actions.md, docs/model.md."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
from reference_bits import slices_of, stepped

from .lowering import READS, Problem
from .machines import as_seen, placed, tiles
from .moved import Moved
from .schedules import search_map
from .streams import sides

BIT_LEVEL = ("stripes", "shapeshifter", "loom", "pragmatic", "laconic", "tclp", "tcle")


def bit_level(machine: dict, problem: Problem) -> Moved:
    """Tiles whose windows take several columns and whose filters several rows; of ``problem`` the integers matter."""
    keys = SimpleNamespace(**machine)
    if problem.which == "weight_grad":  # whose columns hold no neighbours
        keys.differential = False
    if machine["model"].startswith("tcl"):
        keys.search_map = search_map(machine)
    rows, columns = placed(machine, problem, sides(problem, 0, machine["lanes"]))
    of = dict(zip(READS[problem.which], problem.tensors, strict=True))
    tensors = [[int(x) for x in of[side.tensor].ravel()] for side in (columns, rows)]
    of_window, of_filter = slices_of(keys, tensors, _is_linear(as_seen(machine, problem)))
    kind = "bit_tactical" if machine["model"].startswith("tcl") else "dadiannao"
    shape = {"rows": machine["rows"] // of_filter, "columns": machine["columns"] // of_window}
    moved = tiles(machine | shape | {"model": kind}, _masks(problem))
    moved.counts["bit_operations"] = sum(
        _operations(keys, machine, problem, group, tensors, of_window) for group in range(problem.groups)
    )
    return moved


def _masks(problem: Problem) -> Problem:
    """What is there, without how much."""
    names = ("padded", "held", "kernel", "gradient")
    masks = {name: None if getattr(problem, name) is None else getattr(problem, name) != 0 for name in names}
    return replace(problem, **masks, tensors=tuple(tensor != 0 for tensor in problem.tensors))


def _operations(keys, machine, problem, group, tensors, of_window) -> int:
    """Cycles of each column, of one sample or tap after another, times the lanes of rows that hold a value then."""
    seen = as_seen(machine, problem)
    rows, columns = placed(machine, seen, sides(seen, group, keys.lanes))
    linear = _is_linear(seen)
    blocks = [[[_known(line, number, seen) for number, line in enumerate(own)] for own in block.tolist()]
              for block in rows.blocks]  # fmt: skip
    found = 0
    for windows in columns.blocks:
        steps, _ = stepped(keys, blocks, windows.tolist(), tensors, linear, seen.places[1])
        for costs, lanes in steps:
            # Steps of a linear layer that are dealt to places take as long as their dearest slice.
            busy = max(costs) * of_window if linear and keys.staggered_linear else sum(costs)
            found += busy * lanes
    return found


def _is_linear(seen: Problem) -> bool:
    return seen.which != "weight_grad" and seen.padded.shape[2:] == (1, 1) == seen.taps == seen.places


def _known(line: list[int], number: int, seen: Problem) -> list[int | None]:
    """A line without what fills it up: of a tap its last, of the raster the very last."""
    if seen.which == "weight_grad":
        elements, of_piece = len(seen.padded) * int(np.prod(seen.places)), None
    else:
        elements, of_piece = seen.kernel.shape[1], -(-seen.kernel.shape[1] // len(line))
    begin = (number if of_piece is None else number % of_piece) * len(line)
    return [x if begin + lane < elements else None for lane, x in enumerate(line)]
