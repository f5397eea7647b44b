"""What a machine does for its area: told where one is given, and not of a machine that is another by now."""

import json

import pytest

from accelsim import cli, load_machine, open_trace, simulate
from accelsim.errors import ConfigError
from accelsim.hardware.machine import machine_with, parse_machine, with_settings

AREA = {"mm2": 2.5, "source": "made up: 45 nm, tiles alone"}


def measured(name="tensordash", **area):
    return machine_with(load_machine(f"{name}.yaml"), {"area": AREA | area})


def file(folder, text, name="mine.yaml"):
    (folder / name).write_text(text, encoding="utf-8")
    return str(folder / name)


@pytest.mark.parametrize(
    "settings, known",
    [
        ({"clock_mhz": 1000}, True),
        ({"name": "other", "energy": "none"}, True),
        ({"accelerator.rows": 8}, False),
        ({"buffers.weight.ports": 1}, False),
        ({"memory": "none"}, False),
        ({"accelerator.rows": 8, "area.mm2": 5.0}, True),
    ],
)
def test_a_machine_that_is_changed_has_another_area(settings, known):
    assert bool(machine_with(measured(), settings).area) == known
    (changed,) = with_settings([measured()], [f"{key}={value}" for key, value in settings.items()])
    assert bool(changed.area) == known


def test_a_file_that_builds_on_another_has_its_area_unless_it_changes_the_machine(tmp_path):
    area = "area: {mm2: 2.5, source: made up}\n"
    file(tmp_path, f"base: tensordash.yaml\nname: one\naccelerator: {{rows: 8}}\n{area}", "one.yaml")
    base = f"base: {tmp_path}/one.yaml\nname: two\n"
    for more, mm2 in {
        "clock_mhz: 800\n": 2.5,
        "accelerator: {rows: 2}\n": None,
        "accelerator: {rows: 2}\narea: {mm2: 1, source: x}\n": 1,
    }.items():
        area = load_machine(file(tmp_path, base + more)).area
        assert (area.mm2 if area else None) == mm2
    assert load_machine(tmp_path / "one.yaml", energy="none").area
    assert load_machine(tmp_path / "one.yaml", memory="none").area is None


@pytest.mark.parametrize(
    "area, told",
    [
        ({"mm2": 0, "source": "x"}, "area.mm2: must be a number in 1e-09…1e+09, got 0"),
        ({"mm2": 1}, "area.source: must be given"),
        ({"mm2": 1, "source": ""}, "area.source: must"),
        ({"mm2": 1, "source": "a\nb"}, "area.source: must"),
        ({"mm": 1, "mm2": 1, "source": "x"}, "area.mm: unknown key, did you mean mm2?"),
        (3, "area: must be"),
    ],
)
def test_an_area_that_is_none_is_refused_in_a_line(area, told):
    with pytest.raises(ConfigError) as refused:
        parse_machine(load_machine("tensordash.yaml").resolved() | {"area": area})
    assert told in str(refused.value) and "\n" not in str(refused.value)


def run(capsys, *words):
    assert cli.main([*words, *(["--quiet"] if words[0] != "report" else [])]) == 0
    return capsys.readouterr().out


def test_compare_and_its_report_tell_multiplications_for_each_mm2(tiny, tmp_path, capsys):
    """Layer by layer: all multiplications, by cycles, at 606 MHz, on 2.5 mm²; of the other machine nothing."""
    mine = file(tmp_path, f"base: tensordash.yaml\nname: mine\narea: {json.dumps(AREA)}\n")
    given = "compare", "--machines", f"{mine},dadiannao.yaml", "--trace", str(tiny), "--snapshots", "swat80"
    table = run(capsys, *given, "--out", str(tmp_path / "out"))
    rows = json.loads((tmp_path / "out" / "compare.json").read_text())["rows"]
    own, other = (next(row for row in rows if row["machine"] == name) for name in ("mine", "dadiannao"))
    with open_trace(tiny) as trace:
        table_of = simulate(load_machine(mine), trace, snapshots="swat80")
    work, cycles = table_of.loc[table_of["kind"] == "conv", ["dense_multiplications", "cycles"]].sum()
    assert own["gmacs_per_mm2"] == pytest.approx(work / cycles * 606e6 / 2.5 / 1e9)
    assert own["area_mm2"] == 2.5 and other["area_mm2"] is other["gmacs_per_mm2"] is None
    assert "GMAC/s" in table and f"{own['gmacs_per_mm2']:.3g}" in table
    run(capsys, "report", str(tmp_path / "out"), "--out", str(tmp_path / "page.html"))
    page = (tmp_path / "page.html").read_text()
    assert "GMAC/s/mm²" in page and f">{own['gmacs_per_mm2']:.3g}<" in page
    assert "GMAC/s" not in run(capsys, *given[:2], "dadiannao.yaml", *given[3:])


def test_a_sweep_tells_it_of_the_points_whose_area_is_known(tiny, tmp_path, capsys):
    mine = file(tmp_path, f"base: tensordash.yaml\nname: mine\nmemory: none\nbuffers: null\narea: {json.dumps(AREA)}\n")
    study = {"trace": str(tiny), "machine": mine, "layers": ["block/*"], "snapshots": ["swat80"]}
    study["points"] = [{"clock_mhz": 606}, {"clock_mhz": 1212}, {"accelerator.rows": 2}]
    path = file(tmp_path, json.dumps(study), "study.yaml")
    out = run(capsys, "sweep", path, "--out", str(tmp_path / "out"))
    told = json.loads(run(capsys, "sweep", path, "--out", str(tmp_path / "out"), "--json"))
    slow, fast, changed = (point["gmacs_per_mm2"] for point in told["compared"])
    assert fast == pytest.approx(2 * slow) and slow > 0 and changed is None
    assert "GMAC/s" in out
    run(capsys, "report", str(tmp_path / "out"), "--out", str(tmp_path / "page.html"))
    assert "GMAC/s/mm²" in (tmp_path / "page.html").read_text()
