"""What does a recorded step cost? Against a plain step of the same model at the same batch, in turns in one run."""

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from accelsim.capture import Recorder, Selection  # noqa: E402
from accelsim.workload.trace import Trace  # noqa: E402

ROUNDS = 9
BATCH = 16


class Block(nn.Module):
    """A basic residual block."""

    def __init__(self, channels, filters, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.relu = nn.ReLU(inplace=True)
        self.shortcut = nn.Conv2d(channels, filters, 1, stride, bias=False) if stride > 1 else nn.Identity()

    def forward(self, x):
        out = self.bn2(self.conv2(self.relu(self.bn1(self.conv1(x)))))
        out += self.shortcut(x)
        return self.relu(out)


def small_resnet():
    """14 convolutions and a linear layer, 2.8 million weights, for images of 32×32."""
    torch.manual_seed(0)
    blocks = [Block(64, 64, 1), Block(64, 64, 1), Block(64, 128, 2), Block(128, 128, 1), Block(128, 256, 2)]
    stem = [nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.BatchNorm2d(64), nn.ReLU(inplace=True)]
    return nn.Sequential(*stem, *blocks, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(256, 10))


@pytest.mark.parametrize(
    ("options", "most"),
    [({"samples": 1}, 1.5), ({"samples": 4}, 1.5), ({"samples": 1, "values": True}, 1.5)],
    ids=["masks of 1 sample", "masks of 4 samples", "values of 1 sample"],
)
def test_a_recorded_step_against_a_plain_one(tmp_path, options, most):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        plain, recorded = measure(tmp_path / "cost.npz", options)
    finally:
        torch.set_num_threads(threads)
    ratio = recorded / plain
    print(f"\nplain step {plain * 1e3:.0f} ms, recorded with {options} {recorded * 1e3:.0f} ms: {ratio:.2f}×", end="")
    assert ratio <= most


def measure(path, options):
    """Median seconds of a plain and of a recorded step."""
    model, loss = small_resnet(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    inputs, targets = torch.randn(BATCH, 3, 32, 32), torch.randint(10, (BATCH,))
    seconds = {False: [], True: []}
    with Recorder(model, path, steps=lambda number: number % 2, keep=Selection(**options)) as recorder:
        for _ in range(2 * ROUNDS):
            start = time.perf_counter()
            with recorder.step() as step:
                records = step.records
                optimizer.zero_grad()
                loss(model(inputs), targets).backward()
                optimizer.step()
            seconds[records].append(time.perf_counter() - start)
    with Trace.open(path) as trace:
        assert {len(snapshot.layers) for snapshot in trace.snapshots} == {14}
        assert all(len(layer.tensors) == 3 for snapshot in trace.snapshots for layer in snapshot.layers)
    return (float(np.median(seconds[records][1:])) for records in (False, True))
