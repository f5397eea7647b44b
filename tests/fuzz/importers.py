"""Files of other tools with bytes, numbers and lines changed: none may give a traceback, or take memory without bound.

``python tests/fuzz/importers.py [FORMAT …] [--count 100000] [--seed 0]`` prints what it tried, and each fault with the
file that gives it, which is kept in the folder that it names. The suite runs a few of each format
(``tests/test_import_fuzz.py``).
"""

import argparse
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from math import prod
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))
from accelsim.errors import AccelsimError
from accelsim.workload.formats import readers
from accelsim.workload.importers import read, to_trace

DATA = Path(__file__).parents[1] / "data"
CASES = DATA / "cases"
MOST_MEMORY = 2 << 30  # bytes, of the whole process
MOST_SECONDS = 20  # for one file
SMALL = 1 << 22  # elements of a tensor that is also drawn
NUMBERS = (b"0", b"-1", b"1", b"65536", b"4294967296", b"99999999999999999999", b"1e9", b"nan", b"", b"x", b"0.5")
MTX = b"%%MatrixMarket matrix coordinate real general\n3 4 3\n1 1 5\n2 3 -1\n3 4 2\n"
STONNE = b"stonne -CONV -R=3 -S=3 -C=6 -G=1 -K=6 -N=1 -X=9 -Y=8\nstonne -SparseGEMM -M=4 -N=5 -K=6 -MK_sparsity=80\n"
LANGUAGE = (
    b'{"num_attention_heads": 2, "num_kv_heads": 1, "num_hidden_layers": 2, "hidden_size": 8, '
    b'"intermediate_size": 16, "max_seq_length": 4}'
)
ZIGZAG = DATA / "zigzag" / "testing_workload_for_2_cores.yaml"


def seeds() -> dict[str, list[tuple[str, bytes]]]:
    """Of each format, names and contents of good files; a name is what its reader is given."""
    found: dict[str, list[tuple[str, bytes]]] = {
        "scalesim": [(p.name, p.read_bytes()) for p in sorted((CASES / "scalesim").iterdir())],
        "dnnsim": [(p.name, p.read_bytes()) for p in sorted((CASES / "dnnsim" / "rnn").iterdir())],
        "onnx": [(p.name, p.read_bytes()) for p in sorted((CASES / "onnx").iterdir())],
        "tflite": [(p.name, p.read_bytes()) for p in sorted((DATA / "tflite").iterdir())],
        "pytorch": [(p.name, p.read_bytes()) for p in sorted((CASES / "checkpoints").glob("*.pth"))],
        "trace": [("t.npz", (DATA / "traces" / "version1.npz").read_bytes())],
        "timeloop": [(p.name, p.read_bytes()) for p in sorted((DATA / "timeloop").glob("[AM]*.yaml"))],
        "zigzag": [("w.yaml", ZIGZAG.read_bytes()), ("g.yaml", (DATA / "zigzag" / "gemm_layer.yaml").read_bytes())],
        "maestro": [("n.m", (DATA / "maestro" / "dnn_model.m").read_bytes())],
        "stonne": [("run.sh", STONNE)],
        "onnxim": [("m.json", LANGUAGE), ("l.json", b'{"models": [{"name": "net", "batch_size": 2}]}')],
        "smtx": [("m.smtx", b"2, 3, 2\n0 1 2\n0 2\n")],
        "mtx": [("m.mtx", MTX), ("a.mtx", MTX.replace(b"coordinate", b"array").replace(b"4 3\n", b"4\n"))],
        "mask": [("m.txt", b"1 0 1\n0 0 1\n")],
    }
    assert found.keys() == {row.name for row in readers()}, "a format has no files to change"
    return found


def mutated(content: bytes, rng: np.random.Generator) -> bytes:
    """The content with one to four changes: bytes, numbers, lines; cut, doubled, moved."""
    for _ in range(int(rng.integers(1, 5))):
        at, end = sorted(int(n) for n in rng.integers(0, len(content) + 1, 2))
        end = min(end, at + int(rng.integers(1, 64)))
        how = int(rng.integers(8))
        if how == 0:
            content = content[:at] + rng.bytes(end - at) + content[end:]
        elif how == 1:
            content = content[:at] + content[end:]
        elif how == 2:
            content = content[:end] + content[at:end] * int(rng.integers(1, 4)) + content[end:]
        elif how == 3:
            content = content[:at] + (b"" if rng.random() < 0.2 else rng.bytes(1) + content[at + 1 :])
        elif how in (4, 5):
            content = _number(content, at, NUMBERS[int(rng.integers(len(NUMBERS)))])
        elif how == 6:
            lines = content.split(b"\n")
            first, second = (int(n) for n in rng.integers(0, len(lines), 2))
            lines[first], lines[second] = lines[second], lines[first]
            content = b"\n".join(lines)
        elif content[at:]:
            content = content[:at] + bytes([content[at] ^ 1 << int(rng.integers(8))]) + content[at + 1 :]
    return content


