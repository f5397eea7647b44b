"""Is a machine that accelsim has never heard of treated as its own, wherever machines go, once its code is allowed?"""

import json
import re
import shutil
import sys
from importlib.metadata import EntryPoint

import pandas as pd
import pytest
from stranger import FOLDER, StrangerArray
from test_cli import accelsim_cli as program
from test_sweep import dask

import accelsim
from accelsim.errors import AccelsimError, ConfigError
from accelsim.hardware.accelerators import catalogue
from accelsim.hardware.machine import Machine, load_machine, parse_machine, schema, with_settings
from accelsim.sweeps.sweep import sweep

REFERENCE = "stranger_array.model:StrangerArray"
CONFIG = "stranger_array.yaml"
COUNTS = ("cycles", "effectual_slots", "offchip_result_slots", "offchip_read_bytes", "energy_pj")


@pytest.fixture
def here(tmp_path, tiny, monkeypatch):
    """The current folder: the package as ``accelsim new machine`` writes it, its machine file and a trace."""
    (tmp_path / "stranger_array").symlink_to(FOLDER / "stranger_array")
    (tmp_path / CONFIG).write_bytes((FOLDER / CONFIG).read_bytes())
    (tmp_path / "tiny.npz").write_bytes(tiny.read_bytes())
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def installed(monkeypatch):
    """As if a package with the entry point ``stranger`` were installed."""
    points = [EntryPoint("stranger", REFERENCE, catalogue.GROUP), EntryPoint("ideal", "evil:Ideal", catalogue.GROUP)]
    monkeypatch.setattr(catalogue, "entry_points", lambda group: [p for p in points if p.group == group])


def stranger(**keys):
    return parse_machine({"name": "s", "accelerator": {"model": REFERENCE, "lanes": 8, **keys}}, allow_code=True)


# Consent ------------------------------------------------------------------------------------------------------------

