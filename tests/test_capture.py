"""Does ``accelsim capture`` train, record what it trained, and leave a trace that simulates — whatever happens?"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import accelsim
from accelsim.cli import main
from accelsim.workload.trace import Trace

torch = pytest.importorskip("torch")

from accelsim.capture.plan import Plan, Recipe  # noqa: E402 (after the check for torch)
from accelsim.capture.train import capture  # noqa: E402
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


def checkpoint(file, share):
    """A model of which that share of the second layer's weights was pruned, and the mask."""
    made = {}
    exec(CODE, made)
    torch.manual_seed(0)
    model = made["Tiny"]()
    with torch.no_grad():
        model[2].weight[torch.rand_like(model[2].weight) < share] = 0
    torch.save(model.state_dict(), file)
    return model[2].weight.detach().numpy() != 0


def test_a_checkpoint_without_a_recipe_keeps_its_zeros(folder):
    """Trained on, they would be gone after a step."""
    mask = checkpoint(folder / "pruned.pt", 0.9)
    plan = {"weights": (folder / "pruned.pt",), "batch": 8, "image_size": 16}
    trained = {"sparsities": (0.0,), "steps": 3}
    for how, stays in [
        ({}, True),
        ({"sparsities": (0.0,), "steps": 3}, True),
        ({"frozen": True, "steps": 3}, True),
        ({"frozen": False, **trained}, False),
        ({"recipe": Recipe(0.01), **trained}, False),
    ]:
        history = capture(Plan(MODEL, folder / "t.npz", force=True, **plan, **how))
        with accelsim.open_trace(folder / "t.npz") as trace:
            snapshot = trace.snapshots[0]
            assert np.array_equal(snapshot.layers[1].tensor("weight"), mask) == stays
            assert (len(history), snapshot.name) == (how.get("steps", 1), "pruned" if stays else "dense")
            share = history[-1].zeros_before
            assert 0.5 < share < 0.9 and snapshot.sparsity == (round(share, 3) if stays else 0)


def test_several_checkpoints_are_compared(folder):
    for name, share in (("dense", 0), ("half", 0.5), ("most", 0.9)):
        checkpoint(folder / f"{name}.pt", share)
    done = command("--weights", "dense.pt,half.pt,most.pt", "--image-size", "16", "--out", "t.npz")
    assert (done.returncode, done.stderr) == (0, "")
    assert "the weights were not updated; a --learning-rate, or --no-frozen, trains them" in done.stdout
    with accelsim.open_trace("t.npz") as trace:
        assert [s.name for s in trace.snapshots] == ["dense", "half", "most"]
        assert [s.algorithm for s in trace.snapshots] == ["checkpoint", "pruned checkpoint", "pruned checkpoint"]
        used = [[layer.tensor("weight") for layer in s.layers] for s in trace.snapshots]
        zeros = [1 - sum(map(np.count_nonzero, masks)) / sum(mask.size for mask in masks) for masks in used]
        assert [s.sparsity for s in trace.snapshots] == [round(share, 3) for share in zeros]
        assert all(f"{100 * share:.1f} %" in done.stdout for share in zeros)
    one = command("--weights", "half.pt,most.pt", "--sparsity", "0.8", "--image-size", "16", "--out", "u.npz")
    assert (one.returncode, one.stderr) == (0, "")
    with accelsim.open_trace("u.npz") as trace:
        assert [(s.name, s.sparsity) for s in trace.snapshots] == [("half-swat80", 0.8), ("most-swat80", 0.8)]


def test_zeros_that_training_fills_are_told(folder):
    checkpoint(folder / "pruned.pt", 0.9)
    given = ["--weights", "pruned.pt", "--sparsity", "0", "--steps", "2", "--image-size", "16", "--out", "t.npz"]
    for how in (["--learning-rate", "0.01"], ["--no-frozen", "--force"]):
        line = next(line for line in command(*given, *how).stdout.splitlines() if "training filled them" in line)
        had, has = (float(share) for share in re.findall(r"([\d.]+) %", line))
        assert line.startswith("pruned.pt came with ") and had > 55 and has < 20
    assert "training filled them" not in command(*given, "--force").stdout
    topk = [*given[:3], "0.9", *given[4:], "--force", "--learning-rate", "0.01"]
    assert "training filled them" not in command(*topk).stdout  # of 87 % Top-K leaves as many
    refused = command(*given, "--force", "--frozen", "--warmup", "1")
    assert refused.returncode == 2 and "frozen: must be left out with a learning rate" in refused.stderr


def test_masks_of_a_checkpoint_are_applied_and_told(folder):
    mask = checkpoint(folder / "pruned.pt", 0.9)
    state = torch.load(folder / "pruned.pt", weights_only=True)
    state["2.weight"] += 1
    torch.save(state | {"2.weight_mask": torch.from_numpy(mask)}, folder / "masked.pt")
    done = command("--weights", "masked.pt", "--image-size", "16", "--out", "t.npz")
    assert "masked.pt: weights times the masks beside them: 2" in done.stdout
    with accelsim.open_trace("t.npz") as trace:
        assert np.array_equal(trace.snapshots[0].layers[1].tensor("weight"), mask)


