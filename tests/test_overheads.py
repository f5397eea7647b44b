"""What sparse training costs besides multiplying: by hand, off unless asked for, and accounted for to the last slot."""

from pathlib import Path

import pandas as pd
import pytest
from machines import NEED_VALUES

import accelsim
from accelsim import ledger
from accelsim.hardware.machine import baseline_of, load_machine, load_section
from accelsim.hardware.overheads import FormatConversion, Overheads, RotateWeights, Tensors, TopK
from accelsim.study.layout import rendered
from accelsim.study.results import summarize
from accelsim.study.tables import summary

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = sorted(file.name for file in CONFIGS.glob("*.yaml") if file.stem not in NEED_VALUES)
SWAT = load_section(Overheads, "swat.yaml", "overheads")
OFF, ON = load_machine("pe16x16.yaml"), load_machine("pe16x16.yaml", overheads="swat.yaml")
ROTATE = Overheads(rotate_weights=RotateWeights(bytes_per_cycle=100))
SEARCH = Overheads(
    top_k=TopK(period=10, search_comparisons=13, threshold_comparisons=1, comparisons_per_cycle=4),
)


def tensors(which, selected=(), bits=16):
    """A layer with 1001 weights, 300 input and 70 output values."""
    return Tensors(which, weights=1001, activations=300, results=70, selected=selected, value_bits=bits)


@pytest.fixture(scope="module")
def trace(tiny):
    with accelsim.open_trace(tiny) as trace:
        yield trace


@pytest.fixture(scope="module")
def off(trace):
    return accelsim.simulate(OFF, trace)


@pytest.fixture(scope="module")
def on(trace):
    return accelsim.simulate(ON, trace)


def test_rotation_by_hand():
    """2002 bytes out of the weight memory and in again, 100 a cycle, before the input gradient only."""
    cost = ROTATE.cost(tensors("input_grad"))
    assert cost.cycles == {"rotate": 41}
    assert cost.actions == {"weight_memory_read_bytes": 2002, "weight_memory_write_bytes": 2002}
    assert ROTATE.cost(tensors("input_grad", bits=8)).cycles == {"rotate": 21}
    assert ROTATE.cost(tensors("fwd")).cycles == ROTATE.cost(tensors("weight_grad")).cycles == {}


def test_top_k_by_hand():
    """Each value meets the threshold in each iteration, and 13 others in every tenth: in the forward pass."""
    assert SEARCH.cost(tensors("fwd", ("weight",))).actions == {"comparisons": 1001 + 1302}  # 1301.3
    both = SEARCH.cost(tensors("fwd", ("weight", "activation")))
    assert both.actions == {"comparisons": 1001 + 1302 + 300 + 390}
    assert both.cycles == {"top_k": 749}  # 2993 / 4
    assert SEARCH.cost(tensors("fwd")).cycles == {"top_k": 0}
    assert SEARCH.cost(tensors("input_grad", ("weight",))).cycles == {}


@pytest.mark.parametrize(("period", "expected"), [(1, 13), (1000, 1), (1 << 30, 1)])
def test_a_longer_period_costs_less_but_never_nothing(period, expected):
    top_k = TopK(period=period, search_comparisons=13, threshold_comparisons=0, comparisons_per_cycle=1)
    assert top_k.comparisons(1) == expected


CONVERSIONS = [
    # Weights are encoded once chosen; the input is decoded, what Top-K keeps of it and the output are encoded.
    ("fwd", (), {"weight": True}, 1001),
    ("fwd", (), {"activation": True}, 300 + 70),
    ("fwd", ("activation",), {"activation": True}, 300 + 300 + 70),
    ("fwd", (), {"gradient": True}, 0),
    ("input_grad", (), {"weight": True}, 1001),
    ("input_grad", (), {"activation": True}, 0),
    ("input_grad", (), {"gradient": True}, 70 + 300),
    ("weight_grad", (), {"weight": True}, 0),
    ("weight_grad", (), {"activation": True}, 300),
    ("weight_grad", (), {"gradient": True}, 70),
]


