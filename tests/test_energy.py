"""Does energy follow from counts and table by hand, add up, and leave the program in a form that others read?"""

import json
import re
from math import isclose, sqrt
from pathlib import Path

import pandas as pd
import pytest
import yaml
from machines import NEED_VALUES

import accelsim
from accelsim import ledger
from accelsim.errors import MachineError
from accelsim.hardware.accelerators.base import AcceleratorParameters, Summation
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.energy import EnergyTable
from accelsim.hardware.hierarchy import Memory
from accelsim.hardware.machine import baseline_of, load_machine, load_section, parse_machine
from accelsim.hardware.overheads import FormatConversion, Overheads, TopK
from accelsim.hardware.pricing import energy_pj
from accelsim.study.accelergy import action_counts
from accelsim.study.layout import rendered
from accelsim.study.results import COLUMNS, summarize
from accelsim.study.tables import summary

CONFIGS = Path(__file__).parents[1] / "configs"
NAMES = sorted(file.name for file in CONFIGS.glob("*.yaml") if file.stem not in NEED_VALUES)
MACHINE = load_machine("pe16x16.yaml")
PARTS = ledger.columns("energy")


@pytest.fixture(scope="module")
def trace(tiny):
    with accelsim.open_trace(tiny) as trace:
        yield trace


@pytest.fixture(scope="module")
def table(trace):
    return accelsim.simulate([MACHINE, baseline_of(MACHINE)], trace)


def priced(name="pe16x16.yaml", cycles=0, table=None, **actions):
    """Energy of these actions, without the components that are zero."""
    machine = load_machine(name)
    if table:
        machine = machine.model_copy(update={"energy": machine.energy.model_copy(update=table)})
    return {key: pj for key, pj in energy_pj(machine, actions, cycles).items() if pj}


# By hand, from the figures of configs/energy/45nm.yaml and the sizes in pe16x16.yaml and dadiannao.yaml.
BY_HAND = [
    ("pe16x16.yaml", {"multiplications": 100}, {"multipliers": 110}),
    # A bank holds 6144 / 32 partial sums of 4 bytes; read and written.
    (
        "pe16x16.yaml",
        {"accumulator_updates": 10},
        {"adders": 9, "accumulators": 10 * 2 * 5 * sqrt(768 / 32768)},
    ),
    # An adder tree adds up every product; its partial sums wait in registers, which cost what 512 bytes do.
    (
        "dadiannao.yaml",
        {"multiplications": 160, "accumulator_updates": 10},
        {"multipliers": 176, "adders": 144, "accumulators": 10 * 2 * 5 * sqrt(512 / 32768)},
    ),
    (
        "pe16x16.yaml",
        {"activation_buffer_read_bytes": 6, "activation_buffer_write_bytes": 2},
        {"activation_buffer": 2 * 5 * sqrt(10240 / 32768)},
    ),
    ("pe16x16.yaml", {"weight_buffer_read_bytes": 4}, {"weight_buffer": 5 * sqrt(10240 / 32768)}),
    ("dadiannao.yaml", {"weight_memory_read_bytes": 4096}, {"weight_memory": 1024 * 7.92}),
    ("pe16x16.yaml", {"activation_memory_write_bytes": 4}, {"activation_memory": 7.92}),
    ("pe16x16.yaml", {"offchip_read_bytes": 64, "offchip_write_bytes": 64}, {"offchip": 32 * 640}),
    ("pe16x16.yaml", {"comparisons": 10}, {"comparators": 9}),
]


@pytest.mark.parametrize(("name", "actions", "expected"), BY_HAND)
def test_energy_by_hand(name, actions, expected):
    energy = priced(name, **actions)
    assert energy.keys() == expected.keys()
    assert all(isclose(energy[key], pj) for key, pj in expected.items())


def test_a_machine_that_does_not_say_how_it_adds_up_cannot_be_made():
    """Rather than be priced by what its fields happen to be called."""

    class Mine(AcceleratorParameters):
        my_accumulators: int = 512
        multipliers: int = 4

    with pytest.raises(TypeError, match="summation"):
        Mine()


