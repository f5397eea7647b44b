"""Do circuits take the cycles that are counted, and compute the product? With ``-m rtl`` they are built and run."""

import json
import sys
from dataclasses import replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import reference

from accelsim import cli, load_machine, open_trace
from accelsim.errors import MachineError, ToolError
from accelsim.hardware.machine import machine_with
from accelsim.rtl import build, harness, page, synthesis
from accelsim.rtl.check import Tally, check
from accelsim.rtl.job import Job, numbers
from accelsim.rtl.twins import TWINS, twin_of
from accelsim.workload.lowering import Convolution, lower

# Each shipped machine that there is a circuit of, with what makes its tile small enough to be built in a minute.
CIRCUITS = {"tensordash": {}, "bit-tactical": {"columns": 4}, "dadiannao": {}, "scnn": {}, "pe16x16": {}}
TILED = ("tensordash", "bit-tactical", "dadiannao")
SMALLEST = {name: {"rows": 2, "columns": 1} if name in TILED else {"banks": 2} for name in CIRCUITS}
# Jobs of a trace; a filter group of SCNN's is a hundred of the others'.
REAL = dict.fromkeys(TILED, 12_000) | {"scnn": 300, "pe16x16": 900}
needs_verilator = pytest.mark.skipif(bool(build.missing()), reason=build.missing() or "all there")


def small(name, **keys):
    """A machine with a tile small enough to be built in seconds."""
    return machine_with(load_machine(f"{name}.yaml"), {f"accelerator.{key}": value for key, value in keys.items()})


L22 = {"search_shape": "L", "lookahead_h": 3, "lookaside_d": 2}
L00 = {"search_shape": "L", "lookahead_h": 0, "lookaside_d": 0}
TILES = {
    "tensordash": ("tensordash", {}),
    "no free skips": ("tensordash", {"rows": 2, "columns": 2, "free_skip_at_start": False, "pipeline_drain_cycles": 3}),
    "two-sided": ("tensordash", {"rows": 2, "columns": 3, "lanes": 8, "skipping": "two_sided"}),
    "tensordash L": ("tensordash", {"rows": 3, "columns": 1, "lanes": 6, "pipeline_drain_cycles": 1, **L22}),
    "no lookahead": ("tensordash", {"rows": 2, "columns": 2, **L00}),
    "two ports": ("tensordash", {"rows": 2, "columns": 1, "window_ports": 2}),
    "a port": ("tensordash", {"rows": 1, "columns": 2, "lanes": 4, "window_ports": 1, **L22}),
    "two ports of a schedule": ("bit-tactical", {"rows": 2, "columns": 1, "window_ports": 2}),
    "a port of a schedule": ("bit-tactical", {"rows": 2, "columns": 1, "lanes": 8, "window_ports": 1, **L22}),
    "bit-tactical": ("bit-tactical", {"rows": 3, "columns": 2, "pipeline_drain_cycles": 1}),
    "bit-tactical L": ("bit-tactical", {"rows": 2, "columns": 1, "lanes": 5, **L22}),
    "dadiannao": ("dadiannao", {"rows": 2, "columns": 3, "lanes": 3, "pipeline_drain_cycles": 2}),
}


@needs_verilator
@pytest.mark.parametrize("name", CIRCUITS)
def test_a_circuit_is_accepted(name):
    """Smoke: Verilator reads every shipped circuit; of a small one, for that is faster."""
    build.lint(twin_of(small(name, **SMALLEST[name])).circuit)


def test_every_circuit_is_checked():
    assert {load_machine(f"{name}.yaml").accelerator.model for name in CIRCUITS} == {*TWINS}