@pytest.mark.parametrize(("which", "selected", "stored", "values"), CONVERSIONS)
def test_conversion_by_hand(which, selected, stored, values):
    flags = dict.fromkeys(("weight", "activation", "gradient"), False) | stored
    convert = Overheads(format_conversion=FormatConversion(values_per_cycle=7, **flags))
    assert convert.cost(tensors(which, selected)).cycles == {"format": -(-values // 7)}


@pytest.mark.parametrize("name", NAMES)
def test_shipped_machines_leave_them_out_as_the_paper_does(name):
    assert load_machine(CONFIGS / name).overheads is None


def test_an_empty_section_changes_nothing(trace, off):
    empty = OFF.model_copy(update={"overheads": Overheads()})
    pd.testing.assert_frame_equal(accelsim.simulate(empty, trace), off)


def test_switched_on_they_add_cycles_and_change_nothing_else(off, on):
    added = on["cycles"] - off["cycles"]
    waits = ledger.columns("slots", source="overheads")
    assert (on[waits].sum(axis=1) == added * on["multipliers"]).all() and (off[waits] == 0).all(axis=None)
    priced = ["cycles", *waits, *(column for column in off if column.endswith("_pj"))]
    rotated = ["weight_memory_read_bytes", "weight_memory_write_bytes", "comparisons"]
    pd.testing.assert_frame_equal(on.drop(columns=[*priced, *rotated]), off.drop(columns=[*priced, *rotated]))
    assert (on[rotated] >= off[rotated]).all(axis=None) and (on["energy_pj"] >= off["energy_pj"]).all()


@pytest.mark.parametrize("memory", ["none", "ddr4.yaml"])
@pytest.mark.parametrize("name", NAMES)
def test_slots_still_add_up(trace, name, memory):
    machine = load_machine(CONFIGS / name, memory=memory, overheads="swat.yaml")
    rows = accelsim.simulate([machine, baseline_of(machine).model_copy(update={"name": "dense"})], trace)
    slots = rows[ledger.columns("slots")].sum(axis=1)
    assert (slots == rows["cycles"] * rows["multipliers"]).all()
    bytes_moved = [column for column in rows if column.endswith("_bytes")]
    assert (rows[bytes_moved].sum().sum() > 0) == (memory != "none")


def test_each_is_charged_to_its_pass_and_once_a_batch(on):
    """The trace stores one sample of a batch of eight: an eighth of the work on weights."""
    rows = on.set_index(["snapshot", "layer", "pass"])
    rotate, top_k, convert = (
        rows[column] // rows["multipliers"] for column in ledger.columns("slots", source="overheads")
    )
    weights = -(-8 * 8 * 9 // 8)  # of block/conv2
    assert rotate["dense", "block/conv2", "input_grad"] == -(-2 * 2 * weights // 8192)
    assert top_k["swat80", "block/conv2", "fwd"] == -(-(weights * 1 + 1 + 200 + 3) // 256)
    assert convert["swat80", "block/conv2", "fwd"] == -(-(weights + 200 + 200 + 200) // 256)
    assert convert["swat80", "block/conv2", "weight_grad"] == 1
    assert rotate.xs("fwd", level="pass").sum() == rotate.xs("weight_grad", level="pass").sum() == 0
    assert top_k.xs("fwd", level="pass").sum() == top_k.sum() == top_k["swat80"].sum() > 0


def test_the_first_layer_s_input_gradient_still_costs_nothing(on):
    rows = on[(on["layer"] == "conv1") & (on["pass"] == "input_grad")]
    assert (rows["cycles"] == 0).all() and (rows["energy_pj"] == 0).all()


def test_a_layer_that_top_k_left_dense_is_not_searched(tmp_path, write_tiny):
    """Its weights have no zeros, and it saved no activation of its own: SWAT's first layer."""

    def dense(snapshot, layer, tensor, mask):
        if layer != "conv1":
            return mask, {}
        return None if tensor == "saved_activation" else (mask | (tensor == "weight"), {})

    with accelsim.open_trace(write_tiny(tmp_path / "t.npz", change=dense)) as trace:
        rows = accelsim.simulate(ON, trace, passes="fwd", snapshots="swat80").set_index("layer")
    assert rows.loc["conv1", "top_k_slots"] == 0 and (rows.drop("conv1")["top_k_slots"] > 0).all()


def test_the_dense_baseline_rotates_but_neither_selects_nor_converts():
    assert baseline_of(ON).overheads == Overheads(rotate_weights=SWAT.rotate_weights)
    assert baseline_of(OFF).overheads is None


def test_their_share_is_told(on, off):
    found = summarize(on, "pe16x16")
    rows = on[on["snapshot"] == "swat80"]
    assert found.overheads[1]["top_k"] == pytest.approx(rows["top_k_slots"].sum() / (rows["cycles"] * 4096).sum())
    text = rendered(summary(found, found, on, [{}, {}], explain=True))
    assert "Share of the cycles, all simulated passes, over convolutions" in text
    assert "top-k" in text and "all PEs wait for the Top-K search" in text
    without = summarize(off, "pe16x16")
    assert "Share of the cycles" not in rendered(summary(without, without, off, [{}, {}]))


def test_the_shipped_figures_are_the_paper_s():
    """Appendix A.4 and section 3.3.3; 13 is Table 9's 12.6 instructions a value, rounded up."""
    assert (SWAT.top_k.period, SWAT.top_k.search_comparisons) == (1000, 13)
    assert not SWAT.format_conversion.gradient
