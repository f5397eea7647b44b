"""Does an animation show the schedule that is counted, on every machine, in a page that works wherever it is opened?"""

import base64
import json
import re
import zlib
from pathlib import Path

import browser
import numpy as np
import pytest
from stranger import FOLDER, StrangerArray

import accelsim
from accelsim import ledger
from accelsim.cli import main
from accelsim.errors import AccelsimError, TraceError
from accelsim.hardware.accelerators.dadiannao import DaDianNao
from accelsim.hardware.accelerators.film import Film
from accelsim.hardware.machine import Machine
from accelsim.pipeline import simulate_records
from accelsim.study.animation.filming import MOST_PRODUCTS, animated
from accelsim.study.animation.page import grid, to_html
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, lower, lower_tensors
from accelsim.workload.synthetic import SyntheticTrace
from accelsim.workload.toy import CUTS, TOY, cut, of_trace, sizes_of, toy
from accelsim.workload.trace import Layer, Snapshot

ROOT = Path(__file__).parent.parent
SHIPPED = sorted(path.name for path in (ROOT / "configs").glob("*.yaml"))
SMALL = toy({"channels": 8, "filters": 12, "height": 5, "width": 4})


def simulated(machine, layer, which):
    """What ``simulate`` says, without anybody looking on."""
    trace = SyntheticTrace(Path("t"), "", "", (Snapshot("s", 0.0, 0, "none", layer.batch, (layer,)),))
    (record,) = simulate_records(machine, trace, passes=which)
    return record


def told(page):
    """The data of a page."""
    return json.loads(re.search(r'<script id="data" type="application/json">(.*?)</script>', page, re.S)[1])


def added_up(data):
    """Slots by cause, as a page's script adds them up: frames, and cycles in which all wait."""
    frames = np.frombuffer(zlib.decompress(base64.b64decode(data["frames"])), np.uint8)
    counts = np.bincount(frames, minlength=len(data["causes"]))
    for cause, cycles in data["segments"]:
        if cause >= 0:
            counts[cause] += cycles * data["multipliers"]
    return {cause["words"]: int(count) for cause, count in zip(data["causes"], counts, strict=True)}


@pytest.mark.parametrize("name", SHIPPED)
def test_the_page_s_totals_are_those_of_simulate(name):
    machine = accelsim.load_machine(name)
    for which in PASSES:
        record = simulated(machine, SMALL, which)
        data = told(to_html(animated(machine, SMALL, which)))
        words = {row.name: row.words for row in ledger.rows("slots")}
        assert added_up(data) == {words[cause]: count for cause, count in record.slots.items() if count}
        assert sum(cycles for _, cycles in data["segments"]) == data["cycles"] == record.cycles
        colours = {row.words: row.bar.fill for row in ledger.rows("slots")}
        assert all(cause["fill"] == colours[cause["words"]] for cause in data["causes"])
        assert len({cause["key"] for cause in data["causes"]}) == len(data["causes"])


def test_overheads_and_narrow_memories_are_in_the_totals_too():
    machine = accelsim.load_machine("pe16x16.yaml", memory="ddr4.yaml", overheads="swat.yaml")
    for which in PASSES:
        data, record = told(to_html(animated(machine, SMALL, which))), simulated(machine, SMALL, which)
        assert sum(added_up(data).values()) == record.cycles * record.multipliers
        assert {"rotate", "top k", "format"} & set(added_up(data))


def test_frames_by_hand():
    """One PE of two lanes, one filter of three channels at one place: a full line, then one with an empty lane."""
    machine = DaDianNao(model="dadiannao", tiles=1, rows=1, columns=2, lanes=2)
    values, weights = np.array([5, 0, 7]).reshape(1, 3, 1, 1), np.array([2, 3, 4]).reshape(1, 3, 1, 1)
    (conv,) = lower_tensors(Geometry(3, 1, 1, 1, (1, 1)), "fwd", values, weights)
    film = Film(machine.multipliers)
    assert machine.replay(conv, film)[0].item() == 38
    shown = [[film.causes[code] for code in frame] for frame in film.frames]
    assert shown == [["effectual", "ineffectual", "edge", "edge"], ["effectual", "edge", "edge", "edge"]]


def test_products_wait_in_scnn_s_queues_by_hand():
    """One PE of two multipliers and one bank without a queue: two products of a cycle take two."""
    machine = accelsim.load_machine("scnn.yaml").accelerator
    sizes = {"pe_rows": 1, "pe_columns": 1, "activation_width": 1, "weight_width": 2, "banks": 1, "queue_depth": 0}
    machine = machine.model_copy(update=sizes)
    (conv,) = lower_tensors(Geometry(1, 1, 1, 2, (1, 1)), "fwd", np.ones((1, 1, 1, 1)), np.ones((2, 1, 1, 1)))
    film = Film(machine.multipliers)
    machine.replay(conv, film)
    assert [[film.causes[code] for code in frame] for frame in film.frames] == [
        ["effectual"] * 2,
        ["bank_conflict"] * 2,
    ]
    (queue,) = film.watched
    assert queue.levels.ravel().tolist() == [1, 0] and queue.start == 0


