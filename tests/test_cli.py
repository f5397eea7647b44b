"""Does the program, run as a user runs it, print what it should, write what it was asked for, and fail in one line?"""

import json
import os
import pty
import re
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from warm import PROGRAM

import accelsim
from accelsim import cli
from accelsim.files import shipped
from accelsim.study.results import convolutions, summarize
from accelsim.workload.geometry import Geometry
from accelsim.workload.trace_writer import TraceWriter

ROOT = Path(__file__).parents[1]
RESNET = ROOT / "traces" / "resnet50.npz"
HEAVY = {"numba", "pandas", "pydantic", "yaml", "matplotlib", "torch", "pyarrow", "rich"}
FILES = ["action_counts.yaml", "layers.csv", "layers.parquet", "manifest.sha256", "run.json", "summary.txt"]
# DaDianNao needs no compiled kernels, so most tests run it.
RUN = ["run", "--config", "dadiannao.yaml", "--trace", "tiny.npz"]
SPARSE = ["run", "--config", "pe16x16.yaml", "--trace", "tiny.npz"]


def environment(**changes):
    """Ours, without what would change the output; PYTHONPATH stays, so that what runs is the package under test."""
    changing = ("COLUMNS", "NO_COLOR", "FORCE_COLOR", "PYTHONIOENCODING", "PYTHONUTF8", "PYTHONCOERCECLOCALE")
    kept = {key: value for key, value in os.environ.items() if key not in changing}
    return kept | {"PYTHONDONTWRITEBYTECODE": "1"} | changes


@pytest.fixture
def here(tmp_path, tiny):
    """The current folder of the program: it has the tiny trace in it and nothing else."""
    (tmp_path / "tiny.npz").write_bytes(tiny.read_bytes())
    return tmp_path


def command(arguments):
    return [sys.executable, "-m", "accelsim.cli", *map(str, arguments)]


def accelsim_cli(here, *arguments, env=None, **how):
    """One run of the program, without a terminal; from its imports on where nothing about them is asked for."""
    if not env and not how:
        done = PROGRAM.run([*map(str, arguments)], here, environment())
        done.out, done.err = done.stdout.decode(), done.stderr.decode()
        return done
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "stdin": subprocess.DEVNULL}
    done = subprocess.run(
        command(arguments), cwd=here, env=environment(**(env or {})), timeout=60, **{**streams, **how}
    )
    done.out, done.err = ((stream or b"").decode() for stream in (done.stdout, done.stderr))
    return done


def succeed(here, *arguments, **how):
    """What a run prints; it goes well and says nothing on stderr."""
    done = accelsim_cli(here, *arguments, **how)
    assert (done.returncode, done.err) == (0, "")
    return done.out


@pytest.fixture(scope="module")
def printed(tiny, tmp_path_factory):
    """A function: what the program prints, run once for all tests that ask for the same."""
    folder, outputs = tmp_path_factory.mktemp("printed"), {}
    (folder / "tiny.npz").write_bytes(tiny.read_bytes())

    def once(*arguments):
        if arguments not in outputs:
            outputs[arguments] = succeed(folder, *arguments)
        return outputs[arguments]

    return once


def fail(here, *arguments, code=2, **how):
    """The one line of a run that fails, without its beginning."""
    done = accelsim_cli(here, *arguments, **how)
    assert done.returncode == code and done.out == "", (done.returncode, done.out, done.err)
    return one_line(done.err)


def one_line(text):
    """The line that an error is, without its beginning."""
    assert text.endswith("\n") and len(text.splitlines()) == 1, text
    assert text[:-1].isprintable() and text.startswith("accelsim: error: "), text
    return text.removeprefix("accelsim: error: ").rstrip("\n")


def listing(folder):
    """All that is in a folder, hidden files too, with its content."""
    return {str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


# Help and output ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "arguments", [["--help"], ["run", "--help"], ["compare", "--help"], ["info", "-h"], ["--version"]]
)
def test_help_comes_within_a_second_and_loads_nothing_heavy(here, arguments):
    code = (
        "import sys\nfrom accelsim.cli import main\ntry:\n    main(sys.argv[1:])\n"
        "finally:\n    print(*sys.modules, file=sys.stderr)"
    )
    before = os.times()
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=here, capture_output=True, text=True)
    after = os.times()
    assert done.returncode == 0 and "accelsim" in done.stdout
    assert {name.split(".")[0] for name in done.stderr.split()} & HEAVY == set()
    # The processor's seconds: those on the wall depend on what else runs.
    assert after.children_user + after.children_system - before.children_user - before.children_system < 1


def test_the_program_tested_is_this_checkout_s(here):
    """A test of another copy of accelsim would pass whatever was changed here."""
    code = "import accelsim.cli; print(accelsim.cli.__file__)"
    done = subprocess.run([sys.executable, "-c", code], cwd=here, env=environment(), capture_output=True, text=True)
    assert done.stdout.strip() == cli.__file__


