"""Does the page show what simulate counts, to this machine alone, on a desktop and on a phone, by keys and by mouse?"""

import json
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import replace
from itertools import product
from pathlib import Path

import browser
import pytest

import accelsim
from accelsim import ledger
from accelsim.cli import main
from accelsim.errors import AccelsimError, ConfigError, OutputError, ResultsError
from accelsim.pipeline import simulate_records
from accelsim.view.points import LayerAccount, Point, front
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.toy import cut

pytest.importorskip("dash", reason="no Dash here: the page is not served")

from accelsim.view import figures
from accelsim.view.app import View
from accelsim.view.live import BUDGET, FACTORS, Live, Setting, changed
from accelsim.view.results import read
from accelsim.view.server import HOST, started

CONFIGS = Path(__file__).parent.parent / "configs"
TRACE, MACHINE = "resnet20-int8.npz", "tensordash.yaml"
AS_IT_IS = Setting(TRACE, MACHINE, "fwd", 80)


@pytest.fixture(scope="module")
def live():
    names = (MACHINE, "pe16x16.yaml", "ideal.yaml", "loom.yaml")
    with accelsim.open_trace(TRACE) as trace, accelsim.open_trace("resnet50.npz") as masks:
        yield Live({TRACE: trace, "resnet50.npz": masks}, {name: CONFIGS / name for name in names})


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """What run and sweep leave."""
    root = tmp_path_factory.mktemp("results")
    layers = ["--layers", "layer3.*", "--passes", "fwd", "--quiet"]
    run = ["run", "--config", MACHINE, "--trace", TRACE, "--out", str(root / "run"), *layers]
    study = {"trace": TRACE, "machine": MACHINE, "passes": ["fwd"], "layers": ["layer3.*"], "snapshots": ["swat80"],
             "grid": {"accelerator.tiles": [4, 16], "accelerator.columns": [2, 4]}}  # fmt: skip
    (root / "study.yaml").write_text(json.dumps(study), encoding="utf-8")
    assert main(run) == 0
    assert main(["sweep", str(root / "study.yaml"), "--out", str(root / "sweep"), "--quiet", "--jobs", "1"]) == 0
    return root


def simulated(live, setting, machine):
    """What ``simulate`` says of the same layers."""
    trace = live.traces[setting.trace]
    (snapshot,) = (found for found in trace.snapshots if round(100 * found.sparsity) == setting.sparsity_percent)
    layers = tuple(cut(layer, {"samples": 1}) for layer in snapshot.layers)
    one = SyntheticTrace(trace.path, "", "", (replace(snapshot, layers=layers, batch=1),))
    return [record for record in simulate_records(machine, one, passes=setting.which) if record.cycles]


@pytest.mark.parametrize(
    ("setting", "keys"),
    [
        (AS_IT_IS, {}),
        (replace(AS_IT_IS, which="input_grad", pes=3), {"accelerator.tiles": 32}),
        (replace(AS_IT_IS, lookahead=5), {"accelerator.search_shape": "L", "accelerator.lookahead_h": 5}),
        (replace(AS_IT_IS, bandwidth=0), {"memory.offchip.megabytes_per_second": 8000}),
        (replace(AS_IT_IS, machine="pe16x16.yaml", pes=0), {"accelerator.pe_rows": 4}),
        (replace(AS_IT_IS, machine="loom.yaml", pes=1), {"accelerator.rows": 64}),
    ],
)  # fmt: skip
def test_a_slider_s_point_is_what_simulate_counts(setting, keys, live):
    machine = accelsim.load_machine(setting.machine, settings=keys)
    records, counted = simulated(live, setting, machine), live.count(setting)
    assert list(counted.layers) == [LayerAccount.of(record) for record in records]
    assert counted.point.cycles == sum(record.cycles for record in records)
    assert counted.point.multipliers == machine.accelerator.multipliers
    energy = sum(sum(record.energy.values()) for record in records)
    assert counted.point.energy_mj == pytest.approx(energy * 1e-9)
    work = sum(record.dense_multiplications for record in records)
    worth = machine.accelerator.baseline_multipliers
    assert counted.point.per_multiplier == pytest.approx(work / counted.point.cycles / worth)