COMMANDS = {
    "run": ["run", "--config", CONFIG, "--trace", "tiny.npz"],
    "baseline": ["run", "--config", "dadiannao.yaml", "--trace", "tiny.npz", "--baseline", CONFIG],
    "compare": ["compare", "--trace", "tiny.npz", "--machines", f"{CONFIG},dadiannao.yaml"],
    "info": ["info", CONFIG],
    "sweep": ["sweep", "study.yaml", "--out", "swept"],
    "schema": ["schema", "--model", REFERENCE],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_without_consent_nothing_is_imported_and_with_it_all_goes(here, name):
    """A module that leaves a mark when it is imported, in a fresh process."""
    (here / "stranger_array").unlink()
    (here / "stranger_array").mkdir()
    source = (FOLDER / "stranger_array" / "model.py").read_text()
    (here / "stranger_array" / "model.py").write_text(f"{source}\nopen('mark', 'w').close()\n")
    (here / "study.yaml").write_text(json.dumps({"trace": "tiny.npz", "machine": CONFIG, "passes": ["fwd"]}))
    refused = program(here, *COMMANDS[name])
    assert refused.returncode == 2 and not (here / "mark").exists(), refused.err
    assert "--allow-code" in refused.err + refused.out and "Traceback" not in refused.err
    done = program(here, *COMMANDS[name], "--allow-code")
    assert (done.returncode, (here / "mark").exists()) == (0, True), done.err


def test_python_asks_as_well(here):
    with pytest.raises(ConfigError, match="allow_code=True"):
        load_machine(CONFIG)
    with pytest.raises(AccelsimError, match="allow_code=True"):
        sweep({"trace": "tiny.npz", "machine": CONFIG}, here / "out")
    assert isinstance(load_machine(CONFIG, allow_code=True).accelerator, StrangerArray)


def test_an_installed_package_has_consent_by_either_name(here, installed):
    for name in ("stranger", REFERENCE):
        machine = parse_machine({"name": "s", "accelerator": {"model": name, "lanes": 4}})
        assert type(machine.accelerator) is StrangerArray
        assert machine.resolved()["accelerator"]["model"] == "stranger"
        assert parse_machine(machine.resolved()).resolved() == machine.resolved()
    assert {"model": {"const": "stranger"}}.items() <= _properties(schema(), "stranger").items()


def _properties(rules, name):
    choices = rules["properties"]["accelerator"]["oneOf"]
    found = [c["properties"] for c in choices if c.get("properties", {}).get("model", {}).get("const") == name]
    assert len(found) == 1
    return {"model": found[0]["model"]}


def test_no_package_takes_a_shipped_model_s_name(installed):
    machine = load_machine("ideal.yaml")
    assert type(machine.accelerator).__module__.startswith("accelsim.")


WRONG_MODELS = {
    "nowhere.model:Thing": "cannot import nowhere.model:Thing: ModuleNotFoundError: No module named 'nowhere'",
    "stranger_array.model:Absent": "cannot import stranger_array.model:Absent: AttributeError",
    "json:JSONDecoder": "json:JSONDecoder: must be a class derived from accelsim.hardware.accelerators.base",
    "strangr": "must be one of dadiannao, bit_tactical",
    "a:b:c": "or package.module:Class, got 'a:b:c'",
    "half:Half": "half:Half: lacks multipliers, replay, run, skips, summation of an accelerator",
    "angry:Angry": "cannot import angry:Angry: RuntimeError: not today",
}


@pytest.mark.parametrize("name", WRONG_MODELS)
def test_a_model_that_is_none_is_refused_in_a_line(here, name, monkeypatch):
    base = catalogue.BASE.rpartition(".")
    (here / "half.py").write_text(f"from {base[0]} import {base[2]}\nclass Half({base[2]}):\n    model: str\n")
    (here / "angry.py").write_text("raise RuntimeError('not today')\n")
    monkeypatch.setattr(sys, "path", [*sys.path, str(here)])
    with pytest.raises(ConfigError) as caught:
        parse_machine({"name": "m", "accelerator": {"model": name}}, "m.yaml", allow_code=True)
    (line,) = caught.value.lines
    assert line.startswith("m.yaml: accelerator.model: ") and WRONG_MODELS[name] in line


# Everywhere that machines go ----------------------------------------------------------------------------------------


def test_run_writes_all_that_it_writes_for_a_shipped_machine(here):
    more = ["--out", "out", "--timeline", "t.json.gz", "--plots", "plots", "--explain"]
    done = program(here, *COMMANDS["run"], "--allow-code", *more)
    assert done.returncode == 0 and "stranger_array" in done.out, done.err
    assert (here / "t.json.gz").stat().st_size and len([*(here / "plots").glob("*.svg")]) >= 2
    table = pd.read_parquet(here / "out" / "layers.parquet")
    own = table[table.machine == "stranger_array"]
    assert len(own) and own[[*COUNTS]].notna().all(axis=None)
    told = json.loads((here / "out" / "run.json").read_text())
    assert REFERENCE in json.dumps(told)
    shown = program(here, "report", "out", "--out", "page.html")
    assert shown.returncode == 0 and "stranger_array" in (here / "page.html").read_text(), shown.err


def test_its_own_key_is_told_and_set(here):
    done = program(here, *COMMANDS["info"], "--allow-code")
    assert done.returncode == 0 and "64" in done.out
    cycles = []
    for lanes in (16, 32):
        how = [*COMMANDS["run"], "--allow-code", "--memory", "none", "--json", "--set", f"accelerator.lanes={lanes}"]
        done = program(here, *how)
        assert done.returncode == 0, done.err
        cycles.append(json.loads(done.out)["cycles"][0]["step"])
    assert cycles[0] > 1.2 * cycles[1]
    wrong = program(here, *COMMANDS["run"], "--allow-code", "--set", "accelerator.lane=8")
    assert wrong.returncode == 2 and "accelerator.lane: unknown key, did you mean lanes?" in wrong.err


def test_compare_has_it_beside_others(here):
    done = program(here, *COMMANDS["compare"], "--allow-code", "--json")
    assert done.returncode == 0, done.err
    names = {row["machine"] for row in json.loads(done.out)["machines"]}
    assert {"stranger_array", "dadiannao"} <= names


def table_of(folder):
    return (folder / "table.parquet").read_bytes(), (folder / "layers.parquet").read_bytes()


def test_a_sweep_s_worker_processes_import_it(here):
    """Two processes that know only the machine's plain data; then Machine objects, which need no file."""
    study = {"trace": "tiny.npz", "machine": CONFIG, "grid": {"accelerator.lanes": [8, 16, 24]}, "passes": ["fwd"]}
    (here / "study.yaml").write_text(json.dumps(study))
    done = program(here, "sweep", "study.yaml", "--out", "two", "--allow-code", "--jobs", "2")
    assert done.returncode == 0, done.err + done.out
    rows = pd.read_parquet(here / "two" / "table.parquet")
    by_lanes = rows.groupby("accelerator.lanes")["cycles"].sum()
    assert rows["error"].isna().all() and by_lanes.index.tolist() == [8, 16, 24] and by_lanes.is_monotonic_decreasing


def test_machines_are_swept_as_they_are(here):
    machines = [stranger(lanes=8), stranger(lanes=16).model_copy(update={"name": "t"}), load_machine("dadiannao.yaml")]
    table = accelsim.sweep({"trace": "tiny.npz", "machine": machines, "passes": ["fwd"]}, here / "out", jobs=1)
    assert table["machine"].unique().tolist() == ["s", "t", "dadiannao"]
    each = table.groupby("machine", sort=False)["cycles"].sum()
    assert each["s"] > each["t"] > 0
    with pytest.raises(AccelsimError, match="names must differ, got s twice"):
        accelsim.sweep({"trace": "tiny.npz", "machine": [stranger(lanes=8), stranger(lanes=9)]}, here / "out2")


def test_other_code_behind_a_class_computes_a_point_anew(here):
    """A point's key has the digest of the whole package's source."""
    (here / "stranger_array").unlink()
    shutil.copytree(FOLDER / "stranger_array", here / "stranger_array")
    study = {"trace": "tiny.npz", "machine": CONFIG, "passes": ["fwd"], "layers": ["fc"]}
    (here / "study.yaml").write_text(json.dumps(study))

    def to_compute():
        done = program(here, *COMMANDS["sweep"], "--allow-code", "--jobs", "1")
        assert done.returncode == 0, done.err
        return int(re.search(r"(\d+) to compute", done.err)[1])

    assert [to_compute(), to_compute()] == [2, 0]
    (here / "stranger_array" / "constants.py").write_text("LATENCY = 1\n")
    assert [to_compute(), to_compute()] == [2, 0]


@pytest.mark.slow
def test_dask_workers_import_it(here):
    study = {"trace": "tiny.npz", "machine": CONFIG, "grid": {"accelerator.lanes": [8, 16]}, "passes": ["fwd"]}
    with dask(here / "dask", 1, PYTHONPATH=f"{FOLDER}") as address:
        sweep(study, here / "away", jobs=1, cluster=address, allow_code=True)
    sweep(study, here / "home", jobs=1, allow_code=True)
    assert table_of(here / "away") == table_of(here / "home")


def test_python_cannot_make_a_machine_of_something_else():
    """No file is read that could be refused."""
    with pytest.raises(ValueError, match=r"must be a class derived from accelsim\.hardware\.accelerators\.base"):
        Machine(name="m", accelerator=object())


# Files that build on others -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.yaml": "base: a.yaml\n"}, "a.yaml: base: a.yaml: must not build on itself"),
        (
            {"a.yaml": "base: b.yaml\n", "b.yaml": "base: ./a.yaml\n"},
            "a.yaml: base: b.yaml: base: a.yaml: must not build on itself",
        ),
        ({"a.yaml": "base: none.yaml\n"}, "a.yaml: base: none.yaml: no such file"),
        ({"a.yaml": "base: [b.yaml]\n"}, "a.yaml: base: must be the name of a machine file, got ['b.yaml']"),
        ({"a.yaml": "base: b.yaml\n", "b.yaml": "- 1\n"}, "a.yaml: base: b.yaml: must be a mapping of keys, got [1]"),
    ],
    ids=["itself", "a circle", "nothing", "no name", "no mapping"],
)
def test_a_base_that_cannot_be_is_refused(tmp_path, monkeypatch, files, message):
    monkeypatch.chdir(tmp_path)
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError) as caught:
        load_machine("a.yaml")
    assert str(caught.value).startswith(message)