def test_without_a_command_the_usage_is_one_line(here):
    assert "--help" in fail(here)


ROW = re.compile(r"^  (\d+) % \((\w+)\) +(.*)$", re.M)


def test_the_table_has_a_row_per_sparsity_and_a_column_per_pass(printed, tiny):
    """And the summary below it: baseline, the two factors, effectual work, utilization, cycles, the linear layer."""
    out = printed(*SPARSE)
    table, rest = out.split("What it is made of", 1)
    assert table.startswith("Speedup on pe16x16 against Top-K 0 % on the same machine, over convolutions\n")
    for word in ("forward", "input", "weight", "gradient", "backward", "training", "step", "sparsity"):
        assert word in table
    assert "paper" not in table
    with accelsim.open_trace(tiny) as trace:
        rows = accelsim.simulate(accelsim.load_machine("pe16x16.yaml"), trace)
    expected = summarize(convolutions(rows), "pe16x16")
    assert [(int(percent), name, figures.split()) for percent, name, figures in ROW.findall(table)] == [
        (round(100 * row["sparsity"]), row["snapshot"], [f"{list(row.values())[i]:.2f}×" for i in range(2, 7)])
        for row in expected.speedup
    ]
    for heading in (
        "speedup over dadiannao, 4,096 multipliers",
        "speedup over as many multipliers, always busy: gain × shape",
        "gain over its dense self",
        "shape: its dense self",
        "times fewer effectual multiplications",
        "utilization of 4,096",
        "cycles",
        "linear",
    ):
        assert heading in rest
    assert f"{expected.cycles[1]['step']:,}" in rest


def test_the_paper_is_beside_its_own_network_marked_as_the_paper_s(here, write_tiny):
    write_tiny(here / "tiny.npz", network="resnet50", dataset="imagenet")
    table = succeed(here, *RUN, "--quiet")
    assert 'the paper: Table 6 of "Sparse Weight Activation Training"' in table
    row = next(figures.split() for _, name, figures in ROW.findall(table) if name == "swat80")
    assert (row[1], row[3]) == ("3.3×", "3.4×") and len(row) == 7
    assert "paper" not in succeed(here, *RUN, "--quiet", "--layers", "conv1")


@pytest.mark.parametrize("arguments", [[*RUN, "--explain"], ["info", "tiny.npz"], ["info", "pe8x8.yaml"]])
def test_piped_output_has_no_bar_no_escape_codes_and_no_trailing_blanks(here, arguments):
    """``succeed`` holds that stderr is empty. A terminal's own settings don't matter."""
    out = succeed(here, *arguments, env={"TERM": "xterm-256color", "FORCE_COLOR": "1", "COLUMNS": "20"})
    assert "\x1b" not in out and "\r" not in out and "simulating" not in out
    assert all(line == line.rstrip() for line in out.splitlines())


def test_two_runs_print_the_same_whatever_the_jobs(printed):
    assert printed(*SPARSE, "--jobs", "7") == printed(*SPARSE)


