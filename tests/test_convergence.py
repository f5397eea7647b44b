"""Are the verdicts about the paper's Figures 1, 2, 4, 7, 8, 10 and 11 those of the curves, whatever these are?"""

import json

import numpy as np
import pytest

from accelsim.study.reproduction import convergence, convergence_page
from accelsim.study.reproduction.convergence import (
    AS_PAPER,
    CONTRARY,
    IN_PART,
    MISSING,
    MIXED,
    OPEN,
    Claim,
    Curves,
    Shown,
)
from accelsim.study.reproduction.seeds import apart, scatter


def curves(**ends):
    """Runs that end at these accuracies, one a seed."""
    return Curves({name.replace("_", "-"): tuple({0: 0.1, 9: end} for end in of) for name, of in ends.items()})


def test_an_accuracy_scatters_by_what_is_left_without_its_runs_and_its_seeds_mean():
    draw = np.random.default_rng(0)
    ends = draw.normal(0.5, 0.02, (4, 3))
    left = scatter(ends.tolist())
    assert scatter(
        (ends + np.array([[0.3], [0.1], [0.0], [-0.2]]) + np.array([0.1, 0.0, -0.3])).tolist()
    ) == pytest.approx(left)
    # Two runs: the variance of their differences is that of two accuracies.
    differences = ends[0] - ends[1]
    assert scatter(ends[:2].tolist()) == pytest.approx(np.std(differences, ddof=1) / 2**0.5)
    assert scatter([[0.1], [0.2]]) is None and scatter([[0.1, 0.2]]) is None
    assert apart(0.03, 2) == pytest.approx(0.06)
    many = draw.normal(0.5, 0.02, (200, 50))
    assert scatter(many.tolist()) == pytest.approx(0.02, rel=0.05)


@pytest.mark.parametrize(
    ("more", "less", "verdict"),
    [((0.50, 0.52), (0.40, 0.41), AS_PAPER), ((0.40, 0.41), (0.50, 0.52), CONTRARY),
     ((0.50, 0.45), (0.40, 0.55), OPEN), (None, (0.4, 0.5), MISSING)],
)  # fmt: skip
def test_a_run_is_above_another_by_more_than_seeds_scatter_or_below_or_neither(more, less, verdict):
    given = {"less": less} | ({"more": more} if more else {})
    assert convergence.above(curves(**given), "what", "more", "less").verdict == verdict


def test_what_is_within_the_scatter_is_told_apart_with_enough_seeds():
    seeds = [(0.5 + 0.01 * (-1) ** i, 0.49 - 0.01 * (-1) ** i) for i in range(64)]
    more, less = zip(*seeds, strict=True)
    for n, verdict in ((4, OPEN), (64, AS_PAPER)):
        of = curves(more=more[:n], less=less[:n])
        claim = convergence.above(of, "what", "more", "less")
        far = 100 * apart(of.scatter, n)
        assert claim.verdict == verdict and f"by more than {far:.1f}" in claim.rule


@pytest.mark.parametrize(
    ("claims", "verdict"),
    [([AS_PAPER, AS_PAPER], AS_PAPER), ([OPEN, OPEN], OPEN), ([AS_PAPER, OPEN], IN_PART), ([CONTRARY, OPEN], MIXED),
     ([CONTRARY, AS_PAPER], MIXED), ([CONTRARY], CONTRARY), ([MISSING], MISSING), ([MISSING, AS_PAPER], AS_PAPER)],
)  # fmt: skip
def test_a_figure_s_verdict_is_of_all_its_claims(claims, verdict):
    assert Shown("", "", "", "", tuple(Claim("", "", "", each) for each in claims)).verdict == verdict


def verdicts(of, name):
    (figure,) = (f for f in convergence.figures(of) if f.name == name)
    return {claim.what: claim.verdict for claim in figure.claims}


def test_thresholds_that_creep_jump_or_grow_are_told_from_those_that_stay():
    steps = np.arange(200)
    creeps = 0.1 * 1.001**steps  # 0.1 % a step, a tenth in the second half
    grows = 0.1 * 1.02**steps
    jumps = np.where(steps < 150, 0.1, 0.2)
    of = Curves({"a": ({0: 0.1},)}, {"creeps": tuple(creeps), "grows": tuple(grows), "jumps": tuple(jumps)}, epoch=10)
    found = verdicts(of, "fig4")
    change, half = ": change a step, median from the first epoch on", ": greatest over least, second half"
    assert found["creeps" + change] == found["creeps" + half] == AS_PAPER
    assert found["grows" + change] == found["grows" + half] == CONTRARY
    assert found["jumps" + change] == AS_PAPER and found["jumps" + half] == CONTRARY
    assert {*verdicts(Curves({"a": ({0: 0.1},)}), "fig4").values()} == {MISSING}