@pytest.mark.parametrize("name", ["tensordash", "bit-tactical", "dadiannao"])
def test_jobs_are_those_of_the_convolution(name, tiny):
    """All jobs of a layer, dealt to tiles round by round, take the cycles that ``run`` counts: none is left out."""
    machine = small(name, tiles=2, rows=3, columns=2, lanes=4, pipeline_drain_cycles=2)
    twin, rng = twin_of(machine), np.random.default_rng(0)
    with open_trace(tiny) as trace:
        for layer in trace.snapshots[-1].layers[1:3]:
            for which in ("fwd", "input_grad", "weight_grad"):
                for conv in lower(layer, which):
                    jobs = list(twin.jobs(conv, np.arange(twin.count(conv)), rng))
                    assert len({job.where for job in jobs}) == len(jobs)
                    assert by_rounds(machine.accelerator, conv, jobs) == machine.accelerator.run(conv).cycles


@pytest.mark.parametrize("name", ["scnn", "pe8x8"])
def test_jobs_of_pes_are_those_of_the_convolution(name, tiny):
    """The slowest PE of each filter group, and of each channel of the PE array, adds up to what ``run`` counts."""
    machine = small(name, pe_rows=2, pe_columns=3, accumulators=60, pipeline_drain_cycles=2)
    twin, rng, accelerator = twin_of(machine), np.random.default_rng(0), machine.accelerator
    with open_trace(tiny) as trace:
        for layer in trace.snapshots[-1].layers[:4]:
            for conv in lower(layer, "fwd"):
                numbers = np.arange(twin.count(conv))
                cycles = np.array([job.cycles for job in twin.jobs(conv, numbers, rng)])
                slowest = cycles.reshape(twin.sizes(conv)).max(axis=(2, 3))
                halo = 0
                if name == "pe8x8":
                    per_group, filters = accelerator.filters_per_group(conv), len(conv.kernel) // conv.groups
                    sizes = [min(per_group, filters - k) for k in range(0, filters, per_group)]
                    halo = conv.groups * sum(accelerator.halo_cycles(conv, size) for size in sizes)
                assert int(accelerator.drained(slowest).sum()) + halo == accelerator.run(conv).cycles
            assert twin.count(lower(layer, "weight_grad")[0]) == 0


