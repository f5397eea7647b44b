"""Does ``accelsim compare`` compare fairly, and is what it says that each machine skips what the machine skips?"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from machines import MODELS, NEED_VALUES
from strategies import layers
from test_cli import fail, here, listing, one_object, succeed  # noqa: F401 - here is a fixture

import accelsim
from accelsim import cli, ledger
from accelsim.errors import AccelsimError, ConfigError, MachineError
from accelsim.hardware.accelerators.base import SKIPS
from accelsim.hardware.hierarchy import Memory
from accelsim.hardware.machine import load_machine, load_section
from accelsim.pipeline import simulate_records
from accelsim.study.compare import compare, shown, time_code, traffic_code
from accelsim.study.layout import rendered
from accelsim.study.results import convolutions
from accelsim.workload.filled import filled
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, READS, lower
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.trace import Layer

NAMES = sorted(file.stem for file in (Path(__file__).parents[1] / "configs").glob("*.yaml"))
MACHINES = [load_machine(f"{name}.yaml") for name in NAMES]
MEMORIES = {
    "as shipped": lambda machine: machine,
    "slow": lambda machine: machine.model_copy(update={"memory": load_section(Memory, "ddr4.yaml", "memory")}),
    "none": lambda machine: machine.model_copy(update={"memory": None}),
}


@pytest.fixture(scope="module")
def trace(tiny):
    with accelsim.open_trace(tiny) as trace:
        yield trace


@pytest.fixture(scope="module")
def values(write_tiny, tmp_path_factory):
    """The tiny trace with numbers, which every machine can run."""
    rng = np.random.default_rng(5)
    change = lambda snapshot, layer, tensor, mask: ((mask * rng.normal(size=mask.shape)).astype("float16"), {})  # noqa: E731
    with accelsim.open_trace(write_tiny(tmp_path_factory.mktemp("values") / "values.npz", change=change)) as trace:
        yield trace


@pytest.fixture(scope="module")
def comparison(trace):
    return compare(MACHINES, trace)


# What a machine skips -----------------------------------------------------------------------------------------------


def cycles(machine, layer, which):
    return sum(machine.run(conv).cycles for conv in lower(layer, which, strided=machine.strided_input_grad))


def thinned(layer, tensor, keep):
    """The layer in numbers, with a share of the non-zeros of one tensor left."""
    tensors = {"saved_activation": layer.tensors["activation"], **layer.tensors}
    tensors = {name: values * 3.0 for name, values in tensors.items()}
    tensors[tensor] = tensors[tensor] * (np.random.default_rng(1).random(tensors[tensor].shape) < keep)
    return replace(layer, tensors=tensors)


@pytest.mark.parametrize("which", PASSES)
@given(machine=st.one_of(*MODELS.values()), layer=layers(), keep=st.sampled_from([0.0, 0.3]))
@settings(max_examples=80, deadline=None)
def test_zeros_that_a_machine_does_not_skip_change_no_cycle(which, machine, layer, keep):
    """Of any machine and any layer: the declaration leaves nothing out."""
    skips = machine.skips(which)
    assert set(skips) <= set(READS[which]) and set(skips.values()) <= set(SKIPS)
    layer = thinned(layer, "weight", 1.0)
    for tensor in set(layer.tensors) - set(skips):
        assert cycles(machine, thinned(layer, tensor, keep), which) == cycles(machine, layer, which), tensor


SMALL = {"tiles": 1, "rows": 2, "columns": 2, "pe_rows": 2, "pe_columns": 2, "pes": 2, "multipliers": 16, "brick": 4}


@pytest.mark.parametrize("which", PASSES)
@pytest.mark.parametrize(
    "machine", [m for m in MACHINES if m.name not in ("dadiannao", "dcnn")], ids=lambda machine: machine.name
)
def test_zeros_that_a_machine_skips_save_cycles(machine, which):
    """Of each shipped machine, made small: the declaration promises nothing."""
    fields = type(machine.accelerator).model_fields
    small = machine.accelerator.model_copy(update={key: size for key, size in SMALL.items() if key in fields})
    g, rng = Geometry(16, 6, 6, 16, (3, 3), padding=(1, 1, 1, 1)), np.random.default_rng(0)
    bare = Layer("l", "conv", g, 1, 1, PASSES, {})
    names = ("weight", "activation", "saved_activation", "gradient")
    tensors = {name: (rng.random(bare.shape_of(name)) < 0.6) * rng.normal(size=bare.shape_of(name)) for name in names}
    layer = replace(bare, tensors=tensors)
    skips = small.skips(which)
    assert skips
    # The widest of a layer's numbers is as wide as its fixed point, but where all are zero.
    keep = 0.0 if getattr(small, "precision", "full") == "layer" else 0.02
    for tensor in skips:
        assert cycles(small, thinned(layer, tensor, keep), which) < cycles(small, layer, which), tensor


def test_what_is_skipped_in_bytes_is_what_is_stored_compressed(trace):
    """A tensor moves fewer bytes off chip for its zeros exactly if its format is not dense."""
    slow = MEMORIES["slow"](load_machine("dadiannao.yaml"))
    assert traffic_code(compare([slow], trace).contenders[0]) == "AW"
    for tensor in ("activation", "weight", "gradient"):
        formats = slow.memory.formats.model_copy(update={"activation": "dense", "weight": "dense", tensor: "zvc"})
        machine = slow.model_copy(update={"memory": slow.memory.model_copy(update={"formats": formats})})
        own = compare([machine], trace, passes=["fwd", "input_grad"])
        rows = own.rows.set_index("snapshot")["offchip_bytes"]
        assert traffic_code(own.contenders[0]) == tensor[0].upper()
        if tensor == "weight":  # the tensor that is dense in one snapshot and a fifth in the other
            assert rows["swat80"] < rows["dense"]


# What is compared ---------------------------------------------------------------------------------------------------


def without_zeros(trace):
    """Every layer of a trace with each mask full: made here, tensor by tensor."""
    full = lambda layer: {n: np.ones(layer.tensor(n).shape, bool) for n in ("weight", "activation", "gradient")}  # noqa: E731
    snapshots = [replace(s, layers=[replace(la, tensors=full(la)) for la in s.layers]) for s in trace.snapshots]
    return SyntheticTrace(trace.path, trace.network, trace.dataset, tuple(snapshots))


@pytest.mark.parametrize("name", ["pe8x8", "bit-tactical", "ideal", "dadiannao"])
def test_a_speedup_is_what_sparsity_buys_times_what_shape_costs(comparison, trace, name):
    """Cycles counted one by one: of the machine, of the same layers without a zero, of multipliers always busy."""
    machine = load_machine(f"{name}.yaml")
    counted, full = (convolutions(accelsim.simulate(machine, t)) for t in (trace, without_zeros(trace)))
    rows = comparison.rows[comparison.rows["machine"] == name]
    assert list(rows["snapshot"]) == ["dense", "swat80"]
    for row in rows.to_dict("records"):
        own, dense = (table[table["snapshot"] == row["snapshot"]] for table in (counted, full))
        assert row["multipliers"] == row["baseline_multipliers"] == machine.accelerator.multipliers
        assert row["cycles"] == own["cycles"].sum()
        for column, passes in {**{w: [w] for w in PASSES}, "backward": PASSES[1:], "step": PASSES}.items():
            ours, selfs = (t[t["pass"].isin(passes)] for t in (own, dense))
            busy = ours["dense_multiplications"].sum() / machine.accelerator.multipliers
            assert row[f"{column}_gain"] == pytest.approx(selfs["cycles"].sum() / ours["cycles"].sum())
            assert row[f"{column}_shape"] == pytest.approx(busy / selfs["cycles"].sum())
            assert row[f"{column}_speedup"] == pytest.approx(row[f"{column}_gain"] * row[f"{column}_shape"])
            assert row[f"{column}_shape"] <= 1 or name == "ideal"  # which does not multiply padding


def test_shape_alone_is_no_gain(comparison):
    """What no zero can speed up gains nothing, however its sizes fit."""
    rows = comparison.rows.set_index(["machine", "snapshot"])
    for at in (("dadiannao", "dense"), ("dadiannao", "swat80"), ("ampere", "dense")):
        assert rows.loc[at, "step_gain"] == 1 and rows.loc[at, "step_shape"] < 1


def test_the_least_time_per_multiplier_comes_first(comparison):
    for _, rows in comparison.rows.groupby("snapshot"):
        assert rows["step_speedup"].is_monotonic_decreasing
        times = rows["cycles"] * rows["baseline_multipliers"]
        assert times.is_monotonic_increasing


def test_one_pass_and_one_snapshot_may_be_named_alone(trace):
    own = compare(MACHINES[:2], trace, passes="fwd", snapshots="swat80", layers="fc")
    pd.testing.assert_frame_equal(
        own.rows, compare(MACHINES[:2], trace, passes=["fwd"], snapshots=["swat80"], layers=["fc"]).rows
    )


def test_a_machine_whose_dense_self_cannot_run_runs_all_the_same(here, monkeypatch, capsys):  # noqa: F811
    """Tensors that are stored compressed fit where full ones do not: `run` says so, and gives all the rest."""
    dense = type(load_machine("dadiannao.yaml").accelerator)
    run = dense.run

    def small(self, conv):
        if conv.input.all() and conv.kernel.all():
            raise MachineError("too large")
        return run(self, conv)

    monkeypatch.setattr(dense, "run", small)
    monkeypatch.chdir(here)
    how = ["--trace", "tiny.npz", "--snapshots", "swat80", "--layers", "block/conv2", "--baseline", "pe8x8.yaml"]
    assert cli.main(["run", "--config", "dadiannao.yaml", *how]) == 0
    out = capsys.readouterr().out
    assert "no gain and shape of dadiannao: without zeros it cannot run the trace (dadiannao: " in out
    assert "speedup over pe8x8" in out and "gain over its dense self" not in out


def test_layers_without_a_zero_are_simulated_once_for_equal_snapshots(trace, write_tiny, tmp_path):
    full, names = filled(trace)
    assert names == {"dense": "dense", "swat80": "dense"} and [s.name for s in full.snapshots] == ["dense"]
    other = write_tiny(tmp_path / "other.npz", samples={"dense": 1, "swat80": 2})
    with accelsim.open_trace(other) as opened:
        full, names = filled(opened)
        assert names == {"dense": "dense", "swat80": "swat80"}
        assert filled(opened, ["swat80"])[1] == {"swat80": "swat80"}
        layer = full.snapshots[1].layers[1]
        assert "saved_activation" not in layer.tensors and layer.tensor("saved_activation").all()


def test_values_without_a_zero_have_the_most_bits(values):
    """A bit-serial machine's dense self is no faster than the machine on any values."""
    rows = compare([load_machine(f"{name}.yaml") for name in NEED_VALUES], values).rows
    assert (rows["step_gain"] >= 1).all() and (rows["step_shape"] <= 1).all()


