"""Do reports of comparisons, sweeps, answers and explained runs hold what their folders hold, and work in a browser?"""

import json
import re
import shutil
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest

pytest.importorskip("plotly", reason="needs pip install 'accelsim-sparse[report]'")

from test_report import HOSTILE, Tree, browse

from accelsim import cli
from accelsim.errors import ResultsError
from accelsim.study import manifest
from accelsim.study.points import compared
from accelsim.study.report import KINDS, write_report
from accelsim.sweeps.sweep import sweep

MACHINES = "dadiannao.yaml,pe8x8.yaml"


@pytest.fixture(scope="module")
def folders(tiny, tmp_path_factory):
    """A folder of each kind, by the file that makes it one."""
    root = tmp_path_factory.mktemp("kinds")
    common = ["--trace", str(tiny), "--quiet"]
    how = ["--machines", MACHINES, "--snapshots", "swat80"]
    assert cli.main(["compare", *common, *how, "--out", str(root / "compare")]) == 0
    assert cli.main(["ask", str(tiny), *how, "--quiet", "--out", str(root / "ask")]) == 0
    run = ["run", *common, "--config", "pe8x8.yaml", "--explain", "1", "--passes", "fwd", "--out", str(root / "run")]
    assert cli.main(run) == 0
    study = {
        "trace": str(tiny), "machine": MACHINES.split(","), "snapshots": ["swat80"], "passes": ["fwd"],
        "grid": {"clock_mhz": [606, 0]},
    }  # fmt: skip
    with pytest.MonkeyPatch.context() as patch:
        threads = lambda count, **how: ThreadPoolExecutor(count)  # noqa: E731
        patch.setattr("accelsim.sweeps.workers.ProcessPoolExecutor", threads)
        sweep(study, root / "sweep")
    return {"compare.json": root / "compare", "answer.json": root / "ask", "run.json": root / "run"} | {
        "sweep.json": root / "sweep"
    }


@pytest.fixture
def folder(request, folders, tmp_path):
    """A copy of one to damage."""
    return shutil.copytree(folders[request.param], tmp_path / "copy", ignore=shutil.ignore_patterns("points"))


def tree(folder, tmp_path):
    return Tree(write_report(folder, tmp_path / "report.html").read_text(encoding="utf-8"))


def test_every_kind_of_folder_is_tried_here(folders):
    assert folders.keys() == KINDS.keys()
    assert all((folder / name).is_file() for name, folder in folders.items())


@pytest.mark.parametrize("kind", ["compare.json", "answer.json"])
def test_machines_are_those_of_the_comparison(kind, folders, tmp_path):
    rows = json.loads((folders[kind] / kind).read_text(encoding="utf-8"))["rows"]
    head, *cells = tree(folders[kind], tmp_path).cells["machines-table-0"]
    assert [cell[0] for cell in cells] == [row["machine"] for row in rows]
    for cell, row in zip(cells, rows, strict=True):
        told = dict(zip(head, cell, strict=True))
        assert told["training step"] == f"{row['step_speedup']:.2f}×" and told["gain"] == f"{row['step_gain']:.2f}×"
        assert told["energy, mJ"] == f"{row['energy_pj'] * 1e-9:.3g}"
    assert "backward (both)" not in head


def test_an_answer_has_its_sentences_limits_and_what_was_not_counted(folders, tmp_path):
    data = json.loads((folders["answer.json"] / "answer.json").read_text(encoding="utf-8"))
    text = tree(folders["answer.json"], tmp_path).text
    (snapshot,) = data["snapshots"]
    for sentence in (*snapshot["limit"]["sentences"].values(), *data["not_counted"]):
        plain = sentence.replace("'", "&#x27;")
        assert plain in text or sentence.startswith("the limit is")  # of the gradients alone nothing is said
    assert all(advice["sentence"] in text for advice in snapshot["limit"]["advice"])
    (digest,) = data["provenance"]["files"].values()
    assert digest in text


def test_a_sweep_has_its_points_its_front_and_its_failures(folders, tmp_path):
    page = tree(folders["sweep.json"], tmp_path)
    points = compared(pd.read_parquet(folders["sweep.json"] / "table.parquet"))
    head, *cells = page.cells["point-table"]
    assert sorted(int(cell[0]) for cell in cells) == sorted(points.index)
    for cell in cells:
        told, point = dict(zip(head, cell, strict=True)), points.loc[int(cell[0])]
        assert told["cycles"] == f"{point['cycles']:,.0f}" and told["speedup"] == f"{point['speedup']:.2f}×"
        assert told["for each multiplier"] == f"{point['per_multiplier']:.2f}×"
        assert (told["Pareto front"] == "front") == point["front"]
    (chart,) = json.loads(page.scripts[0])["charts"]
    assert len(chart["scatter"]["Pareto front"]["x"]) == points["front"].sum()
    assert "2 points computed" in page.text and "clock_mhz=0" in page.text


def test_a_run_that_was_explained_says_what_limits_it(folders, tmp_path):
    advice = json.loads((folders["run.json"] / "run.json").read_text(encoding="utf-8"))["guidance"]["advice"]
    text = tree(folders["run.json"], tmp_path).text
    assert len(advice) == 2 and all(each["sentence"] in text for each in advice)


@pytest.mark.parametrize("folder", ["run.json"], indirect=True)
def test_one_that_was_not_says_how_to(folder, tmp_path):
    edited(folder, "run.json", lambda data: data.update(guidance=None))
    assert "<code>accelsim run --explain</code>" in tree(folder, tmp_path).text


