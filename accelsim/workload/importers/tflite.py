"""TensorFlow Lite models (.tflite): what multiplies in their first graph, with its weights; needs no package.

Quantised weights are integers less their zero points. The batch is the first axis of each operator's input, or, of a
recurrent cell's, that which its options say.
"""

from __future__ import annotations

from pathlib import Path

from accelsim.errors import ImportFormatError
from accelsim.workload.importers.base import Imported, ImportedLayer, LeftOut, Names, blame, check_file
from accelsim.workload.importers.flatbuffer import Table
from accelsim.workload.importers.tflite_graph import Operator
from accelsim.workload.importers.tflite_operators import CONV_3D, READERS

LARGEST_MODEL = 1 << 30  # bytes
MAGIC = b"TFL3"  # after the first four bytes
# Numbers of operators in TensorFlow Lite's schema that multiply and have no reader, or may.
OTHERS = {133: "CONV_3D_TRANSPOSE", 32: "custom operator"}


def read(path: Path) -> Imported:
    """Read a model.

    Raises
    ------
    ImportFormatError
        One line that names the file and the operator, if it is damaged or has no layer.
    """
    check_file(path, LARGEST_MODEL)
    names = Names()
    layers: list[ImportedLayer] = []
    left_out: list[LeftOut] = []
    told: list[str] = []
    with blame(path):
        content = path.read_bytes()
        if content[4:8] != MAGIC:
            raise ImportFormatError(f"must be a model of TensorFlow Lite, has {content[4:8]!r} for {MAGIC!r}")
        model = Table.root(content)
        codes = [max(code.number(0, 1), code.number(3, 4)) for code in model.tables(1)]
        graphs, buffers = model.tables(2), model.tables(4)
        if not graphs:
            raise ImportFormatError("must have a graph, has none")
        tensors = graphs[0].tables(0)
        for table in graphs[0].tables(3):
            operator = Operator.of(table, codes, tensors, buffers)
            label = operator.output.text(3).partition(";")[0] or f"operator{len(layers)}"
            if operator.code in OTHERS:
                left_out.append(LeftOut(label, f"{OTHERS[operator.code]}, which is not read"))
            elif operator.code in READERS:
                try:
                    found = READERS[operator.code](operator, names.add(label))
                except ImportFormatError as error:
                    found = [LeftOut(label, str(error))]
                layers += [one for one in found if isinstance(one, ImportedLayer)]
                left_out += [one for one in found if isinstance(one, LeftOut)]
                if operator.code == CONV_3D:
                    told.append(
                        f"{label} is of three dimensions: depth of the kernel is channels, of the output samples"
                    )
    told += [f"{len(graphs) - 1} graphs beside the first are passed over"] if len(graphs) > 1 else []
    samples = min((layer.samples or 1 for layer in layers), default=1)
    return Imported(path, "tflite", path.stem, tuple(layers), samples, left_out=tuple(left_out), told=tuple(told))
