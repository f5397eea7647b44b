"""Is the shipped trace of a language model what SWAT's rules make of one, and does README say what machines gain?"""

import re
from pathlib import Path

import numpy as np
import pytest

import accelsim
from accelsim.study.compare import compare
from accelsim.workload.coverage import stored_share

ROOT = Path(__file__).parent.parent
KEPT = {"dense": 1.0, "swat80": 0.2, "swat90": 0.1}
HEADS, LENGTH, WIDTH = 4, 128, 256


@pytest.fixture(scope="module")
def trace():
    with accelsim.open_trace("gpt.npz") as opened:
        yield opened


def test_it_holds_the_whole_step_of_three_trained_runs(trace):
    assert trace.path.stat().st_size < 4_000_000
    assert {s.name: round(1 - s.sparsity, 3) for s in trace.snapshots} == KEPT
    names = [f"h.{n}{part}" for n in range(4) for part in (".qkv", ":qk", ":av", ".proj", ".fc", ".out")]
    for snapshot in trace.snapshots:
        assert [layer.name for layer in snapshot.layers] == [*names, "head"]
        assert stored_share(snapshot) == 1
        assert all(layer.passes == ("fwd", "input_grad", "weight_grad") for layer in snapshot.layers)
    runs = trace.provenance["runs"]
    assert all(run["loss held out"] < 2 < np.log(103) for run in runs.values())  # of 103 letters
    assert "Python Software Foundation License" in trace.provenance["text"]


def test_all_linear_layers_but_the_first_keep_their_top_k_and_attention_all(trace):
    for snapshot in trace.snapshots:
        saved = []
        for layer in snapshot.layers:
            weight = layer.tensor("weight")
            if layer.kind == "linear":
                kept = 1 if layer.name == "h.0.qkv" else KEPT[snapshot.name]
                assert np.count_nonzero(weight) == np.ceil(round(kept * weight.size, 6))
                saved.append(layer.tensor("saved_activation").mean() - kept)
                assert not (layer.tensor("saved_activation") & ~layer.tensor("activation")).any()
            else:
                assert "saved_activation" not in layer.tensors and weight.mean() > 0.99
        assert abs(np.mean(saved)) < 0.03  # Top-K is over the batch, of which one sequence is stored


def test_no_letter_attends_to_those_that_follow(trace):
    """Probabilities and the gradient of the scores are zero above the diagonal, in each head, and nowhere below."""
    for snapshot in trace.snapshots:
        for n in range(4):
            layers = {layer.name: layer for layer in snapshot.layers}
            seen = layers[f"h.{n}:av"].tensor("activation").reshape(HEADS, LENGTH, LENGTH)  # head, seen, seeing
            scores = layers[f"h.{n}:qk"].tensor("gradient").reshape(HEADS, LENGTH, LENGTH)
            before = np.triu(np.ones((LENGTH, LENGTH), bool))
            assert not (seen & ~before).any() and not (scores & ~before).any()
            assert seen[:, before].mean() > 0.99


def test_readme_says_what_compare_computes(trace):
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = re.search(r"\| machine \| 80 %: step.*?\n\n", text, re.S)[0]
    said = {
        name: [float(number) for number in re.findall(r"[\d.]+", rest)]
        for name, rest in re.findall(r"^\| ([a-z][\w-]+\d*) \| ([\d.]+× .*)\|$", table, re.M)
    }
    assert len(said) == 7
    machines = [accelsim.load_machine(f"{name}.yaml") for name in said]
    found = compare(machines, trace, snapshots=["swat80", "swat90"])
    for row in found.rows.to_dict("records"):
        place = 3 * (row["snapshot"] == "swat90")
        for number, key in zip(said[row["machine"]][place : place + 3], ("speedup", "gain", "shape"), strict=True):
            assert row[f"step_{key}"] == pytest.approx(number, rel=0.02, abs=0.006), (row["machine"], key)


def test_attention_can_be_swept(tmp_path):
    study = {
        "trace": "gpt.npz", "machine": "tensordash.yaml", "snapshots": ["dense", "swat90"], "layers": ["h.3*"],
        "passes": ["fwd"], "grid": {"accelerator.tiles": [4, 16]},
    }  # fmt: skip
    table = accelsim.sweep(study, tmp_path / "sweep")
    assert len(table) == 4 and (table["cycles"] > 0).all()
    by_tiles = table[table["snapshot"] == "swat90"].set_index("accelerator.tiles")["cycles"]
    assert by_tiles[16] < by_tiles[4]
