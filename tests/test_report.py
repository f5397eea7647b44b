"""Does a report hold the whole run in one file, ask for nothing from anywhere, and work in a browser?"""

import base64
import io
import json
import re
import shutil
import subprocess
import sys
import time
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pandas as pd
import pytest

pytest.importorskip("plotly", reason="needs pip install 'accelsim-sparse[report]'")

sys.path.insert(0, str(Path(__file__).parent / "fuzz"))
import results as fuzz

from accelsim import cli
from accelsim.errors import OutputError, ResultsError
from accelsim.hardware.accelerators.base import Drawing
from accelsim.study import manifest
from accelsim.study.report import write_report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
HOSTILE = "<a href=https://x.invalid>x</a></script><img src=x onerror=alert(1)>\"'&amp;"


@pytest.fixture(scope="module")
def results(write_tiny, tmp_path_factory):
    """A folder as ``accelsim run --out`` writes it, of a trace with the paper's figures beside."""
    folder = tmp_path_factory.mktemp("report")
    trace = write_tiny(folder / "tiny.npz", network="resnet50", dataset="imagenet")
    run = ["run", "--config", "pe16x16.yaml", "--trace", str(trace), "--quiet", "--out", str(folder / "results")]
    assert cli.main(run) == 0
    return folder / "results"


@pytest.fixture
def folder(results, tmp_path):
    """A copy of it to damage."""
    return shutil.copytree(results, tmp_path / "results")


def signed(folder):
    """Its digests written anew: what was changed is as somebody wrote it, and nothing else finds it out."""
    manifest.write(folder)
    return folder


def change_json(folder, change):
    """Rewrites run.json."""
    path = folder / "run.json"
    data = json.loads(path.read_text(encoding="utf-8"))
    change(data)
    path.write_text(json.dumps(data), encoding="utf-8")
    signed(folder)


def change_csv(folder, change):
    """Rewrites layers.csv."""
    change(pd.read_csv(folder / "layers.csv")).to_csv(folder / "layers.csv", index=False)
    signed(folder)


class Tree(HTMLParser):
    """What is in a page: tags with attributes, headings, cells of tables, text of scripts; and whether tags close."""

    VOID = frozenset({"meta", "link", "input", "br", "img", "rect", "path"})

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.cells, self.scripts = [], [], {}, []
        self.text = text
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "table":
            self.table = dict(attributes)["id"]
            self.cells[self.table] = []
        if tag == "tr":
            self.cells[self.table].append([])
        if tag in ("td", "th"):
            self.cells[self.table][-1].append("")
        if tag == "script":
            self.scripts.append("")
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inner = self.open[-1] if self.open else ""
        if inner in ("td", "th"):
            self.cells[self.table][-1][-1] += data
        if inner == "script":
            self.scripts[-1] += data

    def all(self, tag):
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture(scope="module")
def page(results, tmp_path_factory):
    """The report, and what is in it."""
    out = tmp_path_factory.mktemp("page") / "report.html"
    assert write_report(results, out) == out
    return Tree(out.read_text(encoding="utf-8"))


def test_the_command_writes_one_file_and_says_where(folder, capfd):
    before = {path.name for path in folder.iterdir()}
    assert cli.main(["report", str(folder)]) == 0
    assert capfd.readouterr() == (f"{folder / 'report.html'}\n", "")
    assert {path.name for path in folder.iterdir()} - before == {"report.html"}
    assert cli.main(["report", str(folder), "--out", str(folder / "new" / "other.html")]) == 0
    assert [path.name for path in (folder / "new").iterdir()] == ["other.html"]
    assert (folder / "new" / "other.html").read_bytes() == (folder / "report.html").read_bytes()


def test_the_same_results_give_the_same_bytes_wherever_they_lie(folder, tmp_path):
    first = write_report(folder).read_bytes()
    moved = folder.rename(tmp_path / "moved")
    assert write_report(moved).read_bytes() == first
    assert len(first) < 6_000_000


def test_nothing_is_fetched(page):
    """Neither by a tag, nor by style; and the browser is told to refuse what a script would fetch."""
    for tag, attributes in page.tags:
        for name in ("src", "href", "action", "data", "srcset", "poster", "background", "xlink:href"):
            assert re.match(r"#|data:|$", attributes.get(name) or ""), (tag, attributes)
    policy = next(a["content"] for a in page.all("meta") if a.get("http-equiv") == "Content-Security-Policy")
    assert policy.startswith("default-src 'none';") and "http" not in policy and "unsafe-eval" not in policy
    assert not any({"onclick", "onerror", "onload"} & attributes.keys() for _, attributes in page.tags)