def test_what_a_slider_changes_is_counted_within_a_second(live):
    live.count(AS_IT_IS)
    for ahead, pes, bandwidth in product((1, 3), (1, 3), (0, 4)):
        setting = replace(AS_IT_IS, lookahead=ahead, pes=pes, bandwidth=bandwidth)
        before = time.process_time()
        assert live.count(setting).seconds > 0
        assert time.process_time() - before < 1  # the processor's: those on the wall depend on what else runs
        assert live.count(setting) is live.count(setting)


def test_zeros_that_no_snapshot_has_are_made(live):
    few, many = (live.count(replace(AS_IT_IS, machine=MACHINE, sparsity_percent=zeros)) for zeros in (85, 95))
    assert few.point.cycles > many.point.cycles and few.point.group != many.point.group
    with pytest.raises(AccelsimError, match="needs values of the"):
        live.count(Setting("resnet50.npz", "loom.yaml", "fwd", 90))


def test_of_a_large_network_some_layers_are_counted(live):
    snapshot, left_out = live.snapshot("resnet50.npz", 90, False)
    assert left_out and len(snapshot.layers) + left_out == len(live.traces["resnet50.npz"].snapshots[0].layers)
    assert sum(layer.geometry.multiplications for layer in snapshot.layers) < 2 * BUDGET
    assert all(layer.samples == 1 for layer in snapshot.layers)


def test_a_machine_that_cannot_be_had_so_is_refused(live):
    machine = accelsim.load_machine("ideal.yaml", settings={"accelerator.multipliers": 3})
    with pytest.raises(AccelsimError, match=r"PEs: ideal cannot be had 0.25 times as large"):
        changed(machine, replace(AS_IT_IS, pes=FACTORS.index(0.25)))
    with pytest.raises(ConfigError):
        changed(accelsim.load_machine("pe16x16.yaml", settings={"accelerator.pe_rows": 256}), replace(AS_IT_IS, pes=4))


def test_the_front_is_what_no_other_beats():
    def point(cycles, multipliers, energy, group="g"):
        return Point("p", cycles, multipliers, energy, 0.5, None, group)

    points = [
        point(3, 1, 2.0),
        point(1, 3, 2.0),
        point(3, 2, 2.0),
        point(2, 3, 2.0),
        point(3, 2, 1.0),
        point(9, 9, 9.0, "h"),
    ]
    assert front(points) == [1, 0, 4, 5]
    assert front([point(1, 1, None), point(1, 1, None)]) == [0, 1]


def test_folders_of_runs_and_sweeps_become_points(folders):
    run, sweep = read(folders / "run"), read(folders / "sweep")
    assert [point.label for point in run.points] == ["tensordash, dense", "tensordash, swat80"]
    assert [point.multipliers for point in sweep.points] == [512, 1024, 2048, 4096]
    assert sweep.points[0].label == "tiles 4, columns 2"
    for results in (run, sweep):
        for number, point in enumerate(results.points):
            layers = results.layers(number)
            assert sum(layer.cycles for layer in layers) == point.cycles
            assert all(sum(layer.slots.values()) == layer.cycles * layer.multipliers for layer in layers)
            assert sum(layer.energy_pj for layer in layers) * 1e-9 == pytest.approx(point.energy_mj)
    (best,) = (point for point in run.points if point.label == "tensordash, swat80")
    assert best.cycles == sweep.points[3].cycles and best.per_multiplier == pytest.approx(
        sweep.points[3].per_multiplier
    )