@pytest.mark.parametrize(
    ("additions", "partial_sums", "words"),
    [
        ("additions", 1, "summation.additions: must be one of"),
        ("multiplications", 0, "must be an integer from 1, got 0"),
    ],
)
def test_a_summation_that_cannot_be_is_refused(additions, partial_sums, words):
    with pytest.raises(MachineError, match=words):
        Summation(additions, partial_sums)


def test_what_a_machine_declares_is_what_it_is_charged_whatever_its_fields_are_called():
    class Mine(PEArray):
        lanes: int = 3  # no adder tree

        @property
        def summation(self):
            return Summation(additions="multiplications", partial_sums=8192)

    mine = MACHINE.model_copy(update={"accelerator": Mine(**MACHINE.accelerator.model_dump())})
    energy = energy_pj(mine, {"multiplications": 10, "accumulator_updates": 1}, 0)
    assert (energy["adders"], energy["accumulators"]) == (9, 2 * 5)  # 32 KiB


def test_without_actions_there_is_leakage_only():
    """4096 multipliers and 36 MiB for 606 cycles of 606 MHz, a microsecond."""
    leaks = {"leakage_mw_per_multiplier": 0.5, "leakage_mw_per_mib": 2.0}
    assert priced(cycles=606) == {}
    assert priced(cycles=606, table=leaks) == {"leakage": pytest.approx((4096 * 0.5 + 36 * 2.0) * 1000)}


def test_without_a_memory_what_moves_is_not_known_and_there_is_no_total(trace):
    rows = accelsim.simulate(load_machine("pe16x16.yaml", memory="none"), trace, layers="conv1")
    assert rows[ledger.columns("energy", needs_memory=True)].isna().all(axis=None) and rows["energy_pj"].isna().all()
    assert (
        rows[ledger.columns("energy", needs_memory=False)].notna().all(axis=None)
        and (rows["multipliers_pj"] >= 0).all()
    )
    found = summarize(rows, "pe16x16")
    nothing = [dict.fromkeys(COLUMNS)] * 2
    for name in ("energy_pj", "saving", "energy_delay_js"):
        assert [{c: row[c] for c in COLUMNS} for row in getattr(found.energy, name)] == nothing
    assert found.energy.compute_pj[1]["step"] > 0 and found.energy.components[0]["offchip"] is None
    text = rendered(summary(found, found, rows, [{}, {}]))
    assert "Energy of computing alone" in text and "no total" in text and "energy-delay" not in text


def test_without_a_table_there_is_no_energy(trace):
    rows = accelsim.simulate(load_machine("pe16x16.yaml", energy="none"), trace, layers="conv1")
    assert rows[[*PARTS, "energy_pj"]].isna().all(axis=None)
    found = summarize(rows, "pe16x16")
    assert found.energy is None
    assert "Energy" not in rendered(summary(found, found, rows, [{}, {}]))


def test_components_add_up_in_each_row_and_in_the_summary(table):
    assert table[PARTS].notna().all(axis=None)
    assert table[PARTS].sum(axis=1).to_numpy() == pytest.approx(table["energy_pj"].to_numpy())
    energy = summarize(table, "pe16x16", "dadiannao").energy
    for total, parts in zip(energy.energy_pj, energy.components, strict=True):
        assert sum(parts[name] for name in ledger.names("energy")) == pytest.approx(total["step"])
    own = table[(table["machine"] == "pe16x16") & (table["snapshot"] == "swat80")]
    assert energy.energy_pj[1]["step"] == pytest.approx(own["energy_pj"].sum())


def test_the_summary_s_ratios_and_energy_delay_product(table):
    found = summarize(table, "pe16x16", "dadiannao")
    dense, sparse = found.energy.energy_pj
    dadiannao = table[(table["machine"] == "dadiannao") & (table["snapshot"] == "swat80")]["energy_pj"].sum()
    assert found.energy.saving[1]["step"] == pytest.approx(dense["step"] / sparse["step"])
    assert found.energy.saving_over_baseline[1]["step"] == pytest.approx(dadiannao / sparse["step"])
    seconds = found.cycles[1]["step"] / 606e6
    assert found.energy.energy_delay_js[1]["step"] == pytest.approx(sparse["step"] * 1e-12 * seconds)
    json.dumps(found.energy.components, allow_nan=False)


