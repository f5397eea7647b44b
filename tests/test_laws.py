"""Does each law catch a machine that breaks it, with a small layer, and none that does not?"""

import itertools
import pickle
import re
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import MODELS
from stranger import StrangerArray

import accelsim
from accelsim.errors import ConfigError, MachineError
from accelsim.hardware.accelerators.catalogue import refuse_incomplete
from accelsim.hardware.accelerators.tiled import FixedRows
from accelsim.laws import LAWS, LawError, check
from accelsim.laws.trial import convolve, effectual_products
from accelsim.workload import random_layers
from accelsim.workload.lowering import PASSES, READS, lower

ROOT = Path(__file__).parent.parent
SHIPPED = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))


@pytest.mark.parametrize("name", SHIPPED)
def test_a_shipped_machine_obeys_every_law(name):
    check(accelsim.load_machine(name).accelerator, layers=20)


@pytest.mark.parametrize("model", MODELS)
@given(data=st.data())
@settings(max_examples=4, deadline=None)
def test_a_model_of_any_small_size_obeys_every_law(model, data):
    """Sizes of a few PEs have edges, rounds and spills that the shipped ones hide."""
    machine = data.draw(MODELS[model])
    try:
        check(machine, layers=10, seed=data.draw(st.integers(0, 2**32 - 1)))
    except LawError as error:
        if error.law != "saves":  # a window of one line looks nowhere
            raise


@pytest.mark.parametrize("lanes", [1, 3, 64])
def test_the_machine_that_is_written_for_a_beginner_obeys_every_law(lanes):
    check(StrangerArray(model="m", lanes=lanes))


class NoBaseline(StrangerArray):
    @property
    def baseline_multipliers(self):
        return 0


class SkipsWhatItDoesNotRead(StrangerArray):
    def skips(self, which):
        return {"weight": "zeros"}


class ItselfAlone(StrangerArray):
    __hash__ = object.__hash__

    def __eq__(self, other):
        return self is other


class FailsOnGroups(StrangerArray):
    def run(self, conv):
        return super().run(conv if conv.groups == 1 else None)


class NeverBackward(StrangerArray):
    def run(self, conv):
        if conv.which == "weight_grad":
            raise MachineError("no")
        return super().run(conv)


class SlotTooMany(StrangerArray):
    def run(self, conv):
        activity = super().run(conv)
        return replace(activity, slots={**activity.slots, "edge": activity.slots["edge"] + (conv.stride != (1, 1))})


class UnknownCause(StrangerArray):
    def run(self, conv):
        activity = super().run(conv)
        return replace(activity, slots={**activity.slots, "weather": 0})


class OtherMultipliers(StrangerArray):
    def run(self, conv):
        activity = super().run(conv)
        slots = {**activity.slots, "edge": activity.slots["edge"] + activity.cycles}
        return replace(activity, multipliers=self.lanes + 1, slots=slots)


class AllIneffectual(StrangerArray):
    def run(self, conv):
        activity = super().run(conv)
        wrong = {"effectual": 0, "ineffectual": activity.slots["effectual"] + activity.slots["ineffectual"]}
        return replace(activity, slots={**activity.slots, **wrong})


class DenseMultiplications(StrangerArray):
    def run(self, conv):
        activity = super().run(conv)
        return replace(activity, accesses={**activity.accesses, "multiplications": activity.cycles * self.lanes})


class NoAccumulators(StrangerArray):
    def run(self, conv):
        activity = super().run(conv)
        return replace(activity, accesses={**activity.accesses, "accumulator_updates": 0})


class OtherAccesses(StrangerArray):
    def run(self, conv):
        activity = super().run(conv)
        return replace(activity, accesses={**activity.accesses, "weather": 0})


class LosesTheLastProduct(StrangerArray):
    def replay(self, conv):
        result, cycles = super().replay(conv)
        result[-1, -1, -1, -1] = 0
        return result, cycles


class ForgetsDilation(StrangerArray):
    def replay(self, conv):
        result, _ = super().replay(replace(conv, dilation=(1, 1)))
        return result[:, :, : conv.geometry.output[0], : conv.geometry.output[1]], super().replay(conv)[1]


class ReplaysSlower(StrangerArray):
    def replay(self, conv):
        result, cycles = super().replay(conv)
        return result, cycles + (conv.which == "fwd" and conv.samples > 1)


class ShowsNoZeros(StrangerArray):
    def replay(self, conv, film=None):
        replayed = super().replay(conv, film)
        for shot in [] if film is None else film._shots:
            shot[shot == film["ineffectual"]] = film["effectual"]
        return replayed


