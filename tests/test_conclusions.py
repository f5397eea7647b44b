"""Is what the pages conclude what their tables show? The tables are made by commands, and held to them elsewhere.

A figure in a sentence is found by the words around it, and has to be the table's within 4 %, or half of its last digit.
"""

import re
from pathlib import Path

import pytest

import accelsim

ROOT = Path(__file__).parent.parent
COLUMNS = ("multipliers", "fwd", "input_grad", "weight_grad", "step", "gain", "shape", "offchip", "onchip", "energy")


def comparison():
    """By Top-K and machine the columns of what ``accelsim compare`` prints, as docs/machines.md shows it."""
    page = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
    tables = {}
    for sparsity, body in re.findall(
        r"^Speedup over .*?Top-K (\d+) %.*?\n(.*?)(?=^Speedup over|```)", page, re.S | re.M
    ):
        rows = re.findall(r"^  ([\w-]+) +([\d,.× ]+?)  [AWG|*–° ]+$", body, re.M)
        tables[int(sparsity)] = {name: dict(zip(COLUMNS, numbers(cells), strict=True)) for name, cells in rows}
    return tables


def numbers(text):
    return [float(number.replace(",", "")) for number in re.findall(r"\d[\d,]*\.?\d*", text)]


TABLES = comparison()


def of(sparsity, machine, column):
    return TABLES[sparsity][machine][column]


ARRAYS = ("pe16x16", "pe8x8", "scnn")


def energies(sparsity):
    """Of tiled machines that skip zeros of weights."""
    others = ("ampere", "cnvlutin", "dcnn", "dadiannao", *ARRAYS)
    names = [name for name in TABLES[sparsity] if name not in others and not name.startswith("ideal")]
    return [of(sparsity, name, "energy") for name in names]


def extremes(column, arrays, sparsities=(0, 80, 90)):
    """The least and the most of the arrays, or of all others."""
    found = [TABLES[s][name][column] for s in sparsities for name in TABLES[s] if (name in ARRAYS) == arrays]
    return [min(found), max(found)]


