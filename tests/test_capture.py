"""Does ``accelsim capture`` train, record what it trained, and leave a trace that simulates — whatever happens?"""

import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import accelsim

torch = pytest.importorskip("torch")

from accelsim.capture.train import Plan, capture  # noqa: E402 (after the check for torch)
from accelsim.errors import AccelsimError  # noqa: E402

MODEL = "tests_capture_model:Tiny"
CODE = """
import torch
class Tiny(torch.nn.Sequential):
    def __init__(self, num_classes=10):
        super().__init__(
            torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU(),
            torch.nn.Conv2d(8, 8, 3, stride=2, padding=1), torch.nn.ReLU(),
            torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(8, num_classes))
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty current folder with a model of one's own in it; one thread, for the machine is shared."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests_capture_model.py").write_text(CODE)
    torch.set_num_threads(1)
    yield tmp_path
    sys.modules.pop("tests_capture_model", None)


def command(*arguments, **options):
    full = [sys.executable, "-m", "accelsim.cli", "capture", "--model", MODEL, "--batch", "8", *arguments]
    return subprocess.run(full, capture_output=True, text=True, **options)


def test_a_captured_trace_is_what_was_trained(folder):
    plan = Plan(
        MODEL, folder / "t.npz", sparsities=(0.0, 0.75), steps=3, batch=8, record=(0, 2), samples=2, image_size=16
    )
    history = capture(plan)
    assert [(p.sparsity, p.step) for p in history] == [(s, i) for s in (0.0, 0.75) for i in range(3)]
    with accelsim.open_trace(folder / "t.npz") as trace:
        assert [s.name for s in trace.snapshots] == ["dense-step0", "dense-step2", "swat75-step0", "swat75-step2"]
        sparse = trace.snapshots[-1]
        assert (sparse.sparsity, sparse.step, sparse.algorithm, sparse.batch, sparse.layers[0].samples) == (
            0.75,
            2,
            "SWAT-U",
            8,
            2,
        )
        first, second, linear = sparse.layers
        assert (first.name, "input_grad" in first.passes, "input_grad" in second.passes, linear.kind) == (
            "0",
            False,
            True,
            "linear",
        )
        assert first.tensor("weight").all()
        assert np.count_nonzero(second.tensor("weight")) == second.tensor("weight").size // 4
        table = accelsim.simulate(accelsim.load_machine("pe16x16.yaml"), trace)
        assert (table.query("kind == 'conv' and `pass` == 'fwd'")["cycles"] > 0).all()


def test_every_run_starts_from_the_same_weights_and_sees_the_same_images(folder):
    """A run's losses do not depend on the runs before it, and the seed makes them what they are."""
    plan = {"steps": 3, "batch": 8, "image_size": 16}
    both = capture(Plan(MODEL, folder / "a.npz", sparsities=(0.0, 0.5), **plan))
    alone = capture(Plan(MODEL, folder / "b.npz", sparsities=(0.5,), **plan))
    other = capture(Plan(MODEL, folder / "c.npz", sparsities=(0.5,), seed=1, **plan))
    assert [p.loss for p in both[3:]] == [p.loss for p in alone]
    assert [p.loss for p in other] != [p.loss for p in alone]


def test_a_frozen_checkpoint_keeps_its_zeros(folder):
    """Trained on, they would be gone after a step."""
    made = {}
    exec(CODE, made)
    model = made["Tiny"]()
    with torch.no_grad():
        model[2].weight[torch.rand_like(model[2].weight) < 0.9] = 0
    torch.save(model.state_dict(), folder / "pruned.pt")
    plan = {"sparsities": (0.0,), "weights": (folder / "pruned.pt",), "steps": 3, "batch": 8, "image_size": 16}
    for frozen in (True, False):
        capture(Plan(MODEL, folder / "t.npz", frozen=frozen, force=True, **plan))
        with accelsim.open_trace(folder / "t.npz") as trace:
            mask = trace.snapshots[0].layers[1].tensor("weight")
        assert np.array_equal(mask, model[2].weight.detach().numpy() != 0) == frozen


def test_training_learns_dense_and_sparse(folder):
    history = capture(
        Plan(MODEL, folder / "t.npz", sparsities=(0.0, 0.8), steps=60, batch=32, image_size=8, learning_rate=0.2)
    )
    for run in (history[:60], history[60:]):
        assert np.mean([p.loss for p in run[-5:]]) < 0.9 * np.mean([p.loss for p in run[:5]])
    assert abs(history[-1].weight_sparsity - 0.8) < 0.2  # the first layer of three stays dense