def test_a_window_shows_what_waits_and_what_is_taken():
    machine = accelsim.load_machine(
        "tensordash.yaml", settings={"accelerator.tiles": 1, "accelerator.rows": 1}
    ).accelerator
    (conv,) = lower(toy({"channels": 48, "filters": 1, "height": 1, "width": 1, "kernel": 1, "padding": 0}), "fwd")
    film = Film(machine.multipliers)
    machine.replay(conv, film)
    levels = np.concatenate([shot.levels for shot in film.watched])
    on_rows = conv.kernel if machine.scheduled(conv) == "weight" else conv.input
    assert (levels == 2).sum() == np.count_nonzero(on_rows)
    assert (levels[-1] != 1).all() and film.watched[0].kind == "window" and film.watched[0].rows == 3


class Miscounted(StrangerArray):
    def replay(self, conv, film=None):
        replayed = super().replay(conv, film)
        if film is not None:
            film.shoot(1, self.lanes, cause="edge")
        return replayed


class Unfilmed(StrangerArray):
    def replay(self, conv):
        return super().replay(conv)


def machine_of(kind):
    shipped = accelsim.load_machine("dadiannao.yaml", memory="none", energy="none")
    return shipped.model_copy(update={"name": "mine", "accelerator": kind(model="m", lanes=5)})


def test_a_stranger_s_machine_is_animated_where_its_replay_takes_a_film():
    assert isinstance(machine_of(StrangerArray), Machine)
    for which in PASSES:
        machine = machine_of(StrangerArray)
        assert added_up(told(to_html(animated(machine, SMALL, which)))) == {
            cause: count for cause, count in simulated(machine, SMALL, which).slots.items() if count
        }
    with pytest.raises(AccelsimError, match=r"^mine: accelerator.model: replay must take a film to be animated; docs/"):
        animated(machine_of(Unfilmed), SMALL, "fwd")
    with pytest.raises(AccelsimError, match=r"^mine: the film's slots must be those counted"):
        animated(machine_of(Miscounted), SMALL, "fwd")


def test_a_machine_file_of_a_stranger_s_class_is_animated_with_consent(tmp_path, capsys):
    arguments = ["animate", "--config", str(FOLDER / "stranger_array.yaml"), "--out", str(tmp_path / "a.html")]
    assert main([*arguments, "--allow-code"]) == 0
    assert told((tmp_path / "a.html").read_text(encoding="utf-8"))["causes"][0]["words"] == "effectual"
    assert main(arguments) == 2 and "--allow-code" in capsys.readouterr().err


def test_a_layer_that_is_too_large_says_which_cut_to_take(tmp_path, capsys):
    out = tmp_path / "a.html"
    arguments = ["animate", "--config", "tensordash.yaml", "--out", str(out)]
    arguments += ["--trace", "resnet20-cifar10.npz", "--layer", "layer1.0.conv1"]
    assert main(arguments) == 2 and not out.exists()
    error = capsys.readouterr().err
    (advice,) = re.findall(r"take --cut (\S+)$", error.strip())
    assert error.count("\n") == 1 and f"at most {MOST_PRODUCTS:,} multiplications" in error
    assert main([*arguments, "--cut", advice]) == 0 and out.stat().st_size > 10_000
    assert capsys.readouterr().out.startswith(f"{out}: ")


def test_a_cut_is_a_corner_of_the_layer():
    rng = np.random.default_rng(0)
    g = Geometry(6, 5, 4, 4, (3, 2), padding=(1, 1, 0, 0), groups=2)
    shapes = {"activation": (2, 6, 5, 4), "weight": (4, 3, 3, 2), "gradient": (2, 4, *g.output)}
    layer = Layer("l", "conv", g, 2, 4, PASSES, {name: rng.integers(0, 9, shape) for name, shape in shapes.items()})
    small = cut(layer, {"samples": 1, "groups": 2, "channels": 2, "filters": 1, "height": 4, "width": 3})
    assert sizes_of(small) == {"samples": 1, "groups": 2, "channels": 2, "filters": 1, "height": 4, "width": 3}
    t = layer.tensors
    np.testing.assert_array_equal(small.tensor("activation"), t["activation"][:1, [0, 1, 3, 4], :4, :3])
    np.testing.assert_array_equal(small.tensor("weight"), t["weight"][[0, 2], :2])
    np.testing.assert_array_equal(small.tensor("gradient"), t["gradient"][:1, [0, 2], :4, :2])
    tensors = {"activation": rng.integers(0, 9, (2, 4, 3, 1)), "weight": rng.integers(0, 9, (12, 2, 1, 1))}
    matmul = Layer("m", "matmul", Geometry(4, 3, 1, 6, (1, 1), groups=2), 2, 2, PASSES, tensors)
    small = cut(matmul, {"samples": 2, "groups": 1, "filters": 2})
    np.testing.assert_array_equal(small.tensor("weight"), matmul.tensors["weight"][[0, 1, 6, 7]])
    np.testing.assert_array_equal(small.tensor("activation"), matmul.tensors["activation"][:, :2])


