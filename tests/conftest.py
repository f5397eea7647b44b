"""Options and fixtures of the whole suite, and on how many cores it runs."""

import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from accelsim import TraceWriter, testing
from accelsim.workload.geometry import Geometry
from accelsim.workload.metadata import FIRST_LAYER, PASSES
from accelsim.workload.trace import Layer

# What fails once fails again, for everybody. ``--hypothesis-profile explore`` draws other cases each time.
settings.register_profile("same", derandomize=True, database=None)
settings.register_profile("explore", print_blob=True)
settings.load_profile("same")


def pytest_addoption(parser):
    testing.add_golden_option(parser)


def pytest_configure(config):
    folder = config.getoption("--golden")
    if folder is not None and not any(folder.glob("*.jsonl")):
        raise pytest.UsageError(f"--golden: must be a folder with .jsonl files, got {folder}")
    config.golden = folder or Path(__file__).parent / "golden"


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Unless ``-n`` says otherwise, all cores share the suite; files named one by one run as pytest always does."""
    started_by_another = hasattr(config, "workerinput")
    named = any(".py" in argument for argument in config.args)
    if config.pluginmanager.hasplugin("xdist") and not (started_by_another or named or config.option.collectonly):
        if config.option.numprocesses is None:
            config.option.numprocesses = "auto"
        if config.option.dist == "no":
            config.option.dist = "worksteal"  # long runs of neighbours, so that few fixtures are made twice


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers():
    """Cores that this process may use; more than 8 gain nothing, for each imports and compiles anew."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, 8)


# A network of every kind of layer, small enough for any machine and any test.
TINY = {
    "conv1": ("conv", Geometry(3, 9, 9, 8, (3, 3), (2, 2), (1, 1, 1, 1))),
    "block/conv2": ("conv", Geometry(8, 5, 5, 8, (3, 3), (1, 1), (1, 1, 1, 1))),
    "block/down": ("conv", Geometry(8, 5, 5, 12, (1, 1), (2, 2))),
    "depthwise": ("conv", Geometry(12, 3, 3, 12, (3, 3), (1, 1), (1, 1, 1, 1), groups=12)),
    "fc": ("linear", Geometry(12, 1, 1, 5, (1, 1))),
}
# Density of weight, activation, saved activation and gradient by Top-K sparsity; dense layers save no other activation.
DENSITIES = {0.0: (1.0, 0.6, None, 0.9), 0.8: (0.2, 0.5, 0.15, 0.9)}


def tiny_masks(sparsity, samples=1, seed=0):
    """The tensors of each layer of the tiny network, by layer and name."""
    rng = np.random.default_rng([seed, int(100 * sparsity)])
    names = ("weight", "activation", "saved_activation", "gradient")
    densities = {name: d for name, d in zip(names, DENSITIES[sparsity], strict=True) if d is not None}
    layers = {
        name: Layer(name, kind, geometry, samples, samples, PASSES, {}) for name, (kind, geometry) in TINY.items()
    }
    return {
        name: {tensor: rng.random(layer.shape_of(tensor)) < density for tensor, density in densities.items()}
        for name, layer in layers.items()
    }


@pytest.fixture(scope="session")
def write_tiny():
    """A function that writes a trace of the tiny network and returns its path.

    ``snapshots`` maps names to sparsities; ``samples``, a number or one by snapshot, are drawn and, unless ``stored``
    says otherwise, declared; ``change(snapshot, layer, tensor, mask)`` gives what is written instead of a
    mask: an array and keywords of ``TraceWriter.tensor``, or None for nothing.
    """

    def write(
        path, snapshots=(("dense", 0.0), ("swat80", 0.8)), samples=1, stored=None, layers=tuple(TINY), change=None,
        **meta,
    ):  # fmt: skip
        with TraceWriter(path, **{"network": "tiny", "dataset": "noise", **meta}) as out:
            for snapshot, sparsity in dict(snapshots).items():
                n = samples[snapshot] if isinstance(samples, dict) else samples
                out.snapshot(snapshot, sparsity=sparsity, step=7, algorithm="SWAT-U", batch=8, samples=stored or n)
                for layer, tensors in tiny_masks(sparsity, n).items():
                    kind, geometry = TINY[layer]
                    if layer not in layers:
                        continue
                    out.layer(layer, kind=kind, geometry=geometry, passes=FIRST_LAYER if layer == "conv1" else PASSES)
                    for tensor, mask in tensors.items():
                        array, how = mask, {}
                        if change:
                            array, how = change(snapshot, layer, tensor, mask) or (None, {})
                        if array is not None:
                            out.tensor(tensor, array, **how)
        return path

    return write


@pytest.fixture(scope="session")
def tiny(write_tiny, tmp_path_factory):
    """A trace of two snapshots, dense and swat80, with a strided first layer, 1×1, depthwise and linear layers."""
    return write_tiny(tmp_path_factory.mktemp("tiny") / "tiny.npz")


@pytest.fixture(scope="module")
def chromium():
    """A function that opens a page in Chromium, as tests/browser.py drives it."""
    pytest.importorskip("websocket", reason="no websocket-client here: pages are not opened")
    import browser

    if not browser.executable():
        pytest.skip("no Chromium here: pages are not opened")
    with browser.browser() as page:
        yield page
