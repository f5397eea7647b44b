"""Does every example in README and on docs/start.md do what it says, and are the generated pages current?"""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from warm import PROGRAM

from accelsim import load_machine

ROOT = Path(__file__).parent.parent
README, START, MACHINES = (
    (ROOT / page).read_text(encoding="utf-8") for page in ("README.md", "docs/start.md", "docs/machines.md")
)
COMMANDS = re.findall(r"^accelsim .*$", "".join(re.findall(r"```sh\n(.*?)```", START, re.S)), re.M)
INSTALL, TEST = re.findall(r"^    (pip install .*)$", README, re.M)


def run(command, folder):
    """A line of shell in an empty folder, with the accelsim that is being tested."""
    shell = f'accelsim() {{ "{sys.executable}" -m accelsim.cli "$@"; }}; {command}'
    return subprocess.run(["bash", "-c", shell], cwd=folder, capture_output=True, text=True)


def each(line, folder):
    """What the commands of a line print and say, one after the other; all go well."""
    out = err = ""
    for command in line.partition(" #")[0].split(" && "):
        done = PROGRAM.run(shlex.split(command)[1:], folder, dict(os.environ))
        out, err = out + done.stdout.decode(), err + done.stderr.decode()
        assert done.returncode == 0, err
    return out, err


def test_the_first_command_prints_the_table_in_the_readme(tmp_path):
    command = INSTALL.partition(" && ")[2]
    result = run(command, tmp_path)
    assert (result.returncode, result.stderr) == (0, "")
    shown = re.search(r"```text\n(.*?)```", README, re.S)[1]
    assert result.stdout.startswith(shown)
    assert list(tmp_path.iterdir()) == []


def test_the_second_command_installs_the_test_extras_and_runs_the_tests():
    assert TEST == "pip install '.[test]' && pytest"
    assert "\ntest =\n" in (ROOT / "setup.cfg").read_text(encoding="utf-8")


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_of_the_first_page_run(command, tmp_path):
    if "capture" in command:
        pytest.importorskip("torch")
    if "report" in command:
        pytest.importorskip("plotly")
    out, err = each(command, tmp_path)
    assert "sweep" in command or err == ""  # which says beforehand how long it will take
    assert out
    written = sorted(path.name for path in tmp_path.rglob("*") if path.is_file())
    if "--plots" in command:
        assert written and {Path(name).suffix for name in written} == {".png", ".svg"}
    elif "--timeline" in command:
        assert written == ["run.json.gz"]
    elif "--plot" in command:
        assert written == ["speedups.png"]
    elif "--out" not in command:
        assert written == []
    elif "capture" in command:
        assert written == ["captured.npz"]
    elif "import" in command:
        assert written == ["swat95.npz"]
    elif "export" in command:
        assert written and all(name.endswith(".yaml") for name in written)
    elif "sweep" in command:
        assert {"layers.parquet", "sweep.json", "table.csv", "table.parquet"} < set(written)
    else:
        made = ["report.html"] if "report" in command else []
        tables = ["action_counts.yaml", "layers.csv", "layers.parquet", "manifest.sha256"]
        assert written == [*tables, *made, "run.json", "summary.txt"]


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", START, re.S))
def test_python_on_the_first_page_runs(code, tmp_path):
    if "import torch" in code:
        pytest.importorskip("torch")
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    if "mine.npz" in code:
        assert run("accelsim run --config pe16x16.yaml --trace mine.npz", tmp_path).returncode == 0


def test_every_file_the_readme_names_exists():
    for name in re.findall(r"\]\(([^)]+)\)|`((?:accelsim|tests|docs|benchmarks)/[\w/.-]*)`", README):
        assert (ROOT / "".join(name)).exists(), name


def test_readme_is_one_screen_and_what_it_compares():
    """What it is, a picture, two commands, Table 6 and how to read it come before anything else."""
    screen = README[: README.index("\n## ")]
    assert len(screen.splitlines()) < 50
    for piece in (
        "](docs/pictures/",
        INSTALL,
        TEST,
        "chosen among 64",
        "more than 60 %",
        "against Top-K 0 %",
        "not Accel-Sim",
    ):
        assert piece in screen, piece