class ShowsNothing(StrangerArray):
    def replay(self, conv, film=None):
        return super().replay(conv)


class WritesToItsInput(StrangerArray):
    def run(self, conv):
        activity = super().run(conv)
        conv.input[...] = 0
        return activity


class WritesWhenItMoves(StrangerArray):
    def _traffic(self, conv, jobs):
        conv.kernel[...] = 0
        return super()._traffic(conv, jobs)


def longer(activity, by):
    """By some jobs of a cycle in which nothing is done, told of the traffic too."""

    def traffic():
        moved = activity.traffic()
        operands = tuple(replace(o, part=np.append(o.part, -1)) for o in moved.operands)
        more = {name: np.append(getattr(moved, name), 0) for name in ("result", "spilled")}
        return replace(moved, operands=operands, job_cycles=np.append(moved.job_cycles, by), **more)

    slots = {**activity.slots, "edge": activity.slots["edge"] + by * activity.multipliers}
    return replace(activity, job_cycles=np.append(activity.job_cycles, by), slots=slots, traffic=traffic)


COUNTER = itertools.count()


class EveryTimeLonger(StrangerArray):
    def run(self, conv):
        return longer(super().run(conv), next(COUNTER))


SCRATCH = {}


class SharesScratch(StrangerArray):
    """Two runs at once see each other's convolution."""

    def run(self, conv):
        SCRATCH["of all threads"] = conv
        if threading.current_thread() is not threading.main_thread():
            time.sleep(0.002)
        return super().run(SCRATCH["of all threads"])


class SlowWithLargeValues(StrangerArray):
    def run(self, conv):
        return longer(super().run(conv), int(conv.kernel.max(initial=0) > 8))

    def replay(self, conv):
        result, cycles = super().replay(conv)
        return result, cycles + int(conv.kernel.max(initial=0) > 8)


class NeedsValues(StrangerArray):
    def run(self, conv):
        return longer(super().run(conv), int(conv.kernel.dtype == bool))


class SaysItSkipsNothing(StrangerArray):
    def skips(self, which):
        return {}


class SaysItSkipsBoth(StrangerArray):
    def skips(self, which):
        return dict.fromkeys(READS[which], "zeros")


class MovesLess(StrangerArray):
    """``wrong`` changes the first operand, or the traffic."""

    def _traffic(self, conv, jobs):
        moved = super()._traffic(conv, jobs)
        return self.wrong(moved, moved.operands[0])


class NeverCompletes(MovesLess):
    def wrong(self, moved, first):
        return replace(moved, result=moved.result - (np.arange(moved.result.size) == 0))


class ReadsNoLastPart(MovesLess):
    def wrong(self, moved, first):
        last = moved.operands[1]
        part = np.where(last.part == last.values.size - 1, -1, last.part)
        return replace(moved, operands=(first, replace(last, part=part)))


class ReadsBeyond(MovesLess):
    def wrong(self, moved, first):
        return replace(moved, operands=(replace(first, part=first.part + 1), moved.operands[1]))