def test_a_bit_serial_machine_is_compared_with_what_it_is_worth(values):
    rows = compare(MACHINES, values, layers="block/conv2").rows.set_index("machine")
    assert {*rows.index} == {*NAMES}
    assert {*rows.loc["tclp", "multipliers"]} == {65_536} and {*rows.loc["tclp", "baseline_multipliers"]} == {4096}


def test_machines_that_cannot_run_are_listed_with_their_reason(comparison):
    assert [c.machine for c in comparison.contenders] == [name for name in NAMES if name not in NEED_VALUES]
    assert list(comparison.refused) == list(NEED_VALUES)
    assert "tcle needs values of the activation" in comparison.refused["tcle"]
    text = rendered(shown(comparison, notes=False))
    assert "tclp is left out: it cannot run the trace (dense/conv1: fwd: accelerator.model: tclp" in text


@pytest.mark.parametrize("memory", MEMORIES)
def test_a_machine_that_fails_late_leaves_the_others_as_they_are(trace, memory):
    """It fails at the largest map, after small ones: nothing of it stays, with a memory to replay or without."""
    accelerator = load_machine("pe8x8.yaml").accelerator
    small = accelerator.model_copy(update={"pe_rows": 1, "pe_columns": 1, "accumulators": 9})
    late = load_machine("pe8x8.yaml").model_copy(update={"name": "late", "accelerator": small})
    others = [load_machine(f"{name}.yaml") for name in ("dadiannao", "tensordash")]
    late, *others = map(MEMORIES[memory], (late, *others))
    order = ["block/down", "depthwise", "fc", "block/conv2"]
    chosen = {"layers": order, "jobs": 2}
    with pytest.raises(AccelsimError, match="late: dense/block/conv2: fwd"):
        compare([late], trace, **chosen)
    with pytest.raises(MachineError, match="late: dense/block/conv2: fwd"):
        list(simulate_records([others[0], late], trace, **chosen))
    together, alone = compare([others[0], late, others[1]], trace, **chosen), compare(others, trace, **chosen)
    assert list(together.refused) == ["late"]
    pd.testing.assert_frame_equal(together.rows, alone.rows)