def one_object(text):
    """Strict JSON: one object, no NaN."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(name))


def test_json_is_one_object_with_unrounded_speedups(printed, tiny):
    data = one_object(printed(*SPARSE, "--json"))
    with accelsim.open_trace(tiny) as trace:
        rows = accelsim.simulate(accelsim.load_machine("pe16x16.yaml"), trace)
    assert data["speedup"] == summarize(convolutions(rows), "pe16x16").speedup
    for row in data["speedup"]:
        assert list(row) == ["snapshot", "sparsity", "fwd", "input_grad", "weight_grad", "backward", "step"]
    assert [row["snapshot"] for row in data["speedup"]] == ["dense", "swat80"]
    origin = data["provenance"]
    assert origin["command"] == ["accelsim", *SPARSE, "--json"]
    assert origin["trace"]["sha256"] and origin["versions"]["numpy"] == np.__version__
    assert [machine["name"] for machine in origin["machines"]] == ["pe16x16", "dadiannao"]
    assert origin["machines"][0] == accelsim.load_machine("pe16x16.yaml").resolved()


def test_json_of_a_pass_alone_has_null_for_the_others(printed):
    data = one_object(printed(*RUN, "--json", "--passes", "fwd", "--snapshots", "swat80"))
    assert data["speedup"] == [
        {"snapshot": "swat80", "sparsity": 0.8}
        | dict.fromkeys(["fwd", "input_grad", "weight_grad", "backward", "step"])
    ]
    assert data["cycles"][0]["fwd"] > 0


def test_quiet_is_the_speedup_table_alone(printed):
    quiet = printed(*SPARSE, "--quiet")
    assert printed(*SPARSE).startswith(quiet) and "What it is made of" not in quiet


@pytest.mark.parametrize(
    ("choice", "present", "absent"),
    [
        (["--passes", "fwd"], {"fwd"}, {"input_grad", "backward", "step"}),
        (["--passes", "weight_grad, input_grad"], {"weight_grad", "input_grad", "backward"}, {"fwd", "step"}),
    ],
)
def test_passes_are_those_asked_for(printed, choice, present, absent):
    row = one_object(printed(*RUN, "--json", *choice))["cycles"][0]
    assert all(row[which] for which in present) and not any(row[which] for which in absent)


def test_layers_and_snapshots_are_those_asked_for(here):
    succeed(here, *RUN, "--layers", "block/*,fc", "--snapshots", "swat80", "--out", "results")
    table = pd.read_csv(here / "results" / "layers.csv")
    assert set(table["layer"]) == {"block/conv2", "block/down", "fc"} and set(table["snapshot"]) == {"swat80"}


def test_without_baseline_there_is_no_comparison(printed):
    out = printed(*SPARSE, "--baseline", "none")
    assert "speedup over" not in out and "speedup over" in printed(*SPARSE)
    assert out.splitlines()[-3:] == printed(*SPARSE).splitlines()[-3:]
    data = one_object(printed(*RUN, "--baseline", "none", "--json"))
    assert data["baseline"] is None and data["speedup_over_baseline"] == []


def test_the_baseline_may_be_any_machine_even_the_same(printed):
    data = one_object(printed(*RUN, "--baseline", "pe8x8.yaml", "--json"))
    assert data["baseline"] == "pe8x8" and data["speedup_over_baseline"][0]["fwd"] > 0
    data = one_object(printed(*RUN, "--baseline", "dadiannao.yaml", "--json"))
    assert {row[c] for row in data["speedup_over_baseline"] for c in list(row)[2:]} == {1.0}


def test_the_explanation_adds_up(printed):
    """Every integer: the causes of each pass sum to cycles × multipliers."""
    out = printed(*SPARSE, "--explain")
    tables = out.split("Where the multiplier slots of pe16x16 went, snapshot ")[1:]
    assert len(tables) == 2
    for table in tables:
        lines = re.findall(r"^  (\w[\w ×-]*?) {2,}(.*%)$", table, re.M)
        counts = {
            name: [int(n.replace(",", "")) for n in re.findall(r"[\d,]+(?= +[\d.]+ %)", rest)] for name, rest in lines
        }
        total = counts.pop("cycles × multipliers")
        assert len(total) == 3 and len(counts) >= 4 and all(len(row) == 3 for row in counts.values())
        assert [sum(column) for column in zip(*counts.values(), strict=True)] == total
        assert counts["effectual"][0] > 0


def test_energy_is_told_below_the_cycles_and_where_it_goes(printed):
    out = printed(*SPARSE)
    energy, components = out.split("Energy, over convolutions")[1].split("Where the energy goes")
    for heading in ("less than at Top-K 0 %", "less than dadiannao", "mJ a sample", "energy-delay product a sample"):
        assert heading in energy
    shares = [
        [float(n) for n in re.findall(r"([\d.]+) %", row)] for row in re.findall(r"^  \w.*?(\d.* %)$", components, re.M)
    ]
    assert all(abs(sum(column) - 100) < 1 for column in zip(*shares, strict=True)) and len(shares) >= 5
    data = one_object(printed(*SPARSE, "--json"))["energy"]
    assert data["energy_pj"][1]["step"] > 0 and data["energy_delay_js"][1]["step"] > 0


def test_sections_are_replaced_for_both_machines(printed):
    data = one_object(
        printed(*SPARSE, "--json", "--energy", "28nm.yaml", "--memory", "none", "--overheads", "swat.yaml")
    )
    for machine in data["provenance"]["machines"]:
        assert machine["energy"]["node_nm"] == 28 and machine["memory"] is None and machine["overheads"]
    assert data["energy"]["energy_pj"][0]["step"] is None and data["energy"]["compute_pj"][0]["step"] > 0
    assert data["overheads"][1]["top_k"] > 0
    named = one_object(printed(*SPARSE, "--json", "--baseline", "pe8x8.yaml", "--energy", "none"))
    assert [machine["energy"] for machine in named["provenance"]["machines"]] == [None, None] and named[
        "energy"
    ] is None


def test_the_share_of_overheads_is_printed_where_they_are_on(printed):
    assert "in which nothing is multiplied" not in printed(*SPARSE)
    out = printed(*SPARSE, "--overheads", "swat.yaml", "--explain")
    assert "in which nothing is multiplied" in out and re.search(r"^  rotate +", out, re.M)


# Files -------------------------------------------------------------------------------------------------------------


def test_nothing_is_written_that_was_not_asked_for(here):
    before = listing(here)
    succeed(here, *RUN, "--explain")
    succeed(here, "info", "tiny.npz")
    assert listing(here) == before


@pytest.mark.parametrize("out", ["results", "a/b/ré sults ×", "./results/"])
def test_results_are_six_files_in_the_folder_named(here, out):
    before = listing(here)
    printed = succeed(here, *RUN, "--out", out)
    folder = here / out
    assert sorted(file.name for file in folder.iterdir()) == FILES
    made = {path for path in listing(here).keys() - before.keys() if (here / path).is_file()}
    assert len(made) == len(FILES)
    assert (folder / "summary.txt").read_text(encoding="utf-8") == printed


def test_the_files_agree(here):
    printed = succeed(here, *RUN, "--json", "--out", "results")
    folder = here / "results"
    data = one_object((folder / "run.json").read_text(encoding="utf-8"))
    assert data == one_object(printed)
    csv, parquet = pd.read_csv(folder / "layers.csv"), pd.read_parquet(folder / "layers.parquet")
    pd.testing.assert_frame_equal(csv, parquet, check_dtype=False)
    assert len(csv) == 2 * 5 * 3
    assert not csv.duplicated(["snapshot", "layer", "pass"]).any()
    sums = csv[csv["kind"] == "conv"].groupby(["snapshot", "pass"])["cycles"].sum()
    assert all(row[which] == sums[row["snapshot"], which] for row in data["cycles"] for which in sums["dense"].index)
    assert json.loads(parquet.attrs["provenance"]) == data["provenance"]
    assert set(csv["trace_sha256"]) == {data["provenance"]["trace"]["sha256"]}
    assert data["provenance"]["accelsim"] == accelsim.__version__
    assert data["provenance"]["command"][-2:] == ["--out", "results"]


def test_existing_results_are_replaced_and_foreign_files_stay(here):
    folder = here / "results"
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    (folder / "layers.csv").write_text("old")
    (folder / "sub").mkdir()
    succeed(here, *RUN, "--out", "results")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "notes.txt", "sub"])
    assert (folder / "notes.txt").read_text() == "mine" and (folder / "layers.csv").read_text() != "old"
    first = listing(folder)
    succeed(here, *RUN, "--out", "results")
    assert listing(folder) == first


def test_a_link_to_a_folder_is_followed(here):
    (here / "real").mkdir()
    (here / "link").symlink_to("real")
    succeed(here, *RUN, "--out", "link")
    assert sorted(path.name for path in (here / "real").iterdir()) == FILES and (here / "link").is_symlink()


BAD_FOLDERS = {
    "tiny.npz": "tiny.npz: must be a folder",
    "tiny.npz/results": "tiny.npz",
    "/dev/null/results": "/dev/null",
    "/proc/results": "/proc",
    "x" * 300: "xxx",
}


@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.parametrize("out", BAD_FOLDERS)
def test_a_folder_that_cannot_be_written_is_refused_before_the_run(here, out, monkeypatch, capfd):
    before = listing(here)
    monkeypatch.chdir(here)
    monkeypatch.setattr(sys.modules["accelsim.pipeline"], "simulate_records", lambda *_, **__: pytest.fail("simulates"))
    assert cli.main([*RUN, "--out", out]) == 2
    assert BAD_FOLDERS[out] in one_line(capfd.readouterr().err)
    assert listing(here) == before


def other_file_system(here):
    """A folder that is a mount point of its own, as in a container; None where there is none to write to."""
    shm = Path("/dev/shm")
    if shm.is_mount() and os.access(shm, os.W_OK) and shm.stat().st_dev != shm.parent.stat().st_dev:
        return shm
    return None


def test_results_in_a_mounted_folder(here):
    """``docker run -v results:/results``: what lies beside the folder is another file system."""
    mount = other_file_system(here)
    if mount is None:
        pytest.skip("no mount point to write to")
    if any((mount / name).exists() for name in FILES):
        pytest.skip("files of those names are there already")
    before = set(mount.parent.iterdir())
    try:
        succeed(here, *RUN, "--out", mount)
        assert all((mount / name).is_file() for name in FILES)
        assert set(mount.parent.iterdir()) == before
    finally:
        for name in FILES:
            (mount / name).unlink(missing_ok=True)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_only_the_folder_itself_must_be_writable_and_it_must(here):
    (here / "parent" / "results").mkdir(parents=True)
    (here / "parent").chmod(0o555)
    succeed(here, *RUN, "--out", "parent/results")
    (here / "results").mkdir()
    (here / "results").chmod(0o555)
    fail(here, *RUN, "--out", "results")
    (here / "parent").chmod(0o755)


@pytest.mark.parametrize(("limit", "out"), [(100, "old"), (5_000, "results"), (9_000, "old"), (9_000, "a/b/results")])
def test_a_full_disk_is_one_line_and_leaves_nothing(here, limit, out):
    """No file may pass the limit, as on a full disk: at 100 bytes none fits, at 9000 bytes some do."""
    (here / "old").mkdir()
    (here / "old" / "layers.csv").write_text("old")
    before = listing(here)
    full = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # noqa: E731
    line = fail(here, *RUN, "--out", out, preexec_fn=full)
    assert "cannot write: " in line
    assert listing(here) == before


def test_the_limits_above_are_within_the_sizes_of_the_files(here):
    """Else the test above would show less than it says."""
    succeed(here, *RUN, "--out", "results")
    sizes = {name: (here / "results" / name).stat().st_size for name in FILES}
    assert min(sizes.values()) > 100 and max(sizes.values()) > 9_000
    assert any(5_000 < size < 9_000 for size in sizes.values()) or min(sizes.values()) < 5_000


@pytest.mark.parametrize("arguments", [[*RUN], ["info", "tiny.npz"], ["schema"]])
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_output_that_does_not_fit_is_one_line(here, arguments):
    with open("/dev/full", "wb") as full:
        fail(here, *arguments, stdout=full)


@pytest.mark.parametrize("arguments", [[*RUN], ["schema"]])
def test_a_reader_that_leaves_is_no_error(here, arguments):
    """As ``| head -1``: the pipe is closed before anything is printed."""
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = accelsim_cli(here, *arguments, stdout=writer)
    finally:
        os.close(writer)
    assert done.err == "" and done.returncode in (0, 141)


def test_head_gets_its_line(here):
    python = " ".join(command(["info", RESNET]))
    done = subprocess.run(["sh", "-c", f"{python} | head -1"], cwd=here, env=environment(), capture_output=True)
    assert done.stderr == b"" and done.stdout.count(b"\n") == 1 and b"accelsim trace" in done.stdout


@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_closed_stream_is_no_defect(here, closed):
    """``>&-``, as daemons start programs."""
    number = {"stdout": 1, "stderr": 2}[closed]
    done = accelsim_cli(here, *RUN, preexec_fn=lambda: os.close(number))
    assert "Traceback" not in done.err and "defect" not in done.err and done.returncode in (0, 2)


ASCII = {"PYTHONIOENCODING": "ascii", "LC_ALL": "C"}
LOCALE_C = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}


@pytest.mark.parametrize(
    ("arguments", "env"),
    [([*RUN, "--explain"], ASCII), ([*RUN, "--json"], ASCII), (["info", "tiny.npz"], LOCALE_C), (["schema"], LOCALE_C)],
)
def test_a_terminal_that_knows_no_signs_gets_the_figures_all_the_same(here, arguments, env):
    """× and – are not in ASCII, which is all that the locale C of a cluster's jobs has."""
    assert succeed(here, *arguments, env=env).isascii()


