"""One pass of one layer on an accelerator, tried: what laws look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np

from accelsim.errors import AccelsimError, MachineError
from accelsim.hardware.accelerators.base import Accelerator, Activity
from accelsim.hardware.accelerators.film import Film, is_filmed
from accelsim.workload.lowering import Convolution, lower, pad
from accelsim.workload.trace import Layer

MOST_SLOTS = 1 << 24  # of a film, a byte each


class Unaccountable(Exception):
    """An ``Activity`` that cannot be: it refuses what does not add up."""


@dataclass(frozen=True, eq=False)
class Trial:
    """One pass of one layer on an accelerator."""

    accelerator: Accelerator
    layer: Layer
    which: str

    @cached_property
    def convolutions(self) -> list[Convolution]:
        """Of tensors of its own: what a run does to them is no other's."""
        own = replace(self.layer, tensors={name: values.copy() for name, values in self.layer.tensors.items()})
        return lower(own, self.which, strided=self.accelerator.strided_input_grad)

    @cached_property
    def activities(self) -> list[Activity]:
        """What ``run`` counts. Raises MachineError where the machine cannot run the layer."""
        return self.run()

    def run(self) -> list[Activity]:
        """Runs it, again: a cached property keeps other threads out."""
        return [_run(self.accelerator, conv) for conv in self.convolutions]

    @cached_property
    def films(self) -> list[Film] | None:
        """One for each convolution, for ``replayed`` to fill; None where there are none, or too many slots for them."""
        if not is_filmed(self.accelerator) or self.cycles * self.accelerator.multipliers > MOST_SLOTS:
            return None
        return [Film(self.accelerator.multipliers) for _ in self.convolutions]

    @cached_property
    def replayed(self) -> list[tuple[np.ndarray, int]]:
        if self.films is None:
            return [self.accelerator.replay(conv) for conv in self.convolutions]
        return [self.accelerator.replay(*each) for each in zip(self.convolutions, self.films, strict=True)]

    @property
    def cycles(self) -> int:
        return sum(activity.cycles for activity in self.activities)

    @property
    def skips(self) -> dict[str, str]:
        return self.accelerator.skips(self.which)

    @property
    def is_refused(self) -> bool:
        """Whether the machine cannot run it, and says so."""
        try:
            return not self.activities and bool(self.convolutions)
        except MachineError:
            return True

    def with_tensors(self, **tensors: np.ndarray) -> Trial:
        """The same pass with other tensors."""
        return replace(self, layer=replace(self.layer, tensors={**self.layer.tensors, **tensors}))

    def plain(self, name: str, value: int) -> Trial:
        """The same pass with a tensor of zeros, or ones."""
        return self.with_tensors(**{name: np.full_like(self.layer.tensors[name], value)})

    def counted(self, anew: bool = False) -> list[tuple[Any, ...]]:
        """All that is counted, to be compared; ``anew``: in another run."""
        return [
            (a.job_cycles.tolist(), {k: int(n) for k, n in a.slots.items() if n}, dict(a.accesses))
            for a in (self.run() if anew else self.activities)
        ]


def _run(accelerator: Accelerator, conv: Convolution) -> Activity:
    try:
        return accelerator.run(conv)
    except MachineError:
        raise
    except (AssertionError, AccelsimError) as error:
        raise Unaccountable(str(error) or "an Activity refuses them") from error


def convolve(conv: Convolution) -> np.ndarray:
    """The convolution from its definition, one output place after another: (N, K, P, Q)."""
    image, filters, group = pad(conv.input, conv.padding), len(conv.kernel) // conv.groups, conv.kernel.shape[1]
    (taps_r, taps_s), (places_p, places_q) = conv.kernel.shape[2:], conv.geometry.output
    result = np.zeros((conv.samples, len(conv.kernel), places_p, places_q), np.result_type(conv.input, conv.kernel))
    for g, p, q in np.ndindex(conv.groups, places_p, places_q):
        rows = p * conv.stride[0] + np.arange(taps_r) * conv.dilation[0]
        columns = q * conv.stride[1] + np.arange(taps_s) * conv.dilation[1]
        window = image[:, g * group : (g + 1) * group][:, :, rows][..., columns]
        of_group = slice(g * filters, (g + 1) * filters)
        result[:, of_group, p, q] = np.einsum("ncrs,kcrs->nk", window, conv.kernel[of_group])
    return result


def effectual_products(conv: Convolution) -> int:
    """Products of two non-zeros: the convolution of the masks, summed up."""
    masks = replace(conv, input=(conv.input != 0).astype(np.int64), kernel=(conv.kernel != 0).astype(np.int64))
    return int(convolve(masks).sum())