def test_machines_of_one_name_are_refused(trace):
    with pytest.raises(ConfigError, match=r"^machines: names must differ, got dadiannao twice$"):
        compare([MACHINES[NAMES.index("dadiannao")]] * 2, trace)
    with pytest.raises(AccelsimError, match=r"^machines: must name at least one$"):
        compare([], trace)


def test_tensors_are_read_once_for_all_machines(trace, monkeypatch):
    reads, read = [], Layer.tensor
    monkeypatch.setattr(Layer, "tensor", lambda layer, name: reads.append((layer.name, name)) or read(layer, name))
    list(simulate_records(MACHINES[:3], trace, passes=["fwd"], layers="fc", snapshots=["dense"]))
    assert {reads.count(each) for each in reads} <= {1, 2}  # from the file, then from memory for the one lowering


# Laws of all machines -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory", MEMORIES)
def test_all_machines_obey_the_same_laws(values, memory):
    """Slots add up, no machine beats the ideal of as many multipliers, and threads change nothing."""
    machines = list(map(MEMORIES[memory], MACHINES))
    table = accelsim.simulate(machines, values)
    slots = table[ledger.columns("slots")].sum(axis=1)
    assert (slots == table["cycles"] * table["multipliers"]).all()
    assert (table["compute_cycles"] <= table["cycles"]).all()
    pd.testing.assert_frame_equal(accelsim.simulate(machines, values, jobs=3), table)
    shape = load_machine("ideal.yaml")
    for machine in machines:
        size = {
            "multipliers": machine.accelerator.multipliers,
            "strided_input_grad": machine.accelerator.strided_input_grad,
        }
        bound = shape.model_copy(update={"memory": None, "accelerator": shape.accelerator.model_copy(update=size)})
        least = accelsim.simulate(bound, values)["cycles"]
        own = table.loc[table["machine"] == machine.name, "compute_cycles"]
        assert (least.to_numpy() <= own.to_numpy()).all(), machine.name


