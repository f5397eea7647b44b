"""Does ``accelsim reproduce algorithms`` train, record and compare, and say of each algorithm what it is?"""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

torch = pytest.importorskip("torch")

from accelsim.capture.comparison import Settings  # noqa: E402
from accelsim.cli import main  # noqa: E402
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.hardware.machine import load_machine  # noqa: E402
from accelsim.hardware.yaml_file import read_yaml  # noqa: E402
from accelsim.workload.series import Series  # noqa: E402

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SETTINGS = """
model: cifar_resnet8
halve: true
steps: 6
batch: 4
record: [0, 3, 5]
evaluate: [2, 5]
held_out: 100
sparsities: [0.8]
recipe: {learning_rate: 0.02}
algorithms:
  dense:
  swat-structured:
  gmp: {every: 1, end_at: 0.5}
  set: {every: 2}
  meprop:
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Four algorithms for six steps."""
    folder = tmp_path_factory.mktemp("made")
    (folder / "mine.yaml").write_text(SETTINGS)
    command = ["reproduce", "algorithms", "--settings", str(folder / "mine.yaml"), "--runs", str(folder / "runs")]
    command += ["--machines", "ideal.yaml,dadiannao.yaml,stripes.yaml"]
    assert main([*command, "--out", str(folder / "out"), "--quiet"]) == 0
    return folder


def test_each_trace_says_what_its_algorithm_is(made):
    found = json.loads((made / "out" / "algorithms.json").read_text())
    traits = {run["label"]: run["traits"] for run in found["runs"]}
    passes = {name: [of[p] for p in ("fwd", "input_grad", "weight_grad")] for name, of in traits.items()}
    assert passes["dense"] == ["no", "no", "no"] and traits["dense"]["network"] == "dense"
    assert passes["swat-structured80"] == ["yes", "yes", "yes"]
    assert passes["set80"] == ["yes", "yes", "no"] and traits["set80"]["across"] == "fixed"
    assert passes["gmp80"] == ["gradual", "gradual", "no"]
    assert passes["meprop80"] == ["no", "yes", "yes"]
    networks = {name: of["network"] for name, of in traits.items()}
    assert networks["swat-structured80"] == "structured" and networks["set80"] == "unstructured"


def test_tables_and_files_have_every_run_on_every_machine(made):
    table = pd.read_csv(made / "out" / "algorithms.csv")
    assert set(table["machine"]) == {"ideal", "dadiannao"} and len(table) == 10  # bit-level machines need values
    assert (table["run_cycles"] > 5 * table["step_cycles"] * 0.5).all() and (table["run_pj"] > 0).all()
    dense = table[table["run"] == "dense"].set_index("machine")
    swat = table[table["run"] == "swat-structured80"].set_index("machine")
    assert swat.loc["ideal", "run_cycles"] < dense.loc["ideal", "run_cycles"]
    assert swat.loc["dadiannao", "run_cycles"] == dense.loc["dadiannao", "run_cycles"]
    page = (made / "out" / "algorithms.md").read_text()
    for text in (
        "Which training algorithm",
        "| SET 80 % |",
        "fixed (fixed)",
        "What it does not say",
        "stripes takes no",
    ):
        assert text in page, text
    for picture in ("algorithms.png", "algorithms.svg"):
        assert (made / "out" / picture).stat().st_size > 1000


def test_a_run_that_does_not_reach_the_target_has_no_cost_of_it(made):
    from accelsim.study.json_file import to_json
    from accelsim.study.reproduction import algorithms_page
    from accelsim.study.reproduction.algorithms_found import Cost, Found, Run, Traits

    cost = Cost((4.0, 4.0), (10.0, 12.0), {1: (3.0, 4.0), 3: (10.0, 12.0)}, 0.01, "line")
    traits = Traits("fixed", "no", "no", "no", "dense")
    runs = [
        Run(name, name, name, sparsity, ({1: 0.1, 3: accuracy},), 1.0, {"step": 0.5}, 1.0, traits, {"m": cost})
        for name, sparsity, accuracy in (("dense", 0.0, 0.5), ("bad", 0.8, 0.2), ("good", 0.8, 0.45))
    ]
    found = Found(runs, ["m"])
    assert found.target == pytest.approx(0.45)
    _, rows = algorithms_page.spent(found)
    assert [row[1] for row in rows] == ["3", "not reached", "3"]
    costs = algorithms_page.frame(found).set_index("run")["target_cycles"]
    assert costs["dense"] == costs["good"] == 10 and np.isnan(costs["bad"])
    assert to_json(algorithms_page.report(found, {}))


