"""Does ``accelsim reproduce`` compare as it says, fail when it should, and is its page current?"""

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from warm import PROGRAM

import accelsim
from accelsim import TraceWriter, cli
from accelsim.errors import AccelsimError
from accelsim.files import shipped
from accelsim.study import paper
from accelsim.study.paper import EQUATIONS, TABLE9
from accelsim.study.reproduction import conventions, page, topk_cost
from accelsim.study.reproduction.catalogue import FIGURES, SIMULATED, reproduce
from accelsim.study.reproduction.figure import AGREES, ALONE, DIFFERS, FITS, KNOWN, NOT_COMPUTED, RESTATES, Comparison
from accelsim.study.reproduction.session import Session, random_snapshot
from accelsim.workload.networks import network

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "reproduction.md"
CHEAP = [name for name in FIGURES if name not in SIMULATED]


@pytest.fixture(scope="module")
def cheap():
    """All figures that need no simulation, by name."""
    return {figure.name: figure for figure in reproduce(CHEAP)}


# Comparisons -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ours", "wanted", "how", "verdict"),
    [
        (76.12, 76.1, {"tolerance": 0.1}, AGREES),
        (76.2, 76.1, {"tolerance": 0.1}, AGREES),  # just at the tolerance, whatever binary fractions make of it
        (76.21, 76.1, {"tolerance": 0.1}, DIFFERS),
        (75.99, 76.1, {"tolerance": 0.1}, DIFFERS),
        (75.99, 76.1, {"tolerance": 0.1, "expected": False}, KNOWN),
        (3.45, 3.3, {"tolerance": 0.05, "relative": True}, AGREES),
        (3.48, 3.3, {"tolerance": 0.05, "relative": True}, DIFFERS),
        (3.1, 3.3, {"tolerance": 0.05, "relative": True}, DIFFERS),
        (2.0, 1.0, {"tolerance": 2, "factor": True}, AGREES),
        (2.1, 1.0, {"tolerance": 2, "factor": True}, DIFFERS),
        (0.5, 1.0, {"tolerance": 2, "factor": True}, AGREES),
        (0.4, 1.0, {"tolerance": 2, "factor": True}, DIFFERS),
        (0.0, 1.0, {"tolerance": 2, "factor": True, "expected": False}, KNOWN),
        (0.2, 0.8, {"at_most": True}, AGREES),
        (0.9, 0.8, {"at_most": True}, DIFFERS),
        (76.12, 76.1, {"tolerance": 0.1, "kind": "exact"}, AGREES),
        (76.12, 76.1, {"tolerance": 0.1, "kind": "chosen"}, FITS),
        (76.12, 76.1, {"tolerance": 0.1, "kind": "identity"}, RESTATES),
        (2.0, 1.0, {"tolerance": 2, "factor": True, "kind": "chosen"}, FITS),
        (76.3, 76.1, {"tolerance": 0.1, "kind": "chosen"}, DIFFERS),
        (None, 76.1, {"tolerance": 0.1}, NOT_COMPUTED),
        (76.1, None, {}, ALONE),
    ],
)
def test_a_verdict(ours, wanted, how, verdict):
    assert Comparison("row", "column", ours, wanted, **how).verdict == verdict


def test_a_comparison_in_words():
    words = Comparison("row", "column", 76.116, 76.1, 0.1).cells()
    assert words == ["row", "column", "76.12 %", "76.1 %", "+0.02 points", "0.1 points", "computed", AGREES]
    words = Comparison("row", "column", 5.802, 5.6, 0.05, "×", relative=True).cells()
    assert words == ["row", "column", "5.80×", "5.6×", "+3.6 %", "5 %", "computed", AGREES]
    assert Comparison("row", "column", None, 9.0).cells()[2:] == ["–", "9 %", "–", "–", "computed", NOT_COMPUTED]
    assert Comparison("row", "column", 8.9999, 9.0, 0.1).cells()[4] == "+0.00 points"


# Figures -----------------------------------------------------------------------------------------------------------


def test_nothing_differs_that_should_agree(cheap):
    assert {name: figure.failures for name, figure in cheap.items() if figure.failures} == {}
    counts = {v: sum(figure.count(v) for figure in cheap.values()) for v in (AGREES, FITS, RESTATES, KNOWN)}
    assert counts[AGREES] > 80 and counts[KNOWN] < 25
    assert counts[FITS] and counts[RESTATES], "what was chosen or goes in is no agreement"


