"""Does ask say what compare counts, of a trace and of a file with its checkpoint, and where the tensors come from?"""

import errno
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from accelsim import cli, load_machine, open_trace
from accelsim.commands.ask import MACHINES
from accelsim.pipeline import simulate_records
from accelsim.study.answer import facts, sentences
from accelsim.study.compare import compare
from accelsim.study.guidance import guide, report
from accelsim.study.layout import rendered
from accelsim.study.results import convolutions, frame

LAYERS = "conv1, 8, 8, 3, 3, 3, 8, 1\nconv2, 8, 8, 3, 3, 8, 8, 1\n"


def asked(capsys, *arguments):
    assert cli.main(["ask", *arguments, "--quiet"]) == 0
    return capsys.readouterr().out


def test_the_figures_are_those_of_compare(tiny, capsys):
    data = json.loads(asked(capsys, str(tiny), "--json"))
    machines = [load_machine(f"{name}.yaml") for name in MACHINES]
    with open_trace(tiny) as trace:
        rows = compare(machines, trace).rows.set_index(["snapshot", "machine"])
    assert [snapshot["name"] for snapshot in data["snapshots"]] == ["dense", "swat80"]
    for snapshot in data["snapshots"]:
        own = rows.loc[snapshot["name"]]
        for machine in snapshot["machines"]:
            assert machine["fewer"] == {c: own.loc[machine["machine"], f"{c}_gain"] for c in machine["fewer"]}
            assert machine["per_multiplier"]["step"] == own.loc[machine["machine"], "step_speedup"]
        assert snapshot["all_skipped"]["step"] == own.loc["ideal", "step_gain"]
        order = [machine["per_multiplier"]["step"] for machine in snapshot["machines"]]
        assert order == sorted(order, reverse=True) and len(order) == len(MACHINES) - 1


def test_sentences_name_the_best_machine_and_what_skipping_all_would_be(tiny, capsys):
    out = asked(capsys, str(tiny), "--snapshots", "swat80")
    best = json.loads(asked(capsys, str(tiny), "--snapshots", "swat80", "--json"))["snapshots"][0]["machines"][0]
    zeros = re.search(r"^tiny: ([\d.]+) % of the weights, [\d.]+ % of the activations and [\d.]+ %", out)
    with open_trace(tiny) as trace:
        weights = [layer.tensor("weight") for layer in trace.snapshot("swat80").layers]
    share = 1 - sum(map(np.count_nonzero, weights)) / sum(w.size for w in weights)
    assert float(zeros[1]) == pytest.approx(100 * share, abs=0.05)
    step = (
        f"A training step takes {best['fewer']['step']:.2f}× fewer cycles on {best['machine']} than on the same machine"
    )
    assert step in out or "A training step takes no fewer cycles" in out
    assert "if every multiplication by zero were skipped and no multiplier waited" in out


@pytest.fixture
def pruned(tmp_path, monkeypatch):
    """A topology, and weights of which a known share is zero."""
    monkeypatch.chdir(tmp_path)
    head = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
    (tmp_path / "net.csv").write_text(head + LAYERS.replace("\n", ",\n"))
    rng = np.random.default_rng(0)
    shapes = {"conv1.weight": (8, 3, 3, 3), "conv2.weight": (8, 8, 3, 3)}
    weights = {name: (rng.random(shape) + 1) * (rng.random(shape) < 0.25) for name, shape in shapes.items()}
    np.savez(tmp_path / "pruned.npz", **{name: w.astype(np.float32) for name, w in weights.items()})
    return weights


def test_a_file_with_a_checkpoint_is_asked_about_inference(pruned, capsys):
    out = asked(capsys, "net.csv", "pruned.npz")
    share = 1 - sum(map(np.count_nonzero, pruned.values())) / sum(w.size for w in pruned.values())
    assert f"{100 * share:.1f} % of the weights" in out and "gradient" not in out.partition("Where the tensors")[0]
    assert "Inference (the forward pass) takes" in out and "training step" not in out
    assert "weight from the file; activation drawn" in out
    assert re.search(r"^read: 100 % of [\d,]+ multiplications", out, re.M)
    assert "A training step" in asked(capsys, "net.csv", "pruned.npz", "--training")


