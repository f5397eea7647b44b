"""Is twice the work twice the time? Layers, channels, samples, machines and points doubled, each in a process.

Time is that of simulating alone, in CPU seconds on one thread, the least of three, compiled before; memory is the
process's peak.
"""

import json
import subprocess
import sys

import pytest

# A convolution of 3×3, channels → 128 on 16×16 places, at 80 %, all passes with a memory. Each axis alone is doubled.
PROGRAM = """
import json, resource, sys, time
import accelsim
from accelsim.hardware.machine import machine_with
from accelsim.workload import synthetic
from accelsim.workload.geometry import Geometry
from accelsim.workload.mask_model import MaskModel

n = json.loads(sys.argv[1])
geometry = Geometry(n["channels"], 16, 16, 128, (3, 3), padding=(1, 1, 1, 1))
drawn = MaskModel.uniform(1.0), MaskModel.uniform(0.4), MaskModel.uniform(0.9)
layers = [synthetic.Blueprint(f"conv{at}", "conv", geometry, ("fwd", "input_grad", "weight_grad"), *drawn)
          for at in range(n["layers"])]
trace = synthetic.assemble(layers, [0.8], path="doubled", network="doubled", samples=n["samples"])
synthetic.write(trace, sys.argv[3])
base = accelsim.load_machine(sys.argv[2])
machines = [machine_with(base, {"accelerator.pipeline_drain_cycles": at}) for at in range(n["machines"])]
machines = [machine_with(one, {"memory.offchip.megabytes_per_second": 1000 * (1 + at)})
            for one in machines for at in range(n["points"])]
times = []
for _ in range(4):
    start = time.process_time()
    with accelsim.open_trace(sys.argv[3]) as opened:
        cycles = sum(record.cycles for record in accelsim.simulate_records(machines, opened))
    times.append(time.process_time() - start)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
print(json.dumps([min(times[1:]), peak, cycles]))
"""
START = {"layers": 4, "channels": 128, "samples": 2, "machines": 2, "points": 8}
STEEPEST = 2.3  # times the cost, of twice the work


def measured(folder, machine, **changes):
    """CPU seconds, bytes, cycles."""
    command = [sys.executable, "-c", PROGRAM, json.dumps(START | changes), machine, str(folder / "doubled.npz")]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


@pytest.mark.parametrize("machine", ["pe8x8.yaml", "tensordash.yaml"])
def test_twice_the_work_is_twice_the_time(tmp_path, machine):
    seconds, peak, _ = measured(tmp_path, machine)
    print(f"\n{machine}: {seconds:.2f} CPU-s, {peak / 1e6:.0f} MB")
    for axis, size in START.items():
        longer, larger, cycles = measured(tmp_path, machine, **{axis: 2 * size})
        print(f"  {axis} {size} → {2 * size}: {longer / seconds:.2f}× the time, {larger / peak:.2f}× the memory")
        assert cycles
        assert longer / seconds < STEEPEST
        assert larger / peak < STEEPEST
