"""Do the house rules hold: imports one way, heavy libraries in their places, no print or assert where none belongs?"""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "accelsim"
FILES = sorted(PACKAGE.rglob("*.py"))
# Data goes left to right; each may import itself and what is before it.
ORDER = [
    "errors",
    "version",
    "interrupts",
    "durable",
    "ledger",
    "workload",
    "hardware",
    "pipeline",
    "laws",
    "study",
    "rtl",
    "sweeps",
    "view",
    "commands",
    "cli",
]
# A heavy library → the only places that may import it. Those that are not there yet come with their features.
CONFINED = {
    "yaml": ["hardware/yaml_file.py", "workload/importers/yaml_text.py"],
    "pydantic": ["hardware/machine.py", "hardware/parameters.py", "hardware/validation.py"],
    "numba": ["hardware/kernels/"],
    "pandas": ["study/", "sweeps/"],
    "pyarrow": ["study/", "sweeps/"],
    "rich": ["study/", "rtl/page.py", "sweeps/", "commands/", "cli.py"],
    "torch": ["capture/"],
    "onnx": ["workload/importers/onnx"],
    "matplotlib": [
        "study/plots.py",
        "study/reproduction/algorithms_plot.py",
        "study/reproduction/convergence_plot.py",
        "study/compare_plot.py",
    ],
    "simpy": ["hardware/movement/replay_simpy.py"],
    "dask": ["sweeps/cluster.py"],
    "plotly": ["study/report/"],
    "dash": ["view/"],
    "flask": ["view/"],
    "werkzeug": ["view/"],
    "distributed": ["sweeps/cluster.py"],
    "pyosys": ["rtl/synthesis.py"],
}
HEAVY = {*CONFINED}


def parsed(path):
    return ast.parse(path.read_text(encoding="utf-8"))


def place(path):
    return path.relative_to(PACKAGE).as_posix()


def imports(tree, module_level=False):
    """Modules that a file imports, one after another; those for a type checker alone don't count."""
    nodes, found = [tree], []
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            nodes += node.orelse
            continue
        if module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            continue
        if isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, "imports are absolute"
            # ``from accelsim import cli`` imports a module as much as ``import accelsim.cli``.
            inner = [f"{node.module}.{alias.name}" for alias in node.names]
            found += [node.module, *filter(is_module, inner)]
        nodes += ast.iter_child_nodes(node)
    return found


def is_module(name):
    path = PACKAGE.parent / name.replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file()


def part(module):
    """``accelsim.workload.trace`` → ``workload``."""
    return module.split(".")[1] if module.startswith("accelsim.") else None


def backward(where, modules):
    """Imports of accelsim's own that go against the order, from a file at this place."""
    own = where.split("/")[0].removesuffix(".py")
    if own == "__init__":  # the facade
        return []
    wrong = []
    for module in dict.fromkeys(filter(None, map(part, modules))):
        if module == "files":
            fine = own in ("hardware", "study", "sweeps", "view", "commands", "cli")
        elif module == "capture":
            fine = own in ("capture", "commands", "cli")
        elif own == "capture":
            fine = module in ("workload", "errors", "version")
        elif own == "files":
            fine = module in ("errors", "durable")
        else:
            fine = own in ORDER and module in ORDER[: ORDER.index(own) + 1]
        if not fine:
            wrong.append(f"{where}: {module}")
    return wrong


@pytest.mark.parametrize("path", FILES, ids=place)
def test_imports_run_one_way(path):
    assert backward(place(path), imports(parsed(path))) == []


