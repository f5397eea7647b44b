"""Measures what ``accelsim reproduce`` cannot compute: ``python benchmarks/measured.py [partition|topk|periodic …]``.

Writes reproduction/measured.json, section by section, each with its date and versions; the others stay as they are.
``partition`` counts instructions of numpy.partition (minutes under callgrind), ``topk`` times Top-K against a training
step of ResNet-50 (PyTorch), ``periodic`` trains ResNet-18 with a periodic Top-K and watches its sparsity (PyTorch,
minutes; ``--data`` names CIFAR-10, as ``accelsim capture --data`` takes it).
"""

import argparse
import json
import re
import time
from dataclasses import asdict
from pathlib import Path
from tempfile import mkdtemp

import numpy as np

from accelsim.study.paper import FIGURE10, TABLE10_BATCH
from accelsim.study.reproduction import topk_cost
from accelsim.workload.networks import network


def partition(options) -> dict:
    """Table 9."""
    return {"selections": [asdict(selection) for selection in topk_cost.measure()], "kept": topk_cost.KEPT}


def topk(options) -> dict:
    """Table 10 on one CPU thread: the elements are ResNet-50's, the step is PyTorch's, scaled from a smaller batch."""
    import torch

    from accelsim.capture import models

    torch.set_num_threads(1)
    batch, net, random = 4, network("resnet50"), np.random.default_rng(0)
    layers = [layer for layer in net.layers if not layer.first]
    times = {
        "weight": sum(selection_ms(random, layer.weights) for layer in layers),
        "activation": sum(selection_ms(random, batch * layer.inputs) for layer in layers) * TABLE10_BATCH / batch,
    }
    model, images = models.build("resnet50"), torch.randn(batch, 3, 224, 224)
    steps = []
    for _ in range(3):
        start = time.perf_counter()
        model(images).square().mean().backward()
        steps.append(1e3 * (time.perf_counter() - start))
    times["step"] = min(steps) * TABLE10_BATCH / batch
    return {
        "milliseconds": times,
        "batch": TABLE10_BATCH,
        "measured_batch": batch,
        "torch": torch.__version__,
        "threads": 1,
    }


def selection_ms(random: np.random.Generator, size: int) -> float:
    values = random.standard_normal(size, dtype=np.float32)
    start = time.perf_counter()
    np.partition(np.abs(values), size - max(1, size // 10))
    return 1e3 * (time.perf_counter() - start)


def periodic(options) -> dict:
    """Figure 10, shorter."""
    import torch

    from accelsim.capture.plan import Plan, Recipe
    from accelsim.capture.train import capture

    torch.set_num_threads(1)
    plan = Plan(
        out=Path(mkdtemp()) / "periodic.npz", model=FIGURE10["network"], data=options.data, steps=options.steps,
        batch=32, recipe=Recipe(0.05, schedule="cosine", warmup=10), augment=True, sparsities=(FIGURE10["sparsity"],),
        options={"period": FIGURE10["period"]},
    )  # fmt: skip
    history = capture(plan)
    rows = [(p.weight_sparsity, p.activation_sparsity) for p in history]
    return {
        "dataset": options.name if options.data else "synthetic images",
        "period": FIGURE10["period"],
        "target": FIGURE10["sparsity"],
        "batch": plan.batch,
        "torch": torch.__version__,
        "weight": [round(row[0], 6) for row in rows],
        "activation": [round(row[1], 6) for row in rows],
    }


SECTIONS = {"partition": partition, "topk": topk, "periodic": periodic}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sections", nargs="*", choices=[*SECTIONS, []], default=[*SECTIONS], metavar="SECTION")
    parser.add_argument("--data", type=Path, help="CIFAR-10 for periodic (default: synthetic images)")
    parser.add_argument("--name", default="CIFAR-10 (4000 images)", help="of that data")
    parser.add_argument("--steps", type=int, default=600, help="of periodic")
    options = parser.parse_args()
    path = topk_cost.RECORDED
    everything = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    for name in options.sections:
        everything[name] = topk_cost.origin() | SECTIONS[name](options)
        text = json.dumps(everything, indent=1)
        text = re.sub(r"\[[^][{}]*\]", lambda flat: " ".join(flat[0].split()), text)  # a curve takes one line
        path.write_text(text + "\n", encoding="utf-8")
        print(f"{name}: written to {path}")


if __name__ == "__main__":
    main()