# Interruptions -----------------------------------------------------------------------------------------------------


class Terminal:
    """A run on a terminal of its own."""

    def __init__(self, here, *arguments, **env):
        ours, its = pty.openpty()
        self.end, self.text = ours, ""
        changes = environment(TERM="xterm", **env)
        self.process = subprocess.Popen(
            command(arguments), cwd=here, env=changes, stdin=its, stdout=its, stderr=its, start_new_session=True
        )
        os.close(its)

    def read_until(self, pattern=None, seconds=60):
        """Reads on until a pattern was printed, or the program has ended."""
        deadline = time.monotonic() + seconds
        while pattern is None or not re.search(pattern, self.text):
            assert time.monotonic() < deadline, self.text
            if not select.select([self.end], [], [], 1)[0]:
                continue
            try:
                new = os.read(self.end, 1 << 16)
            except OSError:  # the other side is closed
                new = b""
            if not new:
                assert pattern is None, self.text
                break
            self.text += new.decode(errors="replace")
        return self.text

    def finish(self):
        self.read_until()
        return self.process.wait(10)

    def __enter__(self):
        return self

    def __exit__(self, *error):
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait()
        os.close(self.end)


# Long enough to be interrupted. It starts when the bar comes.
LONG = ["run", "--config", "pe16x16.yaml", "--trace", RESNET, "--jobs", "1"]


