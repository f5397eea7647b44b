"""Is the trace of one run what its README says, and are the figures of docs/table6.md its?"""

import re
from math import prod
from pathlib import Path

import pytest

import accelsim
from accelsim.study.results import convolutions, summarize

NAME = "resnet50-one-run.npz"
PLACES = 1568


@pytest.fixture(scope="module")
def trace():
    with accelsim.open_trace(NAME) as trace:
        yield trace


def test_it_fits_the_wheel_and_has_three_sparsities(trace):
    assert Path(trace.path).stat().st_size <= 24_000_000
    assert [(s.name, s.sparsity, s.batch, s.step) for s in trace.snapshots] == [
        ("dense", 0.0, 32, 2), ("swat80", 0.8, 32, 119), ("swat90", 0.9, 32, 119),
    ]  # fmt: skip
    assert {len(s.layers) for s in trace.snapshots} == {54}


def test_each_layer_has_samples_enough_and_no_more(trace):
    """Places of the whole batch, or as many as 32 maps of 7 × 7 have; one sample less would have fewer."""
    stored = set()
    for layer in (layer for s in trace.snapshots for layer in s.layers):
        places = prod(layer.geometry.output)
        assert layer.samples == layer.batch or layer.samples * places >= PLACES
        assert layer.samples == 1 or (layer.samples - 1) * places < PLACES
        stored.add((layer.samples, places))
    assert stored == {(1, 12544), (1, 3136), (2, 784), (8, 196), (32, 49), (32, 1)}


def test_its_tensors_belong_together(trace):
    """Of one step: what is saved was there, weights have the Top-K that the snapshot says, the first layer is dense."""
    for s in trace.snapshots:
        for layer in (layer for layer in s.layers if layer.name in ("conv1", "layer3.1.conv2", "layer4.2.conv3")):
            weight, activation = layer.tensor("weight") != 0, layer.tensor("activation") != 0
            if layer.name == "conv1" or not s.sparsity:
                assert weight.mean() > 0.98
            else:
                assert weight.mean() == pytest.approx(1 - s.sparsity, abs=0.001)
            if "saved_activation" in layer.tensors:
                saved = layer.tensor("saved_activation") != 0
                assert not (saved & ~activation).any()
                if layer.name != "conv1":
                    assert saved.mean() == pytest.approx(1 - s.sparsity, abs=0.02)  # of the batch, a part of it here


@pytest.mark.slow
def test_the_figures_of_table_6_are_those_of_the_documentation(trace):
    """Six speedups, to two digits."""
    table = convolutions(accelsim.simulate(accelsim.load_machine("pe16x16.yaml"), trace))
    page = Path("docs/table6.md").read_text(encoding="utf-8")
    passes = ("fwd", "input_grad", "weight_grad")
    computed = table.assign(cycles=table["compute_cycles"])
    for counted, name in ((table, rf"`{NAME}`"), (computed, "the same with `--memory none`")):
        speedups = summarize(counted, "pe16x16").speedup[1:]
        row = re.search(rf"\| {name} \|(.*)\|", page)[1]
        assert [f"{row[which]:.2f}" for which in passes for row in speedups] == [
            cell.strip() for cell in row.split("|")
        ]
    paper = {"fwd": (3.3, 5.6), "input_grad": (3.4, 6.3)}
    ours = {which: [row[which] for row in speedups] for which in paper}  # of what is computed
    assert all(ours[which] == pytest.approx(list(paper[which]), rel=0.05) for which in paper)
