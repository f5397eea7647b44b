"""The memory that large layers take: ``python benchmarks/memory_peaks.py [--write docs/importers.md]``.

A layer of each kind of four large networks, imported from its shape at a sparsity of 80 %, and run, all passes, on each
shipped machine, a process each. Prints a Markdown table of peaks as it goes on the error stream; exit code 1 if one is
beyond 2 GB. Takes about half an hour of one core.
"""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from page import print_or_write

from accelsim.files import shipped

MOST_BYTES = 2_000_000_000
HEADER = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
GEMM = "Layer, M, N, K"
# Convolutions without padding, their maps with it. The product is layer 7 of SCALE-Sim's transformer_weightgrad.csv.
LAYERS = {
    "ResNet-50 at 4K, 3×3 64→64": (HEADER, "first, 8, 8, 3, 3, 3, 8, 1,", "conv, 542, 962, 3, 3, 64, 64, 1,"),
    "U-Net at 512², 3×3 128→64": (HEADER, "first, 8, 8, 3, 3, 3, 8, 1,", "up, 514, 514, 3, 3, 128, 64, 1,"),
    "training product, 1024 × 8192 × 65536": (GEMM, "first, 1, 8, 8", "layer7, 1024, 65536, 8192"),
    "Llama 7B, 2048 tokens, 4096→11008": (GEMM, "first, 1, 8, 8", "up, 2048, 11008, 4096"),
    "ResNet-50 at 4K, stem": (HEADER, "first, 8, 8, 3, 3, 3, 8, 1,", "conv1, 2166, 3846, 7, 7, 3, 64, 2,"),
}
# Of SCNN each bank of each PE is replayed: the product would take it hours, and its memory is a plan's, as Llama's.
LEFT_OUT = {("scnn.yaml", "training product, 1024 × 8192 × 65536")}


def measured(*arguments: str) -> tuple[int, str]:
    """Peak bytes of an accelsim command; and its last line, where it fails."""
    program = "import sys; from accelsim import cli; sys.exit(cli.main(sys.argv[1:]))"
    with tempfile.TemporaryFile("w+") as told:
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=told, stderr=told)
        _, status, usage = os.wait4(process.pid, 0)
        told.seek(0)
        last = told.read().strip().rpartition("\n")[2]
    return usage.ru_maxrss * 1024, last if os.waitstatus_to_exitcode(status) else ""


def main() -> int:
    """Exit code 1 if a peak is beyond 2 GB."""
    machines = sorted(path.name for path in shipped("configs").glob("*.yaml"))
    table: dict[str, list[str]] = {name: [] for name in ("import", *machines)}
    most = 0
    with tempfile.TemporaryDirectory() as folder:
        for title, lines in LAYERS.items():
            csv, trace = Path(folder) / "net.csv", str(Path(folder) / "net.npz")
            csv.write_text("\n".join(lines) + "\n", encoding="utf-8")
            runs = {"import": ("import", str(csv), "--sparsity", "0.8", "--out", trace, "--force")}
            runs |= {name: ("run", "--config", name, "--trace", trace, "--quiet") for name in machines}
            for name, arguments in runs.items():
                if (name, title) in LEFT_OUT or "values" in table[name]:
                    table[name].append("values" if "values" in table[name] else "–")
                    continue
                peak, error = measured(*arguments)
                print(f"{title}: {name}: {peak:,} bytes {error}", file=sys.stderr, flush=True)
                most = max(most, peak)
                table[name].append(
                    f"{peak / 1e6:,.0f}" if not error else "values" if "needs values" in error else "refused"
                )
    page = [f"| MB at most | {' | '.join(LAYERS)} |", "|---" * (1 + len(LAYERS)) + "|"]
    page += [f"| {name} | {' | '.join(cells)} |" for name, cells in table.items()]
    print_or_write(Path(__file__).name, __doc__.splitlines()[0], page)
    return int(most > MOST_BYTES)


if __name__ == "__main__":
    sys.exit(main())