def test_an_energy_is_told_per_sample(trace, write_tiny, tmp_path):
    """Two samples cost about twice one; told per sample, and the product of energy and delay too."""
    with accelsim.open_trace(write_tiny(tmp_path / "two.npz", samples=2)) as both:
        twice = summarize(accelsim.simulate(MACHINE, both, passes="fwd", layers="conv1"), "pe16x16")
    once = summarize(accelsim.simulate(MACHINE, trace, passes="fwd", layers="conv1"), "pe16x16")
    assert twice.energy.energy_pj[0]["fwd"] > 1.5 * once.energy.energy_pj[0]["fwd"]
    assert twice.energy.energy_delay_js[0]["fwd"] == pytest.approx(once.energy.energy_delay_js[0]["fwd"], rel=0.5)


@pytest.mark.parametrize("component", ["multipliers_pj", "adders_pj", "accumulators_pj"])
def test_more_sparsity_does_not_cost_a_zero_skipping_array_more(table, component):
    rows = table[table["machine"] == "pe16x16"].pivot(index=["layer", "pass"], columns="snapshot", values=component)
    assert (rows["swat80"] <= rows["dense"]).all() and (rows["swat80"] < rows["dense"]).any()


def test_a_dense_machine_s_multipliers_cost_the_same_at_any_sparsity(table):
    rows = table[table["machine"] == "dadiannao"].pivot(
        index=["layer", "pass"], columns="snapshot", values="multipliers_pj"
    )
    assert (rows["swat80"] == rows["dense"]).all()


def test_the_baseline_has_the_same_table_and_memory():
    assert baseline_of(MACHINE).energy == MACHINE.energy == load_section(EnergyTable, "45nm.yaml", "energy")


def test_the_28_nm_table_is_the_45_nm_table_scaled_as_it_says():
    published, scaled = (load_section(EnergyTable, f"{node}nm.yaml", "energy") for node in (45, 28))
    for key in ("multiply_pj", "add_pj", "sram_pj", "edram_pj"):
        assert getattr(scaled, key) == pytest.approx(getattr(published, key) * 28 / 45, rel=0.005), key
    assert scaled.offchip_pj == published.offchip_pj
    # 6.12 W at 606 MHz for 16 tiles of 512 bytes a cycle, in pJ of 4 bytes.
    assert scaled.edram_pj == pytest.approx(6.12 / (606e6 * 16 * 512) * 4 * 1e12, rel=0.005)


def test_the_root_of_the_capacity_meets_the_published_srams():
    """Horowitz: 10, 20 and 100 pJ for 64 bits from 8 KB, 32 KB and 1 MB; ratios, as EIE's figure is another circuit."""
    table = load_section(EnergyTable, "45nm.yaml", "energy")
    at = {kib: table.sram_pj_per_word(kib << 10) for kib in (8, 32, 1024)}
    assert at[32] == table.sram_pj
    assert at[32] / at[8] == pytest.approx(20 / 10) and at[1024] / at[32] == pytest.approx(100 / 20, rel=0.15)


def test_a_machine_s_sections_are_replaced_by_name():
    other = load_machine("pe16x16.yaml", memory="ddr4.yaml", energy="28nm.yaml")
    assert other.energy.node_nm == 28 and other.memory == load_section(Memory, "ddr4.yaml", "memory")
    assert accelsim.load_machine("pe16x16.yaml", energy="none").energy is None


# Accelergy ---------------------------------------------------------------------------------------------------------


def leaves(node, prefix=""):
    """Full name → leaf, as Accelergy's parser names them."""
    found = {f"{prefix}{leaf['name']}": leaf for leaf in node.get("local", [])}
    for branch in node.get("subtree", []):
        found |= leaves(branch, f"{prefix}{branch['name']}.")
    return found


