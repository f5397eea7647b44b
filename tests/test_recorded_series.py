"""Is a series of a training run exact, cheap to read, and whole after a kill?"""

import json
import os
import signal
import subprocess
import sys

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402

from accelsim.capture import Recorder, SeriesOf  # noqa: E402
from accelsim.capture.algorithms import build  # noqa: E402
from accelsim.errors import OutputError, TraceError  # noqa: E402
from accelsim.workload.series import Series, SeriesWriter  # noqa: E402
from accelsim.workload.trace import Trace  # noqa: E402

torch.set_num_threads(1)


def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(True), nn.Conv2d(8, 8, 3), nn.ReLU(True), nn.Flatten(),
                         nn.Linear(8 * 9, 4))  # fmt: skip


def train(model, recorder, steps, begin=0, algorithm=None):
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    for step in range(begin, begin + steps):
        with recorder.step(step):
            optimizer.zero_grad()
            draw = torch.Generator().manual_seed(step)
            loss = model(torch.randn(4, 2, 7, 7, generator=draw)).square().sum()
            loss.backward()
            if algorithm:
                algorithm.before_update(optimizer)
            optimizer.step()
            recorder.note(loss=loss.item())
        recorder.note(accuracy=step / 10)
        if algorithm:
            algorithm.step(optimizer)
    return [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("name", [None, "swat-u", "saw", "meprop", "rigl", "dsg"])
def test_densities_are_those_of_the_trace_and_training_is_the_same(tmp_path, name):
    """The trace of the whole batch holds the very tensors."""

    def run(**how):
        model = net()
        algorithm = build(name, model, 0.75, steps=6, options={}) if name else None
        from accelsim.capture import Selection

        keep = Selection(samples=4)
        with Recorder(model, tmp_path / "t.npz", steps={3}, keep=keep, force=True, **how) as recorder:
            return train(model, recorder, 5, algorithm=algorithm)

    plain = run()
    counted = run(series=SeriesOf(tmp_path / "run.series", steps_per_epoch=2))
    assert all(torch.equal(a, b) for a, b in zip(plain, counted, strict=True))
    series = Series.open(tmp_path / "run.series")
    assert [s.step for s in series.steps] == [0, 1, 2, 3, 4] and series.epoch(3) == 1.5
    found = series.steps[3].densities
    with Trace.open(tmp_path / "t.npz") as trace:
        for layer in trace.snapshots[0].layers:
            for tensor in layer.tensors:
                assert found.pop((layer.name, tensor)) == pytest.approx((layer.tensor(tensor) != 0).mean()), tensor
    assert not found
    assert all(s.notes["loss"] > 0 and s.notes["accuracy"] == s.step / 10 for s in series.steps)


def test_nothing_stays_attached(tmp_path):
    model = net()
    with Recorder(model, tmp_path / "t.npz", steps={9}, series=SeriesOf(tmp_path / "a", steps=2)) as recorder:
        train(model, recorder, 3)
        assert not any(m._forward_hooks for m in model.modules())
    assert [s.step for s in Series.open(tmp_path / "a").steps] == [0, 2]
    assert not (tmp_path / "t.npz").exists()


def test_a_step_that_fails_is_not_in_it(tmp_path):
    model = net()
    with Recorder(model, tmp_path / "t.npz", steps={9}, series=tmp_path / "a") as recorder:
        train(model, recorder, 1)
        with pytest.raises(RuntimeError), recorder.step():
            model(torch.randn(1, 5, 7, 7))
        assert not any(m._forward_hooks for m in model.modules())
    assert [s.step for s in Series.open(tmp_path / "a").steps] == [0]


def test_a_resumed_run_goes_on_and_its_own_steps_count(tmp_path):
    model = net()
    for begin in (0, 2):
        with Recorder(model, tmp_path / f"{begin}.npz", steps={99}, series=tmp_path / "a") as recorder:
            train(model, recorder, 4, begin)
    lines = (tmp_path / "a").read_text().splitlines()
    assert sum('"nonzeros"' in line for line in lines) == 8
    assert [s.step for s in Series.open(tmp_path / "a").steps] == [0, 1, 2, 3, 4, 5]
    loss, accuracy = (json.loads(line)["notes"] for line in lines[-2:])
    assert Series.open(tmp_path / "a").steps[-1].notes == loss | accuracy
    with pytest.raises(OutputError, match="is not a series of this run"):
        SeriesWriter(tmp_path / "a", {"network": "other"})
    for mine in ("notes of mine\n", "notes of mine, of a line without an end"):
        (tmp_path / "b").write_text(mine)
        with pytest.raises(OutputError, match="is not a series"):
            SeriesWriter(tmp_path / "b", {})
        assert (tmp_path / "b").read_text() == mine


def test_a_line_of_which_the_disk_takes_a_part_at_a_time_is_whole(tmp_path):
    class Slow:
        def __init__(self, file):
            self.file = file

        def write(self, line):
            return self.file.write(line[:7])

    writer = SeriesWriter(tmp_path / "a", {"network": "n"})
    writer._file = Slow(writer._file)
    for step in range(3):
        writer.step(step, {("fc", "weight"): (step, 10)}, {})
    writer._file.file.close()
    assert [step.step for step in Series.open(tmp_path / "a").steps] == [0, 1, 2]


def test_an_unfinished_line_is_left_out_and_cut_off(tmp_path):
    path = tmp_path / "a"
    writer = SeriesWriter(path, {"network": "n"})
    for step in range(3):
        writer.step(step, {("fc", "weight"): (step, 10)}, {})
    writer.close()
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole[:cut])
        complete = [line for line in whole[:cut].split(b"\n")[:-1] if b'"step"' in line]
        if complete:
            assert len(Series.open(path).steps) == len(complete)
        elif b"\n" not in whole[:cut]:
            with pytest.raises(TraceError, match="is empty"):
                Series.open(path)
        again = SeriesWriter(path, {"network": "n"})
        again.step(9, {("fc", "weight"): (7, 10)}, {})
        again.close()
        assert Series.open(path).steps[-1].densities == {("fc", "weight"): 0.7}
        assert len(Series.open(path).steps) == len(complete) + 1