def test_the_machine_of_table_6_is_first_in_its_page():
    """The first row of the generated table holds the figures that the README shows; the rest is checked by name."""
    page = (ROOT / "docs" / "table6.md").read_text(encoding="utf-8")
    row = re.search(r"\| \*\*pe16x16.yaml\*\* .*", page)[0]
    ours = re.findall(r"\d\.\d\d(?= )", row)
    assert len(ours) == 4
    shown = re.search(r"```text\n(.*?)```", README, re.S)[1]
    assert all(f"{figure}×" in shown for figure in ours)


IMPORTERS = ROOT / "docs" / "importers.md"


def test_the_page_on_files_of_other_tools_does_what_it_says(tmp_path):
    """Its commands one after the other, in one folder."""
    page = IMPORTERS.read_text(encoding="utf-8")
    for block in re.findall(r"```sh\n(.*?)```", page, re.S):
        result = run("set -e\n" + block, tmp_path)
        assert (result.returncode, result.stderr) == (0, ""), result.stderr
    assert {path.name for path in tmp_path.iterdir()} > {"net.npz", "alike.npz", "problems", "topology", "reports"}
    (code,) = re.findall(r"```python\n(.*?)```", page, re.S)
    result = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True)
    assert result.returncode == 0 and result.stdout.count("neighbours") == 4, result.stderr


@pytest.mark.slow
def test_the_table_of_synthetic_traces_is_current():
    script = ROOT / "benchmarks" / "fidelity.py"
    table = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True).stdout
    assert table in IMPORTERS.read_text(encoding="utf-8")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("script", "page"),
    [
        ("table6_choices.py", "table6.md"),
        ("energy_step.py", "energy.md"),
        ("networks.py", "machines.md"),
        ("bit_widths.py", "machines.md"),
    ],
)
def test_a_generated_table_is_current(script, page):
    command = [sys.executable, ROOT / "benchmarks" / script]
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert table in (ROOT / "docs" / page).read_text(encoding="utf-8")


def compared():
    """The comparison of all machines as the page on machines shows it."""
    return re.search(r"```text\n(Speedup over.*?)```", MACHINES, re.S)[1]


@pytest.mark.slow
def test_the_comparison_of_all_machines_is_current(tmp_path):
    result = run("accelsim compare --trace resnet50.npz --quiet", tmp_path)
    assert (result.returncode, result.stdout) == (0, compared())


def test_the_comparison_has_all_machines_and_the_readme_shows_its_part():
    """Which names and skips are there is cheap to check, and that one page says what the other does."""
    shown = re.search(r"```text\n(Speedup over.*?)```", README, re.S)[1]
    assert "Top-K 90 % (swat90)" in shown and shown in compared()
    names = {load_machine(file).name: load_machine(file) for file in (ROOT / "configs").glob("*.yaml")}
    rows = dict(re.findall(r"^  ([\w-]+) +([\d,]+) .*×", shown, re.M))
    refused = re.findall(r"^([\w-]+) is left out", compared(), re.M)
    assert sorted([*rows, *refused]) == sorted(names)
    for name, multipliers in rows.items():
        assert multipliers == f"{names[name].accelerator.baseline_multipliers:,}"


def test_the_page_says_of_each_machine_what_the_command_says_that_it_skips(tmp_path):
    """On one layer, which takes seconds; the figures are checked by the slow test above."""
    line = "accelsim compare --trace resnet50.npz --layers layer4.2.conv1 --snapshots swat90 --quiet"
    skips = re.compile(r"^  ([\w-]+) .*? ((?:[AWG|*]+ [AWG|*]+ [AWG|*]+|–)) +–$", re.M)
    assert dict(skips.findall(each(line, tmp_path)[0])) == dict(skips.findall(compared()))


@pytest.mark.parametrize(("page", "least"), [("machines", 10), ("sweeps", 8), ("reliability", 30)])
def test_every_test_that_a_page_names_exists(page, least):
    page = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    tests = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "tests").glob("test_*.py"))
    named = re.findall(r"`(test_\w+)`", page)
    assert len(named) > least
    assert [name for name in named if f"def {name}(" not in tests] == []
    assert [file for file in re.findall(r"`(tests/\w+/\w+\.py)`", page) if not (ROOT / file).is_file()] == []


def test_every_shipped_machine_is_in_the_table_of_machine_files():
    rows = re.findall(r"^\| `([\w-]+\.yaml)` \|", MACHINES, re.M)
    assert sorted(rows) == sorted(file.name for file in (ROOT / "configs").glob("*.yaml"))
