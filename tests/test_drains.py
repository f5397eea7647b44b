"""Pipelines that drain at barriers, TensorDash's first lines: what a cycle is worth, by hand and on a run."""

from pathlib import Path

import numpy as np
import pytest

import accelsim
from accelsim.hardware.accelerators.tensordash import TensorDash
from accelsim.hardware.lines import to_words
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, lower_tensors

MACHINES = ("pe16x16", "pe8x8", "dadiannao", "bit-tactical", "tensordash", "cambricon-x-4096")


def with_keys(name, **keys):
    """A shipped machine without its memory, with other keys of its array."""
    machine = accelsim.load_machine(f"{name}.yaml")
    return machine.model_copy(update={"memory": None, "accelerator": machine.accelerator.model_copy(update=keys)})


@pytest.mark.parametrize(
    ("name", "barriers"),
    [
        ("pe16x16", 3),  # of 4 channels those that are not empty
        ("dadiannao", 2),  # windows, 36, in sets of 16 columns, and no other round
        ("bit-tactical", 3),
        ("tensordash", 3),
        ("cambricon-x-4096", 36),  # each output
    ],
)
def test_each_barrier_that_took_cycles_drains(name, barriers):
    """A layer of 4 channels on 6×6 places, one of them empty in both operands, and 2 filters."""
    g = Geometry(4, 6, 6, 2, (1, 1))
    activation, weight = np.ones(g.activation_shape(1), bool), np.ones(g.weight_shape, bool)
    activation[:, 2] = weight[:, 2] = False
    conv = lower_tensors(g, "fwd", activation, weight)[0]
    plain, drained = (with_keys(name, pipeline_drain_cycles=n).accelerator for n in (0, 5))
    if name in ("dadiannao", "bit-tactical", "tensordash"):
        barriers = -(-36 // plain.columns)
    assert drained.run(conv).cycles == plain.run(conv).cycles + 5 * barriers
    activity = drained.run(conv)
    assert sum(activity.slots.values()) == activity.cycles * activity.multipliers
    assert drained.dense_cycles(conv) > plain.dense_cycles(conv) if hasattr(plain, "dense_cycles") else True


@pytest.mark.parametrize(("sample_barrier", "barriers"), [(False, 9), (True, 18)])
def test_each_tap_of_a_weight_gradient_drains_and_each_sample_that_ends_at_a_barrier(sample_barrier, barriers):
    """Two samples, nine taps, one block of channels and filters."""
    g, rng = Geometry(4, 6, 6, 3, (3, 3)), np.random.default_rng(0)
    tensors = (rng.integers(1, 3, shape) for shape in (g.activation_shape(2), g.gradient_shape(2)))
    conv = lower_tensors(g, "weight_grad", *tensors)[0]
    arrays = [with_keys("pe16x16", pipeline_drain_cycles=n, sample_barrier=sample_barrier).accelerator for n in (0, 5)]
    plain, drained = (array.run(conv).cycles for array in arrays)
    assert drained == plain + 5 * barriers == arrays[1].replay(conv)[1]


def test_empty_lines_at_the_start_of_a_set_by_hand():
    """Six lines of two lanes, lookahead 2. Three empty ones first: two are dropped, the third takes what the fourth
    has, and with the last two these are 3 cycles. Loaded first, the first line costs a cycle with nothing in sight,
    two are dropped, and three follow. Of fewer empty lines the first executes what comes, and nothing is lost.
    """
    keys = {"tiles": 1, "rows": 1, "columns": 1, "lanes": 2, "search_shape": "L", "lookahead_h": 2, "lookaside_d": 0}
    for empty, cycles in ((1, [5, 5]), (2, [4, 4]), (3, [3, 4])):
        rows = np.repeat(np.arange(6) >= empty, 2).reshape(1, 6, 2)
        tiles = [TensorDash(model="tensordash", **keys, free_skip_at_start=start) for start in (True, False)]
        assert [int(tile.executed(rows, np.ones((1, 6, 2), bool))[0, 0]) for tile in tiles] == cycles


@pytest.mark.parametrize(("ports", "cycles"), [(0, 2), (1, 6), (2, 3), (3, 2), (128, 2)])
def test_a_window_moves_on_by_as_many_lines_as_it_has_ports_by_hand(ports, cycles):
    """Six lines without work, three in sight: with all ports one of three takes a cycle, with two one of two."""
    rows = np.zeros((4, 6, 16), bool)
    tensordash, tactical = (with_keys(name, window_ports=ports).accelerator for name in ("tensordash", "bit-tactical"))
    assert tensordash.executed(rows, np.ones((1, 6, 16), bool)).tolist() == [[cycles]]
    assert tactical.executed(to_words(rows)[None], np.empty((0, 0, 0, 0), np.int64)).tolist() == [cycles]


def test_ports_of_one_run_are_not_those_of_the_next():
    """What is kept of a convolution for the next machine is of the same ports."""
    g = Geometry(96, 1, 1, 4, (1, 1))
    conv = lower_tensors(g, "fwd", np.ones((1, 96, 1, 1), bool), np.zeros((4, 96, 1, 1), bool))[0]
    tiles = [with_keys("bit-tactical", window_ports=ports).accelerator for ports in (0, 2, 1)]
    assert [tile.run(conv).cycles for tile in tiles] == [2, 3, 6]


@pytest.mark.parametrize("name", ["pe8x8", "scnn"])
def test_a_bank_takes_a_product_every_so_many_cycles_by_hand(name):
    """An activation and four weights: with one bank four products, one after another; with two banks two and two. In
    the weight gradient no two meet."""
    g = Geometry(1, 1, 1, 4, (1, 1))
    convs = [lower_tensors(g, "fwd", np.ones((1, 1, 1, 1), bool), np.ones((4, 1, 1, 1), bool))[0]]
    convs += lower_tensors(g, "weight_grad", np.ones((1, 1, 1, 1), bool), np.ones((1, 4, 1, 1), bool))
    for update in (1, 2, 3):
        for banks, each in ((1, 4), (2, 2), (4, 1)):
            pes = with_keys(name, banks=banks, update_cycles=update, reduction_width=0).accelerator
            assert [pes.run(conv).cycles for conv in convs] == [each * update, 1]
            assert pes.replay(convs[0])[1] == each * update


@pytest.mark.slow
def test_the_documentation_says_what_they_are_worth():
    """On ResNet-50 at 90 %, over its convolutions: per cent more cycles by pass."""
    with accelsim.open_trace("resnet50.npz") as trace:
        layers = [layer.name for layer in trace.snapshots[0].layers if layer.kind == "conv"]

        def cycles(machine):
            table = accelsim.simulate(machine, trace, snapshots="swat90", layers=layers, jobs=2)
            return table.groupby("pass")["cycles"].sum()

        def row(words, machines):
            without, key = map(cycles, machines)
            more = (f"{100 * (key[which] / without[which] - 1):.1f}" for which in PASSES)
            return f"| {words} | {' | '.join(more)} |"

        rows = [row(f"a drain cycle, `{n}`", [with_keys(n, pipeline_drain_cycles=d) for d in (0, 1)]) for n in MACHINES]
        starts = [with_keys("tensordash", free_skip_at_start=free) for free in (True, False)]
        rows.append(row("no free skips at the start, `tensordash`", starts))
    text = Path("docs/model.md").read_text(encoding="utf-8")
    assert all(row in text for row in rows), "\n".join(rows)