def test_the_summary_holds_the_figures_of_the_run_and_the_paper_s_beside(page, results):
    data = json.loads((results / "run.json").read_text(encoding="utf-8"))
    head, *rows = page.cells["table6"]
    assert head[:5] == ["Top-K sparsity", "forward", "the paper", "input gradient", "the paper"]
    for cells, row, paper in zip(rows, data["speedup"], data["paper"], strict=True):
        assert cells[1:5] == [text for c in ("fwd", "input_grad") for text in (f"{row[c]:.2f}×", f"{paper[c]:g}×")]
    shown = [text for row in page.cells["comparison"] for text in row]
    assert f"{data['cycles'][1]['step']:,}" in shown and f"{100 * data['utilization'][1]['fwd']:.1f} %" in shown


def test_the_findings_are_those_of_the_sparsest_snapshot_over_convolutions(results, page):
    data = json.loads((results / "run.json").read_text(encoding="utf-8"))
    big = re.findall("<p class='big'>(.*?)</p>", page.text)
    speedup, used = data["speedup"][1], data["utilization"][1]
    assert big[:4] == [f"{speedup[c]:.2f}×" for c in ("fwd", "input_grad", "weight_grad", "step")]
    rows = pd.read_csv(results / "layers.csv").query("snapshot == 'swat80' and kind == 'conv'")
    lost = (
        rows.filter(like="_slots").drop(columns="effectual_slots").sum() / (rows["cycles"] * rows["multipliers"]).sum()
    )
    assert big[4:] == [f"{100 * used['step']:.1f} %", f"{100 * lost.max():.1f} %"]
    assert f"largest loss: {lost.idxmax().removesuffix('_slots').replace('_', ' ')}" in page.text


def test_the_table_of_layers_agrees_with_the_csv(page, results):
    rows = pd.read_csv(results / "layers.csv").query("cycles > 0")
    head, *cells = page.cells["layer-table"]
    assert len(cells) == len(rows)
    at = {name: head.index(name) for name in ("cycles", "over 0 %", "over dadiannao", "utilization", "off-chip bytes")}
    dense = rows[rows["snapshot"] == "dense"].set_index(["layer", "pass"])["cycles"]
    for (_, row), shown in zip(rows.iterrows(), cells, strict=True):
        assert shown[:2] == [row["layer"], row["snapshot"]]
        assert shown[at["cycles"]] == f"{row['cycles']:,}"
        assert shown[at["over 0 %"]] == f"{dense[row['layer'], row['pass']] / row['cycles']:.2f}×"
        assert shown[at["over dadiannao"]] == f"{row['baseline_cycles'] / row['cycles']:.2f}×"
        used = row["effectual_slots"] / (row["cycles"] * row["multipliers"])
        assert shown[at["utilization"]] == f"{100 * used:.1f} %"
        assert shown[at["off-chip bytes"]] == f"{row['offchip_read_bytes'] + row['offchip_write_bytes']:,}"


def test_the_charts_data_hold_every_slot(page, results):
    rows, data = pd.read_csv(results / "layers.csv"), json.loads(page.scripts[0])
    whole = sum(sum(cause["values"]) for cause in data["slots"])
    assert whole == (rows["cycles"] * rows["multipliers"]).sum()
    offchip = {moved["words"]: moved["values"] for moved in data["places"]["offchip"]}
    assert offchip == {way: rows[f"offchip_{way}_bytes"].tolist() for way in ("read", "write")}
    assert [data["names"]["layer"][i] for i in data["rows"]["layer"]] == rows["layer"].tolist()


def test_the_files_are_inside_as_they_are(page, results):
    links = {a["download"]: a["href"] for a in page.all("a") if "download" in a}
    assert set(links) == {"run.json", "layers.csv", "layers.parquet", "summary.txt"}
    for name, link in links.items():
        assert base64.b64decode(link.partition("base64,")[2]) == (results / name).read_bytes()
    frame = pd.read_parquet(io.BytesIO((results / "layers.parquet").read_bytes()))
    assert len(frame) == len(pd.read_csv(results / "layers.csv"))


