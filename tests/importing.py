"""What the tests of importers share: where the files are, and how a command is run."""

from pathlib import Path

import numpy as np

from accelsim import cli
from accelsim.workload.importers import read, to_trace

DATA = Path(__file__).parent / "data"
CASES = DATA / "cases"
SCALESIM = DATA / "scalesim"
CONV = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
TOPOLOGY = CONV + "\nconv1, 8, 8, 3, 3, 3, 4, 1,\nfc, 1, 1, 1, 1, 4, 5, 1,\n"


def run(*arguments):
    """The exit code of a command."""
    return cli.main([str(argument) for argument in arguments])


def written(folder, text, name="net.csv", format="auto", **options):
    """What is read of a text."""
    (folder / name).write_text(text, encoding="utf-8")
    return read(folder / name, format, **options)


def densities(imported, tensor="weight"):
    """By layer, of the snapshot at 0."""
    layers = to_trace(imported).snapshots[0].layers
    return {layer.name: np.count_nonzero(layer.tensor(tensor)) / layer.tensor(tensor).size for layer in layers}


def geometries(imported):
    """By layer."""
    return {layer.name: layer.geometry for layer in imported.layers}