def test_several_seeds_give_a_mean_and_how_far_they_scatter():
    from accelsim.study.reproduction import algorithms_page
    from accelsim.study.reproduction.algorithms_found import Cost, Found, Run, Traits

    cost = Cost((4.0, float("nan")), (10.0, float("nan")), {1: (3.0, float("nan")), 3: (10.0, float("nan"))}, 0, "line")
    traits = Traits("fixed", "no", "no", "no", "dense")
    of = {"dense": [(0.1, 0.4), (0.3, 0.5), (0.2, 0.6)], "other": [(0.1, 0.3), (0.1, 0.3), (0.1, 0.3)]}
    runs = [
        Run(n, n, n, s, tuple({1: a, 3: b} for a, b in of[n]), 1.0, {"step": 0.5}, 1.0, traits, {"m": cost})
        for n, s in (("dense", 0.0), ("other", 0.8))
    ]
    found = Found(runs, ["m"])
    assert found.dense.accuracy == {1: pytest.approx(0.2), 3: pytest.approx(0.5)}
    assert found.dense.spread == pytest.approx(0.1) and found.scatter == pytest.approx(0.1 / 2**0.5)
    told = {"date": "", "model": "", "data": "", "steps": 4, "batch": 1, "training_s": 1, "torch": "", "settings": "",
            "recorded": 2}  # fmt: skip
    page = algorithms_page.page(json.loads(json.dumps(algorithms_page.report(found, told))))
    assert "| dense | 50.0 ± 10.0 % |" in page and "scatters by 7.1 points" in page
    assert "| m | – | dense, 1.00× less |" in page  # energy is not known
    assert "less than 11.5 points apart" in page and "3 times each" in page
    alone = Found([Run(**{**vars(run), "accuracies": run.accuracies[:1]}) for run in runs], ["m"])
    assert "trained once" in algorithms_page.page(json.loads(json.dumps(algorithms_page.report(alone, told))))


def test_each_series_knows_its_epochs_and_its_accuracy(made):
    series = Series.open(made / "runs" / "set80.series")
    assert len(series.steps) == 6 and series.header["steps_per_epoch"] == 1000  # 4000 synthetic images, 4 a step
    assert {s.step for s in series.steps if "accuracy" in s.notes} == {2, 5}


def test_runs_that_are_there_are_not_trained_again(made, capsys):
    before = {path: path.stat().st_mtime_ns for path in (made / "runs").iterdir()}
    command = ["reproduce", "algorithms", "--settings", str(made / "mine.yaml"), "--runs", str(made / "runs"), "--json"]
    assert main([*command, "--machines", "ideal.yaml"]) == 0
    assert {path: path.stat().st_mtime_ns for path in (made / "runs").iterdir()} == before
    assert json.loads(capsys.readouterr().out)["told"]["steps"] == 6


def test_the_shipped_settings_have_all_algorithms_and_can_be_shortened():
    from accelsim.capture.algorithms import ALGORITHMS

    _, told = read_yaml("algorithms.yaml", "configs/training")
    settings = Settings.read(told)
    assert set(settings.algorithms) == {"dense", *ALGORITHMS} - {"forward-topk"}
    short = settings.shortened(50)
    assert short.steps == 50 and max(short.record) == max(short.evaluate) == 49
    assert short.algorithms["set"]["every"] == 5 and len(short.runs) == len(settings.runs)