@pytest.mark.parametrize("folder", ["run.json"], indirect=True)
def test_coverage_is_told(folder, tmp_path):
    told = {"swat80": {"text": "90.0 % of 2 G multiplications", "multiplications": 2, "not_stored": {}}}
    edited(folder, "run.json", lambda data: data["provenance"]["trace"].update(coverage=told))
    findings = tree(folder, tmp_path).text.partition('id="summary"')[0]
    assert "<li>swat80: 90.0 % of 2 G multiplications</li>" in findings


def edited(folder, name, change):
    data = json.loads((folder / name).read_text(encoding="utf-8"))
    change(data)
    (folder / name).write_text(json.dumps(data), encoding="utf-8")
    manifest.write(folder)


def rows(**changes):
    def change(data):
        data["rows"][0].update(changes)

    return change


def snapshots(**changes):
    def change(data):
        data["snapshots"][0].update(changes)

    return change


ODD = "must be as `accelsim ask --out` wrote"
BAD = [
    ("compare.json", rows(samples="many"), "compare.json: rows[0].samples: must be int"),
    ("compare.json", lambda data: data.pop("refused"), "compare.json: refused: must be given"),
    ("compare.json", rows(step_gain=1e301), "compare.json: rows[0].step_gain: must be"),
    ("answer.json", snapshots(machines=3), "answer.json: snapshots[0].machines: must be a list"),
    (
        "answer.json",
        snapshots(zeros={"weight": "many"}),
        f"answer.json: snapshots: {ODD}",
    ),
    ("answer.json", snapshots(machines=[]), f"answer.json: snapshots: {ODD}"),
    (
        "answer.json",
        snapshots(limit={"advice": [], "snapshot": 3}),
        "answer.json: snapshots.limit.snapshot: must be str",
    ),
    (
        "run.json",
        lambda data: data["guidance"].update(advice=[{}]),
        "run.json: guidance.advice[0].which: must be given",
    ),
    ("sweep.json", lambda data: data.update(traces=[]), "sweep.json: traces: must be an object"),
]


@pytest.mark.parametrize(("folder", "change", "told"), BAD, indirect=["folder"])
def test_what_is_not_as_it_was_written_is_refused_in_a_line(folder, change, told, request, tmp_path):
    edited(folder, request.node.callspec.params["folder"], change)
    with pytest.raises(ResultsError, match=re.escape(told)) as refused:
        write_report(folder, tmp_path / "report.html")
    assert "\n" not in str(refused.value) and not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("folder", ["sweep.json"], indirect=True)
@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda t: t.drop(columns="cycles"), "has no column cycles"),
        (lambda t: t.assign(cycles="many"), "column cycles must hold numbers from 0, not many"),
        (lambda t: t.assign(multipliers=0), "columns cycles, multipliers and baseline_multipliers must be above 0"),
    ],
)
def test_a_sweep_s_table_that_is_damaged_is_refused(folder, change, told, tmp_path):
    path = folder / "table.csv"
    change(pd.read_csv(path)).to_csv(path, index=False)
    manifest.write(folder)
    with pytest.raises(ResultsError, match=re.escape(told)):
        write_report(folder, tmp_path / "report.html")


@pytest.mark.parametrize("folder", ["compare.json", "answer.json"], indirect=True)
def test_names_are_text_and_nothing_else(folder, request, tmp_path):
    name = request.node.callspec.params["folder"]

    def change(data):
        data["rows"][0]["machine"] = data["refused"][HOSTILE] = data["provenance"]["trace"]["network"] = HOSTILE
        for snapshot in data.get("snapshots", []):
            snapshot["machines"][0]["machine"] = HOSTILE

    edited(folder, name, change)
    page = tree(folder, tmp_path)
    assert not page.all("img") and not any("x.invalid" in a.get("href", "") for a in page.all("a"))


@pytest.mark.parametrize("kind", ["compare.json", "answer.json", "sweep.json"])
def test_charts_are_drawn_without_an_error(kind, folders, tmp_path):
    name = "front" if kind == "sweep.json" else "machines-0"
    text = browse(write_report(folders[kind], tmp_path / "report.html"), tmp_path)
    chart = text.partition(f'id="chart-{name}"')[2].partition("</figure>")[0]
    assert "main-svg" in chart and '<path class="point' in chart.replace('class="point"><path', '<path class="point')


def test_a_layer_s_name_opens_its_picture(folders, tmp_path):
    """By a click: bars as long as its cycles in each snapshot, and what was said of it."""
    file = write_report(folders["run.json"], tmp_path / "report.html")
    advice = json.loads((folders["run.json"] / "run.json").read_text(encoding="utf-8"))["guidance"]["advice"][1]
    script = f"""
        const names = [...document.querySelectorAll('#layer-table tbody th button')];
        names.find((name) => name.textContent === {json.dumps(advice["layer"])}).click();
        document.body.dataset.now = location.hash + " " + document.getElementById("picture").open;
        const drawn = document.getElementById("chart-picture").data;
        const cycles = drawn[0].y.map((_, i) => drawn.reduce((sum, cause) => sum + (cause.x[i] ?? 0), 0));
        document.body.dataset.cycles = JSON.stringify(cycles.map(Math.round));
    """
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    text = browse(file, tmp_path)
    picture = text.partition("<dialog")[2].partition("</dialog>")[0]
    layer = advice["layer"].replace("/", "%2F")
    assert f'data-now="#layer={layer} true"' in text
    own = pd.read_csv(folders["run.json"] / "layers.csv").query(f"layer == {advice['layer']!r}")
    assert f'data-cycles="[{",".join(map(str, own["cycles"]))}]"' in text
    assert advice["sentence"] in picture and "main-svg" in picture and "edge" in picture