def test_a_file_alone_is_read_as_import_does(pruned, capsys):
    out = asked(capsys, "net.csv")
    assert "0.0 % of the weights" in out and "weight drawn" in out


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.npz"], "none.npz: no such file here, nor among the shipped traces"),
        (["net.csv", "none.pt"], "none.pt"),
        (["my.models:net", "pruned.npz"], "--allow-code says that it may"),
        (["net.csv", "--density-activation", "2"], "density of activation: must be in (0, 1], got 2.0"),
        (["net.csv", "--machines", "no.yaml"], "no.yaml: no such file"),
        (["net.csv", "--machines", "ideal.yaml"], "machines: must name one besides ideal"),
        (["net.csv", "--out", "net.csv"], "net.csv: must be a folder"),
    ],
)
def test_bad_input_is_one_line(arguments, told, pruned, capsys):
    if "my.models:net" in arguments:
        pytest.importorskip("torch")
    assert cli.main(["ask", *arguments, "--quiet"]) == 2
    out, error = capsys.readouterr()
    assert told in error and error.count("\n") == 1 and not out


def test_a_model_by_name_with_a_checkpoint(tmp_path, monkeypatch, capsys):
    torch = pytest.importorskip("torch")
    from accelsim.capture.models import build

    monkeypatch.chdir(tmp_path)
    model = build("cifar_resnet20")
    torch.save(model.state_dict(), tmp_path / "net.pt")
    out = asked(capsys, "cifar_resnet20", "net.pt", "--input", "1,3,32,32", "--machines", "ampere.yaml")
    assert "0.0 % of the weights" in out and "Inference (the forward pass) takes no fewer cycles on ampere" in out


def test_the_page_shows_what_its_command_says(capsys):
    page = (Path(__file__).parent.parent / "docs" / "ask.md").read_text(encoding="utf-8")
    (command,) = re.findall(r"^accelsim ask (.*?) +#", page, re.M)
    shown = re.search(r"```text\n(.*?)```", page, re.S)[1]
    assert asked(capsys, *command.split()).startswith(shown)


def test_a_machine_without_a_dense_self_is_said_to_have_none(tiny):
    """What a comparison leaves out of its table is missing there, not a number."""
    machines = [load_machine("ampere.yaml")]
    with open_trace(tiny) as trace:
        comparison = compare(machines, trace, snapshots=["swat80"])
        gone = comparison.rows.assign(step_gain=pd.NA, fwd_gain=pd.NA)
        answer = facts(replace(comparison, rows=gone), trace, machines, ["swat80"])
    assert answer["snapshots"][0]["machines"][0]["fewer"]["step"] is None
    text = rendered(sentences(answer))
    assert "A training step: what ampere would take without the zeros could not be simulated." in text


# Three checkpoints: PyTorch's with a factory, safetensors with a topology, ONNX ---------------------------------------


def pruned_weights(seed=0):
    """Weights of two layers of which exactly 3 of 4 are zero."""
    rng = np.random.default_rng(seed)
    shapes = {"conv1.weight": (8, 3, 3, 3), "conv2.weight": (8, 8, 3, 3)}
    return {
        name: np.where(rng.permutation(np.prod(shape)) % 4 == 0, 0.5, 0).reshape(shape).astype(np.float32)
        for name, shape in shapes.items()
    }


def torch_checkpoint(folder):
    torch = pytest.importorskip("torch")
    (folder / "my_nets.py").write_text(
        "from torch import nn\n"
        "def two():\n"
        "    net = nn.Sequential()\n"
        "    net.add_module('conv1', nn.Conv2d(3, 8, 3, bias=False))\n"
        "    net.add_module('conv2', nn.Conv2d(8, 8, 3, bias=False))\n"
        "    return net\n"
    )
    torch.save({name: torch.from_numpy(w) for name, w in pruned_weights().items()}, folder / "pruned.pt")
    return ["my_nets:two", "pruned.pt", "--input", "1,3,8,8", "--allow-code"]


def safetensors_checkpoint(folder):
    save = pytest.importorskip("safetensors.numpy")
    head = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,\n"
    rows = "conv1, 8, 8, 3, 3, 3, 8, 1,\nconv2, 6, 6, 3, 3, 8, 8, 1,\n"
    (folder / "net.csv").write_text(head + rows)
    save.save_file(pruned_weights(), folder / "pruned.safetensors")
    return ["net.csv", "pruned.safetensors"]


def onnx_checkpoint(folder):
    onnx = pytest.importorskip("onnx")
    h, kind = onnx.helper, onnx.TensorProto.FLOAT
    weights = [onnx.numpy_helper.from_array(w, name) for name, w in pruned_weights().items()]
    nodes = [
        h.make_node("Conv", ["x", "conv1.weight"], ["y"], name="conv1"),
        h.make_node("Relu", ["y"], ["r"], name="relu"),
        h.make_node("Conv", ["r", "conv2.weight"], ["z"], name="conv2"),
    ]
    ends = [h.make_tensor_value_info(name, kind, shape) for name, shape in (("x", [1, 3, 8, 8]), ("z", [1, 8, 4, 4]))]
    onnx.save(h.make_model(h.make_graph(nodes, "two", ends[:1], ends[1:], weights)), folder / "net.onnx")
    return ["net.onnx"]


