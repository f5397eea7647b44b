"""Do files of large networks need little memory, from the file to the result?"""

import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
from accelsim import cli

assert cli.main(["import", "net.csv", "--sparsity", "0.8", "--out", "t.npz"]) == 0
assert cli.main(["run", "--config", sys.argv[1], "--trace", "t.npz", "--quiet"]) == 0
print("KiB", resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.slow
@pytest.mark.parametrize("machine", ["dadiannao.yaml", "pe8x8.yaml", "sigma.yaml"])
def test_a_layer_of_a_language_model_runs_in_two_gigabytes(machine, tmp_path):
    """The feed-forward layer of Llama 7B for 2048 tokens: 45 million weights, 92 thousand million products a pass.

    Other layers and all machines: benchmarks/memory_peaks.py.
    """
    (tmp_path / "net.csv").write_text("Layer, M, N, K\nfirst, 1, 8, 8\nup, 2048, 11008, 4096\n")
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, machine], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert int(done.stdout.rpartition("KiB ")[2]) < 2 << 20
