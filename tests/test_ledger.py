"""Is a count one row of the ledger: does it come everywhere by itself, and is a row that lacks a piece refused?"""

import ast
import json
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

import accelsim
from accelsim import ledger
from accelsim.errors import AccelsimError
from accelsim.hardware.pricing import RATES_PJ
from accelsim.ledger import Count, Price
from accelsim.study.results import fold, frame, total
from accelsim.sweeps.study import code_digest

PACKAGE = Path(accelsim.__file__).parent
# A cause and an action that nobody has, and an accelerator that counts them. Workers of a sweep import it too.
SCRIPT = """
import sys
from dataclasses import replace
from accelsim import cli, ledger
from accelsim.hardware.accelerators.dadiannao import DaDianNao

if "cause" in sys.argv[1]:
    ledger.add(ledger.Count(name="napping", meaning="PEs that sleep", group="slots", unit="slots",
                            source="accelerator", place="multipliers", words="fast asleep"))
if "action" in sys.argv[1]:
    ledger.add(ledger.Count(name="snores", meaning="of PEs", group="actions", unit="actions", source="accelerator",
                            place="chip", prices=(ledger.Price("comparators", "add", ("add",)),)))
run = DaDianNao.run

def sleepily(self, conv):
    done = run(self, conv)
    slots = {**done.slots, "ineffectual": 0, "napping": done.slots["ineffectual"]}
    return replace(done, slots=slots, accesses={**done.accesses, "snores": 7})

DaDianNao.run = sleepily
if __name__ == "__main__":
    sys.exit(max(cli.main(command.split()) for command in sys.argv[2:]))
"""