def test_a_fault_is_told_with_the_file_that_it_is_in(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "b.yaml").write_text("base: dadiannao.yaml\naccelerator:\n  rows: 0\n")
    (tmp_path / "a.yaml").write_text("base: b.yaml\nname: a\nclock_mhz: 0\naccelerator:\n  lanez: 8\n")
    with pytest.raises(ConfigError) as caught:
        load_machine("a.yaml")
    said = "\n".join(caught.value.lines)
    assert "base b.yaml: accelerator.rows: must be an integer in 1…256, got 0" in said
    assert "clock_mhz: must be" in said and "lanez: unknown key, did you mean lanes?" in said
    assert "base b.yaml: accelerator.lanez" not in said
    (tmp_path / "b.yaml").write_text("base: dadiannao.yaml\naccelerator:\n  rows: 0\n")
    (tmp_path / "a.yaml").write_text("base: b.yaml\nname: a\naccelerator:\n  rows: -1\n")
    with pytest.raises(ConfigError, match=r"^a.yaml: accelerator\.rows: must be an integer in 1…256, got -1$"):
        load_machine("a.yaml")
    assert "base b.yaml: clock_mhz" not in said


def test_a_setting_changes_the_machines_that_have_its_key_or_the_one_that_it_names():
    machines = [load_machine(name) for name in ("dadiannao.yaml", "bit-tactical.yaml", "ideal.yaml")]
    lanes = [getattr(m.accelerator, "lanes", None) for m in with_settings(machines, ["accelerator.lanes=4"])]
    assert lanes == [4, 4, None]
    named = with_settings(machines, ["bit-tactical:accelerator.lanes=4", "clock_mhz=100"])
    assert [getattr(m.accelerator, "lanes", None) for m in named] == [machines[0].accelerator.lanes, 4, None]
    assert [m.clock_mhz for m in named] == [100, 100, 100]
    for setting, message in {
        "nobody:clock_mhz=1": "--set: nobody: must be one of dadiannao, bit-tactical, ideal",
        "accelerator.lanez=4": "accelerator.lanez: unknown key, did you mean lanes?",
        "accelerator.lanes": "--set: must be KEY=VALUE, such as accelerator.lanes=8, got 'accelerator.lanes'",
        "ideal:accelerator.lanes=4": "accelerator.lanes: unknown key",
    }.items():
        with pytest.raises(ConfigError) as caught:
            with_settings(machines, [setting])
        assert message in str(caught.value)