def test_the_machine_is_drawn_from_its_configuration(folder):
    text = write_report(folder).read_text(encoding="utf-8")
    for shown in ("16 × 16 PEs", "One PE: 4 × 4 multipliers", "6,144 accumulators", "4 MiB", "1,024 GB/s", "HBM2"):
        assert shown in text, shown
    assert text.count('class="unit"') == 16 * 16 - 1 and text.count('class="multiplier"') == 4 * 4 - 1

    def smaller(data):
        machine = data["provenance"]["machines"][0]
        data["provenance"]["drawings"][0] |= {"rows": 2, "count": 600}
        machine["memory"] = None

    change_json(folder, smaller)
    text = write_report(folder).read_text(encoding="utf-8")
    assert "2 × 300 PEs" in text and "2 × 32 drawn" in text and "HBM2" not in text.partition('id="machine-keys"')[0]


@pytest.mark.parametrize(
    ("drawing", "shown", "units"),
    [
        (Drawing("tiles", 6, "tree", down=3, across=2, lanes=5), ["6 tiles", "One tile: 3 × 2 PEs of 5 lanes"], 10),
        (Drawing("tiles", 4, "tree", down=3, lanes=5), ["4 tiles", "One tile: 3 × 1 PEs of 5 lanes"], 4 + 3 - 2),
        (Drawing("PEs", 8, "lanes", lanes=16), ["8 PEs", "16 multipliers each"], 8 - 1),
        (Drawing("PEs", -1, "product", rows=True, down=1 << 70), ["the array"], 0),
        (Drawing("<b>", "x", ["lanes"]), ["the array"], 0),
        (None, ["the array"], 0),
    ],
)
def test_other_arrays_are_drawn_as_they_declare(folder, drawing, shown, units):
    """Whatever the keys of the machine are called."""

    def change(data):
        data["provenance"]["drawings"][0] = drawing and asdict(drawing)
        data["provenance"]["machines"][0]["accelerator"] = {"model": "new", "tiles": 3, "rows": 3, "lanes": 3}

    change_json(folder, change)
    text = write_report(folder).read_text(encoding="utf-8")
    assert all(words in text for words in shown) and text.count('class="unit"') == units
    assert ["accelerator.model", "new", "dadiannao"] in Tree(text).cells["machine-keys"]


def test_a_run_without_drawings_has_its_memories_drawn(folder):
    change_json(folder, lambda data: data["provenance"].pop("drawings"))
    text = write_report(folder).read_text(encoding="utf-8")
    assert "HBM2" in text.partition('id="machine-keys"')[0] and text.count('class="unit"') == 0


def test_energy_is_shown_where_there_is_some_and_its_total_is_no_component(folder):
    """Of components that this ledger does not have, but the run's had."""

    def two_components(t):
        t = t.drop(columns=[name for name in t if name.endswith("_pj")])
        return t.assign(lasers_pj=t["cycles"] * 1.5, dram_pj=0.25, energy_pj=t["cycles"] * 1.5 + 0.25)

    def told(data):
        others = [row for row in data["counts"] if row["group"] != "energy"]
        (slots,) = [row for row in others if row["name"] == "effectual"]
        energy = slots | {"group": "energy", "unit": "pJ"}
        data["counts"] = [*others, *(energy | {"name": name, "words": name} for name in ("lasers", "dram"))]

    change_csv(folder, two_components)
    change_json(folder, told)
    tree = Tree(write_report(folder).read_text(encoding="utf-8"))
    assert [part["words"] for part in json.loads(tree.scripts[0])["energy"]] == ["lasers", "dram"]
    head, first, *_ = tree.cells["layer-table"]
    cycles = int(first[head.index("cycles")].replace(",", ""))
    assert first[head.index("energy, mJ")] == f"{(1.5 * cycles + 0.25) * 1e-9:.3g}"
    assert any(a.get("id") == "chart-energy" for a in tree.all("div"))


def test_an_energy_that_is_not_known_is_no_energy_of_zero(folder):
    """One layer without: its total is a dash, not what is known of it, and charts get nothing."""
    column = "offchip_pj"
    change_csv(folder, lambda t: t.assign(**{name: t[name].mask(t.index == 0) for name in (column, "energy_pj")}))
    tree = Tree(write_report(folder).read_text(encoding="utf-8"))
    head, first, second, *_ = tree.cells["layer-table"]
    assert first[head.index("energy, mJ")] == "–" and second[head.index("energy, mJ")] != "–"
    (offchip,) = [part for part in json.loads(tree.scripts[0])["energy"] if part["words"] == "off-chip"]
    assert offchip["values"][0] is None and offchip["values"][2] > 0