def test_learning_rate_schedules(folder):
    plan = Plan(MODEL, folder / "t.npz", steps=10, learning_rate=1.0, warmup=3, schedule="step", decay_at=(5, 8))
    assert [round(plan.rate(i), 4) for i in range(10)] == [0.25, 0.5, 0.75, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]
    cosine = Plan(MODEL, folder / "t.npz", steps=10, learning_rate=1.0, schedule="cosine")
    assert [round(cosine.rate(i), 3) for i in (0, 5)] == [1, 0.5]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps: must be 1 or more, got 0"),
        ({"sparsities": (1.0,)}, "sparsity: must be a number in [0, 1), got 1.0"),
        ({"sparsities": (0.5, 0.5)}, "sparsity: must be different numbers"),
        ({"record": (10,)}, "record: must be iterations in 0…9, got 10"),
        ({"samples": 33}, "samples: must be at most the batch, 32, got 33"),
        ({"schedule": "poly"}, "schedule: must be one of constant, cosine, step, got poly"),
        ({"precision": "fp8"}, "precision: must be one of fp32, bf16, got fp8"),
        ({"learning_rate": float("nan")}, "learning_rate: must be 0 or more, got nan"),
        ({"swat": {"distribution": "x"}}, "distribution: must be one of"),
        (
            {"sparsities": (0, 0.5), "weights": ("a", "b", "c")},
            "weights: must be one file, or one for each sparsity, got 3",
        ),
    ],
)
def test_plans_that_make_no_sense(folder, values, message):
    with pytest.raises(AccelsimError) as caught:
        Plan(MODEL, folder / "t.npz", **values)
    assert message in str(caught.value)


def test_diverging_training_is_one_line(folder):
    with pytest.raises(AccelsimError, match=r"diverged|NaN"):
        capture(Plan(MODEL, folder / "t.npz", steps=50, batch=8, image_size=8, learning_rate=1e30))
    assert not (folder / "t.npz").exists()


def test_the_command_and_then_the_simulation(folder):
    result = command("--sparsity", "0,0.9", "--steps", "2", "--image-size", "16", "--out", "t.npz")
    assert (result.returncode, result.stderr) == (0, "")
    assert "90 %" in result.stdout
    run = [sys.executable, "-m", "accelsim.cli", "run", "--config", "pe16x16.yaml", "--trace", "t.npz", "--json"]
    speedup = json.loads(subprocess.run(run, capture_output=True, text=True, check=True).stdout)["speedup"]
    assert [row["sparsity"] for row in speedup] == [0.0, 0.9]
    with accelsim.open_trace("t.npz") as trace:
        assert str(folder) not in json.dumps(trace.provenance["training"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--sparsity", "x"], "argument --sparsity: must be numbers with commas between, got x"),
        (["--data", "nowhere"], "nowhere: no such"),
        (["--weights", "nowhere.pt"], "nowhere.pt: no such file"),
        (["--device", "tpu9"], "device: must be one that this machine has, got tpu9"),
        (["--model", "resnet5"], "resnet5: no such model"),
    ],
)
def test_bad_arguments_are_one_line(folder, arguments, message):
    result = command("--out", "t.npz", *arguments)
    assert result.returncode == 2
    assert message in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert not (folder / "t.npz").exists()


def test_images_that_do_not_open_are_counted(folder):
    image = pytest.importorskip("PIL.Image")
    for label in ("cat", "dog"):
        (folder / "images" / label).mkdir(parents=True)
        for i in range(6):
            image.new("RGB", (20, 20), (20 * i, 0, 0)).save(folder / "images" / label / f"{i}.png")
    (folder / "images" / "cat" / "broken.png").write_bytes(b"no image")
    result = command("--data", "images", "--image-size", "16", "--steps", "2", "--out", "t.npz")
    assert (result.returncode, result.stderr) == (0, "")
    assert "1 images did not open and were skipped" in result.stdout
    with accelsim.open_trace("t.npz") as trace:
        assert trace.dataset == "images"
        assert trace.provenance["images skipped"] == 1


def test_an_existing_trace_is_kept_unless_forced(folder):
    (folder / "t.npz").write_text("mine")
    result = command("--out", "t.npz", "--steps", "1", "--image-size", "8")
    assert (result.returncode, (folder / "t.npz").read_text()) == (2, "mine")
    assert command("--out", "t.npz", "--steps", "1", "--image-size", "8", "--force").returncode == 0
    accelsim.open_trace("t.npz").close()


@pytest.mark.parametrize("which", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_and_its_like_leave_the_steps_recorded_so_far(folder, which):
    full = [sys.executable, "-m", "accelsim.cli", "capture", "--model", MODEL, "--batch", "8", "--image-size", "8"]
    process = subprocess.Popen(
        [*full, "--steps", "1000000", "--record", "1,999999", "--out", "t.npz"], stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not any(name.endswith(".tmp") for name in os.listdir(folder)):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    time.sleep(1.5)
    process.send_signal(which)
    _, text = process.communicate(timeout=30)
    assert process.returncode == 130
    assert text.splitlines() == ["accelsim: interrupted; t.npz holds swat80-step1"]
    with accelsim.open_trace("t.npz") as trace:
        assert [s.name for s in trace.snapshots] == ["swat80-step1"]
        assert trace.snapshots[0].layers[1].tensor("gradient").any()
    assert not any(name.endswith(".tmp") for name in os.listdir(folder))