def script(folder, pieces, *commands):
    """The commands, in a process whose ledger has more rows."""
    (folder / "more.py").write_text(SCRIPT, encoding="utf-8")
    call = [sys.executable, "more.py", pieces, *commands]
    return subprocess.run(call, cwd=folder, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def more(tiny, tmp_path_factory):
    """What a run and a sweep left with a cause and an action more."""
    folder = tmp_path_factory.mktemp("more")
    (folder / "tiny.npz").write_bytes(tiny.read_bytes())
    study = {"trace": "tiny.npz", "machine": "dadiannao.yaml", "passes": ["fwd"], "snapshots": ["swat80"]}
    (folder / "study.yaml").write_text(yaml.safe_dump(study), encoding="utf-8")
    one = "--config dadiannao.yaml --trace tiny.npz --passes fwd --snapshots swat80 --baseline none --explain"
    sweep = "sweep study.yaml --out swept --jobs 1 --quiet"
    done = script(folder, "cause action", f"run {one} --out out --plots pictures", sweep)
    assert done.returncode == 0, done.stderr
    assert "fast asleep: PEs that sleep" in done.stdout
    return folder


def test_a_new_count_is_in_every_file_of_a_run(more):
    rows = pd.read_parquet(more / "out" / "layers.parquet")
    assert (rows["snores"] == 7).all() and (rows["ineffectual_slots"] == 0).all() and rows["napping_slots"].sum() > 0
    table = pd.read_csv(more / "out" / "layers.csv")
    assert (table["snores"] == 7).all() and table["napping_slots"].equals(rows["napping_slots"])
    data = json.loads((more / "out" / "run.json").read_text(encoding="utf-8"))
    assert data["slots"][0]["napping_slots"] == rows["napping_slots"].sum()
    assert data["actions"][0]["snores"] == 7 * len(rows)
    told = {row["column"]: row for row in data["counts"]}
    assert told["napping_slots"]["words"] == "fast asleep" and told["snores"]["meaning"] == "of PEs"


def test_a_new_action_is_priced_and_exported(more):
    rows = pd.read_parquet(more / "out" / "layers.parquet")
    assert rows["comparators_pj"].to_numpy() == pytest.approx(7 * 0.9) and rows["energy_pj"].notna().all()
    text = (more / "out" / "action_counts.yaml").read_text(encoding="utf-8")
    (branch,) = yaml.safe_load(text)["action_counts"]["subtree"][0]["subtree"]
    counts = {part["name"]: part["action_counts"] for part in branch["local"]}
    assert counts["comparators"] == [{"name": "add", "counts": 7 * len(rows)}]


def test_a_new_cause_is_in_a_picture_s_legend(more):
    picture = (more / "pictures" / "cycles-swat80.svg").read_text(encoding="utf-8")
    assert "<!-- fast asleep -->" in picture and "<!-- ineffectual -->" not in picture


def test_a_new_count_is_in_a_sweep_s_table(more):
    rows = pd.read_parquet(more / "out" / "layers.parquet")
    for table in (pd.read_parquet(more / "swept" / "table.parquet"), pd.read_csv(more / "swept" / "table.csv")):
        assert table["error"].isna().all()
        assert table["snores"].tolist() == [7 * len(rows)]
        assert table["napping_slots"].tolist() == [rows["napping_slots"].sum()]
        assert table["energy_pj"].to_numpy() == pytest.approx([rows["energy_pj"].sum()])


@pytest.mark.parametrize(("pieces", "missing"), [("cause", "snores"), ("action", "napping")])
def test_what_is_counted_under_no_row_is_refused_by_name(tiny, tmp_path, pieces, missing):
    """Never left out in silence."""
    (tmp_path / "tiny.npz").write_bytes(tiny.read_bytes())
    done = script(tmp_path, pieces, "run --config dadiannao.yaml --trace tiny.npz --baseline none --quiet")
    assert done.returncode == 2 and done.stdout == ""
    assert f"counts {missing}, which is not in the ledger" in done.stderr


ROW = {
    "name": "naps", "meaning": "of PEs", "group": "actions", "unit": "bytes", "source": "movement", "place": "offchip",
    "way": "read", "prices": (Price("offchip", "offchip", ("read",)),),
}  # fmt: skip


@pytest.mark.parametrize("piece", ["name", "meaning", "group", "unit", "source", "place"])
def test_a_row_that_lacks_a_piece_cannot_be_made(piece):
    Count(**ROW)
    with pytest.raises(TypeError, match=piece):
        Count(**{key: value for key, value in ROW.items() if key != piece})


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"name": "two words"}, "name: must be a word"),
        ({"meaning": " "}, "meaning: must say"),
        ({"group": "other"}, "group: must be one of"),
        ({"unit": "pJ"}, "unit: must be a unit of actions"),
        ({"place": "moon"}, "place: must be one of"),
        ({"way": ""}, "way: must say which"),
        ({"adds_up": "maybe"}, "adds_up: must be sum or most"),
        ({"prices": (Price("offchip", "gold", ()),)}, "rate: must be one of"),
        ({"prices": (Price("moon", "add", ()),)}, "component: must be one of"),
        ({"name": "offchip_read_bytes"}, "must not be there yet"),
    ],
)
def test_a_row_that_cannot_be_is_refused(change, words):
    before = ledger.rows()
    with pytest.raises(AccelsimError, match=words):
        ledger.add(Count(**ROW | change))
    assert ledger.rows() == before


def test_every_rate_has_its_picojoules_and_every_component_a_price():
    assert RATES_PJ.keys() == ledger.RATES.keys()
    assert [row.name for row in ledger.rows("energy") if not ledger.priced(row)] == []


# One fold ----------------------------------------------------------------------------------------------------------

RECORD = ledger.Record(
    snapshot="s", sparsity=0.0, step=0, algorithm="", batch=1, samples=1, layer="a", kind="conv", which="fwd",
    machine="m", multipliers=2, clock_mhz=1, cycles=3, compute_cycles=3, dense_multiplications=4,
    slots={"effectual": 6}, actions={}, energy=dict.fromkeys(ledger.names("energy"), 0.5),
)  # fmt: skip


def test_a_record_takes_names_only():
    with pytest.raises(TypeError):
        ledger.Record("s", 0.0)