@pytest.mark.parametrize("name", ["algorithms"])
def test_the_page_is_what_the_program_makes_of_its_data(name):
    """Nobody patches a cell: the data lie beside the page."""
    from accelsim.study.reproduction import algorithms_page, convergence_page

    data = json.loads((DOCS / f"{name}.json").read_text(encoding="utf-8"))
    made = {"algorithms": algorithms_page, "convergence": convergence_page}[name].page(data)
    assert (DOCS / f"{name}.md").read_text(encoding="utf-8") == made


def test_the_page_has_every_algorithm_and_its_limits():
    from accelsim.capture.algorithms import ALGORITHMS
    from accelsim.study.reproduction.algorithms_found import Found

    page = (DOCS / "algorithms.md").read_text(encoding="utf-8")
    for name, known in ALGORITHMS.items():
        assert name == "forward-topk" or page.count(f"| {known.title} ") >= 4, name
    assert "What it does not say" in page and re.search(r"made this page on \d{4}-\d\d-\d\d", page)
    # The traces say what the paper's Table 1 does.
    assert not re.search(r"yes \(no|no \(yes|fixed \(variable\)|variable \(fixed\)", page)
    found = Found.of(json.loads((DOCS / "algorithms.json").read_text(encoding="utf-8")))
    shipped = {load_machine(file).name for file in (ROOT / "configs").glob("*.yaml")}
    assert {*found.machines} == shipped and not found.refused  # bit-level machines among them


def test_the_runs_about_convergence_are_what_the_figures_are_of():
    _, told = read_yaml("convergence.yaml", "configs/training")
    settings = Settings.read(told)
    assert settings.of("fig1-activations80-") == ("forward-topk", {"activations": 0.8})
    assert len(settings.runs) == 1 + 3 + 3 + 3 + 4 + 2 + 2 + 3 + 1 and settings.seeds == 3
    short = settings.shortened(100)
    assert short.algorithms["fig8-frozen-at-300-"]["freeze_after"] == 30
    assert short.algorithms["fig10-period"]["period"] == 10


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("steps: 0", "steps: must be an integer from 1, got 0"),
        ("record: [6]", "record: must be iterations in 0…5, got (6,)"),
        ("algorithms: {sgd: {}}", "algorithm: must be one of swat-u"),
        ("algorithms: {set: {dorp: 1}}", "algorithm set: option must be one of drop, every"),
        ("sparsity: 0.8", "sparsity: unknown key; known are algorithms"),
        ("seeds: 0", "seeds: must be an integer from 1, got 0"),
        ("noise: -1", "noise: must be a number from 0, got -1"),
    ],
)
def test_wrong_settings_are_one_line(tmp_path, capsys, change, says):
    key = change.partition(":")[0]
    lines = SETTINGS.partition("algorithms:\n")[0] if key == "algorithms" else SETTINGS
    kept = "\n".join(line for line in lines.splitlines() if not line.startswith(f"{key}:"))
    (tmp_path / "mine.yaml").write_text(f"{kept}\n{change}\n")
    assert main(["reproduce", "algorithms", "--settings", str(tmp_path / "mine.yaml")]) == 2
    told = capsys.readouterr().err
    assert says in told and "mine.yaml" in told and told.count("\n") == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["algorithms", "table3"], "must be asked for alone"),
        (["convergence", "algorithms"], "algorithms: must be asked for alone"),
        (["table3", "--runs", "x"], "--runs: must come with algorithms or convergence"),
        (["convergence", "--machines", "ideal.yaml"], "--machines: must come with algorithms"),
        (["table3", "--seeds", "2"], "--seeds: must come with algorithms or convergence"),
    ],
)
def test_options_that_do_not_go_together_are_told(arguments, says, capsys):
    assert main(["reproduce", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_settings_that_lack_a_key_or_data_too_small_are_told(tmp_path):
    with pytest.raises(AccelsimError, match="model: must be given"):
        Settings.read({"steps": 1})
    assert not Path("none").exists()
    assert main(["reproduce", "algorithms", "--data", str(tmp_path / "none.npz")]) == 2
