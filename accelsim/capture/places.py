"""A product of which a part of the places is kept: some of its tokens, or a band of its map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch

from accelsim.capture.products import Form, Take
from accelsim.capture.selection import Selection
from accelsim.workload.part import Part, band, least_band


def thinned(form: Form, keep: Selection, step: int) -> Form:
    """The form with at most ``keep.places`` places of each sample, as it is where it has no more.

    Tokens lie evenly over the sequence, a band in the middle of the map; with a seed both are drawn, alike in all
    layers of the step with as many places. A band is as wide as the map, and no narrower than its kernel needs.
    """
    geometry = form.geometry
    rows, columns = geometry.output
    if keep.places is None or rows * columns <= keep.places:
        return form
    axis = 0 if rows > 1 else 1
    size, across = (rows, columns) if axis == 0 else (columns, rows)
    rng = None if keep.seed is None else np.random.default_rng([keep.seed, step, size])
    if form.kind != "conv" and columns == 1:
        count = min(keep.places, size)
        spread = np.arange(count) * size // count
        chosen = spread if rng is None else np.sort(rng.choice(size, count, replace=False))
        index = torch.from_numpy(chosen)
        part, geometry = Part(0, size, size, None), replace(geometry, height=count)
        takes = {name: (lambda t: t.index_select(2, index.to(t.device))) for name in ("activation", "gradient")}
    else:
        count = max(keep.places // across, least_band(geometry, axis), 1)
        if count >= size or max(geometry.padding[2 * axis : 2 * axis + 2]) >= geometry.kernel_extent[axis]:
            return form  # of padding wider than the kernel no band stands for the others
        first = (size - count) // 2 if rng is None else int(rng.integers(size - count + 1))
        part = Part(axis, (geometry.height, geometry.width)[axis], size, first)
        geometry, inputs = band(geometry, axis, first, count)
        takes = {"activation": _narrow(2 + axis, inputs.start, inputs.stop - inputs.start)}
        takes["gradient"] = _narrow(2 + axis, first, count)
    both = zip(form.names, form.takes, strict=True)
    first_take, second, third = (_after(take, takes.get(name)) for name, take in both)
    return replace(form, geometry=geometry, takes=(first_take, second, third), part=part)


def _narrow(axis: int, start: int, count: int) -> Take:
    return lambda t: t.narrow(axis, start, count)


def _after(take: Take, then: Callable[[torch.Tensor], torch.Tensor] | None) -> Take:
    return take if then is None else lambda t: then(take(t))