def test_what_was_chosen_or_goes_in_is_told_from_what_agrees(cheap):
    kinds = {(c.row, c.column): c.kind for name in ("table2", "table3") for c in cheap[name].comparisons}
    assert kinds["cifar_vgg16 SWAT-U 90 %", "W"] == kinds["cifar_vgg16 SWAT-U 90 %", "Act"] == "identity"
    assert kinds["resnet50 SWAT-ERK 80 %", "Act"] == kinds["resnet50 SWAT-ERK 80 %", "Act ↓"] == "chosen"
    assert kinds["resnet50 SWAT-U 80 %", "training FLOPs ↓"] == kinds["resnet50 SWAT-U 80 %", "Act ↓"] == "computed"
    assert {c.kind for c in cheap["memory"].comparisons if c.row.startswith("weight")} == {"identity"}


def test_the_way_to_count_comes_first_whatever_network_is_left_out():
    """Else its rows would have chosen it, and what they reach would be no agreement."""
    networks = {row.network for row in conventions.rows()}
    assert len(networks) == 6
    for left_out in networks:
        assert conventions.countings(left_out)[0].choice == conventions.countings()[0].choice
        assert conventions.savings(left_out)[0].choice == conventions.savings()[0].choice
        assert conventions.countings(left_out)[0].compared < conventions.countings()[0].compared


def test_what_differs_or_is_not_computed_says_why(cheap):
    for figure in cheap.values():
        notes = " ".join(figure.notes)
        for c in figure.comparisons:
            if c.verdict in (KNOWN, NOT_COMPUTED):
                assert c.note and c.note in notes, (figure.name, c.row, c.column)


def test_every_table_of_the_paper_is_there(cheap):
    """Each printed figure that follows from shapes is compared, and no figure of the paper is ours."""
    for name, rows in paper.FLOPS_TABLES.items():
        assert {c.row for c in cheap[name].comparisons} == {row.label for row in rows}
    assert set(FIGURES) >= {f"table{n}" for n in (2, 3, 4, 5, 6, 7, 9, 10)} | {"eq7", "eq8", "fig10"}


def test_memory_is_within_two_points_of_the_abstract(cheap):
    ours = [round(c.ours, 1) for c in cheap["memory"].comparisons]
    assert ours == [50.0, 90.0, 24.5, 49.0]


@pytest.mark.slow
def test_table6_holds_on_its_machine(monkeypatch):
    """The paper's four figures, and its two training speedups, within 5 %: as the array was chosen to."""
    only = [accelsim.load_machine("pe16x16.yaml")]
    monkeypatch.setattr(Session, "machines", staticmethod(lambda: only))
    figures = reproduce(["table6", "eq7"], Session(jobs=2))
    assert [c.verdict for c in figures[0].comparisons] == [FITS] * 6
    assert len(figures[1].grids[0].headings) == 4  # with the curve from cycles


def test_a_machine_that_cannot_run_the_trace_is_left_out_with_its_reason(monkeypatch, tiny):
    from accelsim.errors import MachineError
    from accelsim.hardware.accelerators.bit_tactical import BitTactical

    def refuse(self, conv):
        raise MachineError("no such thing")

    monkeypatch.setattr(BitTactical, "run", refuse)
    figure = reproduce(["table6"], Session(tiny))[0]
    left_out = [note for note in figure.notes if "is left out" in note]
    assert {"bit-tactical", "bit-tactical-l8"} <= {n.split()[0] for n in left_out if "no such thing" in n}
    assert all("no such thing" in note or "needs values" in note for note in left_out)
    assert {row[0] for row in figure.grids[0].rows} >= {"pe16x16", "dadiannao"}


def test_another_trace_is_not_compared_with_the_paper(tiny):
    for figure in reproduce(["table6", "speedup"], Session(tiny, layers=["block*"])):
        assert figure.comparisons == ()


def test_layers_of_the_trace_alone_are_not_compared_with_the_paper():
    session = Session(layers=["layer4.2.conv3"])
    figures = reproduce(["table6", "eq7", "speedup"], session)
    assert figures[0].comparisons == () and len(figures[0].grids[0].rows) >= 15
    assert len(figures[1].grids[0].headings) == 3 and "No curve from cycles" in " ".join(figures[1].notes)
    assert figures[2].grids[0].rows == ()


def test_a_captured_swat_m_run_is_shown_beside_its_table_and_marked(tmp_path):
    net = network("cifar_densenet121")
    snapshot = random_snapshot(net, 0.9, 0.5)
    with TraceWriter(tmp_path / "m.npz", network=net.name, dataset="cifar10") as out:
        out.snapshot("m90", sparsity=0.9, step=9, algorithm="SWAT-M", batch=1, samples=1)
        for layer in snapshot.layers:
            out.layer(layer.name, kind=layer.kind, geometry=layer.geometry, passes=layer.passes)
            for name, mask in layer.tensors.items():
                out.tensor(name, mask)
    grid = reproduce(["table2"], Session(tmp_path / "m.npz"))[0].grids[0]
    assert grid.title.startswith("From the densities of a captured run: m.npz, cifar_densenet121")
    assert grid.rows[0][0] == "m90 (SWAT-M 90 %)" and float(grid.rows[0][3]) == pytest.approx(89.8, abs=0.2)