def test_what_machines_share_changes_no_record(values):
    """All shipped machines, and variants of one key each, together and one by one."""
    one = load_machine("bit-tactical.yaml")
    keys = [{"tiles": 2}, {"rows": 3}, {"lanes": 5}, {"search_shape": "L"}, {"strided_input_grad": "dilate"},
            {"weight_grad_rows": "gradient"}, {"space_to_depth": False}]  # fmt: skip
    variants = [
        one.model_copy(update={"name": str(key), "accelerator": one.accelerator.model_copy(update=key)}) for key in keys
    ]
    machines = [*MACHINES, *variants, one.model_copy(update={"name": "fast", "clock_mhz": 2000})]
    together = list(simulate_records(machines, values))
    alone = {machine.name: list(simulate_records(machine, values)) for machine in machines}
    for machine in machines:
        assert [record for record in together if record.machine == machine.name] == alone[machine.name]


def test_equal_accelerators_run_once(trace, monkeypatch):
    dense = load_machine("dadiannao.yaml")
    ran, run = [], type(dense.accelerator).run
    monkeypatch.setattr(type(dense.accelerator), "run", lambda self, conv: ran.append(self) or run(self, conv))
    other = dense.model_copy(update={"name": "other", "clock_mhz": 100})
    list(simulate_records([dense, other], trace, passes="fwd", snapshots="dense"))
    assert len(ran) == 5