OF_TRACE = ["--trace", "resnet20-int8.npz", "--layer", "conv1"]
WRONG = [
    (["--toy", "kernel=0"], "toy: kernel: must be a whole number, got 0"),
    (["--toy", "zeros=1"], "toy: zeros: must be a share, 0 or more and below 1, got 1"),
    (["--toy", "colour=3"], f"toy: must be of {', '.join(TOY)}, got 'colour'"),
    (["--toy", "kernel=9"], "kernel: the dilated kernel (9, 9) must fit the padded input (8, 8)"),
    (["--toy", "channels"], "argument --toy: must be KEY=NUMBER,…, got channels"),
    (["--cut", "height=2"], "--cut: needs a --trace"),
    (["--trace", "gpt.npz"], "--layer: must name a layer of the trace"),
    ([*OF_TRACE, "--toy", "seed=1"], "--toy: makes a layer up, --trace takes one from a file"),
    ([*OF_TRACE[:3], "conv9"], "layer must be one of the trace's, as "),
    ([*OF_TRACE, "--pass", "input_grad"], "conv1: passes: must have run input_grad"),
    ([*OF_TRACE, "--cut", "height=99"], "cut: height: conv1 has 32, must be a"),
    ([*OF_TRACE, "--cut", "kernel=1"], f"cut: must be of {', '.join(CUTS)}, got"),
]


@pytest.mark.parametrize(("arguments", "said"), WRONG)
def test_what_is_wrong_is_said_in_one_line(arguments, said, tmp_path, capsys):
    try:
        code = main(["animate", "--config", "dadiannao.yaml", "--out", str(tmp_path / "a.html"), *arguments])
    except SystemExit as ended:
        code = ended.code
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and said in error and not list(tmp_path.iterdir()), error


def test_a_layer_of_a_trace_is_found_by_name():
    with accelsim.open_trace("resnet20-int8.npz") as trace:
        assert of_trace(trace, "conv1").name == "conv1"
        with pytest.raises(TraceError, match="snapshot must be one of"):
            of_trace(trace, "conv1", "none")


def test_every_multiplier_has_a_place_in_the_picture():
    for name in SHIPPED:
        accelerator = accelsim.load_machine(name).accelerator
        g = grid(accelerator.drawing, accelerator.multipliers)
        assert (
            g["units"] * g["down"] * g["across"] * g["lanes"] == accelerator.multipliers and g["lanes"] % g["wide"] == 0
        )


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """An animation with windows, one with queues, one with bits."""
    folder = tmp_path_factory.mktemp("animations")
    for name in ("tensordash", "scnn", "tcle"):
        page = to_html(animated(accelsim.load_machine(f"{name}.yaml"), SMALL, "fwd"))
        folder.joinpath(f"{name}.html").write_text(page, encoding="utf-8")
    return folder


@pytest.mark.parametrize("size", [browser.DESKTOP, browser.PHONE], ids=["desktop", "phone"])
@pytest.mark.parametrize("name", ["tensordash", "scnn", "tcle"])
def test_the_page_works_in_a_browser(name, size, pages, chromium):
    page = chromium()
    page.size(*size)
    page.open(f"file://{pages / name}.html")
    assert page.ask("document.documentElement.dataset.equal") == "yes"
    at = "Number(document.getElementById('cycle').value)"
    page.press("Home")
    assert page.ask(at) == 0
    page.press("ArrowRight")
    page.press("ArrowRight", shift=True)
    page.press("ArrowLeft")
    assert page.ask(at) == 10
    page.press("End")
    last = page.ask(at)
    assert page.ask("[...document.querySelectorAll('#causes tbody tr')].every(r => r.cells[3].textContent === "
                    "r.cells[5].textContent)"), "at the end all is added up"  # fmt: skip
    page.press("Home")
    page.ask("document.getElementById('speed').value = '1000'")
    page.press(" ")
    page.until(f"{at} === {last}")
    assert page.ask("document.getElementById('play').textContent") == "play"
    assert page.errors() == [] and page.overflows() <= 0 and page.ask(browser.CONTRAST) == []
    assert {"first", "back", "play", "step", "last", "speed", "work", "cycle", "unit"} <= set(page.reached())
    assert [url for url in page.requests() if not url.startswith(("file:", "data:", "blob:"))] == []
    small = "[...document.querySelectorAll('.controls button')].some(b => b.getBoundingClientRect().height < 40)"
    assert not page.ask(small)