# Top-K -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sparsity", [0.8, 0.9])
def test_equations_7_and_8_give_what_the_paper_prints(sparsity):
    """To the digit that it prints; written out as the paper writes them."""
    reduction, t, k = EQUATIONS[sparsity]["reduction"], 147, 470
    written = 1000 * t / (999 * (1 - reduction) * t + t * (1 - reduction) + k)
    assert topk_cost.equation(sparsity) == pytest.approx(written, rel=1e-12)
    assert round(topk_cost.equation(sparsity), 2) == EQUATIONS[sparsity]["speedup"]


@given(st.floats(0.01, 1), st.floats(0, 1e4), st.integers(1, 10**6))
def test_a_longer_period_is_never_slower_and_never_faster_than_no_topk(remaining, overhead, period):
    speedup = topk_cost.amortized_speedup(remaining, overhead, period)
    assert speedup <= topk_cost.amortized_speedup(remaining, overhead, 2 * period) * (1 + 1e-12)
    assert speedup <= 1 / remaining * (1 + 1e-12)


@pytest.mark.parametrize("wrong", [(0, 1, 1), (0.2, -1, 1), (0.2, 1, 0), (float("nan"), 1, 1), (0.2, float("inf"), 1)])
def test_an_impossible_amortization_is_refused(wrong):
    with pytest.raises(AccelsimError):
        topk_cost.amortized_speedup(*wrong)


def test_a_slope_tells_linear_from_quadratic():
    assert topk_cost.slope({n: 7 * n for n in TABLE9}) == pytest.approx(1)
    assert topk_cost.slope({n: 7 * n * n for n in TABLE9}) == pytest.approx(2)


@pytest.mark.parametrize("counter", ["perf", pytest.param("callgrind", marks=pytest.mark.slow), "time"])
def test_measuring_by(counter):
    if not topk_cost._works(counter):
        pytest.skip(f"{counter} does not work here")
    for selection in topk_cost.measure((100_000,), counter):
        assert selection.counter == counter and selection.costs[100_000] > 0
        if counter != "time":
            assert selection.unit == "instructions" and 1 < selection.costs[100_000] / 100_000 < 100


def test_without_a_counter_times_take_the_place_of_instructions(monkeypatch):
    monkeypatch.setattr(topk_cost.shutil, "which", lambda program: None)
    topk_cost._works.cache_clear()
    monkeypatch.setattr(topk_cost, "SIZES", (1000,))
    try:
        selections = topk_cost.measure((1000, 100_000))
        assert {s.counter for s in selections} == {"time"} and {s.unit for s in selections} == {"ns"}
        with pytest.raises(AccelsimError, match="counter: perf does not work here; must be one of time"):
            topk_cost.measure(counter="perf")
        monkeypatch.setattr(topk_cost, "measure", lambda: selections)
        figure = reproduce(["table9"], Session(measure=True))[0]
        assert {c.verdict for c in figure.comparisons if c.unit == "" and "per element" in c.column} == {NOT_COMPUTED}
    finally:
        topk_cost._works.cache_clear()


def test_the_recorded_measurements_say_when_and_with_what():
    for section in topk_cost.recorded().values():
        assert re.fullmatch(r"\d{4}-\d\d-\d\d", section["date"]) and section["numpy"] and section["python"]
    assert {s.algorithm for s in topk_cost.recorded_selections()} == {"introselect", "default"}
    assert all(set(s.costs) == set(topk_cost.SIZES) for s in topk_cost.recorded_selections())


# The page ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CHEAP)
def test_the_page_is_current(name, cheap):
    """All that needs no simulation; the slow test below does the rest."""
    text = page.markdown(page.section(cheap[name]))
    assert text in PAGE.read_text(encoding="utf-8"), (
        "accelsim reproduce all --out DIR, then copy reproduction.md to docs/"
    )


def test_the_page_has_every_figure():
    titles = re.findall(r"^`accelsim reproduce (\w+)`$", PAGE.read_text(encoding="utf-8"), re.M)
    assert titles == list(FIGURES)


@pytest.mark.slow
def test_the_whole_page_is_current():
    figures = {figure.name: figure for figure in reproduce(["all"], Session(jobs=2))}
    table6 = figures["table6"]
    named = {row[0] for row in table6.grids[0].rows} | {note.split()[0] for note in table6.notes}
    assert named >= {path.stem for path in shipped("configs").glob("*.yaml")}
    assert not any(figure.failures for figure in figures.values())
    assert page.markdown(page.page(list(figures.values()))) == PAGE.read_text(encoding="utf-8")