def test_a_terminal_gets_a_progress_bar_and_then_the_table(here):
    with Terminal(here, *RUN) as terminal:
        assert terminal.finish() == 0
    assert "simulating" in terminal.text and "layers" in terminal.text and "\x1b[" in terminal.text
    bar, table = terminal.text.split("Speedup on", 1)
    assert "simulating" in bar and "simulating" not in table and "Traceback" not in terminal.text


@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_quiet_and_json_have_no_bar_on_a_terminal(here, flag):
    with Terminal(here, *RUN, flag) as terminal:
        assert terminal.finish() == 0
    assert "simulating" not in terminal.text
    if flag == "--json":
        one_object(terminal.text)


def test_a_terminal_that_wants_no_colour_gets_none(here):
    with Terminal(here, "info", "pe8x8.yaml", NO_COLOR="1") as terminal:
        assert terminal.finish() == 0
    assert not re.search(r"\x1b\[[\d;]*3\dm", terminal.text)


@pytest.mark.parametrize("out", [[], ["--out", "new/results"], ["--out", "old"]])
def test_an_interrupted_run_says_so_in_one_line_and_leaves_nothing(here, out):
    (here / "old").mkdir()
    (here / "old" / "layers.csv").write_text("old")
    before = listing(here)
    with Terminal(here, *LONG, *out) as terminal:
        terminal.read_until("simulating.* [1-9][0-9]*/")
        os.kill(terminal.process.pid, signal.SIGINT)
        assert terminal.finish() == 130
    last = [line for line in re.sub(r"\x1b\[[?\d;]*\w", "\n", terminal.text).split("\n") if line.strip()][-1]
    assert last.strip() == "accelsim: interrupted; nothing was written"
    assert "Traceback" not in terminal.text and "Speedup" not in terminal.text
    assert listing(here) == before