def test_a_run_s_gain_is_over_what_a_bit_serial_machine_is_worth(tmp_path):
    """Not over its own multipliers, of one bit."""
    given = ["run", "--config", "loom.yaml", "--trace", TRACE, "--layers", "layer3.*", "--passes", "fwd", "--quiet"]
    assert main([*given, "--out", str(tmp_path / "run")]) == 0
    said = json.loads((tmp_path / "run" / "run.json").read_text(encoding="utf-8"))
    assert said["worth"] == accelsim.load_machine("loom.yaml").accelerator.baseline_multipliers != said["multipliers"]
    shown = [point.per_multiplier for point in read(tmp_path / "run").points]
    assert shown == pytest.approx([row["fwd"] for row in said["per_multiplier"]])


def test_folders_that_are_damaged_or_none_are_refused(folders, tmp_path):
    with pytest.raises(ResultsError, match="must be a trace"):
        read(tmp_path)
    (tmp_path / "sweep.json").write_text("{}")
    with pytest.raises(ResultsError, match="manifest"):
        read(tmp_path)


def test_causes_look_as_in_the_plots(live):
    layers = live.count(AS_IT_IS).layers
    drawn = figures.layers(layers, layers[0].name)
    looks = {row.words: row.bar.fill for row in ledger.rows("slots")}
    assert {bar["name"]: bar["marker"]["color"] for bar in drawn["data"]}.items() <= looks.items()
    heights = [sum(bar["y"][i] for bar in drawn["data"]) for i in range(len(layers))]
    assert heights == pytest.approx([layer.cycles for layer in layers])
    assert figures.plain("<b>&") == "&lt;b&gt;&amp;"


@pytest.fixture(scope="module")
def address(live, folders):
    results = {name: read(folders / name) for name in ("run", "sweep")}
    server, address = started(View(live, results), 0)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield address
    server.shutdown()
    thread.join()
    server.server_close()


def asked(url, **headers):
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=30) as answer:
            return answer.status, answer.headers
    except urllib.error.HTTPError as error:
        return error.code, error.headers


def test_only_who_knows_the_token_and_asks_this_host_is_answered(address):
    assert address.startswith(f"http://{HOST}:") and len(address.split("/")[3]) >= 32
    root = address[: address.index("/", 8)]
    assert asked(address)[0] == 200
    assert asked(f"{address}_dash-layout")[0] == 200
    for path in ("/", "/_dash-layout", "/x/_dash-layout", "/corner/0/0", "/assets/view.css"):
        assert asked(root + path)[0] == 404, path
    assert asked(address, Host="evil.example")[0] == 403
    assert asked(address, Host="localhost")[0] == 403
    assert asked(f"{address}_dash-layout", Origin="http://evil.example")[0] == 403
    headers = asked(address)[1]
    assert "default-src 'self'" in headers["Content-Security-Policy"] and "*" not in headers["Content-Security-Policy"]
    assert "unsafe-eval" not in headers["Content-Security-Policy"] and headers["Referrer-Policy"] == "no-referrer"
    assert "Access-Control-Allow-Origin" not in headers
    assert asked(f"{address}corner/9/9")[0] == 404


def test_a_port_that_is_taken_is_said_in_one_line(live, capfd):
    said = r"^--port: 127.0.0.1:\d+ cannot be listened on: Address already in use$"
    with socket.create_server((HOST, 0)) as taken, pytest.raises(OutputError, match=said):
        started(View(live, {}), taken.getsockname()[1])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.npz"], "nowhere.npz: "),
        (["nowhere"], "nowhere: must be a trace (.npz), or a folder that accelsim run --out or sweep wrote"),
        (["--port", "70000"], "argument --port: must be an integer in 0…65535, got 70000"),
        (["--config", "none.yaml"], "none.yaml: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_in_one_line(arguments, said, capsys):
    try:
        code = main(["view", *arguments])
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and said in error, error


def test_without_dash_it_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "dash", None)
    for name in [name for name in sys.modules if name.startswith("accelsim.view.")]:
        monkeypatch.delitem(sys.modules, name)
    assert main(["view"]) == 2
    assert capsys.readouterr().err == "accelsim: error: view needs Dash: pip install 'accelsim-sparse[view]'\n"