def test_training_learns_dense_and_sparse(folder):
    history = capture(
        Plan(MODEL, folder / "t.npz", sparsities=(0.0, 0.8), steps=60, batch=32, image_size=8, recipe=Recipe(0.2))
    )
    for run in (history[:60], history[60:]):
        assert np.mean([p.loss for p in run[-5:]]) < 0.9 * np.mean([p.loss for p in run[:5]])
    assert abs(history[-1].weight_sparsity - 0.8) < 0.2  # the first layer of three stays dense


def test_learning_rate_schedules():
    recipe = Recipe(learning_rate=1.0, warmup=3, schedule="step", decay_at=(5, 8))
    assert [round(recipe.rate(i, 10), 4) for i in range(10)] == [0.25, 0.5, 0.75, 1, 1, 0.1, 0.1, 0.1, 0.01, 0.01]
    cosine = Recipe(learning_rate=1.0, schedule="cosine")
    assert [round(cosine.rate(i, 10), 3) for i in (0, 5)] == [1, 0.5]
    for values, message in [
        ({"schedule": "poly"}, "schedule: must be one of constant, cosine, step, got poly"),
        ({"learning_rate": float("nan")}, "learning_rate: must be 0 or more, got nan"),
        ({"warmup": -1}, "warmup: must be 0 or more, got -1"),
    ]:
        with pytest.raises(AccelsimError, match=message):
            Recipe(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"steps": 0}, "steps: must be 1 or more, got 0"),
        ({"sparsities": (1.0,)}, "sparsity: must be a number in [0, 1), got 1.0"),
        ({"sparsities": (0.5, 0.5)}, "sparsity: must be different numbers"),
        ({"record": (10,)}, "record: must be iterations in 0…9, got 10"),
        ({"samples": 33}, "samples: must be at most the batch, 32, got 33"),
        ({"precision": "fp8"}, "precision: must be one of fp32, bf16, got fp8"),
        ({"frozen": True, "recipe": Recipe()}, "frozen: must be left out with a learning rate"),
        ({"options": {"distribution": "x"}}, "distribution: must be one of"),
        (
            {"sparsities": (0, 0.5), "weights": ("a", "b", "c")},
            "weights: must be one file, one for each sparsity, or several for one sparsity, got 3 for 2",
        ),
        ({"weights": (Path("a/w.pt"), Path("b/w.pt"))}, "weights: must be files of different names"),
    ],
)
def test_plans_that_make_no_sense(folder, values, message):
    with pytest.raises(AccelsimError) as caught:
        Plan(MODEL, folder / "t.npz", **values)
    assert message in str(caught.value)


def test_diverging_training_is_one_line(folder):
    with pytest.raises(AccelsimError, match=r"diverged|NaN"):
        capture(Plan(MODEL, folder / "t.npz", steps=50, batch=8, image_size=8, recipe=Recipe(1e30)))
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
    assert process.returncode == 128 + which
    assert text.splitlines() == ["accelsim: interrupted; t.npz holds swat80-step1"]
    with accelsim.open_trace("t.npz") as trace:
        assert [s.name for s in trace.snapshots] == ["swat80-step1"]
        assert trace.snapshots[0].layers[1].tensor("gradient").any()
    assert not any(name.endswith(".tmp") for name in os.listdir(folder))


def test_another_algorithm_is_recorded_under_its_name(folder):
    plan = Plan(
        MODEL, folder / "t.npz", steps=5, batch=8, image_size=8, sparsities=(0, 0.8), record=(1, 4),
        algorithm="rigl", options={"every": 2},
    )  # fmt: skip
    capture(plan)
    with Trace.open(folder / "t.npz") as trace:
        assert [s.name for s in trace.snapshots] == ["dense-step1", "dense-step4", "rigl80-step1", "rigl80-step4"]
        first, later = (trace.snapshot(f"rigl80-step{step}") for step in (1, 4))
        assert (first.algorithm, first.sparsity) == ("RigL", 0.8)
        masks = [s.layers[1].tensor("weight") != 0 for s in (first, later)]
        assert not (masks[0] == masks[1]).all() and all("saved" not in "".join(la.tensors) for la in later.layers)
        assert trace.provenance["training"]["options"] == {"every": 2}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--algorithm", "sgd"], "algorithm: must be one of swat-u"),
        (["--algorithm", "rigl", "--period", "3"], "algorithm rigl: option must be one of drop, until, every"),
        (["--option", "every=2"], "algorithm swat-u: option must be one of activation_sparsity, distribution"),
        (["--algorithm", "set", "--option", "drop=2"], "drop: must be in [0, 1), got 2"),
        (["--algorithm", "set", "--option", "drop"], "must be KEY=VALUE"),
    ],
)
def test_wrong_algorithms_and_options_are_one_line(folder, capsys, arguments, says):
    assert main(["capture", "--model", MODEL, "--out", str(folder / "t.npz"), *arguments]) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
    assert not (folder / "t.npz").exists()