# Page, words with a figure in each parenthesis, what the figures have to be.
CLAIMS = [
    (
        "docs/machines.md",
        r"gains (\S+)× on the array of Table 6, (\S+)× and (\S+)× on SCNN's two, (\S+)× on Cambricon-X, (\S+)× on the "
        r"outer products of dstc, (\S+)× on TensorDash, (\S+)× to (\S+)× on",
        lambda: [
            *(of(90, name, "gain") for name in ("pe16x16", "pe8x8", "scnn", "cambricon-x", "dstc", "tensordash")),
            min(of(90, name, "gain") for name in ("bit-tactical", "bit-tactical-l8", "sigma", "cnvlutin")),
            max(of(90, name, "gain") for name in ("bit-tactical", "bit-tactical-l8", "sigma", "cnvlutin")),
        ],
    ),
    (
        "docs/machines.md",
        r"Table 6 keeps (\S+) of its multipliers busy on dense layers, .*? SCNN's (\S+);",
        lambda: [of(90, "pe16x16", "shape"), of(90, "pe8x8", "shape")],
    ),
    (
        "docs/machines.md",
        r"Cambricon-X with 256 multipliers does by (\S+)×, the 8×8 array by (\S+)×, TensorDash by (\S+)×",
        lambda: [of(90, name, "step") for name in ("cambricon-x", "pe8x8", "tensordash")],
    ),
    (
        "docs/machines.md",
        r"that pass is (\S+)× at 80 % and (\S+)× at 90 %, where skipping every zero would be (\S+)× and (\S+)×; "
        r"TensorDash, which gains less than half as much over itself, is at (\S+)× and (\S+)×",
        lambda: [of(s, name, "fwd") for name in ("pe16x16", "ideal", "tensordash") for s in (80, 90)],
    ),
    (
        "docs/machines.md",
        r"Tiled machines and bounds move (\S+) to (\S+) MB off chip at any sparsity: .*? scatter their products move "
        r"(\S+) to (\S+) MB,",
        lambda: [*extremes("offchip", False), *extremes("offchip", True)],
    ),
    (
        "docs/machines.md",
        r"90 % takes (\S+) times fewer cycles than at 0 % on the array of Table 6 and (\S+) times less energy",
        lambda: [
            of(90, "pe16x16", "step") / of(0, "pe16x16", "step"),
            of(0, "pe16x16", "energy") / of(90, "pe16x16", "energy"),
        ],
    ),
    (
        "docs/machines.md",
        r"machines that skip zeros of weights take (\S+) to (\S+) mJ there, those arrays (\S+) to (\S+) mJ\. DaDianNao "
        r"takes (\S+) mJ at any sparsity, most of it for (\S+) GB",
        lambda: [
            min(energies(90)), max(energies(90)), *extremes("energy", True, [90]),
            of(90, "dadiannao", "energy"), of(0, "dadiannao", "onchip") / 1e3,
        ],
    ),
    (
        "docs/machines.md",
        r"TensorDash gains (\S+)× at 0 %\*\*, from ReLU's zeros, (\S+)× at 80 % and (\S+)× at 90 %",
        lambda: [of(s, "tensordash", "gain") for s in (0, 80, 90)],
    ),
    (
        "docs/machines.md",
        r"so that its dense self is at (\S+)\. In the input",
        lambda: [of(0, "cnvlutin", "shape")],
    ),
    (
        "docs/table6.md",
        r"dense, it keeps (\S+) of its multipliers busy, .*? forward pass is (\S+)× at 0 %, (\S+)× at 80 %, where "
        r"the paper has 3\.3×, and (\S+)× at 90 %, .*? step is (\S+)× and (\S+)×\. .*? TensorDash is (\S+)× at "
        r"80 %, on Cambricon-X (\S+)×,",
        lambda: [
            of(90, "pe16x16", "shape"),
            *(of(s, "pe16x16", "fwd") for s in (0, 80, 90)),
            *(of(s, "pe16x16", "step") for s in (80, 90)),
            *(of(80, name, "step") for name in ("tensordash", "cambricon-x")),
        ],
    ),
    (
        "README.md",
        r"forward pass is (\S+)× at 80 % and (\S+)× at 90 % of what as many multipliers do that",
        lambda: [of(s, "pe16x16", "fwd") for s in (80, 90)],
    ),
    (
        "README.md",
        r"a step gains (\S+)× on the array of Table 6 and (\S+)× on TensorDash, whose shapes keep (\S+) and (\S+)",
        lambda: [of(90, n, c) for c in ("gain", "shape") for n in ("pe16x16", "tensordash")],
    ),
]  # fmt: skip


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim[1][:40])
def test_what_a_page_concludes_is_what_its_table_shows(claim):
    page, words, expected = claim
    text = re.sub(r"\s+", " ", (ROOT / page).read_text(encoding="utf-8"))
    found = re.search(words, text)
    assert found, f"{page} no longer says: {words}"
    for said, shown in zip(found.groups(), expected(), strict=True):
        digits = len(said.partition(".")[2])
        assert abs(float(said) - shown) <= max(0.04 * shown, 0.5 * 10**-digits), (said, shown)


def test_few_machines_beat_what_is_always_busy():
    """ "Few" and "hardly" of the page, as bounds that other figures would break."""
    faster = {s: {n for n, row in TABLES[s].items() if row["step"] > 1.2 and not n.startswith("ideal")} for s in TABLES}
    assert faster[0] == {"dstc"}
    assert faster[80] == {"dstc", "cambricon-x", "scnn", "pe8x8", "tensordash", "cambricon-x-4096"}
    assert {"pe16x16", "bit-tactical", "bit-tactical-l8", "ampere", "cnvlutin"}.isdisjoint(faster[90])
    for row in ({**table}[name] for table in TABLES.values() for name in ("dadiannao", "dcnn", "ampere")):
        assert row["gain"] == 1
    for s in (80, 90):
        table6, tensordash = (of(s, n, "fwd") / of(0, n, "fwd") for n in ("pe16x16", "tensordash"))
        assert tensordash < table6 / 2
    for name in ("dstc", "cambricon-x"):
        assert of(90, name, "shape") >= 0.97