# The command --------------------------------------------------------------------------------------------------------

COMMAND = ["compare", "--trace", "tiny.npz", "--machines", "dadiannao.yaml,ampere.yaml,tclp.yaml"]


def test_the_command_prints_a_table_per_snapshot(here):  # noqa: F811
    out = succeed(here, *COMMAND)
    assert out == succeed(here, *COMMAND, "--jobs", "3")
    assert re.findall(r"Top-K (\d+) % \((\w+)\)", out) == [("0", "dense"), ("80", "swat80")]
    assert re.findall(r"^  (ampere|dadiannao|tclp) .* (–|W\* W\* A\*) +–$", out, re.M)
    assert "tclp is left out" in out and "W*:" in out and "A|W" not in out
    assert max(len(line) for line in out.splitlines() if "is left out" not in line) <= 120
    assert "off-chip" in out and "\x1b" not in out
    quiet = succeed(here, *COMMAND, "--quiet", "--passes", "fwd", "--snapshots", "swat80", "--layers", "fc")
    assert "gradient" not in quiet and "over linear layers" in quiet and "per sample" not in quiet


def test_json_and_files_agree(here):  # noqa: F811
    data = one_object(succeed(here, *COMMAND, "--json", "--out", "results", "--plot", "results/speedups.svg"))
    files = ["compare.json", "machines.csv", "machines.parquet", "manifest.sha256", "speedups.svg", "summary.txt"]
    assert sorted(listing(here / "results")) == files
    assert json.loads((here / "results" / "compare.json").read_text()) == data
    table = pd.read_csv(here / "results" / "machines.csv")
    stored = pd.read_parquet(here / "results" / "machines.parquet")
    assert list(table) == list(stored) and len(table) == len(stored) == len(data["rows"]) == 4
    assert json.loads(stored.attrs["provenance"]) == data["provenance"]
    told = [row["step_speedup"] for row in data["rows"]]
    assert told == list(stored["step_speedup"]) == pytest.approx(list(table["step_speedup"]), rel=1e-14)
    assert list(data["refused"]) == ["tclp"]
    assert [m["name"] for m in data["provenance"]["machines"]] == ["dadiannao", "ampere", "tclp"]
    assert (here / "results" / "summary.txt").read_text() == succeed(here, *COMMAND)
    assert (
        b"ampere" in (here / "results" / "speedups.svg").read_bytes()
        or b"<svg" in (here / "results" / "speedups.svg").read_bytes()
    )


def test_a_picture_is_one_whatever_its_name_says(here):  # noqa: F811
    before = listing(here)
    assert fail(here, *COMMAND, "--plot", "speedups.pdf").startswith("argument --plot: must end in .png or .svg")
    assert fail(here, *COMMAND[:-1], "tclp.yaml", "--plot", "x.png").startswith("tclp: dense/conv1: fwd")
    assert fail(here, *COMMAND[:-1], "dadiannao.yaml,./nothing.yaml") == "./nothing.yaml: no such file"
    assert listing(here) == before
    succeed(here, *COMMAND, "--plot", "speedups.png", "--passes", "fwd")
    assert (here / "speedups.png").read_bytes().startswith(b"\x89PNG")


def test_codes_say_how_zeros_are_skipped(comparison, values):
    codes = {contender.machine: time_code(contender) for contender in comparison.contenders}
    assert codes == {
        "ampere": "W* W* A*", "bit-tactical": "W W A", "bit-tactical-l8": "W W A", "cambricon-x": "W W A",
        "cambricon-x-4096": "W W A", "cnvlutin": "A G A", "dadiannao": "–", "ideal": "AW GW AG",
        "ideal-one-sided": "W W A", "dcnn": "–", "dstc": "AW GW AG", "scnn": "AW GW AG", "sigma": "W W A",
        "pe16x16": "AW GW AG", "pe8x8": "AW GW AG", "tensordash": "A|W G|W A|G",
    }  # fmt: skip
    serial = compare([load_machine("tclp.yaml")], values, layers="fc").contenders[0]
    assert time_code(serial) == "WA° WG° AG°"