def test_sparsity_under_a_period_is_held_against_its_target_and_its_first_period():
    calmer = np.concatenate([0.9 + 0.02 * np.sin(np.arange(10)), 0.9 + 0.001 * np.sin(np.arange(20))])
    wilder = np.concatenate([0.9 + 0.001 * np.sin(np.arange(20)), 0.93 + 0.05 * np.sin(np.arange(10))])
    of = Curves({"a": ({0: 0.1},)}, zeros={"weight": tuple(calmer), "activation": tuple(wilder)}, period=10)
    found = verdicts(of, "fig10")
    of_weights, of_activations = ({k: v for k, v in found.items() if k.startswith(w)} for w in ("weight", "activation"))
    assert {*of_weights.values()} == {AS_PAPER} and {*of_activations.values()} == {CONTRARY}


def test_each_figure_has_its_claims_and_the_page_is_made_of_its_data():
    torch = pytest.importorskip("torch")
    assert torch
    from accelsim.capture.comparison import Settings
    from accelsim.hardware.yaml_file import read_yaml

    _, told = read_yaml("convergence.yaml", "configs/training")
    settings = Settings.read(told)
    labels = [name if name == "dense" else f"{name}{100 * s:g}" for name, s in settings.runs]
    of = Curves({label: ({0: 0.1, 9: 0.5}, {0: 0.1, 9: 0.4}) for label in labels}, {"a": (0.1,) * 9},
                {"weight": (0.9, 0.91) * 4}, period=4)  # fmt: skip
    shown = {figure.name: figure for figure in convergence.figures(of)}
    assert [*shown] == ["fig1", "fig2", "fig4", "fig7", "fig8", "fig10", "fig11"]
    assert all(claim.verdict != MISSING for figure in shown.values() for claim in figure.claims)
    told = {"date": "", "model": "", "data": "", "steps": 9, "batch": 1, "training_s": 1, "torch": "", "settings": ""}
    data = convergence_page.report(of, told)
    again = json.loads(json.dumps(data))
    assert convergence_page.report(Curves.of(again["curves"]), told) == data
    assert convergence_page.page(again).count("| not told apart |") >= 10


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """The command, on fewer runs and steps."""
    pytest.importorskip("torch")
    from accelsim.cli import main

    folder = tmp_path_factory.mktemp("made")
    (folder / "mine.yaml").write_text(
        "model: cifar_resnet8\nhalve: true\nsteps: 6\nbatch: 4\nrecord: []\nevaluate: [2, 5]\nheld_out: 20\n"
        "sparsities: [0.9]\nseeds: 2\nnoise: 1\nalgorithms:\n  dense:\n  fig7-unmasked: {is: swat-u}\n"
        "  fig7-masked: {is: swat-masked}\n  fig10-period: {is: swat-u, period: 2}\n"
    )
    command = ["reproduce", "convergence", "--settings", str(folder / "mine.yaml"), "--runs", str(folder / "runs")]
    assert main([*command, "--out", str(folder / "out"), "--quiet"]) == 0
    return folder


def test_the_command_trains_every_seed_and_writes_a_page_with_verdicts(made):
    data = json.loads((made / "out" / "convergence.json").read_text())
    assert {run: len(of) for run, of in data["curves"]["accuracies"].items()} == dict.fromkeys(
        ("dense", "fig7-unmasked90", "fig7-masked90", "fig10-period90"), 2
    )
    assert next(iter(data["curves"]["thresholds"])) == "layer1.0.conv1"  # the first layer stays dense
    assert all(len(of) == 6 and min(of) > 0 for of in data["curves"]["thresholds"].values())
    weights = data["curves"]["zeros"]["weight"]
    assert weights[0] == weights[2] == weights[4] == pytest.approx(0.9, abs=0.01) and weights[1] != weights[0]
    assert data["figures"]["fig1"]["verdict"] == MISSING and data["figures"]["fig7"]["verdict"] != MISSING
    page = (made / "out" / "convergence.md").read_text()
    assert page == convergence_page.page(data) and "| fig7-masked90 |" in page
    assert not (made / "runs" / "dense.npz").exists() and (made / "runs" / "dense-seed1.json").exists()
    for picture in ("convergence.png", "convergence.svg"):
        assert (made / "out" / picture).stat().st_size > 1000


def test_more_seeds_train_only_those_that_are_new(made):
    from accelsim.cli import main

    before = {path.name: path.stat().st_mtime_ns for path in (made / "runs").iterdir()}
    command = ["reproduce", "convergence", "--settings", str(made / "mine.yaml"), "--runs", str(made / "runs")]
    assert main([*command, "--seeds", "3", "--quiet"]) == 0
    after = {path.name: path.stat().st_mtime_ns for path in (made / "runs").iterdir()}
    assert before.items() <= after.items()
    assert {*after} - {*before} == {f"{run}-seed2.json" for run in ("dense", "fig7-unmasked90", "fig7-masked90",
                                                                    "fig10-period90")}  # fmt: skip