def test_the_best_shape_is_not_the_best_gain():
    """The three machines that gain most at 90 % have dense selves that are busy for less than 0.6."""
    gain = sorted((n for n in TABLES[90] if not n.startswith("ideal")), key=lambda n: -of(90, n, "gain"))
    assert set(gain[:3]) == {"pe16x16", "pe8x8", "scnn"}
    assert all(of(90, name, "shape") < 0.6 for name in gain[:3])


def generated(script):
    """The rows of the table that a script wrote into docs/machines.md: cells as text, by the first ones."""
    page = (ROOT / "docs" / "machines.md").read_text(encoding="utf-8")
    _, _, *rows = page.partition(f"<!-- begin: benchmarks/{script} -->\n")[2].partition("<!-- end")[0].splitlines()
    return [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]


def test_bits_left_out_are_what_bit_level_machines_gain():
    """Half the bits: twice on machines that are serial in one operand, four times in both. Ones counted gain at 16."""
    rows = {(row[0], row[1]): [float(cell.rstrip("×")) for cell in row[2:8]] for row in generated("bit_widths.py")}
    for (name, _), cells in rows.items():
        both = name in ("loom", "laconic")
        for wide, narrow in ((cells[0], cells[1]), (cells[1], cells[2]), (cells[3], cells[4]), (cells[4], cells[5])):
            assert (3.5 < narrow / wide < 5.2) if both else (1.8 < narrow / wide < 2.8), name
    dense = {name: cells[0] for (name, top_k), cells in rows.items() if top_k == "0 %"}
    assert all(dense[name] < 1.3 for name in ("stripes", "shapeshifter", "loom", "tclp"))
    assert all(dense[name] > 2 for name in ("pragmatic", "laconic", "tcle"))
    for name in ("tclp", "tcle"):
        assert rows[name, "80 %"][0] / dense[name] == pytest.approx(1.7, abs=0.15)


def test_gains_differ_less_between_networks_than_shapes_do():
    """Machine by machine that runs all: how far the greatest is from the least."""
    table = {row[0]: [numbers(cell) for cell in row[1:]] for row in generated("networks.py") if "needs" not in str(row)}
    assert len(table) > 12
    gains, shapes = (
        sorted(max(cell[at] for cell in row) / min(cell[at] for cell in row) for row in table.values()) for at in (1, 2)
    )
    assert gains[len(gains) // 2] < shapes[len(shapes) // 2] and gains[-1] < shapes[-1]
    speedup, gain, shape = table["pe16x16"][2]
    assert speedup == pytest.approx(0.14, abs=0.005) and gain > 2 and shape < 1 / 15
    assert all(table[name][2][2] > 0.8 for name in ("dadiannao", "bit-tactical", "tensordash", "cambricon-x", "dstc"))
    assert [table["ideal"][at][0] for at in (0, 2)] == [pytest.approx(6.0, abs=0.05), pytest.approx(3.5, abs=0.05)]


def test_stripes_gains_the_bits_that_a_layer_leaves_out(monkeypatch):
    """Behind a ReLU there is no sign: of 16, 8 and 4 bits 15, 7 and 3 are left, each a cycle where 16 would be."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import bit_widths

    machine = accelsim.load_machine("stripes.yaml", memory="none")
    with accelsim.open_trace(bit_widths.TRACE) as trace:
        gains = bit_widths.gains(trace, machine, ["layer3.2.conv2"])
    for width, bits in ((16, 15), (8, 7), (4, 3)):
        assert gains["dense", width]["fwd"] == pytest.approx(16 / bits)