KILLED = """
import sys, torch
from accelsim.capture import Recorder
model = torch.nn.Linear(4, 4)
with Recorder(model, sys.argv[1] + ".npz", steps={10**9}, series=sys.argv[1]) as recorder:
    while True:
        with recorder.step():
            model(torch.randn(2, 4)).sum().backward()
        print("done", flush=True)
"""


def test_after_kill_9_all_steps_before_are_there(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path / "a")], stdout=subprocess.PIPE, text=True)
    for _ in range(5):
        assert process.stdout.readline() == "done\n"
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert len(Series.open(tmp_path / "a").steps) >= 5


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "is empty"),
        ("{}\n", "must be a series, which begins"),
        ('{"format":"accelsim-series","version":2}\n', "must be a series of version 1"),
        ('{"format":"accelsim-series","version":1}\n', "must hold at least one step"),
        ('{"format":"accelsim-series","version":1}\nx\n', "line 2: must be a JSON object"),
        (
            '{"format":"accelsim-series","version":1}\n{"step":1,"nonzeros":[3]}\n',
            "line 2: must be a layout, or a step",
        ),
    ],
)
def test_what_is_no_series_is_told(tmp_path, content, says):
    (tmp_path / "a").write_text(content)
    with pytest.raises(TraceError, match=says):
        Series.open(tmp_path / "a")
    with pytest.raises(TraceError, match="cannot read"):
        Series.open(tmp_path / "none")


@pytest.mark.parametrize("wrong", [{"steps": 0}, {"steps": True}, {"steps_per_epoch": -1}, {"top_k_period": 0}])
def test_a_plan_that_makes_no_sense_is_told(wrong):
    with pytest.raises(TraceError, match=f"series: {next(iter(wrong))}: must be 1 or more"):
        SeriesOf("a", **wrong)