def test_an_import_against_the_order_is_noticed():
    cases = {
        "workload/bits.py": "import accelsim.hardware.machine",
        "hardware/lines.py": "def f():\n    from accelsim.pipeline import Record",
        "pipeline.py": "from accelsim.study import tables",
        "workload/npz.py": "from accelsim.hardware.parameters import integer",
        "study/compare.py": "from accelsim.sweeps.study import Study",
        "errors.py": "from accelsim.workload.trace import Layer",
        "workload/trace.py": "from accelsim.files import find",
        "study/results.py": "from accelsim import cli",
        "study/tables.py": "from accelsim.commands import shared",
        "commands/compare.py": "from accelsim.cli import main",
        "capture/recorder.py": "from accelsim.hardware.lines import Lines",
        "sweeps/sweep.py": "from accelsim.capture import recorder",
        "study/new.py": "if TYPE_CHECKING:\n    import accelsim.cli\nelse:\n    import accelsim.cli",
    }
    for where, code in cases.items():
        assert len(backward(where, imports(ast.parse(code)))) == 1, where
    fine = "if TYPE_CHECKING:\n    import accelsim.cli\nfrom accelsim.errors import TraceError"
    assert backward("workload/bits.py", imports(ast.parse(fine))) == []


def graph(folder):
    """Modules of a package, each with those of its own package that it imports anywhere, also for a type checker."""
    files = {".".join(p.relative_to(folder.parent).with_suffix("").parts).removesuffix(".__init__"): p
             for p in folder.rglob("*.py")}  # fmt: skip
    found = {}
    for name, path in files.items():
        nodes = ast.walk(parsed(path))
        modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.ImportFrom):
                inner = [f"{node.module}.{alias.name}" for alias in node.names]
                # What is a module is asked of no package; whatever else is, the package must have.
                modules += [name if name in files else node.module for name in inner]
        found[name] = {module for module in modules if module in files and module != name}
    return found


def circles(imported):
    """Modules that import each other, over however many others."""
    left = {name: set(others) for name, others in imported.items()}
    while free := [name for name, others in left.items() if not others & left.keys()]:
        for name in free:
            del left[name]
    return sorted(left)


def test_no_two_files_import_each_other():
    assert circles(graph(PACKAGE)) == []


def test_a_circle_is_noticed(tmp_path):
    package = tmp_path / "p"
    package.mkdir()
    for name, code in {"__init__": "", "a": "import p.b", "b": "def f():\n    from p import c", "d": "import p.a",
                       "c": "if TYPE_CHECKING:\n    from p.a import x"}.items():  # fmt: skip
        (package / f"{name}.py").write_text(code)
    assert circles(graph(package)) == ["p.a", "p.b", "p.c", "p.d"]


def test_the_facade_loads_the_pipeline_alone():
    modules = imports(parsed(PACKAGE / "__init__.py"), module_level=True)
    assert set(filter(None, map(part, modules))) <= {"pipeline", "version", "workload"}
    assert {module.split(".")[0] for module in modules} & HEAVY == set()


def misplaced(where, modules):
    found = {module.split(".")[0] for module in modules} & HEAVY
    return [name for name in sorted(found) if not where.startswith(tuple(CONFINED[name]))]


@pytest.mark.parametrize("path", FILES, ids=place)
def test_heavy_libraries_are_where_they_belong(path):
    assert misplaced(place(path), imports(parsed(path))) == []


def test_a_heavy_library_elsewhere_is_noticed():
    assert misplaced("hardware/lines.py", imports(ast.parse("def f():\n    import numba.core"))) == ["numba"]
    assert misplaced("pipeline.py", imports(ast.parse("from pandas import DataFrame"))) == ["pandas"]
    assert misplaced("study/results.py", imports(ast.parse("import pandas, matplotlib.pyplot"))) == ["matplotlib"]


def test_importing_accelsim_loads_nothing_heavy():
    code = "import sys, accelsim, accelsim.cli; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stdout.split()} & HEAVY == set()


# Of commands that are called for an answer at once: what they may load.
LIGHT = {
    "info resnet20-int8.npz": {"rich"},
    "info pe8x8.yaml": {"rich", "yaml", "pydantic"},
    "schema": {"yaml", "pydantic"},
}


