"""What does SWAT cost in a training step, on this machine? A small network, one thread, medians in one run."""

import statistics
import time

import pytest

torch = pytest.importorskip("torch")

from accelsim.capture import SwatConfig, convert  # noqa: E402 (after the check for torch)

ROUNDS = 7


def network():
    torch.manual_seed(0)
    layers, channels = [], 3
    for filters in (32, 64, 64, 128):
        layers += [torch.nn.Conv2d(channels, filters, 3, padding=1, bias=False), torch.nn.BatchNorm2d(filters)]
        layers += [torch.nn.ReLU()]
        channels = filters
    return torch.nn.Sequential(*layers, torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(128, 10))


def seconds_of_a_step(config):
    """Median of several steps, the first apart; and the loss, which shows that it trained."""
    model, images, labels = network(), torch.randn(32, 3, 32, 32), torch.arange(32) % 10
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    swat = convert(model, config) if config else None
    times, losses = [], []
    for _ in range(ROUNDS + 1):
        start = time.perf_counter()
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        loss.backward()
        optimizer.step()
        if swat:
            swat.step(optimizer)
        times.append(time.perf_counter() - start)
        losses.append(loss.item())
    assert losses[-1] < losses[0]
    return statistics.median(times[1:])


@pytest.mark.parametrize(
    "config",
    [SwatConfig(0.8), SwatConfig(0.9), SwatConfig(0.9, period=1000), SwatConfig(0.7, structure="channel")],
    ids=["80 %", "90 %", "90 %, period 1000", "70 % of channels"],
)
def test_the_overhead_of_swat(config, capsys):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        ratio = seconds_of_a_step(config) / seconds_of_a_step(None)
    finally:
        torch.set_num_threads(threads)
    with capsys.disabled():
        print(
            f"\na SWAT step, {config.sparsity:g} {config.structure}, period {config.period}: {ratio:.2f}× a dense one"
        )
    assert ratio < 3