class HalfATensor(MovesLess):
    def wrong(self, moved, first):
        return replace(moved, operands=(replace(first, values=first.values // 2), moved.operands[1]))


class NonzerosForgotten(MovesLess):
    def wrong(self, moved, first):
        return replace(moved, operands=(replace(first, nonzeros=first.nonzeros * 0), moved.operands[1]))


class TwiceTheSame(MovesLess):
    def wrong(self, moved, first):
        return replace(moved, operands=(first, first))


class OtherCycles(MovesLess):
    def wrong(self, moved, first):
        return replace(moved, job_cycles=moved.job_cycles + 1)


class JobMissing(MovesLess):
    def wrong(self, moved, first):
        return replace(moved, spilled=moved.spilled[1:])


# What breaks → machines that break it, and nothing else first.
WRONG = {
    "protocol": [NoBaseline, SkipsWhatItDoesNotRead],
    "workers": [ItselfAlone],
    "runs": [FailsOnGroups, NeverBackward],
    "slots": [SlotTooMany, UnknownCause, OtherMultipliers],
    "effectual": [AllIneffectual],
    "accesses": [DenseMultiplications, NoAccumulators, OtherAccesses],
    "computes": [LosesTheLastProduct, ForgetsDilation],
    "cycles": [ReplaysSlower],
    "filmed": [ShowsNoZeros, ShowsNothing],
    "untouched": [WritesToItsInput, WritesWhenItMoves],
    "deterministic": [EveryTimeLonger],
    "threads": [SharesScratch],
    "values": [SlowWithLargeValues, NeedsValues],
    "skips": [SaysItSkipsNothing],
    "saves": [SaysItSkipsBoth],
    "traffic": [
        NeverCompletes, ReadsNoLastPart, ReadsBeyond, HalfATensor, NonzerosForgotten, TwiceTheSame, OtherCycles,
        JobMissing,
    ],
}  # fmt: skip


def caught(kind, **keys):
    with pytest.raises(LawError) as error:
        check(kind(model="wrong", lanes=3), seconds=4, **keys)
    return error.value


@pytest.mark.parametrize(("law", "kind"), [(law, kind) for law, kinds in WRONG.items() for kind in kinds])
def test_a_machine_that_breaks_a_law_is_caught_by_that_law(law, kind):
    error = caught(kind)
    assert error.law == law, str(error)
    assert str(error).startswith(f"law {law}: {LAWS[law]}, but ") and str(error).isprintable()
    assert len(str(error)) < 600
    if error.layer is not None:
        sizes = [tensor.size for tensor in error.layer.tensors.values()]
        assert max(sizes) <= 12, str(error)


def test_each_law_has_a_machine_that_breaks_it():
    assert list(WRONG) == sorted(WRONG, key=list(LAWS).index) and set(WRONG) == set(LAWS)


def test_the_smallest_layer_is_small_and_says_what_matters():
    """Two samples of one product; a dilated kernel of two taps; two groups."""
    layer = caught(ReplaysSlower).layer
    assert (layer.samples, layer.geometry.multiplications, layer.geometry.groups) == (2, 1, 1)
    g = caught(ForgetsDilation).layer.geometry
    assert max(g.dilation) == 2 and sorted(g.kernel) == [1, 2] and g.stride == (1, 1) and g.channels == g.filters == 1
    error = caught(FailsOnGroups)
    assert error.layer.geometry.groups == 2 and "groups 2" in str(error)
    assert error.layer.geometry.multiplications == 2


def test_an_error_travels_between_processes():
    error = caught(AllIneffectual)
    again = pickle.loads(pickle.dumps(error))
    assert (again.law, again.which, str(again)) == (error.law, error.which, str(error))


def test_the_same_seed_tries_the_same_layers():
    first, second = ([random_layers.said(layer, layer.tensors) for layer in random_layers.layers(20, 3)] for _ in "ab")
    other = [random_layers.said(layer, layer.tensors) for layer in random_layers.layers(20, 4)]
    assert first == second and not set(first) & set(other)


def test_layers_are_of_every_kind():
    tried = list(random_layers.layers(60))
    shapes = [layer.geometry for layer in tried]
    assert any(g.groups > 1 for g in shapes) and any(g.groups == g.channels == g.filters > 1 for g in shapes)
    assert any(max(g.stride) > 1 for g in shapes) and any(max(g.dilation) > 1 for g in shapes)
    assert any(g.stride[0] != g.stride[1] for g in shapes) and any(len(set(g.padding)) > 2 for g in shapes)
    assert any(g.output == g.kernel == (1, 1) for g in shapes)
    assert any(layer.samples < layer.batch for layer in tried) and any(layer.samples > 1 for layer in tried)
    for name in random_layers.TENSORS:
        shares = {np.count_nonzero(layer.tensors[name]) / layer.tensors[name].size for layer in tried}
        assert {0, 1} < shares


@pytest.mark.parametrize("which", PASSES)
def test_what_a_law_holds_results_to_is_the_naive_convolution(which):
    for layer in random_layers.layers(25, 7):
        for conv in lower(layer, which):
            right = reference.convolve(conv.input, conv.kernel, conv.stride, conv.padding, conv.dilation, conv.groups)
            np.testing.assert_array_equal(convolve(conv), right)
            assert effectual_products(conv) == conv.effectual


def test_what_lacks_a_piece_is_no_accelerator():
    with pytest.raises(ConfigError, match=r"FixedRows: lacks skips, _schedule, _sources of an accelerator"):
        refuse_incomplete(FixedRows)


def test_the_page_names_every_law():
    page = (ROOT / "docs" / "your_machine.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| `(\w+)` \|", page, re.M)[-len(LAWS) :] == list(LAWS)
    for law, words in LAWS.items():
        assert f"| `{law}` | {words} |" in page
