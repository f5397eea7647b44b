"""Do recorders record in the loops of training libraries, each process its share, and do the shares make the whole?

The libraries are stood in for by the parts of them that are called, in the order in which they call.
"""

import subprocess
import sys
import types

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from accelsim.capture import (  # noqa: E402 (after the check for torch)
    Selection,
    accelerate_recorder,
    lightning_callback,
    trainer_callback,
)
from accelsim.errors import AccelsimError  # noqa: E402
from accelsim.workload.merge import merge  # noqa: E402
from accelsim.workload.trace import Trace  # noqa: E402


class Base:
    """Of a callback: what is not overridden does nothing."""

    def on_evaluate(self, *args, **kwargs):
        """As the libraries' own classes have it."""


@pytest.fixture(autouse=True)
def libraries(monkeypatch):
    lightning = types.ModuleType("lightning.pytorch")
    lightning.Callback = Base
    transformers = types.ModuleType("transformers")
    transformers.TrainerCallback = Base
    for module in (lightning, transformers):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(sys.modules, "lightning", types.ModuleType("lightning"))


def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2))


def fit(callback, batches=6, accumulate=2, fails_at=None, rank=0, world=1):
    """Lightning's order of calls."""
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    trainer = types.SimpleNamespace(global_step=0, global_rank=rank, world_size=world)
    callback.on_train_start(trainer, model)
    for number in range(batches):
        callback.on_train_batch_start(trainer, model, None, number)
        if number == fails_at:
            callback.on_exception(trainer, model, RuntimeError())
            return
        model(torch.randn(4, 6)).square().mean().backward()
        if number % accumulate == accumulate - 1:
            optimizer.step()
            optimizer.zero_grad()
            trainer.global_step += 1
        callback.on_train_batch_end(trainer, model, None, None, number)
    callback.on_train_end(trainer, model)


def layers(path):
    with Trace.open(path) as trace:
        return {s.name: [layer.name for layer in s.layers] for s in trace.snapshots}


def test_lightning_records_optimizer_steps_with_all_their_batches(tmp_path):
    callback = lightning_callback(tmp_path / "t.npz", steps={0, 2})
    assert isinstance(callback, Base)
    fit(callback)
    assert layers(tmp_path / "t.npz") == {f"step{step}": ["0", "2", "0#2", "2#2"] for step in (0, 2)}


def test_when_training_fails_the_steps_before_are_there(tmp_path):
    fit(lightning_callback(tmp_path / "t.npz", steps={0, 1}), fails_at=3)
    assert list(layers(tmp_path / "t.npz")) == ["step0"]
    assert [file.name for file in tmp_path.iterdir()] == ["t.npz"]


def test_the_trainer_of_hugging_face_records_the_steps_asked_for(tmp_path):
    model = net()
    callback = trainer_callback(tmp_path / "t.npz", steps={1}, keep=Selection(values=True))
    args = types.SimpleNamespace(process_index=0, world_size=1)
    state = types.SimpleNamespace(global_step=0)
    callback.on_train_begin(args, state, None, model=model, optimizer=None)
    for _ in range(3):
        callback.on_step_begin(args, state, None, model=model)
        model(torch.randn(4, 6)).square().mean().backward()
        state.global_step += 1
        callback.on_step_end(args, state, None, model=model)
        model(torch.randn(1, 6))  # between steps nothing is recorded
    callback.on_train_end(args, state, None, model=model)
    assert layers(tmp_path / "t.npz") == {"step1": ["0", "2"]}


def test_accelerate_gets_a_recorder_of_the_model_itself(tmp_path):
    model = net()
    accelerator = types.SimpleNamespace(process_index=1, num_processes=2, unwrap_model=lambda given: given[0])
    with accelerate_recorder(accelerator, [model], tmp_path / "t.npz", steps={0}) as recorder, recorder.step():
        model(torch.randn(4, 6)).square().mean().backward()
    assert layers(tmp_path / "t-rank1.npz") == {"step0": ["0", "2"]}


def test_a_library_that_is_not_installed_is_a_line(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(AccelsimError, match="TrainerCallback needs transformers: pip install transformers"):
        trainer_callback(tmp_path / "t.npz", steps={0})


CODE = """
import sys, torch, torch.distributed as dist
from torch import nn
from accelsim.capture import Recorder, Selection
rank, world, folder = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
torch.set_num_threads(1)
torch.manual_seed(0)
model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 3))
inputs = torch.randn(8, 2, 4, 4).relu()
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=world)
    model, inputs = nn.parallel.DistributedDataParallel(model), inputs.chunk(world)[rank]
optimizer = torch.optim.SGD(model.parameters(), 0.1)
with Recorder(model, f"{folder}/{world}-{rank}.npz", steps={1}, keep=Selection(samples=8)) as recorder:
    for _ in range(2):
        with recorder.step():
            optimizer.zero_grad()
            model(inputs).square().mean().backward()
            optimizer.step()
if world > 1:
    dist.destroy_process_group()
"""


def test_the_shares_of_two_processes_make_the_trace_of_one(tmp_path):
    if not torch.distributed.is_available():
        pytest.skip("needs torch.distributed")
    script = tmp_path / "train.py"
    script.write_text(CODE)
    started = [
        subprocess.Popen([sys.executable, script, str(rank), str(world), tmp_path], stderr=subprocess.PIPE, text=True)
        for rank, world in ((0, 2), (1, 2), (0, 1))
    ]
    for process in started:
        _, text = process.communicate(timeout=120)
        assert process.returncode == 0, text
    merge([tmp_path / "2-0.npz", tmp_path / "2-1.npz"], tmp_path / "both.npz")
    with Trace.open(tmp_path / "both.npz") as both, Trace.open(tmp_path / "1-0.npz") as one:
        (got,), (wanted,) = both.snapshots, one.snapshots
        assert (got.name, got.batch, got.coverage) == (wanted.name, 8, wanted.coverage)
        for a, b in zip(got.layers, wanted.layers, strict=True):
            assert (a.name, a.samples, a.passes, a.geometry) == (b.name, 8, b.passes, b.geometry)
            for name in b.tensors:
                np.testing.assert_array_equal(a.tensor(name), b.tensor(name))