@pytest.mark.parametrize("command", LIGHT)
def test_a_command_that_looks_something_up_loads_what_it_needs(command):
    code = "import sys\nfrom accelsim.cli import main\nmain(sys.argv[1:])\nprint(*sys.modules, file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", code, *command.split()], capture_output=True, text=True, check=True)
    assert {name.split(".")[0] for name in done.stderr.split()} & HEAVY <= LIGHT[command]


def calls(tree):
    """Names of what a file calls: ``print``, ``sys.exit``."""
    return [ast.unparse(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)]


EXITS = {"print", "exit", "quit", "sys.exit", "os._exit", "sys.stdout.write", "sys.stderr.write", "input"}


@pytest.mark.parametrize(
    "path", [path for path in FILES if not place(path).startswith(("cli.py", "commands/"))], ids=place
)
def test_library_code_neither_prints_nor_exits(path):
    assert EXITS.isdisjoint(calls(parsed(path)))
    ends_a_worker = place(path) == "sweeps/workers.py"  # a process of its own, which nobody else ends
    assert path.read_text(encoding="utf-8").count("SystemExit") == int(ends_a_worker)


def test_a_print_is_noticed():
    assert EXITS & {*calls(ast.parse("def f():\n    return [print(1) for _ in x]"))}
    assert EXITS & {*calls(ast.parse("import sys\nsys.exit(2)"))}


def asserts(tree):
    return [node.lineno for node in ast.walk(tree) if isinstance(node, ast.Assert)]


@pytest.mark.parametrize("path", [p for p in FILES if not place(p).startswith("hardware/")], ids=place)
def test_input_is_not_validated_with_assert(path):
    """``python -O`` removes it. Invariants, in hardware/, may."""
    assert asserts(parsed(path)) == []
    assert asserts(ast.parse("if x:\n    assert x")) == [2]


def undocumented(tree):
    """The module, and its public classes and functions, that have no docstring."""
    missing = [] if ast.get_docstring(tree) or not tree.body else ["the module"]
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            missing += [] if ast.get_docstring(node) else [node.name]
    return missing


@pytest.mark.parametrize("path", FILES, ids=place)
def test_what_is_public_says_what_it_is(path):
    assert undocumented(parsed(path)) == []


def test_a_missing_docstring_is_noticed():
    code = "def f(): pass\nclass A:\n    '''x'''\ndef _g(): pass"
    assert undocumented(ast.parse(code)) == ["the module", "f"]


@pytest.mark.parametrize("path", FILES, ids=place)
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