def test_a_page_escapes_what_markdown_and_html_would_read():
    blocks = [("heading", "a < b"), ("table", ("t", ["x"], [["a|b & <c>"]])), ("bullet", "one"), ("bullet", "two")]
    assert "| a\\|b & <c> |" in page.markdown(blocks) and "- one\n- two" in page.markdown(blocks)
    assert "<td>a|b &amp; &lt;c&gt;</td>" in page.as_html(blocks)


# The command -------------------------------------------------------------------------------------------------------


def run(here, *arguments):
    """One run of the program."""
    done = PROGRAM.run(["reproduce", *map(str, arguments)], here, dict(os.environ))
    done.stdout, done.stderr = done.stdout.decode(), done.stderr.decode()
    return done


def test_without_a_name_it_lists_what_it_knows(tmp_path):
    done = run(tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    for name in (*FIGURES, "algorithms", "convergence", "all"):
        assert re.search(rf"^  {name} ", done.stdout, re.M)
    assert json.loads(run(tmp_path, "--json").stdout).keys() == {*FIGURES, "algorithms", "convergence"}


def test_it_prints_ours_the_papers_the_difference_and_a_verdict(tmp_path):
    done = run(tmp_path, "table4", "eq7", "--quiet", "--layers", "layer4.2.conv3")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"training FLOPs ↓ +69\.80 % +69\.8 % +.0\.00 points +0\.1 points +computed +agrees", done.stdout)
    assert re.search(
        r"the paper's inputs +speedup, period 1000 +4\.13× +4\.13× +\+0\.00× +0\.005× +identity +restates", done.stdout
    )


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["tabel3"], r"figure: must be one of table2, .*, all, got tabel3"),
        (["table3", "--trace", "none.npz"], r"none\.npz: no such file here, nor among the shipped traces .*"),
        (["table6", "--layers", "nothing"], r"layers: must match a layer of the trace .*, got nothing"),
        (["eq7", "--layers", "nothing"], r"layers: must match a layer of the trace .*, got nothing"),
        (["table3", "--jobs", "0"], r"argument --jobs: must be an integer in 1…1024, got 0; .*"),
        (["table4", "--out", "/dev/null/x"], r".*: cannot write: .*"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(tmp_path, arguments, line):
    done = run(tmp_path, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(f"accelsim: error: {line}\n", done.stderr)
    assert list(tmp_path.iterdir()) == []


def test_out_writes_csv_json_and_pages(tmp_path):
    done = run(tmp_path, "table2", "table9", "--json", "--out", "results")
    assert (done.returncode, done.stderr) == (0, "")
    folder = tmp_path / "results"
    made = [f"reproduction.{e}" for e in ("csv", "html", "json", "md")]
    assert sorted(p.name for p in folder.iterdir()) == ["manifest.sha256", *made]
    data, table = json.loads(done.stdout), pd.read_csv(folder / "reproduction.csv")
    assert data == json.loads((folder / "reproduction.json").read_text())
    every = [c for f in data["figures"] for c in f["comparisons"]]
    assert set(data["kinds"]) == {"exact", "computed", "chosen", "identity"}
    for kind, counts in data["kinds"].items():
        of_kind = [c["verdict"] for c in every if c["kind"] == kind]
        assert counts == {verdict: of_kind.count(verdict) for verdict in set(of_kind)}
    assert data["kinds"]["computed"]["agrees"] > 0 and "agrees" not in data["kinds"]["identity"]
    assert data["holds"] and [f["name"] for f in data["figures"]] == ["table2", "table9"]
    assert data["provenance"]["command"][:2] == ["accelsim", "reproduce"]
    assert len(table) == sum(len(f["comparisons"]) for f in data["figures"])
    assert {"figure", "row", "column", "ours", "paper", "difference", "tolerance", "verdict"} <= set(table.columns)
    for name in ("reproduction.md", "reproduction.html"):
        assert "Table 2: unstructured SWAT on CIFAR-10" in (folder / name).read_text()


def test_a_figure_that_should_agree_and_does_not_gives_exit_code_1(monkeypatch, capsys):
    wrong = replace(paper.TABLE4[0], training=paper.TABLE4[0].training + 1)
    monkeypatch.setitem(paper.FLOPS_TABLES, "table4", (wrong, *paper.TABLE4[1:]))
    assert cli.main(["reproduce", "table4"]) == 1
    assert "DIFFERS" in capsys.readouterr().out
    assert cli.main(["reproduce", "table4", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["holds"] is False


def test_help_loads_nothing_heavy(tmp_path):
    code = "import sys; from accelsim.cli import main\ntry: main(['reproduce', '-h'])\nfinally: print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "FIGURE" in done.stdout
    assert {"pandas", "numba", "rich", "pydantic"}.isdisjoint(done.stdout.split())