def check_form(data):
    """What Accelergy 0.4 asks of its input: versions, trees of lists, a class, and counts of named actions."""
    assert list(data) == ["architecture", "action_counts"]
    assert all(part["version"] == 0.4 and len(part["subtree"]) == 1 for part in data.values())
    components, counts = leaves(data["architecture"]), leaves(data["action_counts"])
    assert components.keys() == counts.keys()
    for name, leaf in components.items():
        assert re.fullmatch(r"[\w-]+\.[\w-]+\.\w+", name)
        assert leaf["class"] in {"fpmultiplier", "fpadder", "intadder", "SRAM", "regfile", "DRAM"}
        assert all(isinstance(value, int) for value in leaf["attributes"].values())
    for leaf in counts.values():
        assert leaf["action_counts"]
        assert all(type(entry["counts"]) is int and entry["counts"] >= 0 for entry in leaf["action_counts"])
    return components, counts


@pytest.mark.parametrize("name", NAMES)
def test_the_export_has_accelergy_s_form_for_each_machine(trace, name):
    machine = load_machine(CONFIGS / name)
    rows = accelsim.simulate(machine, trace, layers="block/*")
    components, _ = check_form(action_counts(machine, rows))
    assert len({name.split(".")[1] for name in components}) == 6


def test_exported_counts_are_those_of_the_table(table):
    _, counts = check_form(action_counts(MACHINE, table))
    own = table[table["machine"] == "pe16x16"]
    for (snapshot, which), rows in own.groupby(["snapshot", "pass"]):
        branch = f"pe16x16.{snapshot}_{which}."
        of = {
            (name.removeprefix(branch), entry["name"]): entry["counts"]
            for name, leaf in counts.items()
            if name.startswith(branch)
            for entry in leaf["action_counts"]
        }
        assert of["multipliers", "mult_random"] == rows["multiplications"].sum()
        assert of["accumulators", "read"] == of["accumulators", "write"] == rows["accumulator_updates"].sum()
        for action in ledger.names("actions", unit="bytes"):
            component, direction = action.removesuffix("_bytes").rsplit("_", 1)
            assert 0 <= 4 * of.pop((component, direction)) - rows[action].sum() < 4
        assert {component for component, _ in of} == {"multipliers", "adders", "accumulators"}


def test_names_that_accelergy_would_read_otherwise_are_changed_and_stay_apart():
    rows = [["m", snapshot, "fwd", *range(len(ledger.names("actions")))] for snapshot in ("a.b", "a[b", "a_b")]
    rows = pd.DataFrame(rows, columns=["machine", "snapshot", "pass", *ledger.columns("actions")])
    machine = MACHINE.model_copy(update={"name": "m"})
    _, counts = check_form(action_counts(machine, rows))
    assert {name.split(".")[1] for name in counts} == {"a_b_fwd", "a_b_fwd_2", "a_b_fwd_3"}


def test_without_memory_the_export_has_no_memories(trace):
    machine = load_machine("dadiannao.yaml", memory="none", energy="none")
    data = action_counts(machine, accelsim.simulate(machine, trace, layers="fc"))
    components, _ = check_form(data)
    assert {name.split(".")[2] for name in components} == {"multipliers", "adders", "accumulators"}
    assert "technology" not in data["architecture"]["subtree"][0]["attributes"]


def test_the_file_written_is_the_export_without_aliases(trace, tmp_path):
    from accelsim.hardware.yaml_file import to_yaml

    machine = parse_machine(MACHINE.resolved())
    data = action_counts(machine, accelsim.simulate(machine, trace, layers="fc"))
    text = to_yaml(data)
    assert yaml.safe_load(text) == data and "&" not in text


def test_the_page_on_energy_names_every_key_component_and_action():
    page = (CONFIGS.parent / "docs" / "energy.md").read_text(encoding="utf-8")
    keys = [*EnergyTable.model_fields, *Overheads.model_fields, *TopK.model_fields, *FormatConversion.model_fields]
    assert [key for key in keys if f"`{key}`" not in page] == []
    assert [name for name in ledger.names("energy") if name.replace("_", " ") not in page] == []


def test_the_table_is_a_mapping_or_a_name():
    inline = load_section(EnergyTable, "45nm.yaml", "energy").model_dump() | {"multiply_pj": 4}
    machine = parse_machine(MACHINE.resolved() | {"energy": inline})
    assert energy_pj(machine, {"multiplications": 1}, 0)["multipliers"] == 4
