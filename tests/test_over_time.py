"""Is the cost of a whole run what simulating every step of it gives, and is its error no less than it turns out?"""

import json

import numpy as np
import pandas as pd
import pytest

from accelsim.cli import main
from accelsim.errors import AccelsimError
from accelsim.study.over_time import runs_of
from accelsim.workload.series import Series, SeriesWriter

STEPS = 40
ROW = {
    "algorithm": "SWAT-U", "sparsity": 0.8, "samples": 1, "batch": 4, "multipliers": 10, "kind": "conv",
    "top_k_slots": 50, "energy_pj": 1.0,
}  # fmt: skip


def density(step, layer):
    """What falls quickly at first, and a layer that jumps."""
    return 0.2 + 0.6 * np.exp(-step / 6) if layer == "a" else (0.9 if step < 13 else 0.4)


def cycles(step, layer, which):
    """A machine that skips weights wholly, and half of what activations would save."""
    other = 0.5 + 0.1 * np.sin(step)
    return 1e6 * density(step, layer) * other**0.5 if which != "weight_grad" else 4e5 * other


def records(at):
    """A machine's table, as ``results.frame`` makes it."""
    rows = [
        {
            **ROW,
            "snapshot": f"s{s}",
            "step": s,
            "layer": layer,
            "pass": which,
            "cycles": round(c),
            "compute_cycles": c / 2,
        }
        for s in at
        for layer in "ab"
        for which in ("fwd", "input_grad", "weight_grad")
        for c in [round(cycles(s, layer, which))]
    ]
    return pd.DataFrame(rows)


@pytest.fixture
def series(tmp_path):
    header = {"algorithm": "SWAT-U", "sparsity": 0.8, "steps_per_epoch": 10, "top_k_period": 5}
    writer = SeriesWriter(tmp_path / "run.series", header)
    for step in range(STEPS):
        other = 0.5 + 0.1 * np.sin(step)
        of = {"weight": density, "activation": lambda *_: other, "gradient": lambda *_: other}  # noqa: B023
        counts = {(layer, tensor): (round(1e9 * of[tensor](step, layer)), 10**9) for layer in "ab" for tensor in of}
        writer.step(step, counts, {"accuracy": step / 100})
    writer.close()
    return Series.open(tmp_path / "run.series")


def stored(at, noise=0.0):
    """What the trace says of its samples: the batch's densities, or others."""
    draw = np.random.default_rng(1)
    found = {}
    for step in at:
        other = 0.5 + 0.1 * np.sin(step)
        for layer in "ab":
            lucky = np.exp(noise * draw.normal())
            found |= {(f"s{step}", layer, t): other * lucky for t in ("activation", "gradient")}
            found[f"s{step}", layer, "weight"] = density(step, layer)
    return found


def truth():
    return 4 * sum(cycles(s, la, w) for s in range(STEPS) for la in "ab" for w in ("fwd", "input_grad", "weight_grad"))


AT = (0, 5, 9, 15, 22, 30, 39)


def test_densities_follow_what_a_line_misses(series):
    (line,) = runs_of(records(AT), steps=STEPS)
    (followed,) = runs_of(records(AT), [series], None, stored(AT))
    assert (line.how, followed.how) == ("line", "densities")
    off = {name: abs(run.total() / truth() - 1) for name, run in (("line", line), ("followed", followed))}
    assert off["followed"] < 0.005 < off["line"]
    for name, run in (("line", line), ("followed", followed)):
        assert off[name] <= run.total_error + 1e-3
    assert followed.errors["densities"] < 0.01 < followed.errors["line"]


def test_what_the_stored_samples_have_by_chance_is_not_taken_for_the_batch(series):
    """Samples of other densities than the batch's: their cycles are theirs, the series is the batch's."""
    own = stored(AT, noise=0.3)
    table = records(AT)
    other = 0.5 + 0.1 * np.sin(table["step"])
    lucky = [own[s, la, "activation"] for s, la in zip(table["snapshot"], table["layer"], strict=True)] / other
    table["cycles"] *= np.where(table["pass"] == "weight_grad", lucky, lucky**0.5)
    (line,), (followed,) = runs_of(table, steps=STEPS), runs_of(table, [series], None, own)
    assert abs(followed.total() / truth() - 1) < 0.01 < abs(line.total() / truth() - 1)


def test_steps_that_were_simulated_are_as_simulated(series):
    for given in ([], [series]):
        (run,) = runs_of(records(AT), given, STEPS, stored(AT))
        whole = records(AT).groupby("step")["cycles"].sum() * 4
        assert run.counts["cycles"][list(AT)] == pytest.approx(whole.to_numpy())
        assert run.simulated["stalls"].to_numpy() == pytest.approx(whole.to_numpy() / 2, rel=1e-5)
        assert run.counts["top_k"] == pytest.approx(6 * 4 * 5.0)


def test_all_steps_simulated_are_exact_and_without_error(series):
    (run,) = runs_of(records(range(STEPS)), [series], None, stored(range(STEPS)))
    assert run.total() == pytest.approx(truth(), rel=1e-6)


def test_two_steps_are_enough_and_one_is_not(series):
    (run,) = runs_of(records([0, 39]))
    assert len(run.steps) == 40 and run.total_error == 0
    with pytest.raises(AccelsimError, match=r"SWAT-U 80 %: must have at least two steps in the trace, has step 3 only"):
        runs_of(records([3]), [series])