def by_rounds(accelerator, conv, jobs):
    """Sets in turn to the tiles, for each group of columns; tiles meet after each round."""
    cycles, at = 0, 0
    for lines in accelerator.lines(conv):
        blocks, streams, _ = lines.shape
        sets, visits = -(-streams // accelerator.rows), -(-lines.windows // accelerator.columns)
        own = np.array([job.cycles for job in jobs[at : at + blocks * sets * lines.repeats * visits]])
        at += own.size
        by_visit = own.reshape(lines.runs, -1, sets, lines.repeats, visits).transpose(0, 3, 4, 1, 2)
        for some in by_visit.reshape(lines.runs * lines.repeats * visits, -1):
            rounds = [some[i : i + accelerator.tiles].max() for i in range(0, some.size, accelerator.tiles)]
            cycles += sum(took + accelerator.pipeline_drain_cycles for took in rounds if took)
    return cycles


@pytest.mark.parametrize("name", [*TILED, "scnn", "pe8x8"])
def test_what_jobs_are_to_compute_adds_up_to_the_convolution(name):
    """Small integers: every partial sum of every job, added up, is every output added up; none is all zeros."""
    rng = np.random.default_rng(0)
    given = rng.integers(-3, 4, (2, 3, 7, 6)), rng.integers(-3, 4, (5, 3, 3, 2))
    conv = Convolution("fwd", *given, (2, 1), (1, 0, 1, 1))
    keys = {"tiles": 2, "rows": 3, "columns": 2, "lanes": 4} if name in TILED else {"pe_rows": 2, "pe_columns": 3}
    twin = twin_of(small(name, **keys))
    jobs = list(twin.jobs(conv, np.arange(twin.count(conv)), rng))
    outputs = reference.convolve(*given, (2, 1), (1, 0, 1, 1))
    assert sum(int(job.sums.sum()) for job in jobs) == outputs.sum()
    assert all(np.unique(job.places).size == job.places.size == job.sums.size for job in jobs)


def test_a_damaged_build_is_told_with_what_to_do(tmp_path):
    (tmp_path / "twin").write_bytes(b"\x7fELF")
    (tmp_path / "twin").chmod(0o755)
    job = Job("here", 1, *2 * [np.empty((1, 1), np.uint8)], np.arange(1), np.arange(1), str)
    with pytest.raises(ToolError, match=r"remove .* and it is built anew"):
        list(harness.run(tmp_path / "twin", [job]))


def test_a_job_that_differs_in_a_cycle_or_a_sum_is_told():
    circuit = twin_of(small("dadiannao", pipeline_drain_cycles=2)).circuit
    job = Job("here", 5, np.empty((5, 1), np.uint8), np.empty((0, 1), np.uint8), np.arange(2), np.array([7, -1]), str)
    right = harness.Ran(job, 1, 5, 2, np.array([7, (1 << circuit.sum_bits) - 1]))
    wrong = [
        replace(right, cycles=6), replace(right, drain_cycles=1), replace(right, sums=np.array([7, 1])),
    ]  # fmt: skip
    tally = Tally()
    assert [tally.add(ran, circuit) for ran in (right, *wrong)] == [True, False, False, False]
    assert (tally.jobs, tally.other_cycles, tally.other_sums, tally.fill_cycles) == (4, 2, 1, {1})


def test_integers_of_a_trace_are_multiplied_as_they_are():
    rng = np.random.default_rng(0)
    given = np.array([0, -3, 127])
    assert numbers(given, 8, rng).tolist() == [0, -3, 127]
    wide = numbers(np.array([0, 128]), 8, rng)
    assert wide.dtype == np.int8 and wide[0] == 0 and wide[1] != 0
    assert numbers(np.array([0, 0.5]), 16, rng)[1] != 0


def test_what_has_no_circuit_is_said_in_one_line(capsys, monkeypatch):
    with pytest.raises(MachineError, match=r"ideal: accelerator.model: must be one of tensordash"):
        twin_of(load_machine("ideal.yaml"))
    wide = machine_with(load_machine("tensordash.yaml"), {"memory.value_bits": 32})
    with pytest.raises(MachineError, match="must be 8 or 16 for a circuit, got 32"):
        _ = twin_of(wide).circuit
    given = ["rtl", "check", "--config", "tensordash.yaml", "--trace", "resnet20-int8.npz", "--quiet"]
    for more, told in {("--jobs", "0"): "--jobs: must be 1", ("--seed", "-1"): "--seed: must be 0"}.items():
        assert cli.main([*given, *more]) == 2
        assert told in capsys.readouterr().err
    scnn = ["rtl", "check", "--config", "scnn.yaml", *given[4:], "--passes", "weight_grad"]
    assert cli.main(scnn) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and "scnn: weight_grad has no circuit: by the rules" in told
    monkeypatch.setattr(build, "find_spec", lambda name: None)
    assert cli.main(given) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install 'accelsim-sparse[rtl]'" in error


def _costs():
    """The lines of docs/hardware.md's table of keys, and what makes them."""
    sys.path.insert(0, "benchmarks")
    try:
        import circuit_keys
    finally:
        sys.path.remove("benchmarks")
    page = Path("docs/hardware.md").read_text(encoding="utf-8")
    between = page.partition("<!-- begin: benchmarks/circuit_keys.py -->\n")[2].partition("<!-- end -->")[0]
    return circuit_keys, between.splitlines()


def test_the_page_has_every_key_of_a_circuit():
    """Each machine and key by which a circuit could differ, as the script that makes the table has them."""
    script, lines = _costs()
    told = [tuple(cell.strip() for cell in line.split("|")[1:3]) for line in lines[2:]]
    assert told == [
        (name, ", ".join(f"`{key}: {str(value).lower()}`" for key, value in keys.items()))
        for name, changes in script.KEYS.items()
        for keys in changes
    ]


@pytest.mark.slow
def test_the_page_says_what_each_key_costs():
    script, lines = _costs()
    assert lines == list(script.table())


@needs_verilator
def test_a_build_is_found_again_by_what_it_is_made_of(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    circuit = twin_of(load_machine("tensordash.yaml")).circuit
    digests = {
        build.digest(circuit, circuit.text),
        build.digest(circuit, circuit.text | {"pe.sv": ""}),
        build.digest(twin_of(small("tensordash", rows=3)).circuit, circuit.text),
    }
    assert len(digests) == 3
    assert build.cache() == tmp_path / "accelsim" / "rtl"


def random_jobs(twin, rng, number, depths):
    """Jobs of random masks, from empty to full, of a tiled machine: each its own density of rows and of columns."""
    a = twin.tiled
    for _ in range(number):
        depth = int(rng.choice(depths))
        rows, columns = (
            rng.random((streams, depth, a.lanes)) < rng.choice([0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 1])
            for streams in (rng.integers(1, a.rows + 1), rng.integers(1, a.columns + 1))
        )
        rows &= rng.random((1, depth, 1)) < rng.choice([0.1, 0.5, 1])  # whole lines without work
        yield twin.job("random", rows, columns, rng)


def differing(twin, program, jobs):
    """Jobs that differ, and how many there were."""
    tally = Tally()
    wrong = [ran for ran in harness.run(program, jobs) if not tally.add(ran, twin.circuit)]
    return wrong, tally


@pytest.mark.rtl
@needs_verilator
@pytest.mark.parametrize("name, keys", TILES.values(), ids=TILES)
def test_random_masks(name, keys):
    machine = small(name, **keys)
    twin, rng = twin_of(machine), np.random.default_rng(1)
    jobs = random_jobs(twin, rng, 8_000, (1, 2, 3, 4, 5, 7, 12, 20, 36))
    wrong, tally = differing(twin, build.build(twin.circuit), jobs)
    assert not wrong and tally.jobs == 8_000
    drain = machine.accelerator.pipeline_drain_cycles
    assert drain in tally.drain_cycles and tally.drain_cycles <= {0, drain}
    a = machine.accelerator
    assert tally.fill_cycles == {1 + -(-getattr(a, "lookahead_h", 0) // getattr(a, "ports", 1))}


PES = {
    "queues": ("scnn", {"activation_width": 2, "weight_width": 3, "banks": 8, "queue_depth": 2}),
    "no queues": ("scnn", {"activation_width": 3, "weight_width": 2, "banks": 32, "queue_depth": 0}),
    "slow banks": (
        "scnn",
        {"activation_width": 2, "weight_width": 3, "banks": 8, "queue_depth": 2, "update_cycles": 2},
    ),
    "slow banks alone": ("pe8x8", {"activation_width": 2, "weight_width": 2, "banks": 4, "update_cycles": 3}),
    "stride phases": ("pe8x8", {"banks": 4, "stride_phases": True, "pipeline_drain_cycles": 2}),
    "no stride phases": ("pe16x16", {"activation_width": 2, "weight_width": 2, "banks": 1, "pipeline_drain_cycles": 1}),
}


def random_convolutions(rng):
    """Any stride, padding and size; masks from nearly empty to full."""
    while True:
        channels, filters, kernel = rng.integers(1, 4), rng.integers(1, 13), rng.integers(1, 4, 2)
        shapes = (1, channels, *rng.integers(4, 12, 2)), (filters, channels, *kernel)
        densities = rng.choice([0.05, 0.1, 0.2, 0.4, 0.7, 1], 2)
        masks = [rng.random(shape) < density for shape, density in zip(shapes, densities, strict=True)]
        stride, padding = tuple(map(int, rng.integers(1, 3, 2))), tuple(map(int, rng.integers(0, 2, 4)))
        yield Convolution("fwd", *masks, stride, padding)


@pytest.mark.rtl
@needs_verilator
@pytest.mark.parametrize("name, keys", PES.values(), ids=PES)
def test_random_masks_of_pes(name, keys):
    machine = small(name, pe_rows=2, pe_columns=2, **keys)
    twin, rng = twin_of(machine), np.random.default_rng(2)
    program, tried = build.build(twin.circuit), 0
    while tried < 3_000:
        convolutions = islice(random_convolutions(rng), 50)
        jobs = [job for conv in convolutions for job in twin.jobs(conv, np.arange(twin.count(conv)), rng)]
        wrong, tally = differing(twin, program, jobs)
        assert not wrong
        tried += tally.jobs


@pytest.mark.rtl
@needs_verilator
@pytest.mark.parametrize("name, keys", CIRCUITS.items(), ids=CIRCUITS)
def test_real_jobs_of_three_passes(name, keys):
    with open_trace("resnet50.npz") as trace:
        found = check(small(name, **keys), trace, jobs=REAL[name], layers=["layer?.0.conv?", "layer4.*"])
    assert found.first is None, "\n".join(page.told(found.first, found))
    assert found.jobs >= REAL[name] // 2
    assert all(tally.jobs for tally in found.passes.values())
    assert len(found.passes) == (3 if name in TILED else 2)


# Each a circuit that somebody could draw by mistake: the file, what stands there, what stands there instead.
WRONG = {
    "skips one line more": ("tensordash", "front.sv", "i < DEPTH;", "i < DEPTH - 1;"),
    "adds the last product twice": ("tensordash", "pe.sv", "sum + stage[DRAIN].value", "sum + 2 * stage[DRAIN].value"),
    "takes a value twice": ("tensordash", "scheduler.sv", "%LANES] = 0;", "%LANES] = 1;"),
    "the first row alone": ("tensordash", "tensordash_tile.sv", "&of_unit", "of_unit[0]"),
    "takes the lane beside": ("bit-tactical", "pick.sv", "(l+ASIDE[8*j+:8])", "(l+1+ASIDE[8*j+:8])"),
    "leaves the last entry out": ("bit-tactical", "bit_tactical_tile.sv", "left <= length;", "left <= length - 1;"),
    "one bank alone": ("scnn", "scnn_pe.sv", "assign all = granted | store[b-1].all;", "assign all = granted;"),
    "a longer queue": ("scnn", "bank.sv", "(count_next < QUEUE) begin", "(count_next <= QUEUE) begin"),
    "the last lane first": ("tensordash", "scheduler.sv", "ORDER[8*k+:8]", "ORDER[8*(LANES-1-k)+:8]"),
    "other banks": ("scnn", "scnn_pe.sv", "weight[59] ^ p[1] ^ q[1]", "weight[59] ^ p[1]"),
    "loses what waits": ("scnn", "bank.sv", "queue >> ITEM : queue", "queue >> 2 * ITEM : queue"),
    "accumulates nothing": ("dadiannao", "pe.sv", "sum + stage[DRAIN].value", "stage[DRAIN].value"),
    "begins a line early": ("dadiannao", "front.sv", "position <= -DEPTH;", "position <= 1 - DEPTH;"),
}


@pytest.mark.rtl
@needs_verilator
@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
def test_a_wrong_circuit_is_noticed(wrong):
    name, file, old, new = wrong
    small_ones = {"scnn": PES["queues"][1], "dadiannao": {"rows": 2}}
    twin = twin_of(machine := small(name, **small_ones.get(name, {"columns": 1})))
    text = twin.circuit.text
    assert text[file].count(old) == 1
    text[file] = text[file].replace(old, new)
    program = build.build(twin.circuit, text)
    with open_trace("resnet20-int8.npz") as trace:
        found = check(machine, trace, jobs=600, program=program)
    assert found.first is not None
    assert any(line.startswith("differs: ") for line in page.of_check(found) if isinstance(line, str))


@pytest.mark.rtl
@needs_verilator
def test_a_circuit_that_cannot_be_built_says_why():
    circuit = twin_of(load_machine("tensordash.yaml")).circuit
    with pytest.raises(ToolError, match=r"rtl: tensordash: cannot be built: verilator_bin: .*syntax error"):
        build.build(circuit, circuit.text | {"pe.sv": "module pe(;"})


NO_YOSYS = "rtl needs Yosys: pip install 'accelsim-sparse[rtl]'"
needs_yosys = pytest.mark.skipif(find_spec("pyosys") is None, reason=NO_YOSYS)


def test_a_circuit_is_written_with_its_sizes(tmp_path, capsys):
    given = ["rtl", "export", "--config", "tensordash.yaml", "--set", "accelerator.rows=3", "--out"]
    assert cli.main([*given, str(tmp_path / "out")]) == 0
    files = {path.name: path.read_text() for path in (tmp_path / "out").iterdir()}
    assert ".ROWS(3)" in files["twin.sv"] and "module tensordash_tile" in files["tensordash_tile.sv"]
    assert str(tmp_path / "out") in capsys.readouterr().out


def test_what_a_block_has_is_read_from_yosys():
    """Two inner blocks of 3 cells each and one memory in a tile of 5; the tile's area holds theirs."""
    circuit = twin_of(small("scnn", banks=2, accumulators=2)).circuit
    modules = {
        "\\twin": {"num_cells": 0, "area": 100.0, "num_cells_by_type": {"$paramod$1a\\tile": 1}},
        "$paramod$1a\\tile": {"num_cells": 5, "area": 100.0, "num_cells_by_type": {"bank": 2, "INV": 5}},
        "\\bank": {"num_cells": 4, "area": 30.0, "num_cells_by_type": {"$mem_v2": 1, "INV": 3}},
    }
    log = "".join(f"1. Extracting gate netlist of module `{name}' to\n" for name in ("\\bank", "$paramod$1a\\tile"))
    log += "+ read_blif\nABC: Path  7 -- x\nABC: Delay = 12.5 ps\n+ read_blif\nABC: Path 9 --\nABC: Delay = 3 ps\n"
    found = synthesis._read(circuit, "few.lib", modules, synthesis._paths(log))
    told = [(block.name, block.instances, block.cells, block.area) for block in found.blocks]
    assert told == [
        ("bank", 2, 6, 60.0),
        ("tile", 1, 5, 40.0),
    ]
    assert (found.blocks[0].levels, found.blocks[0].delay_ps, found.area) == (7, 12.5, 100.0)
    assert found.memory_bits == 2 * circuit.parameters["ENTRIES"] * circuit.sum_bits
    gates = synthesis._read(circuit, "", modules, {})
    assert [block.area for block in gates.blocks] == [6.0, 5.0]


@needs_yosys
def test_a_library_that_is_none_is_refused(tmp_path):
    circuit = twin_of(load_machine("tensordash.yaml")).circuit
    (tmp_path / "no.lib").write_text("module x; endmodule")
    with pytest.raises(ToolError, match=r"no\.lib: must be a cell library"):
        synthesis.synthesize(circuit, tmp_path / "no.lib")
    with pytest.raises(ToolError, match="no such file"):
        synthesis.synthesize(circuit, tmp_path / "missing.lib")


@pytest.mark.rtl
@needs_yosys
def test_area_of_a_tile_is_that_of_its_blocks(capsys):
    given = [
        "rtl",
        "area",
        "--config",
        "tensordash.yaml",
        "--json",
        "--set",
        "accelerator.rows=1",
        "--set",
        "memory=none",
    ]
    given += ["--set", "accelerator.columns=1", "--set", "accelerator.lanes=6", "--set", "memory=none"]
    assert cli.main(given) == 0
    told = json.loads(capsys.readouterr().out)
    blocks = {block["name"]: block for block in told["blocks"]}
    assert {"pe", "window", "scheduler", "pick", "front"} <= {*blocks}
    assert told["area"] == sum(block["area"] for block in told["blocks"]) > told["dense_area"] > 0
    assert (blocks["pick"]["instances"], blocks["scheduler"]["instances"], blocks["window"]["instances"]) == (2, 1, 3)
    assert blocks["pe"]["levels"] > blocks["scheduler"]["levels"] > 4
