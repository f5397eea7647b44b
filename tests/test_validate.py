"""Does ``accelsim validate`` compare as it says, fail when it should, and is its page current?"""

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from accelsim import cli
from accelsim.errors import AccelsimError
from accelsim.hardware.machine import load_machine
from accelsim.study.reproduction.page import markdown
from accelsim.study.validation import catalogue, inputs, page, scnn
from accelsim.study.validation.catalogue import VALIDATIONS, validate
from accelsim.study.validation.check import AGREES, DIFFERS, EXACT, KNOWN, OURS, SHOWN, Check, Validation

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "validation.md"
LONG = ("scnn-rules",)
QUICK = [name for name in VALIDATIONS if name not in LONG]


@pytest.fixture(scope="module")
def found():
    """All that take a second or a few, by name."""
    return {validation.name: validation for validation in validate(QUICK, jobs=2)}


@pytest.mark.parametrize(
    ("ours", "theirs", "how", "verdict", "difference"),
    [
        (2.2, 2.0, {"tolerance": 0.1}, AGREES, 0.1),  # just at it, whatever binary fractions make of it
        (2.21, 2.0, {"tolerance": 0.1}, DIFFERS, 0.105),
        (1.79, 2.0, {"tolerance": 0.1}, DIFFERS, -0.105),
        (1.79, 2.0, {"tolerance": 0.1, "expected": False}, KNOWN, -0.105),
        (1.79, 2.0, {"tolerance": None}, SHOWN, -0.105),
        (100, 100, {}, AGREES, 0),
        (101, 100, {}, DIFFERS, 0.01),
        (1.3, (1.25, 1.5), {}, AGREES, 0),
        (1.25, (1.25, 1.5), {}, AGREES, 0),
        (1.2, (1.25, 1.5), {}, DIFFERS, -0.04),
        (1.8, (1.25, 1.5), {}, DIFFERS, 0.2),
    ],
)
def test_a_verdict_follows_from_the_difference_and_the_tolerance(ours, theirs, how, verdict, difference):
    check = Check(what="x", ours=ours, theirs=theirs, **how)
    assert (check.verdict, check.difference) == (verdict, pytest.approx(difference))
    assert len(check.cells()) == len(page.HEADINGS) and check.cells()[-1] == verdict


def test_what_should_agree_does(found):
    assert [check for validation in found.values() for check in validation.failures] == []
    judged = {name: validation.count(AGREES) for name, validation in found.items()}
    assert (
        judged["sigma"] == 9
        and judged["dstc"] == 6
        and judged["scnn"] == 3
        and judged["eyeriss-v2-pe"] == 8
        and judged["cnvlutin"] == 2
    )
    assert all(check.evidence == EXACT and check.difference == 0 for check in found["eyeriss-v2-pe"].checks)
    for validation in found.values():
        assert validation.source and validation.how
        for check in validation.checks:
            assert check.verdict in (AGREES, KNOWN, SHOWN) and (check.verdict == AGREES or check.note)
            assert (check.evidence == OURS) == (validation.name == "tensordash") and check.verdict != OURS
            assert check.spread is None or check.spread < 0.02


@pytest.mark.parametrize("name", QUICK)
def test_the_page_of_validations_is_current(name, found):
    """What takes seconds; the slow test below does the rest."""
    text = markdown(page.section(found[name]))
    assert text in PAGE.read_text(encoding="utf-8"), "accelsim validate --out DIR, then copy validation.md to docs/"


def test_the_page_has_every_validation_and_what_each_says_in_a_line():
    titles = re.findall(r"^`accelsim validate ([\w-]+)`$", PAGE.read_text(encoding="utf-8"), re.M)
    assert titles == list(VALIDATIONS)


@pytest.mark.slow
def test_the_whole_page_of_validations_is_current():
    assert markdown(page.page(validate(jobs=2))) == PAGE.read_text(encoding="utf-8")


def test_results_do_not_depend_on_the_threads():
    machine, dense = (load_machine(f"{name}.yaml").accelerator for name in ("scnn", "dcnn"))
    layers = inputs.scnn_layers("alexnet")
    assert inputs.cycles([dense, machine], layers, 1, 1) == inputs.cycles([dense, machine], layers, 1, 3)
    assert inputs.cycles([machine], layers, 1, 1) != inputs.cycles([machine], layers, 2, 1)


