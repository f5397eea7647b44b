"""Does guidance name the loss that is there, and is what a change would take what the changed machine takes?"""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from machines import NEED_VALUES
from stranger import StrangerArray

from accelsim import TraceWriter, cli, ledger, load_machine, open_trace
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.ideal import Ideal
from accelsim.hardware.machine import Machine, machine_with
from accelsim.pipeline import simulate_records
from accelsim.study.guidance import guide, lines, report, sentence
from accelsim.study.guidance.changes import CHANGES, MOST, changes
from accelsim.study.results import frame
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, lower

CONFIGS = Path(__file__).parent.parent / "configs"
TRACES = CONFIGS.parent / "traces"
MASKS = [name for name in sorted(path.stem for path in CONFIGS.glob("*.yaml")) if name not in NEED_VALUES]


@pytest.fixture(scope="module")
def dense_layer(tmp_path_factory):
    """A function that writes a trace of one dense 1×1 convolution."""

    def write(channels, filters, places):
        path = tmp_path_factory.mktemp("dense") / "one.npz"
        geometry = Geometry(channels, *places, filters, (1, 1))
        with TraceWriter(path, network="one", dataset="none") as out:
            out.snapshot("dense", sparsity=0.0, step=0, algorithm="dense", batch=1, samples=1)
            out.layer("only", kind="conv", geometry=geometry, passes=["fwd"])
            out.tensor("weight", np.ones(geometry.weight_shape, bool))
            out.tensor("activation", np.ones(geometry.activation_shape(1), bool))
            out.tensor("gradient", np.ones(geometry.gradient_shape(1), bool))
        return path

    return write


def advised(path, machine, passes=PASSES, **how):
    with open_trace(path) as trace:
        table = frame(simulate_records(machine, trace, passes=passes))
        return guide(machine, trace, table, **how)


def test_a_small_map_on_many_pes_worked_by_hand(dense_layer):
    """49 of 256 PEs have an activation, meet 4 weights with it in a cycle a channel: 4 cycles of 4,096 slots.

    207 PEs × 16 × 4 are edge, 49 × 12 × 4 imbalance, 49 × 4 × 4 effectual. On 8×8 PEs it takes 4 cycles as well.
    """
    machine = load_machine("pe16x16.yaml", memory="none", energy="none")
    whole, layer = advised(dense_layer(4, 4, (7, 7)), machine).advice
    slots = 4 * 4096
    assert layer.shares == {"effectual": 784 / slots, "edge": 13248 / slots, "imbalance": 2352 / slots}
    assert (layer.cause, layer.idle) == ("edge", "a 7×7 map leaves 207 of 256 PEs idle")
    assert layer.best.settings == {"accelerator.pe_rows": 8, "accelerator.pe_columns": 8}
    assert (layer.best.cycles, layer.best.multipliers, layer.best.fewer_cycles, layer.best.fewer_slots) == (
        4,
        1024,
        1,
        4,
    )
    assert layer.best.cause_share == (64 - 49) / 64
    assert sentence(layer) == (
        "only, forward (100 % of its cycles): 81 % edge: a 7×7 map leaves 207 of 256 PEs idle; 8×8 PEs instead of "
        "16×16 would take 4.0× fewer cycles per multiplier (as many cycles on 1,024 multipliers instead of 4,096, "
        "edge then 23 %)."
    )
    assert sentence(whole).startswith("forward, all layers: 81 % edge: rows, columns, lanes, tiles or PEs that")


def test_few_filters_on_tiles_worked_by_hand(dense_layer):
    """3 filters on 2 × 4 rows: 4 windows of a line each, 5 of 8 rows idle; with one tile of two columns 2 cycles."""
    array = DaDianNao(model="dadiannao", tiles=2, rows=4, columns=1, lanes=4)
    _, layer = advised(dense_layer(4, 3, (2, 2)), Machine(name="small", accelerator=array)).advice
    assert layer.shares == {"effectual": 48 / 128, "edge": 80 / 128}
    assert layer.idle == "a layer of 3 filters leaves 5 of 8 rows of PEs idle"
    assert layer.best.settings == {"accelerator.tiles": 1, "accelerator.columns": 2}
    assert (layer.best.cycles, layer.best.multipliers, layer.best.cause_share) == (2, 32, 16 / 64)
    assert "tiles 1 instead of 2 and columns 2 instead of 1 would take 2.0× fewer cycles (edge then 25 %)." in sentence(
        layer
    )


