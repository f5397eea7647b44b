"""What does a recorded step cost? Against a plain step of the same model at the same batch, in turns in one run."""

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from accelsim.capture import Recorder, Selection, SeriesOf, SwatConfig, convert  # noqa: E402
from accelsim.capture.models import build  # noqa: E402
from accelsim.workload.coverage import stored_share  # noqa: E402
from accelsim.workload.trace import Trace  # noqa: E402

ROUNDS = 5


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


class ViTS(nn.Module):
    """ViT-S/16: 12 encoder layers of width 384 with 6 heads on 196 patches and a class token."""

    def __init__(self):
        super().__init__()
        self.patches, self.token = nn.Conv2d(3, 384, 16, 16), nn.Parameter(torch.zeros(1, 1, 384))
        self.places = nn.Parameter(0.02 * torch.randn(1, 197, 384))
        layer = nn.TransformerEncoderLayer(384, 6, 1536, 0.0, "gelu", batch_first=True, norm_first=True)
        self.layers, self.head = nn.TransformerEncoder(layer, 12, enable_nested_tensor=False), nn.Linear(384, 10)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(len(x), -1, -1), x], 1) + self.places
        return self.head(self.layers(x)[:, 0])


# Of each network how to make it, and batch and size of its images.
NETWORKS = {
    "small ResNet": (small_resnet, 16, 32),
    "ResNet-50": (lambda: build("resnet50", 10), 8, 128),
    "ViT-S/16": (ViTS, 8, 224),
}


@pytest.mark.parametrize(
    ("network", "options", "most"),
    [
        ("small ResNet", {"samples": 1}, 1.5),
        ("small ResNet", {"samples": 4}, 1.5),
        ("small ResNet", {"samples": 1, "values": True}, 1.5),
        ("ResNet-50", {"samples": 1}, 1.3),
        ("ViT-S/16", {"samples": 1}, 1.3),
    ],
)
def test_a_recorded_step_against_a_plain_one(tmp_path, network, options, most):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    try:
        plain, recorded = measure(tmp_path / "cost.npz", *NETWORKS[network], options)
    finally:
        torch.set_num_threads(threads)
    ratio = recorded / plain
    times = f"plain step {plain * 1e3:.0f} ms, recorded with {options} {recorded * 1e3:.0f} ms"
    print(f"\n{network}: {times}: {ratio:.2f}×", end="")
    assert ratio <= most


def measure(path, make, batch, size, options):
    """Median seconds of a plain and of a recorded step."""
    model, loss = make(), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9)
    inputs, targets = torch.randn(batch, 3, size, size), torch.randint(10, (batch,))
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
        assert all(stored_share(snapshot) > 0.99 for snapshot in trace.snapshots)
        assert all(len(layer.tensors) == 3 for snapshot in trace.snapshots for layer in snapshot.layers)
    return (float(np.median(seconds[records][1:])) for records in (False, True))


@pytest.mark.parametrize("sparsity", [None, 0.8])
def test_a_series_costs_at_most_a_tenth_of_a_step(tmp_path, sparsity):
    """Every second step is counted; the least of each kind, of this thread."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model, inputs, labels = build("cifar_resnet18", 10), torch.randn(8, 3, 32, 32), torch.randint(10, (8,))
    swat = convert(model, SwatConfig(sparsity)) if sparsity else None
    optimizer, took = torch.optim.SGD(model.parameters(), 0.01), ([], [])
    series = SeriesOf(tmp_path / "run.series", steps=lambda step: step % 2 == 1)
    with Recorder(model, tmp_path / "none.npz", steps={10**6}, series=series) as recorder:
        for step in range(2 * ROUNDS + 2):
            begun = time.thread_time()
            with recorder.step():
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
            took[step % 2].append(time.thread_time() - begun)
            if swat:
                swat.step(optimizer)
    plain, counted = (min(times[1:]) for times in took)
    print(f"series, {'SWAT' if sparsity else 'dense'}: {counted / plain:.2f}×")
    assert counted <= 1.1 * plain