def _number(content: bytes, at: int, other: bytes) -> bytes:
    """The next number from a place on, made another."""
    start = next((n for n in range(at, len(content)) if content[n : n + 1].isdigit()), None)
    if start is None:
        return content
    end = next((n for n in range(start, len(content)) if not content[n : n + 1].isdigit()), len(content))
    return content[:start] + other + content[end:]


def rebuilt(content: bytes, rng: np.random.Generator) -> bytes:
    """An ONNX model that is one still: operators, inputs, attributes and sizes made others."""
    import onnx

    from accelsim.workload.importers.onnx_operators import ENTIRE, READERS

    try:
        model = onnx.ModelProto.FromString(content)
    except Exception:  # the damaged ones among the cases
        return content
    graph = model.graph
    kinds = [*READERS, *ENTIRE, "Relu", "If", "Constant", "Transpose", "Reshape", "Identity"]
    names = ("strides", "pads", "group", "dilations", "transB", "equation", "hidden_size", "auto_pad")
    values: tuple[object, ...] = ([0], [-1, 5, 7], [1 << 40], 3, -1, "ij,jk->ik", "SAME", 0.5)
    for _ in range(int(rng.integers(1, 5))):
        node = graph.node[int(rng.integers(len(graph.node)))]
        how = int(rng.integers(8))
        if how == 0:
            node.op_type = kinds[int(rng.integers(len(kinds)))]
        elif how == 1 and node.input:
            del node.input[int(rng.integers(len(node.input)))]
        elif how == 2:
            node.input.append(("", "x", node.output[0])[int(rng.integers(3))])
        elif how == 3:
            del node.attribute[:]
        elif how == 4:
            value = values[int(rng.integers(8))]
            node.attribute.append(onnx.helper.make_attribute(names[int(rng.integers(8))], value))
        elif how == 5 and graph.initializer:
            tensor = graph.initializer[int(rng.integers(len(graph.initializer)))]
            del tensor.dims[:]
            tensor.dims.extend(int(n) for n in rng.choice([0, 1, 3, 8, 1 << 20, -1], int(rng.integers(0, 6))))
        elif how == 6:
            for given in graph.input:
                dims = given.type.tensor_type.shape.dim
                if dims:
                    dims[int(rng.integers(len(dims)))].dim_value = int(rng.choice([0, -1, 2, 1 << 31]))
        elif how == 7 and graph.initializer:
            del graph.initializer[int(rng.integers(len(graph.initializer)))]
    return bytes(model.SerializeToString())


def fault(path: Path, format: str) -> str:
    """What is wrong with how a file is read; nothing, if it is read, or refused in a line."""
    started = time.monotonic()
    topology = CASES / "checkpoints" / "t.csv" if format == "pytorch" else None
    try:
        imported = read(path, format, topology=topology)
        for layer in imported.layers:
            if prod(layer.geometry.weight_shape) < SMALL and prod(layer.geometry.activation_shape(1)) < SMALL:
                one = to_trace(imported).snapshots[0]
                next(other for other in one.layers if other.name == layer.name).tensor("weight")
                break
    except AccelsimError as error:
        if any(ord(c) < 32 for line in error.lines for c in line):
            return f"more than a line: {str(error)[:200]!r}"
    except Exception as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    if time.monotonic() - started > MOST_SECONDS:
        return f"took {time.monotonic() - started:.0f} s"
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return f"took {peak >> 20} MiB" if peak > MOST_MEMORY else ""


def faults(format: str, count: int, seed: int, folder: Path) -> Iterator[tuple[Path, str]]:
    """Of so many changed files of a format those that show a fault, which are kept."""
    rng = np.random.default_rng([seed, *format.encode()])
    files = seeds()[format]
    for number in range(count):
        name, content = files[number % len(files)]
        path = folder / f"{number}" / name
        path.parent.mkdir(parents=True)
        if format == "dnnsim":  # whose files are read together
            for other, good in files:
                (path.parent / other).write_bytes(good)
        is_graph = format == "onnx" and number % 2 == 0
        path.write_bytes(rebuilt(content, rng) if is_graph else mutated(content, rng))
        wrong = fault(path.parent if format == "dnnsim" else path, format)
        if wrong:
            yield path, wrong
        else:
            shutil.rmtree(path.parent)


def main() -> int:
    """Exit code 1 if there is a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("formats", nargs="*", metavar="FORMAT", help="by default all")
    parser.add_argument("--count", type=int, default=100_000, metavar="N", help="files of each format (100000)")
    parser.add_argument("--seed", type=int, default=0, metavar="N")
    options = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (2 * MOST_MEMORY, 2 * MOST_MEMORY))
    folder, wrong = Path(tempfile.mkdtemp(prefix="fuzz-")), 0
    for format in options.formats or list(seeds()):
        for path, what in faults(format, options.count, options.seed, folder / format):
            wrong += 1
            print(f"{path}: {what}", flush=True)
        print(f"{format}: {options.count} files", flush=True)
    print(f"{wrong} faults" + (f", kept in {folder}" if wrong else ""))
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