def test_a_series_of_another_run_is_told(series):
    with pytest.raises(AccelsimError, match=r"must be of a run of the trace, is of SWAT-U at 0\.8"):
        runs_of(records(AT).assign(sparsity=0.9), [series])


def test_what_it_costs_up_to_an_accuracy(series):
    (run,) = runs_of(records(AT), [series], None, stored(AT))
    assert run.reached(0.095) == 10 and run.reached(0.9) is None
    assert run.until(10) == pytest.approx(run.counts["cycles"][:11].sum())


def test_energy_that_is_not_known_stays_unknown(series):
    (run,) = runs_of(records(AT).assign(energy_pj=np.nan), [series], None, stored(AT))
    assert np.isnan(run.total("energy_pj")) and run.total() > 0


# ---- A real run, small


def trained(folder, recorded):
    """Gradual pruning of a small network over 200 steps."""
    torch = pytest.importorskip("torch")
    from accelsim.capture import Recorder, Selection, SeriesOf
    from accelsim.capture.algorithms import build

    torch.set_num_threads(1)
    torch.manual_seed(0)
    nn = torch.nn
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), nn.ReLU(), nn.Flatten(),
                          nn.Linear(256, 4))  # fmt: skip
    algorithm = build("gmp", model, 0.8, steps=200, options={"every": 10, "end_at": 0.5})
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    series = SeriesOf(folder / "run.series", steps_per_epoch=50)
    how = {"sparsity": 0.8, "algorithm": "gmp", "steps": recorded, "series": series, "keep": Selection(samples=8)}
    with Recorder(model, folder / "run.npz", **how) as recorder:
        for step in range(200):
            draw = torch.Generator().manual_seed(step)
            labels = torch.randint(4, (8,), generator=draw)
            images = torch.randn(8, 3, 8, 8, generator=draw) + labels[:, None, None, None] / 2
            with recorder.step():
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                algorithm.before_update(optimizer)
                optimizer.step()
            algorithm.step(optimizer)
            recorder.note(accuracy=step / 200)
    return folder


@pytest.fixture(scope="module")
def every_step(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("every"), range(200))


@pytest.mark.slow
@pytest.mark.parametrize("config", ["pe16x16.yaml", "dadiannao.yaml", "tensordash.yaml", "scnn.yaml"])
def test_twenty_snapshots_of_a_run_of_200_steps_give_its_cost_within_two_percent(every_step, config, capsys):
    """The whole run, simulated step by step, against every tenth step."""
    run = every_step

    def totals(*arguments):
        command = ["run", "--config", config, "--trace", str(run / "run.npz"), "--memory", "none", "--energy", "none"]
        assert main([*command, "--over-time", *arguments, "--json"]) == 0
        return json.loads(capsys.readouterr().out)["over_time"][0]

    every = totals()
    at = ",".join(f"step{s}" for s in [*range(0, 190, 10), 199])
    assert len(at.split(",")) == 20
    for given in ([str(run / "run.series")], []):
        some = totals(*given, "--snapshots", at)
        off = some["total"]["cycles"] / every["total"]["cycles"] - 1
        # Masks jump right after a recorded step, which only the series tells.
        assert abs(off) <= (0.02 if given else 0.1) and abs(off) <= some["total_cycles_error"] + 0.005, (given, off)


def test_the_command_shows_it_and_writes_and_draws(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    run = trained(tmp_path, {0, 60, 199})
    command = [
        "run",
        "--config",
        "pe16x16.yaml",
        "--trace",
        str(run / "run.npz"),
        "--snapshots",
        "step0,step60,step199",
    ]
    out = ["--out", str(tmp_path / "o"), "--plots", str(tmp_path / "p"), "--overheads", "swat.yaml", "--quiet"]
    assert main([*command, "--over-time", str(run / "run.series"), "--target", "0.5", *out]) == 0
    shown = capsys.readouterr().out
    for text in ("1.20", "whole runs, of the whole batch", "up to an accuracy of 50 %", "equations 7 and 8", "200"):
        assert text in shown, text
    assert sorted(p.name for p in (tmp_path / "p").iterdir()) == ["over_time.png", "over_time.svg"]
    table = pd.read_csv(tmp_path / "o" / "over_time.csv")
    found = json.loads((tmp_path / "o" / "over_time.json").read_text())["over_time"][0]
    assert len(table) == 200 and table["cycles"].sum() == pytest.approx(found["total"]["cycles"])


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--target", "0.5"], "--target: must come with --over-time"),
        (["--over-time", "--target", "50"], "--target: must be an accuracy from 0 to 1, got 50"),
        (["--over-time", "--explain"], "--explain: must be left out with --over-time"),
        (["--over-time", "none.series"], "none.series: cannot read"),
        (["--over-time"], "must have at least two steps in the trace"),
    ],
)
def test_wrong_input_is_one_line(arguments, says, capsys):
    command = ["run", "--config", "pe16x16.yaml", "--trace", "resnet20-int8.npz", "--layers", "linear", *arguments]
    assert main(command) == 2
    told = capsys.readouterr().err
    assert says in told and told.count("\n") == 1