# The kernels, compiled and not: the same source must count the same.
COUNT = """
import json
import numpy as np
from accelsim.hardware.accelerators.bit_tactical import BitTactical
from accelsim.hardware.accelerators.bit_tactical_serial import TCLe, TCLp
from accelsim.hardware.accelerators.laconic import Laconic
from accelsim.hardware.accelerators.pragmatic import Pragmatic
from accelsim.hardware.accelerators.cambricon_x import CambriconX
from accelsim.hardware.accelerators.pe_array.model import PEArray
from accelsim.hardware.accelerators.tensordash import TensorDash
from accelsim.workload.geometry import Geometry
from accelsim.workload.lowering import PASSES, lower
from accelsim.workload.trace import Layer

tiles = {"model": "bit_tactical", "tiles": 2, "rows": 3, "columns": 2, "lanes": 5, "strided_input_grad": "phase"}
serial = tiles | {"pe_width": 16}
t = {"search_shape": "T", "lookahead_h": 2, "lookaside_d": 5}
pes = {"model": "pe_array", "pe_rows": 2, "pe_columns": 3, "activation_width": 4, "weight_width": 2,
       "accumulators": 40, "banks": 8, "halo_exchange": True, "strided_input_grad": "dilate", "reduction_width": 4}
machines = {
    "T": BitTactical(**tiles, search_shape="T", lookahead_h=2, lookaside_d=5),
    "L": BitTactical(**tiles, search_shape="L", lookahead_h=4, lookaside_d=3),
    "64 lanes": BitTactical(**tiles | {"lanes": 64}, search_shape="L", lookahead_h=1, lookaside_d=9),
    "one-sided": TensorDash(**tiles | {"model": "tensordash", "search_shape": "T", "lookahead_h": 2, "lookaside_d": 5}),
    "two-sided": TensorDash(**tiles | {"model": "tensordash", "search_shape": "L", "lookahead_h": 3, "lookaside_d": 2,
                                       "skipping": "two_sided", "rows": 40}),
    "TCLp": TCLp(**serial | {"model": "tclp"}, **t, group_size=2, minor_bit=True, column_registers=1),
    "TCLe, far": TCLe(**serial | {"model": "tcle"}, **t, bits_first_stage=4),
    "TCLe, near": TCLe(**serial | {"model": "tcle"}, **t, bits_first_stage=1),
    "Pragmatic": Pragmatic(**serial | {"model": "pragmatic"}, bits_first_stage=2, column_registers=2),
    "Laconic": Laconic(**serial | {"model": "laconic"}),
    "Cambricon-X": CambriconX(model="cambricon_x", pes=3, lanes=4, window=9, strided_input_grad="phase",
                              weight_grad_rows="activation"),
    "phases": PEArray(**pes, stride_phases=True),
    "no phases": PEArray(**pes | {"banks": 32}, stride_phases=False),
}
geometries = [
    Geometry(7, 6, 5, 8, (3, 3), (2, 2), (1, 1, 0, 2)),
    Geometry(4, 5, 5, 6, (3, 2), padding=(1, 1, 1, 1), dilation=(1, 2), groups=2),
    Geometry(9, 1, 1, 7, (1, 1)),
]
counts = []
for seed, geometry in enumerate(geometries):
    rng = np.random.default_rng(seed)
    shapes = {"weight": geometry.weight_shape, "activation": geometry.activation_shape(2),
              "gradient": geometry.gradient_shape(2)}
    layer = Layer("l", "conv", geometry, 2, 2, PASSES,
                  {name: (rng.random(s) < 0.4) * rng.integers(1, 99, s) for name, s in shapes.items()})
    for name, machine in machines.items():
        for which in PASSES:
            for conv in lower(layer, which, strided=machine.strided_input_grad):
                activity = machine.run(conv)
                slots = {cause: int(count) for cause, count in activity.slots.items()}
                counts.append([seed, name, which, activity.cycles, activity.job_cycles.tolist(), slots])
from accelsim.hardware.kernels.zero_runs import tally
for density in (0.0, 0.01, 0.1, 1.0):
    parts = np.random.default_rng(1).random((5, 200)) < density
    counts.append([density, "zero runs", "", 1, tally(parts)[1].tolist(), {}])
import numba
print(json.dumps({"jit": not numba.config.DISABLE_JIT, "counts": counts}))
"""


def test_kernels_count_the_same_with_the_jit_off():
    """Overflows, wrap-arounds and types that Numba hides would show here."""
    results = []
    for disabled in ("0", "1"):
        env = os.environ | {"NUMBA_DISABLE_JIT": disabled}
        done = subprocess.run([sys.executable, "-c", COUNT], env=env, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        results.append(json.loads(done.stdout))
    assert [result["jit"] for result in results] == [True, False]
    assert results[0]["counts"] == results[1]["counts"]
    assert len(results[0]["counts"]) >= 63 and all(row[3] > 0 for row in results[0]["counts"])


@pytest.mark.parametrize("path", sorted((PACKAGE.parent / "traces").glob("*.npz")), ids=lambda path: path.stem)
def test_a_shipped_trace_says_nothing_of_the_disk_it_is_from(path):
    from accelsim.workload.trace import Trace

    with Trace.open(path) as trace:
        assert not re.search(r"(?:^|[\s\"'=])/\w+/", json.dumps(trace.provenance))