def test_where_nothing_is_to_gain_it_says_so(dense_layer):
    path = dense_layer(4, 4, (2, 2))
    full = Machine(name="full", accelerator=Ideal.model_validate(IDEAL | {"multipliers": 16}))
    assert sentence(advised(path, full).advice[1]) == (
        "only, forward (100 % of its cycles): every slot does useful work."
    )
    odd = Machine(name="odd", accelerator=Ideal.model_validate(IDEAL | {"multipliers": 63}))  # 2 × 63 slots
    assert advised(path, odd).advice[1].best.settings == {"accelerator.multipliers": 31}  # 3 × 31
    even = Machine(name="even", accelerator=Ideal.model_validate(IDEAL | {"multipliers": 22}))  # 3 × 22, 6 × 11
    told = sentence(advised(path, even).advice[1])
    assert told.endswith("not even the one change that was tried gains 5 %.")


IDEAL = {
    "model": "ideal",
    "fwd_skips": "both",
    "input_grad_skips": "both",
    "weight_grad_skips": "both",
    "strided_input_grad": "phase",
}


@pytest.mark.parametrize("name", ["pe8x8", "tensordash", "cambricon-x"])
def test_what_a_change_would_take_is_what_the_changed_machine_takes(name, tiny):
    machine = load_machine(f"{name}.yaml")
    guidance = advised(tiny, machine, ("fwd", "weight_grad"), most=2)
    told = [advice for advice in guidance.advice if advice.layer and advice.best]
    assert told and guidance.snapshot == "swat80"
    for advice in told:
        changed = machine_with(machine, advice.best.settings)
        passes = [each for each in guidance.advice if each.which == advice.which]
        with open_trace(tiny) as trace:
            alone = [each.layer for each in passes if each.layer]
            layers = "*" if passes[0].tried_on > len(alone) else alone
            records = list(
                simulate_records([machine, changed.model_copy(update={"name": "changed"})], trace,
                                 passes=advice.which, layers=layers, snapshots="swat80")
            )  # fmt: skip
        was, now = (r for r in records if r.layer == advice.layer)
        assert (was.cycles, was.multipliers) == (advice.cycles, advice.multipliers)
        assert (now.cycles, now.multipliers) == (advice.best.cycles, advice.best.multipliers)
        assert advice.best.fewer_slots == pytest.approx(
            was.cycles * was.multipliers / (now.cycles * now.multipliers), rel=1e-12
        )
        assert now.slots.get(advice.cause, 0) / now.cycles / now.multipliers == pytest.approx(advice.best.cause_share)


@pytest.mark.parametrize("name", MASKS)
def test_every_machine_gets_advice_that_is_in_order(name, tiny):
    machine = load_machine(f"{name}.yaml")
    guidance = advised(tiny, machine, ("weight_grad",), most=1)
    assert [advice.layer is None for advice in guidance.advice] == [True, False]
    for advice in guidance.advice:
        assert sum(advice.shares.values()) == pytest.approx(1)
        lost = {cause: share for cause, share in advice.shares.items() if cause != "effectual"}
        assert not lost or advice.cause_share == max(lost.values()) == lost[advice.cause]
        for what in filter(None, (advice.best, advice.same_size)):
            assert max(what.fewer_cycles, what.fewer_slots) >= 1.05
        assert advice.same_size is None or advice.same_size.multipliers <= advice.multipliers
    data = json.loads(json.dumps(report(guidance)))
    text = [str(line) for line in lines(guidance)]
    assert [line.strip() for line in text[1:]] == [each["sentence"] for each in data["advice"]]


def test_a_pass_that_waits_for_memory_is_tried_whole(tiny):
    """At 10 MB/s a channel nothing but the bus counts: twice that halves the cycles, of all layers together."""
    slow = load_machine("tensordash.yaml", settings={"memory.offchip.megabytes_per_second": 10})
    guidance = advised(tiny, slow, ("fwd",), most=1)
    whole = guidance.advice[0]
    assert whole.cause.startswith("offchip_") and (whole.tried_on, whole.cycles_share) == (5, 1)
    twice = next(
        each for each in (whole.best, whole.same_size) if "memory.offchip.megabytes_per_second" in each.settings
    )
    assert twice.fewer_cycles == pytest.approx(2, rel=0.02) and twice.multipliers == whole.multipliers