def test_without_baseline_without_dense_and_without_memory_there_is_less(folder):
    def less(data):
        data |= {"baseline": None, "baseline_multipliers": None, "speedup_over_baseline": [], "baseline_cycles": []}
        for rows in (data["speedup"], data["fewer_effectual"]):
            for row in rows:
                row |= dict.fromkeys(("fwd", "input_grad", "weight_grad", "backward", "step"))

    change_json(folder, less)
    keep = ["snapshot", "sparsity", "layer", "kind", "pass", "machine", "multipliers", "samples", "cycles"]
    change_csv(folder, lambda t: t[keep + [c for c in t if c.endswith("_slots")]].assign(sparsity=0.5))
    tree = Tree(write_report(folder).read_text(encoding="utf-8"))
    charts = {a["id"] for a in tree.all("div") if "chart-" in a.get("id", "")}
    assert charts == {"chart-slots", "chart-causes", "chart-cycles", "chart-picture"}


def hostile(folder):
    """Every name that comes from a file is an attack."""

    def change(data):
        data["provenance"]["trace"] |= {"network": HOSTILE, "path": HOSTILE, "provenance": {HOSTILE: [HOSTILE]}}
        data["provenance"]["command"].append(HOSTILE)
        data["provenance"]["machines"][0] |= {"description": HOSTILE, HOSTILE: HOSTILE}
        data |= {"machine": HOSTILE, "baseline": HOSTILE, "layers": HOSTILE}
        for rows in ("speedup", "fewer_effectual", "utilization", "cycles"):
            data[rows][1]["snapshot"] = HOSTILE

    change_json(folder, change)
    names = {"swat80": HOSTILE, "conv1": HOSTILE, "pe16x16": HOSTILE, "conv": HOSTILE}

    def renamed(t):
        t["ineffectual_slots"] += t["edge_slots"]  # slots still add up
        return t.replace(names).rename(columns={"edge_slots": f"{HOSTILE}_slots"})

    change_csv(folder, renamed)


def test_names_are_text_and_nothing_else(folder, page):
    hostile(folder)
    tree = Tree(write_report(folder).read_text(encoding="utf-8"))
    assert tree.all("img") == [] and len(tree.all("script")) == len(page.all("script")) == 3
    assert not any("onerror" in attributes for _, attributes in tree.tags)
    assert any(HOSTILE in cell for row in tree.cells["layer-table"] for cell in row)
    assert HOSTILE in json.loads(tree.scripts[0])["names"]["layer"]


# What is refused ---------------------------------------------------------------------------------------------------


def drop(name):
    return lambda folder: change_csv(folder, lambda t: t.drop(columns=name))


def put(name, value):
    return lambda folder: change_csv(folder, lambda t: t.astype({name: object}).assign(**{name: value}))


def cut(path):
    path.write_bytes(path.read_bytes()[:-9])


def swap(path):
    """One digit made another."""
    text = path.read_bytes()
    path.write_bytes(text[:-70] + (b"1" if text[-70:-69] == b"0" else b"0") + text[-69:])


def edit(change):
    return lambda folder: change_json(folder, change)