def test_a_sum_with_a_part_that_is_not_known_is_not_known():
    unknown = replace(RECORD, layer="b", energy=RECORD.energy | {"offchip": None})
    table = frame([RECORD, unknown, replace(unknown, which="input_grad"), replace(RECORD, which="weight_grad")])
    folded = fold(table, ["pass"]).set_index("pass")
    assert folded["offchip_pj"].isna().tolist() == folded["energy_pj"].isna().tolist() == [True, True, False]
    assert folded["adders_pj"].tolist() == [1.0, 0.5, 0.5] and folded["cycles"].tolist() == [6, 3, 3]
    assert folded["cycles"].dtype == np.int64 and "layer" not in folded and "multipliers" not in folded
    assert total(table, ledger.ENERGY) is None and total(table, ledger.CYCLES) == 12
    assert total(table.iloc[:0], ledger.ENERGY) == 0


def test_a_count_may_add_up_to_its_most():
    most = replace(ledger.CYCLES, adds_up="most")
    table = frame([RECORD, replace(RECORD, cycles=9), replace(RECORD, cycles=5)])
    assert total(table, most) == 9 and total(table, ledger.CYCLES) == 17


@pytest.mark.parametrize("memory", ["none", "ddr4.yaml"])
def test_a_sweep_knows_no_energy_where_a_run_knows_none(tiny, tmp_path, memory):
    """It once wrote 0."""
    machine = accelsim.load_machine("dadiannao.yaml", memory=memory, energy="none").resolved()
    (tmp_path / "m.yaml").write_text(yaml.safe_dump(machine), encoding="utf-8")
    study = {"trace": str(tiny), "machine": str(tmp_path / "m.yaml"), "passes": ["fwd"], "snapshots": ["swat80"]}
    columns = ledger.columns("energy", "total")
    table = accelsim.sweep(study, tmp_path / "out")
    for swept in (
        table,
        pd.read_parquet(tmp_path / "out" / "table.parquet"),
        pd.read_csv(tmp_path / "out" / "table.csv"),
    ):
        assert len(swept) == 1 and swept["cycles"][0] > 0 and swept[columns].isna().all(axis=None)


def test_results_of_another_ledger_are_other_results(monkeypatch):
    """A sweep that goes on does not take what another ledger counted."""
    read, digest = Path.read_bytes, code_digest()
    changed = {PACKAGE / "ledger.py"}
    monkeypatch.setattr(Path, "read_bytes", lambda path: read(path) + (b"#" if path in changed else b""))
    code_digest.cache_clear()
    other = code_digest()
    changed.clear()
    code_digest.cache_clear()
    assert code_digest() == digest != other


# Nowhere else ------------------------------------------------------------------------------------------------------

ENDINGS = re.compile(r"_(slots|pj|read_bytes|write_bytes)$")


def named(tree):
    """Columns of counts, and what their names end in, that stand in code as text; docstrings may say what they like."""
    said = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    known = {row.column for row in ledger.rows() if row.column != row.name or row.group == "actions"} - {
        "multiplications", "bit_operations", "accumulator_updates", "comparisons",
    }  # fmt: skip
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in said
        if node.value in known or (ENDINGS.search(node.value) and node.value.startswith("_"))
    ]


def test_no_count_is_named_by_a_string_or_an_ending_outside_the_ledger():
    files = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "ledger.py"]
    found = {str(path): named(ast.parse(path.read_text(encoding="utf-8"))) for path in files}
    assert {path: names for path, names in found.items() if names} == {}


def test_a_count_named_elsewhere_is_noticed():
    assert named(ast.parse('table["effectual_slots"]')) == ["effectual_slots"]
    assert named(ast.parse('name.endswith("_slots")')) == named(ast.parse('f"{cause}_slots"')) == ["_slots"]
    assert named(ast.parse('f"{place}_read_bytes"')) == ["_read_bytes"]
    assert named(ast.parse('def f():\n    """effectual_slots"""\n    return capacity_bytes, "multiply_pj"')) == []