def test_ctrl_c_ends_it_and_nothing_is_left():
    command = [sys.executable, "-m", "accelsim.cli", "view", TRACE]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    address = process.stdout.readline().strip()
    assert asked(address)[0] == 200
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 130 and error == "accelsim: interrupted; the page is closed\n"
    port = int(address.split(":")[2].split("/")[0])
    with socket.socket() as probe:
        assert probe.connect_ex((HOST, port)), "nobody listens any more"


READY = "document.querySelector('#layers .bars') && document.getElementById('account')?.textContent"


def text(page, name):
    return page.ask(f"document.getElementById('{name}').textContent")


@pytest.mark.parametrize("size", [browser.DESKTOP, browser.PHONE], ids=["desktop", "phone"])
def test_the_page_works_in_a_browser(size, address, chromium):
    page = chromium()
    page.size(*size)
    page.open(address, READY)
    assert text(page, "sparsity-said") == "80 %" and "(its own)" in text(page, "lookahead-said")
    before = text(page, "figures")
    page.ask("document.getElementById('pes').focus()")
    page.press("ArrowRight")
    page.until(f"document.getElementById('figures').textContent !== {json.dumps(before)}")
    assert "2×, 8,192 multipliers" in text(page, "pes-said") and "8,192" in text(page, "figures")
    page.until("document.querySelectorAll('#pareto .points path.point').length === 2")
    page.until("document.querySelector('#account table tbody').rows.length > 2")
    assert page.ask("document.querySelector('#picture').href").startswith(f"{address}corner/")
    reached = page.reached(80)
    wanted = ["source", "machine", "which", "sparsity", "pes", "lookahead", "bandwidth", "everything", "clear", "point",
              "layer", "picture"]  # fmt: skip
    assert [name for name in reached if name in wanted] == wanted
    assert page.errors() == [] and page.overflows() <= 0 and page.ask(browser.CONTRAST) == []
    elsewhere = [url for url in page.requests() if not url.startswith((address, "data:", "blob:"))]
    assert elsewhere == []


def test_a_click_opens_a_layer_s_account_and_its_picture(address, chromium):
    page = chromium()
    page.size(*browser.DESKTOP)
    page.open(address, READY)
    page.until("document.querySelectorAll('#layers .bars path').length > 20")
    bars = "[...document.querySelectorAll('#layers .trace.bars')].find(t => t.querySelector('path'))"
    bar = f"{bars}.querySelectorAll('.point')[4]"
    page.ask(f"{bar}.scrollIntoView({{block: 'center'}})")
    corner = page.ask(f"(b => [b.left + b.width / 2, b.top + b.height / 2])({bar}.getBoundingClientRect())")
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        page.send("Input.dispatchMouseEvent", type=kind, x=corner[0], y=corner[1], button="left", clickCount=1)
    page.until("document.querySelector('#account caption').textContent.startsWith('layer1.1.conv2, fwd:')")
    page.open(page.ask("document.querySelector('#picture').href"))
    assert page.ask("document.documentElement.dataset.equal") == "yes" and page.errors() == []
    assert page.ask("document.title").startswith("layer1.1.conv2 on tensordash")


def test_a_sweep_s_points_are_shown_and_chosen(address, chromium):
    page = chromium()
    page.size(*browser.DESKTOP)
    page.open(address, READY)
    page.ask("document.getElementById('source').click()")
    option = (
        "[...document.querySelectorAll('[role=option], .dash-dropdown-option')].find(e => e.textContent === 'sweep')"
    )
    page.until(option)
    page.ask(f"{option}.click()")
    page.until("document.querySelectorAll('#pareto .points path.point').length === 4")
    page.until("document.getElementById('status').textContent === '4 points of sweep'")
    assert page.ask("document.getElementById('live').hidden") is True and page.errors() == []