BAD = {
    "no run.json": (lambda f: (f / "run.json").unlink(), "must be a folder with run.json"),
    "no layers.csv": (lambda f: (f / "layers.csv").unlink(), "layers.csv: cannot read"),
    "no layers.csv, signed": (lambda f: signed((f / "layers.csv").unlink() or f), "must name layers.csv, does not"),
    "no digests": (lambda f: (f / "manifest.sha256").unlink(), "manifest.sha256: must be there"),
    "half the digests": (lambda f: cut(f / "manifest.sha256"), "manifest.sha256: must be lines of a SHA-256"),
    "half a parquet": (lambda f: cut(f / "layers.parquet"), "layers.parquet: is not as it was written"),
    "another digit": (lambda f: swap(f / "layers.csv"), "layers.csv: is not as it was written: its digest is not that"),
    "a slot too many": (
        lambda f: change_csv(f, lambda t: t.assign(edge_slots=t["edge_slots"] + (t.index == 2))),
        "layers.csv: line 4: slots must add up to cycles × multipliers",
    ),
    "half a cycle": (put("cycles", 0.5), "layers.csv: column cycles must hold whole numbers below 2^63"),
    "2^63 cycles": (put("cycles", 1 << 63), "layers.csv: column cycles must hold whole numbers below 2^63"),
    "half a file": (lambda f: (f / "run.json").write_text('{"machine": '), "run.json: must be JSON"),
    "no UTF-8": (lambda f: (f / "run.json").write_bytes(b"\xff"), "run.json: must be JSON"),
    "a list": (lambda f: (f / "run.json").write_text("[]"), "run.json: must be an object"),
    "NaN": (lambda f: (f / "run.json").write_text('{"machine": NaN}'), "NaN is not a number"),
    "infinity": (edit(lambda d: d["cycles"][0].update(fwd=10**400)), "run.json"),
    "deep": (lambda f: (f / "run.json").write_text("[" * 100_000), "run.json: must be JSON"),
    "no key": (edit(lambda d: d.pop("fewer_effectual")), "run.json: fewer_effectual: must be given"),
    "wrong type": (
        edit(lambda d: d["speedup"][1].update(fwd="x")),
        "run.json: speedup[1].fwd: must be int or float or null",
    ),
    "a snapshot less": (edit(lambda d: d["paper"].pop()), "run.json: paper: must have one entry for each snapshot"),
    "a word as figure": (edit(lambda d: d["paper"][0].update(fwd="x")), "paper: must be int or float"),
    "no snapshots": (edit(lambda d: d.update(speedup=[])), "speedup: must have one entry"),
    "no column": (drop("cycles"), "layers.csv: has no column cycles"),
    "no causes": (drop("effectual_slots"), "layers.csv: has no column effectual_slots"),
    "a word as count": (put("cycles", "many"), "layers.csv: column cycles must hold numbers from 0, not many"),
    "below nothing": (put("edge_slots", -1), "layers.csv: column edge_slots must hold numbers from 0, not -1"),
    "no multipliers": (put("multipliers", 0), "must be at least 1"),
    "another machine": (put("machine", "other"), "layers.csv: machine must be that of run.json, pe16x16, got other"),
    "no rows": (lambda f: change_csv(f, lambda t: t.head(0)), "layers.csv: must have a row"),
    "empty": (lambda f: (f / "layers.csv").write_text(""), "layers.csv: must be CSV"),
    "binary": (lambda f: (f / "layers.csv").write_bytes(bytes(range(256))), "layers.csv: "),
}


NOT_SIGNED = ("no layers.csv", "no digests", "half the digests", "half a parquet", "another digit")


@pytest.mark.parametrize("name", BAD)
def test_bad_results_are_refused_in_one_line(name, folder, capfd):
    damage, words = BAD[name]
    damage(folder)
    if name not in NOT_SIGNED:
        signed(folder)
    assert cli.main(["report", str(folder)]) == 2
    out, err = capfd.readouterr()
    assert out == "" and err.startswith("accelsim: error: ") and len(err.splitlines()) == 1
    assert words in err
    assert not (folder / "report.html").exists()


def test_a_file_that_cannot_be_written_is_refused_and_nothing_is_left(folder):
    before = sorted(folder.rglob("*"))
    with pytest.raises(OutputError):
        write_report(folder, folder / "run.json" / "report.html")
    with pytest.raises(OutputError):
        write_report(folder, folder)
    with pytest.raises(ResultsError):
        write_report(folder / "nowhere")
    assert sorted(folder.rglob("*")) == before


# In a browser ------------------------------------------------------------------------------------------------------


def browse(file, tmp_path, address=""):
    """The page as Chromium has it when its scripts have run; what it says on its console is an error."""
    if CHROMIUM is None:
        pytest.skip("needs Chromium")
    flags = (
        "--headless=new --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
        "--disable-component-update --disable-sync --enable-logging=stderr --virtual-time-budget=10000 --dump-dom"
    )
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={tmp_path / 'profile'}", f"{file.as_uri()}{address}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    said = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    assert done.returncode == 0 and said == []
    assert 'data-ready="yes"' in done.stdout
    return done.stdout