def test_a_killed_run_leaves_the_old_results_as_they_were(here):
    succeed(here, *RUN, "--out", "results")
    before = listing(here)
    with Terminal(here, *LONG, "--out", "results") as terminal:
        terminal.read_until("simulating.* [1-9][0-9]*/")
        terminal.process.kill()
        assert terminal.process.wait(10) == -signal.SIGKILL
    assert listing(here) == before


# Errors ------------------------------------------------------------------------------------------------------------

SMALL = (ROOT / "configs" / "pe8x8.yaml").read_text(encoding="utf-8")
WRONG = {
    "no such machine": ([*RUN, "--config", "pe.yaml"], "pe.yaml: no such file here, nor among the shipped configs"),
    "no such trace": (
        [*RUN, "--trace", "vgg.npz"],
        "vgg.npz: no such file here, nor among the shipped traces (",
    ),
    "no such path": ([*RUN, "--trace", "./resnet50.npz"], "./resnet50.npz: no such file"),
    "trace as machine": ([*RUN, "--config", "tiny.npz"], "tiny.npz: must be UTF-8 text"),
    "machine as trace": ([*RUN, "--trace", "bad.yaml"], "bad.yaml: must be a whole .npz file"),
    "bad machine": ([*RUN, "--config", "bad.yaml"], "bad.yaml: accelerator.rows: must be an integer in 1…256, got 0"),
    "bad baseline": ([*RUN, "--baseline", "bad.yaml"], "bad.yaml: accelerator.rows: must be"),
    "pass": ([*RUN, "--passes", "backward"], "pass: must be one of fwd, input_grad, weight_grad, got backward"),
    "no pass": ([*RUN, "--passes", ""], "pass: must name at least one of fwd, input_grad, weight_grad"),
    "layer": ([*RUN, "--layers", "conv9*"], "layers: must match a layer of the trace (conv1, "),
    "snapshot": ([*RUN, "--snapshots", "dense,x"], "snapshot: must be one of dense, swat80, got x"),
    "jobs 0": ([*RUN, "--jobs", "0"], "argument --jobs: must be an integer in 1…1024, got 0"),
    "jobs x": ([*RUN, "--jobs", "two"], "argument --jobs: must be an integer in 1…1024, got two"),
    "jobs ²": ([*RUN, "--jobs", "²"], "argument --jobs: must be an integer in 1…1024, got ²"),
    "jobs of digits": ([*RUN, "--jobs", "9" * 5000], "argument --jobs: must be an integer in 1…1024, got 9"),
    "jobs of two lines": ([*RUN, "--jobs", "1\n2"], "argument --jobs: must be an integer in 1…1024, got 1"),
    "option": ([*RUN, "--fast"], "unrecognized arguments: --fast"),
    "option of two lines": ([*RUN, "--a\nb"], "unrecognized arguments: "),
    "command": (["simulate"], "argument COMMAND: "),
    "nothing required": (["run"], "the following arguments are required: --config, --trace"),
    "truncated": ([*RUN, "--trace", "cut.npz"], "cut.npz: must be a whole .npz file"),
    "empty": ([*RUN, "--trace", "empty.npz"], "empty.npz: must be a whole .npz file: is empty"),
    "folder": ([*RUN, "--trace", "folder.npz"], "folder.npz: must be a file"),
    "pipe": ([*RUN, "--trace", "pipe.npz"], "pipe.npz: must be a file"),
    "lone link": ([*RUN, "--trace", "link.npz"], "link.npz: no such file"),
    "pickle": ([*RUN, "--trace", "pickle.npz"], "pickle.npz: "),
    "long name": ([*RUN, "--trace", "x" * 300], "x"),
    "escape code": ([*RUN, "--trace", "\x1b[31m.npz"], ""),
    "two lines": ([*RUN, "--config", "a\nb.yaml"], "a"),
    "not UTF-8": ([*RUN, "--config", b"\xff.yaml"], ""),
    "no such energy": (
        [*RUN, "--energy", "7nm.yaml"],
        f"{shipped('configs') / 'dadiannao.yaml'}: energy: 7nm.yaml: no such",
    ),
    "info on a machine that is bad": (["info", "bad.yaml"], "bad.yaml: accelerator.rows: must be"),
    "info on a trace that is cut": (["info", "cut.npz"], "cut.npz: must be a whole .npz file"),
    "info on nothing": (["info", "nothing.npz"], "nothing.npz: no such file here, nor among the shipped traces"),
    "info on a folder": (["info", "folder.npz"], "folder.npz: must be a file"),
    "info on a folder without ending": (["info", "."], ".: cannot read: Is a directory"),
    "info on a text": (["info", "notes.txt"], "notes.txt: must be a mapping with the keys name and accelerator"),
    "info on a renamed trace": (["info", "renamed"], "renamed: must be"),
    "one filter does not fit": (
        [*RUN, "--config", "small.yaml"],
        "small: dense/conv1: fwd: accelerator.accumulators: must hold one filter's 5×5 partial sums, got 7",
    ),
}