def test_published_layers_are_those_of_the_table():
    """AlexNet's second layer, GoogLeNet's as many as its nine inceptions have; densities as the table gives them."""
    alexnet, googlenet = inputs.scnn_layers("alexnet"), inputs.scnn_layers("googlenet")
    assert len(alexnet) == 6 and len(googlenet) == 9 * 6
    second = alexnet[1].geometry
    assert (second.channels, second.filters, second.kernel, second.output) == (48, 128, (5, 5), (27, 27))
    conv = alexnet[1].convolution((0, 1))
    assert np.count_nonzero(conv.input) / conv.input.size == pytest.approx(0.906464, abs=0.005)
    assert np.count_nonzero(conv.kernel) / conv.kernel.size == pytest.approx(0.372552, abs=0.005)
    assert {(layer.activation, layer.weight) for layer in inputs.scnn_layers("googlenet", 0.3)} == {(0.3, 0.3)}
    # The same products but for the folded image: 3·11·11 taps where 48·3·3 stand in the table, on a smaller map.
    whole = inputs.alexnet_from_the_image()
    macs = [sum(layer.geometry.multiplications for layer in layers[1:]) for layers in (whole, alexnet)]
    assert macs[0] == macs[1] and whole[0].activation == 1


def test_what_sigma_is_short_of_is_loading():
    """What the published cycles have beyond a cycle for each chunk and column, over ours for loading: 1.1 to 1.21."""
    for row in inputs.rows("sigma.csv"):
        m, n, k, cycles = (int(row[key]) for key in ("M", "N", "K", "cycles"))
        cuts = [128] * (k // 128) + [k % 128] * (k % 128 > 0)
        steps = sum(-(-round(0.2 * m * cut) // 16384) * n for cut in cuts)
        assert 1.1 < (cycles - steps) / (0.2 * m * k / 128) < 1.21


def test_masks_of_eyeriss_are_read_channels_innermost():
    """Read as channels first they would give other cycles: what the published ones tell apart."""
    machine = load_machine(inputs.FOLDER / "eyeriss-v2-pe.yaml").accelerator
    _, conv, theirs, _ = next(inputs.eyeriss_layers())
    wrong = replace(conv, input=conv.input.transpose(0, 2, 3, 1).reshape(conv.input.shape), operands=None)
    assert machine.run(conv).cycles == theirs != machine.run(wrong).cycles


def test_without_names_all_are_compared_and_an_unknown_one_is_refused(monkeypatch):
    short = {name: ("", lambda jobs, name=name: Validation(name, "", "", "")) for name in ("a", "b")}
    monkeypatch.setattr(catalogue, "VALIDATIONS", short)
    assert [v.name for v in validate()] == ["a", "b"] and [v.name for v in validate(["b", "b"])] == ["b"]
    with pytest.raises(AccelsimError, match="validation: must be one of a, b, got c"):
        validate(["c"])


# The command -------------------------------------------------------------------------------------------------------


def test_validate_prints_and_writes_ours_theirs_and_a_verdict(tmp_path, capsys):
    assert cli.main(["validate", "eyeriss-v2-pe", "--quiet", "--out", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"L07 +1,702,140 +1,702,140 +\+0\.0 % +none +exact +– +agrees", printed)
    files = ["manifest.sha256", *(f"validation.{ending}" for ending in ("csv", "json", "md"))]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == files
    table = pd.read_csv(tmp_path / "out" / "validation.csv")
    assert table["ours"].tolist() == table["theirs"].tolist() and len(table) == 8
    data = json.loads((tmp_path / "out" / "validation.json").read_text(encoding="utf-8"))
    assert data["holds"] and data["provenance"]["command"][:2] == ["accelsim", "validate"]
    assert "## A PE of Eyeriss v2" in (tmp_path / "out" / "validation.md").read_text(encoding="utf-8")


def test_one_that_should_agree_and_does_not_gives_exit_code_1(monkeypatch, capsys):
    monkeypatch.setattr(scnn, "NETWORKS", {"alexnet": ("AlexNet", 2.7)})
    monkeypatch.setattr(scnn, "DENSITIES", {})
    assert cli.main(["validate", "scnn", "--jobs", "2"]) == 1
    assert "DIFFERS" in capsys.readouterr().out
    assert cli.main(["validate", "scnn", "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["holds"] is False


def test_bad_names_and_folders_are_one_line(tmp_path, capsys):
    for arguments, line in (
        (["scn"], "validation: must be one of scnn, scnn-rules, .*, got scn"),
        (["scnn", "--out", "/dev/null/x"], r".*: cannot write: .*"),
    ):
        assert cli.main(["validate", *arguments]) == 2
        assert re.fullmatch(f"accelsim: error: {line}\n", capsys.readouterr().err)


def test_tensordash_is_shown_on_our_inputs_without_a_verdict(found):
    """ReLU and pooling alone leave most zeros; batch norm makes the gradients of convolutions dense."""
    validation = found["tensordash"]
    (check,) = validation.checks
    assert check.verdict == SHOWN and check.theirs == 1.95 and "ours" in check.note
    steps = [float(row[-1].removesuffix("×")) for row in validation.tables[0].rows]
    assert check.ours == pytest.approx(sum(steps) / 4, abs=0.01) and all(step >= 1 for step in steps)
    assert steps[0] == max(steps) and [row[2] for row in validation.tables[0].rows[1:3]] == ["1.00×", "1.00×"]