def shown_rows(text):
    """Cells of the rows of the table of layers that a reader sees."""
    body = text.partition('<table id="layer-table"')[2].partition("<tbody>")[2].partition("</tbody>")[0]
    rows = re.findall(r"<tr(.*?)>(.*?)</tr>", body, re.S)
    rows = [re.sub(r"</?button.*?>", "", cells) for kind, cells in rows if "hidden" not in kind]
    return [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", cells, re.S) for cells in rows]


def test_the_page_draws_its_charts_without_an_error(folder, tmp_path):
    text = browse(write_report(folder), tmp_path)
    for name in ("slots", "causes", "cycles", "speedup", "bytes"):
        chart = text.partition(f'id="chart-{name}"')[2].partition("</figure>")[0]
        assert "main-svg" in chart and ('class="point"' in chart or '<path class="point' in chart), name
    assert len(shown_rows(text)) == len(pd.read_csv(folder / "layers.csv").query("cycles > 0"))
    assert "data-theme" not in text.partition(">")[0]


def test_the_address_sorts_filters_and_chooses(folder, tmp_path):
    text = browse(write_report(folder), tmp_path, "#sort=-cycles&filter=BLOCK%20forward&theme=dark&pass=fwd")
    rows = shown_rows(text)
    assert {row[0] for row in rows} == {"block/conv2", "block/down"} and {row[2] for row in rows} == {"forward"}
    cycles = [int(row[4].replace(",", "")) for row in rows]
    assert cycles == sorted(cycles, reverse=True) and len(cycles) == 4
    heads = text.partition('<table id="layer-table"')[2].partition("</thead>")[0]
    assert re.findall(r'data-key="(\w+)"[^>]*aria-sort="(\w+)"', heads) == [("cycles", "descending")]
    assert 'data-theme="dark"' in text and "4 of 28 rows" in text
    ascending = shown_rows(browse(write_report(folder), tmp_path, "#sort=layer"))
    assert [row[0] for row in ascending] == sorted(row[0] for row in ascending)


def test_a_click_sorts_a_word_filters_and_a_choice_draws_anew(folder, tmp_path):
    """As a reader does it, by events; the address then holds what was chosen."""
    script = """
        const say = (element, event) => element.dispatchEvent(new Event(event, { bubbles: true }));
        const head = document.querySelector('th[data-key="cycles"] button');
        head.click(), head.click();
        const filter = document.getElementById("filter"), pass = document.querySelector('[data-choice="pass"]');
        filter.value = "swat80 depthwise", say(filter, "input");
        const before = document.getElementById("chart-cycles").innerHTML;
        pass.value = "weight_grad", say(pass, "change");
        document.getElementById("theme").click();
        const anew = before !== document.getElementById("chart-cycles").innerHTML;
        document.body.dataset.now = `${location.hash} ${anew}`;
    """
    file = write_report(folder)
    whole = file.read_text(encoding="utf-8")
    file.write_text(whole.replace("</body>", f"<script>{script}</script></body>"), encoding="utf-8")
    text = browse(file, tmp_path)
    assert 'data-now="#sort=cycles&amp;filter=swat80+depthwise&amp;pass=weight_grad&amp;theme=light true"' in text
    rows = shown_rows(text)
    cycles = [int(row[4].replace(",", "")) for row in rows]
    assert cycles == sorted(cycles) and {(row[1], row[0]) for row in rows} == {("swat80", "depthwise")}


def test_names_in_charts_are_text(folder, tmp_path):
    hostile(folder)
    text = browse(write_report(folder), tmp_path)
    drawn = "".join(re.findall(r'<svg class="main-svg".*?</svg>', text, re.S))
    assert "onerror" in drawn and "<img" not in drawn and "<a " not in drawn and "x.invalid&gt;x&lt;/a&gt;" in drawn


def test_a_report_of_a_second_is_no_long_wait(folder):
    start = time.perf_counter()
    write_report(folder)
    assert time.perf_counter() - start < 10


# What nobody would have thought of, a few; tests/fuzz/results.py tries as many as one likes --------------------------


def test_spoilt_results_are_read_or_refused_in_a_line(results, tmp_path):
    assert list(fuzz.faults(results, 40, seed=7, folder=tmp_path)) == []


def test_a_fault_is_seen(results, tmp_path, monkeypatch):
    def broken(folder):
        raise KeyError("x")

    monkeypatch.setattr(fuzz, "reports", broken)
    (path, what), *_ = fuzz.faults(results, 1, seed=7, folder=tmp_path)
    assert path.exists() and what == "export: KeyError: 'x'"