@pytest.fixture
def hostile(here):
    """Files that are not what they seem."""
    dense = (ROOT / "configs" / "dadiannao.yaml").read_text(encoding="utf-8")
    (here / "bad.yaml").write_text(dense.replace("rows: 16", "rows: 0"), encoding="utf-8")
    small = re.sub(r"(name|pe_rows|pe_columns|accumulators): \S+", lambda m: f"{m[1]}: {dict(VALUES)[m[1]]}", SMALL)
    (here / "small.yaml").write_text(small, encoding="utf-8")
    content = (here / "tiny.npz").read_bytes()
    (here / "cut.npz").write_bytes(content[: len(content) // 2])
    (here / "renamed").write_bytes(content)
    (here / "empty.npz").write_bytes(b"")
    (here / "notes.txt").write_text("hello")
    (here / "folder.npz").mkdir()
    os.mkfifo(here / "pipe.npz")
    (here / "link.npz").symlink_to("nowhere")
    np.savez(here / "pickle.npz", meta=np.array([{"format": "accelsim-trace"}], object))
    return here


VALUES = {"name": "small", "pe_rows": 1, "pe_columns": 1, "accumulators": 7}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_is_said_in_one_line(hostile, wrong, monkeypatch, capfd):
    """In this process, for there are many; the test below shows that a process of its own does the same."""
    monkeypatch.chdir(hostile)
    arguments, expected = WRONG[wrong]
    try:
        code = cli.main([os.fsdecode(a) if isinstance(a, bytes) else str(a) for a in arguments])
    except SystemExit as stop:  # argparse
        code = stop.code
    out, err = capfd.readouterr()
    assert (code, out) == (2, "")
    assert one_line(err).startswith(expected) and len(err) < 1200


@pytest.mark.parametrize("wrong", ["bad machine", "truncated", "jobs x", "not UTF-8", "one filter does not fit"])
def test_what_is_wrong_ends_the_program_with_code_2(hostile, wrong):
    arguments, expected = WRONG[wrong]
    assert fail(hostile, *map(os.fsdecode, arguments)).startswith(expected)


def test_debug_shows_where(hostile):
    done = accelsim_cli(hostile, *RUN, "--config", "bad.yaml", "--debug")
    assert done.returncode != 0 and "Traceback" in done.err and "accelerator.rows: must be" in done.err


def test_an_error_after_the_run_began_leaves_no_new_folder(hostile):
    before = listing(hostile / "folder.npz"), sorted(path.name for path in hostile.iterdir())
    for wrong in ("one filter does not fit", "truncated"):
        fail(hostile, *WRONG[wrong][0], "--out", "a/b/results")
    assert before == (listing(hostile / "folder.npz"), sorted(path.name for path in hostile.iterdir()))


# Info and schema ---------------------------------------------------------------------------------------------------


def test_info_describes_a_trace(here):
    out = succeed(here, "info", "tiny.npz")
    assert out.startswith(f"tiny.npz: accelsim trace, version 2, {(here / 'tiny.npz').stat().st_size:,} bytes\n")
    for text in ("tiny on noise", "dense: Top-K 0 %", "swat80: Top-K 80 %", "batch 8", " 1/8 ", "8×3×3×3", "5 layers"):
        assert text in out
    facts = one_object(succeed(here, "info", "tiny.npz", "--json"))
    assert [layer["name"] for layer in facts["snapshots"][0]["layers"]] == list(LAYERS)
    assert facts["sha256"] in out and facts["version"] == 2
    with accelsim.open_trace(here / "tiny.npz") as trace:
        for snapshot, found in zip(trace.snapshots, facts["snapshots"], strict=True):
            for layer, described in zip(snapshot.layers, found["layers"], strict=True):
                assert described["geometry"] == layer.geometry.as_dict()
                for name, tensor in described["tensors"].items():
                    assert tensor["nonzeros"] == np.count_nonzero(layer.tensor(name))
                    assert f"{tensor['nonzeros'] / tensor['elements']:.3f}" in out


LAYERS = ["conv1", "block/conv2", "block/down", "depthwise", "fc"]


def test_info_describes_a_machine(printed):
    out = printed("info", "pe16x16.yaml")
    machine = accelsim.load_machine("pe16x16.yaml")
    assert "4,096 multipliers" in out.splitlines()[0] and machine.description in out
    for section in ("accelerator", "energy"):
        for key, value in machine.resolved()[section].items():
            assert re.search(rf"^  {section}\.{key} +{value}( |$)", out, re.M)
    facts = one_object(printed("info", "pe16x16.yaml", "--json"))
    assert facts == machine.resolved() | {"multipliers": 4096}


def test_schema_is_one_json_object(printed):
    schema = one_object(printed("schema"))
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema" and "accelerator" in schema["required"]


NAMES = ["[bold]swat", "[red]", ":smile:", "×80 %", "\N{PILE OF POO}", "a" * 250]


def test_names_are_shown_as_they_are(here, write_tiny):
    """Nothing in a name is markup."""
    provenance = {name: name for name in [*NAMES, "[/]"]}
    write_tiny(here / "odd.npz", snapshots=dict.fromkeys(NAMES, 0.0), network="[/b] net", provenance=provenance)
    described = succeed(here, "info", "odd.npz", env={"PYTHONIOENCODING": "utf-8"})
    assert "network  [/b] net on noise" in described and "[/]: [/]" in described
    shown = succeed(here, *RUN, "--trace", "odd.npz", "--explain", env={"PYTHONIOENCODING": "utf-8"})
    for name in NAMES:
        assert f"({name})" in shown and f"snapshot {name}, " in shown
        assert f"{name}: Top-K 0 %" in described and f"{name}: {name}" in described


def test_a_machine_s_name_is_shown_as_it_is(here):
    text = (ROOT / "configs" / "dadiannao.yaml").read_text(encoding="utf-8")
    (here / "m.yaml").write_text(text.replace("name: dadiannao", "name: 'x[/b] [red]y'"), encoding="utf-8")
    assert "on x[/b] [red]y against" in succeed(here, *RUN, "--config", "m.yaml")
    assert "machine x[/b] [red]y," in succeed(here, "info", "m.yaml")


@pytest.mark.parametrize("text", ["\x1b[31mred", "\ud800", float("nan"), {"a\nb": {"deep": [1]}}], ids=repr)
def test_whatever_a_trace_says_of_itself_no_escape_code_comes_out(here, write_tiny, text):
    """Provenance is any JSON: a foreign trace must not write to the terminal nor stop the run."""
    try:
        write_tiny(here / "odd.npz", provenance={"by": text})
    except accelsim.errors.AccelsimError:
        pytest.skip("no trace can say that")
    for arguments in (["info", "odd.npz"], [*RUN, "--trace", "odd.npz", "--json"]):
        assert "\x1b" not in succeed(here, *arguments)


@pytest.mark.slow
def test_two_runs_at_once_on_a_cold_cache_agree(here):
    """Both compile and write the cache; a slow test, so with the smallest machine that compiles."""
    env = environment(NUMBA_CACHE_DIR=str(here / "cache"))
    arguments = [*SPARSE, "--config", "bit-tactical.yaml", "--quiet", "--passes", "fwd", "--layers", "fc,conv1"]
    runs = [
        subprocess.Popen(command(arguments), cwd=here, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(2)
    ]
    (first, error), (second, other) = (run.communicate(timeout=120) for run in runs)
    assert first == second and error == other == b"" and first.startswith(b"Speedup on bit-tactical")


def test_of_how_many_samples_totals_are_is_told_where_layers_differ(here, tmp_path):
    g, ones = Geometry(2, 3, 3, 2, (1, 1)), lambda n: np.ones((n, 2, 3, 3), bool)
    with TraceWriter(tmp_path / "t.npz", network="net", dataset="none") as out:
        out.snapshot("s", sparsity=0.0, step=0, algorithm="dense", batch=8)
        for name, samples in (("a", 2), ("b", 3)):
            out.layer(name, kind="conv", geometry=g, samples=samples, passes=("fwd",))
            out.tensor("weight", np.ones((2, 2, 1, 1), bool))
            out.tensor("activation", ones(samples))
    told = "s: layers store 2 to 3 samples of a batch of 8; totals are of 6, each layer's counts times 6 / its samples."
    full = ["run", "--config", "ideal.yaml", "--trace", str(tmp_path / "t.npz"), "--passes", "fwd"]
    assert told in succeed(here, *full)
    assert told not in succeed(here, *full, "--layers", "b")


def test_a_weight_gradient_of_few_places_is_told(here):
    """The last stage of ResNet-50 has maps of 7 × 7, and one sample of 32 is stored; forward sums over none."""
    chosen = ["--trace", "resnet50.npz", "--layers", "layer4.2.conv1", "--snapshots", "swat90"]
    told = "1 of 1 weight gradients are sums over fewer than 1,568 places, 49 at least: 1 of 32 samples are stored."
    for passes, shown in (("fwd,weight_grad", True), ("fwd", False)):
        out = succeed(here, "run", "--config", "pe16x16.yaml", *chosen, "--passes", passes)
        assert (told in out) == shown