@pytest.mark.parametrize("checkpoint", [torch_checkpoint, safetensors_checkpoint, onnx_checkpoint])
def test_each_kind_of_checkpoint_is_answered(checkpoint, tmp_path, monkeypatch, capsys):
    """The same two layers from three files: the same share of zeros, and about the same cycles."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    arguments = [*checkpoint(tmp_path), "--machines", "tensordash.yaml,cambricon-x.yaml,ideal.yaml"]
    data = json.loads(asked(capsys, *arguments, "--json"))
    (snapshot,) = data["snapshots"]
    assert data["passes"] == ["fwd"] and snapshot["zeros"]["weight"] == 0.75
    best = snapshot["machines"][0]
    assert best["cycles_without_zeros"]["fwd"] == round(best["cycles"]["fwd"] * best["fewer"]["fwd"])
    assert best["fewer"]["fwd"] > 1
    assert any(line.startswith("read: 100 % of ") for line in data["told"])
    assert any("normalisation" in line for line in data["not_counted"])
    files = data["provenance"]["files"]
    assert files and all(re.fullmatch("[0-9a-f]{64}", digest) for digest in files.values())
    out = asked(capsys, *arguments)
    assert "75.0 % of the weights" in out and "Inference (the forward pass) takes" in out
    assert f"On {best['machine']} {snapshot['limit']['sentences']['fwd']}." in out
    assert "Not counted:\n" in out and "Where the tensors come from:\n" in out


def test_the_limit_is_the_best_machine_s_own_account(tiny, capsys):
    data = json.loads(asked(capsys, str(tiny), "--snapshots", "swat80", "--json"))
    (snapshot,) = data["snapshots"]
    best = load_machine(f"{snapshot['machines'][0]['machine']}.yaml")
    with open_trace(tiny) as trace:
        table = convolutions(frame(simulate_records(best, trace, snapshots="swat80")))
        own = guide(best, trace, table, most=3)
    assert snapshot["limit"]["advice"] == json.loads(json.dumps(report(own)["advice"]))
    cycles = table.groupby("pass")["cycles"].sum()
    assert snapshot["machines"][0]["cycles"] == {**cycles.to_dict(), "step": cycles.sum()}
    assert data["not_counted"][0].startswith("fc: ")
    most = snapshot["limit"]["sentences"]["step"]
    words = {"fwd": "inference", "input_grad": "the input gradient", "weight_grad": "the weight gradient"}
    assert most.startswith(f"the limit of {words[cycles.idxmax()]}")


def test_a_pass_that_costs_nothing_is_said_nothing_of(tiny, capsys):
    """As the input gradient of a first layer; the step is there, of the passes that ran."""
    out = asked(capsys, str(tiny), "--snapshots", "swat80", "--layers", "conv1", "--machines", "pe8x8.yaml,ideal.yaml")
    assert "A training step takes" in out and "the limit of inference" in out


@pytest.mark.parametrize("kept", [False, True])
def test_a_full_disk_leaves_no_answer_without_its_report(kept, tiny, tmp_path, capsys, monkeypatch):
    pytest.importorskip("plotly")
    out = tmp_path / "answer"
    command = ("ask", str(tiny), "--layers", "conv1", "--machines", "pe8x8.yaml,ideal.yaml", "--out", str(out))
    if kept:
        assert cli.main(list(command)) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()} if kept else None
    write = Path.write_text

    def full(path, *arguments, **how):
        if path.name == "report.html":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))
        return write(path, *arguments, **how)

    monkeypatch.setattr(Path, "write_text", full)
    assert cli.main([*command, "--snapshots", "dense"]) == 2
    assert "No space left on device" in capsys.readouterr().err
    assert ({path.name: path.read_bytes() for path in out.iterdir()} if out.exists() else None) == before


def test_a_folder_with_a_report_is_written(tiny, tmp_path, capsys):
    pytest.importorskip("plotly")
    out = asked(capsys, str(tiny), "--out", str(tmp_path / "answer"))
    assert out.endswith(f"in {tmp_path / 'answer' / 'report.html'}\n")
    names = {path.name for path in (tmp_path / "answer").iterdir()}
    assert names == {"answer.json", "machines.csv", "machines.parquet", "summary.txt", "manifest.sha256", "report.html"}
    page = (tmp_path / "answer" / "report.html").read_text(encoding="utf-8")
    data = json.loads((tmp_path / "answer" / "answer.json").read_text(encoding="utf-8"))
    assert data["snapshots"][1]["limit"]["sentences"]["step"] in page
