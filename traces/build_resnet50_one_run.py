"""Builds traces/resnet50-one-run.npz: ``build_resnet50_one_run.py --runs DIR --recompress`` (with zopfli, 17 minutes).

DIR holds what ``accelsim capture`` recorded of three runs of ResNet-50, all 32 samples of a batch, one run for each
sparsity: weights, activations and gradients of a snapshot are those of one step of one network. traces/README.md has
the commands. Of each layer as many samples are kept as have 1,568 output places together, those of 32 maps of 7 × 7.
"""

import argparse
import zipfile
from math import prod
from pathlib import Path
from unittest import mock

from accelsim.workload.trace import Trace
from accelsim.workload.trace_writer import TraceWriter

PLACES = 1568
# file, its snapshot, the snapshot here
RUNS = (
    ("r0.npz", "dense", "dense"),
    ("r80.npz", "swat80-step119", "swat80"),
    ("r90.npz", "swat90-step119", "swat90"),
)
START = "kill-the-bits, compressed ResNet-50 (large blocks), batch norm recalibrated"
PROVENANCE = {
    "dense": f"3 iterations from the weights of {START}",
    "swat80": f"120 SWAT-U iterations at 80 %, from weights that 160 such had made of {START}",
    "swat90": "120 SWAT-U iterations at 90 %, from weights that 160 such had made of those at 80 %",
    "data": "128 ImageNet photos, batch 32, learning rate 0.002, momentum 0.9, bf16, thresholds every 10 iterations",
    "caveat": "a vector-quantised network's weights repeat code words, so Top-K masks are more even between filters "
    "than a pruned network's: coefficient of variation .19/.28 at 80/90 %, median of layers, in resnet50.npz .23/.33",
}


def cut(runs: Path, out: Path) -> None:
    """As many samples of each layer as have ``PLACES`` places, or all."""
    with TraceWriter(out, network="resnet50", dataset="imagenet", provenance=PROVENANCE, level=9) as writer:
        for file, recorded, name in RUNS:
            with Trace.open(runs / file) as trace:
                s = trace.snapshot(recorded)
                writer.snapshot(name, sparsity=s.sparsity, step=s.step, algorithm=s.algorithm, batch=s.batch)
                for layer in s.layers:
                    samples = min(layer.batch, -(-PLACES // prod(layer.geometry.output)))
                    how = {"kind": layer.kind, "geometry": layer.geometry, "passes": layer.passes}
                    writer.layer(layer.name, samples=samples, **how)
                    for tensor in layer.tensors:
                        values = layer.tensor(tensor)
                        writer.tensor(tensor, values if tensor == "weight" else values[:samples])


class Zopfli:
    """A compressor as ``zipfile`` has them, of the smallest deflate streams: masks take 4 % less."""

    def __init__(self, *_: object) -> None:
        self.data = bytearray()

    def compress(self, data: bytes) -> bytes:
        self.data += data
        return b""

    def flush(self) -> bytes:
        import zopfli.zlib

        return zopfli.zlib.compress(bytes(self.data), numiterations=15)[2:-4]  # without zlib's head and checksum


def recompress(path: Path) -> None:
    """The same members, smaller."""
    smaller = path.with_suffix(".smaller")
    with (
        mock.patch("zipfile._get_compressor", Zopfli),
        zipfile.ZipFile(path) as source,
        zipfile.ZipFile(smaller, "w", zipfile.ZIP_DEFLATED) as out,
    ):
        for member in source.infolist():
            out.writestr(member, source.read(member), zipfile.ZIP_DEFLATED)
    smaller.replace(path)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "resnet50-one-run.npz")
    parser.add_argument("--recompress", action="store_true")
    options = parser.parse_args()
    cut(options.runs, options.out)
    if options.recompress:
        recompress(options.out)