def test_a_stranger_s_keys_are_tried_both_ways():
    array = StrangerArray(model="stranger_array:StrangerArray", lanes=6)
    machine = Machine(name="strange", accelerator=array)
    tried = changes(machine, {"effectual": 0.5, "edge": 0.5})
    assert [change.settings for change in tried][:2] == [{"accelerator.lanes": 3}, {"accelerator.lanes": 12}]
    assert [change.machine.accelerator.lanes for change in tried][:2] == [3, 12]


def test_every_cause_of_the_ledger_has_changes_and_every_change_a_machine():
    """One that no shipped machine takes would be a misspelling."""
    causes = {row.name for row in ledger.rows("slots")} - {"effectual"}
    assert CHANGES.keys() == causes
    machines = [
        load_machine(path, memory="ddr4.yaml", overheads="swat.yaml") for path in sorted(CONFIGS.glob("*.yaml"))
    ]
    known = {key for machine in machines for key in keys_of(machine.resolved())}
    for text in {text for texts in CHANGES.values() for text in texts}:
        for part in text.split(" "):
            found = re.fullmatch(r"([\w.]+)([÷×+=])(\w+)", part)
            assert found, part
            assert (found[1] if "." in found[1] else f"accelerator.{found[1]}") in known, part


def keys_of(section, path=""):
    for name, value in section.items():
        yield from keys_of(value, f"{path}{name}.") if isinstance(value, dict) else [f"{path}{name}"]


def test_the_first_change_against_each_loss_comes_before_the_second_against_any():
    machine = load_machine("pe16x16.yaml")
    tried = [str(change) for change in changes(machine, {"edge": 0.5, "exchange": 0.2, "bank_conflict": 0.01})]
    assert tried[0] == "8×8 PEs instead of 16×16" and tried[1].startswith("reduction_width 32 instead of 16")
    assert not any("banks" in change for change in tried) and len(tried) <= MOST


@pytest.mark.parametrize(
    "name", ["pe16x16", "dcnn", "dadiannao", "bit-tactical", "tensordash", "ampere", "scnn", "cnvlutin"]
)
def test_units_that_are_told_idle_are_at_most_the_edge(name, dense_layer):
    """Of a dense layer each told unit is idle in all its slots."""
    machine = load_machine(f"{name}.yaml", memory="none", energy="none")
    for channels, filters, places in ((4, 4, (7, 7)), (20, 3, (5, 6)), (3, 70, (1, 1))):
        with open_trace(dense_layer(channels, filters, places)) as trace:
            (conv,) = lower(trace.snapshots[0].layers[0], "fwd")
            activity = machine.accelerator.run(conv)
        idle = machine.accelerator.unused(conv)
        assert activity.slots["edge"] >= idle.share * activity.cycles * activity.multipliers * (1 - 1e-12)


def test_run_tells_it_with_explain_and_as_json(tiny, capsys):
    run = ["run", "--config", "pe8x8.yaml", "--trace", str(tiny), "--quiet"]
    assert cli.main([*run, "--explain", "1", "--json"]) == 0
    data = json.loads(capsys.readouterr().out)["guidance"]
    assert (data["machine"], data["snapshot"], data["layers"]) == ("pe8x8", "swat80", 1)
    assert [advice["which"] for advice in data["advice"]] == ["fwd", "fwd", *["weight_grad"] * 2, *["input_grad"] * 2]
    assert cli.main([*run, "--explain", "1"]) == 0
    out = capsys.readouterr().out
    assert all(f"  {advice['sentence']}\n" in out for advice in data["advice"])
    assert cli.main([*run, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["guidance"] is None
    for wrong in ("0", "none"):
        with pytest.raises(SystemExit) as ended:
            cli.main([*run, "--explain", wrong])
        assert ended.value.code == 2 and "--explain: must be an integer from 1" in capsys.readouterr().err


def test_the_page_shows_what_is_said():
    page = (Path(__file__).parent.parent / "docs" / "guidance.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```text\n(.*?)\n```", page, re.S)
    layer, _, said = shown.partition(", weight gradient (17 % of its cycles): ")
    machine = load_machine("pe16x16.yaml")
    with open_trace(TRACES / "resnet50.npz") as trace:
        how = {"passes": "weight_grad", "layers": layer, "snapshots": "swat90"}
        table = frame(simulate_records(machine, trace, **how))
        _, advice = guide(machine, trace, table).advice
    assert sentence(advice).endswith(f": {said}")
