"""Do SCALE-Sim's topologies become the layers that SCALE-Sim computes, in every dialect that it ships?"""

import zipfile
from math import ceil, prod

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from importing import CASES, CONV, SCALESIM, geometries, run, written

import accelsim
from accelsim.errors import ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers import read, to_trace
from accelsim.workload.patterns import Blocks

QUIET = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Layers, and multiplications by SCALE-Sim's own formula, by hand from the files.
REAL = {
    "alexnet": (5, "conv"),
    "mobilnet_paper": (28, "conv"),
    "UNet_maestro": (23, "conv"),
    "vit_s": (5, "linear"),
    "gnmt": (17, "linear"),
    "dlrm_fwd": (8, "linear"),
    "sparse_conv": (1, "conv"),
    "sparse_gemm": (2, "linear"),
}


def scalesim_macs(path):
    """What SCALE-Sim's topology_utils computes of a file, layer by layer."""
    text = path.read_text()
    rows = [row.split("#")[0].replace("\t" if "," not in text else ",", ",").split(",") for row in text.splitlines()]
    for row in rows[1:]:
        cells = [int(cell) for cell in row[1:8] if cell.strip().isdigit()]
        if len(cells) == 7:
            h, w, r, s, c, k, st = cells
            yield ceil((h - r + st) / st) * ceil((w - s + st) / st) * r * s * c * k
        elif len(cells) == 3:
            yield prod(cells)


@pytest.mark.parametrize("name", REAL)
def test_real_topologies_have_the_multiplications_that_scalesim_counts(name):
    path = SCALESIM / f"{name}.csv"
    got = read(path)
    count, kind = REAL[name]
    assert (len(got.layers), got.layers[1 % count].kind, got.network) == (count, kind, name)
    assert [layer.geometry.multiplications for layer in got.layers] == list(scalesim_macs(path))


def test_alexnet_is_alexnet():
    first, second, *_ = read(SCALESIM / "alexnet.csv").layers
    # ⌈(224 − 11 + 4) / 4⌉ = 55 outputs read 227 rows, 3 of them below the map.
    assert first.geometry == Geometry(3, 224, 224, 96, (11, 11), (4, 4), (0, 3, 0, 3))
    assert first.geometry.output == (55, 55)
    assert second.geometry == Geometry(96, 27, 27, 256, (5, 5))


def test_products_are_linear_layers_over_tokens():
    first = read(SCALESIM / "vit_s.csv").layers[0]
    assert (first.name, first.kind, first.geometry) == ("L0", "linear", Geometry(384, 196, 1, 192, (1, 1)))


def test_sparsity_is_n_of_m_weights():
    layers = read(SCALESIM / "sparse_gemm.csv").layers
    assert [layer.name for layer in layers] == ["GEMM_1", "GEMM_1#2"]
    trace = to_trace(read(SCALESIM / "sparse_gemm.csv"))
    for layer, kept in zip(trace.snapshots[0].layers, (3, 1), strict=True):
        assert (layer.tensor("weight").reshape(5, 4, 4).sum(axis=2) == kept).all()


def test_dialects_of_strides_depthwise_batch_and_comments(tmp_path):
    text = (
        "LAYER_NAME, Ifmap H, Ifmap W, Filter H, Filter W, Channels, Num Filters, Stride Height, Stride Width\n"
        "\n  a , 8, 9, 3, 3, 4, 5, 2, 1,  # comment\n"
        "DP_b, 8, 9, 3, 3, 4, 2, 1, 1, 2, 4,\n"  # as version 3 writes N:M behind the header's columns
    )
    a, b = written(tmp_path, text).layers
    assert a.geometry == Geometry(4, 8, 9, 5, (3, 3), (2, 1), (0, 1, 0, 0))
    assert b.geometry == Geometry(4, 8, 9, 8, (3, 3), groups=4) and "weight" in b.tensors
    batched = written(tmp_path, CONV + " Batch Size\nfc,1,1,1,1,7,3,1,6\n")
    assert (batched.samples, batched.layers[0].kind) == (6, "linear")


BAD = {
    "": "must describe a layer",
    "a, 1, 2\n": "line 1: header: must have the column 'layer name', got 'a, 1, 2'",
    "Layer, M, N\nx,1,2\n": "must have the column 'k'",
    "Layer, M, N, K, M\nx,1,2,3,4\n": "line 1: header: must have the column 'layer'",
    CONV + "\nx,5,5,3,3,2\n": "line 2: num filter: must be given",
    CONV + "\nx,5,B,3,3,2,6,1\n": "line 2: ifmap width: is open (--size B=N gives it): must be an integer of 1 or",
    CONV + "\nx,5,0,3,3,2,6,1\n": "ifmap width: must be an integer of 1 or more, got '0'",
    CONV + "\nx,5,5,3,3,2,6,99999999999999999999\n": "strides: must be an integer",
    CONV + "\nx,5,5,3,3,99999999,6,1\n": "line 2: channels: must be an integer in 1…16777216",
    CONV + "\nx,2,5,3,3,2,6,1\n": "line 2: filter height: must be at most that of the IFMAP, 2; got 3",
    CONV + "Sparsity\nx,5,5,3,3,2,6,1,half\n": "line 2: sparsity: must be N:M, got 'half'",
    CONV + "Sparsity\nx,5,5,3,3,2,6,1,4:2\n": "N ≤ M",
    CONV + "\n..,5,5,3,3,2,6,1\n": "line 2: layer name: must be a text",
}


@pytest.mark.parametrize("text", BAD, ids=BAD.values())
def test_a_bad_topology_is_refused_by_file_line_and_column(text, tmp_path):
    with pytest.raises(ImportFormatError, match=r"net\.csv") as caught:
        written(tmp_path, text)
    assert BAD[text] in str(caught.value) and "\n" not in str(caught.value)


PIECES = st.sampled_from(
    [CONV, "Layer,M,N,K", "x,5,5,3,3,2,6,1", "a,1,2,3", ",", "\n", "\t", "#", "DP", "-1", "1:2", "²"]
)


@settings(QUIET, max_examples=200)
@given(st.one_of(st.text(max_size=60), st.lists(PIECES, max_size=12).map("".join)))
def test_no_text_gives_a_traceback(tmp_path, text):
    try:
        written(tmp_path, text)
    except ImportFormatError as error:
        assert "\n" not in str(error)


# ---- one product in three notations


@pytest.mark.parametrize("machine", ["pe8x8.yaml", "dadiannao.yaml", "cambricon-x.yaml"])
def test_one_product_is_the_same_in_scalesims_three_notations(machine, tmp_path):
    """As M, N, K; as a map of one channel that the kernel spans; as tokens of many channels."""
    tables = {}
    for name in ("mnk", "conv", "chan"):
        got = read(CASES / "scalesim" / f"{name}.csv")
        assert geometries(got)["MLP"] == Geometry(512, 128, 1, 512, (1, 1))
        trace = to_trace(got, [0.5])
        layers = tuple(layer for layer in trace.snapshots[0].layers if layer.name == "first")
        tables[name] = accelsim.simulate(accelsim.load_machine(machine), trace, layers="first")["cycles"].tolist()
        assert layers and {layer.kind for layer in got.layers} == {"linear"}
    assert tables["mnk"] == tables["conv"] == tables["chan"]


SPANNED = {
    "1,1024,1,1024,1,4,1": Geometry(1024, 1, 1, 4, (1, 1)),
    "64,300,3,300,1,100,1": Geometry(300, 64, 1, 100, (3, 1)),  # words × embedding
    "300,64,300,5,1,100,2": Geometry(300, 64, 1, 100, (5, 1), (2, 1), (0, 1, 0, 0)),
    "9,40,1,40,1,7,4": Geometry(40, 3, 1, 7, (1, 1)),
    "8,40,1,40,1,7,4": Geometry(40, 3, 1, 7, (1, 1)),  # ⌈(8 − 1 + 4) / 4⌉, the last of zeros
    "28,28,5,5,1,6,1": Geometry(1, 28, 28, 6, (5, 5)),
    "6,6,6,6,256,9,1": Geometry(256, 6, 6, 9, (6, 6)),
}


@pytest.mark.parametrize("cells", SPANNED)
def test_a_kernel_that_spans_a_map_of_one_channel_is_its_channels(cells, tmp_path):
    (layer,) = written(tmp_path, f"{CONV}\nx,{cells},\n").layers
    assert layer.geometry == SPANNED[cells]
    assert layer.geometry.multiplications == sum(scalesim_macs(tmp_path / "net.csv"))


# ---- dialects


def told(got):
    return " | ".join(got.told)


def test_columns_of_scalesims_own_are_read_by_position_where_words_are_doubled():
    got = read(CASES / "scalesim" / "width_width.csv")
    assert geometries(got) == {"OCR": Geometry(8, 48, 16, 16, (3, 3))}
    assert "by SCALE-Sim's own order, since the header got 'Layer, IFMAP Width, IFMAP Width" in told(got)


LAYOUT = "Layer name," + ",".join(f"{name} Intraline Factor" for name in CONV.split(",")[1:8])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        (f"{LAYOUT}\nL0,8,128,1,8,1,128,1\n", "line 1: a layout of SCALE-Sim has no layers: its topology has"),
        ("Layer,Height,Width,Cycles,Stalls,Use,Reads,End\nx,9,8,3,3,3,5,1\n", "must have the column 'ifmap height'"),
        ("13,0,1,2,3,4,5,6\n14,1,2,3,4,5,6,7\n", "must have the column 'layer name', got '13"),
    ],
)  # fmt: skip
def test_files_beside_a_topology_are_none(text, rule, tmp_path):
    """SCALE-Sim's layouts, reports and traces have a name, or none, and numbers: no sizes."""
    with pytest.raises(ImportFormatError, match=rule):
        written(tmp_path, text)


def test_unknown_columns_and_quotes_are_no_obstacle():
    extra, quoted = (read(CASES / "scalesim" / f"{name}.csv") for name in ("extra_col", "quoted"))
    assert geometries(extra) == geometries(quoted) == {"Conv1": Geometry(8, 16, 16, 16, (3, 3))}
    assert "ignored: 'notes'" in told(extra) and not quoted.told


ONE = {"x": Geometry(3, 9, 8, 5, (3, 3))}
DIALECTS = {
    "unnamed columns": (CONV + ",,Eh,Ew\n,,,,\nx,9,8,3,3,3,5,1,,,7,6\n", "ignored: '', '', 'eh', 'ew'"),
    "a section": (f"{CONV}\n\nAlexNet,\nx,9,8,3,3,3,5,1, \n", "skipped: AlexNet"),
    "a header again": (f"{CONV}\n{CONV}\nx,9,8,3,3,3,5,1\n", "skipped: Layer name"),
    "no header": ("x,9,8,3,3,3,5,1\n", "no header"),
    "cells too many": (f"{CONV}\nx,9,8,3,3,3,5,1,1,\n", "ignored: 1 of x"),
    "a comma too early": (f"{CONV}\nx,9,8,3, ,3 3,5,1\n", "wrong place: x, 9, 8, 3, , 3 3, 5, 1"),
    "tabs": (f"{CONV}\nx,9,8,3,3,3,5,1\n".replace(",", "\t"), ""),
    "semicolons": (f"{CONV}\nx,9,8,3,3,3,5,1\n".replace(",", ";"), ""),
    "a quoted comma": (f'{CONV}\n"x",9,8,3,3,3,5,1 # "\n', ""),
}


@pytest.mark.parametrize("name", DIALECTS)
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_dialects_are_read_and_what_was_done_is_told(name, encoding, tmp_path):
    text, note = DIALECTS[name]
    (tmp_path / "net.csv").write_bytes((text + "# \xe9\xdf\n").encode(encoding))
    got = read(tmp_path / "net.csv")
    assert geometries(got) == ONE and note in told(got) and bool(got.told) == bool(note)


def test_l_m_n_k_is_a_gemm(tmp_path):
    assert geometries(written(tmp_path, "L,M,N,K,\nL0,256,768,64,\n")) == {"L0": Geometry(64, 256, 1, 768, (1, 1))}


def test_letters_are_sizes_that_the_user_gives(tmp_path, capsys):
    text = f"{CONV}\nigate, 1, B, 1, 1, H, H, 1,\n"
    got = written(tmp_path, text, size={"B": 4, "H": 32})
    assert geometries(got) == {"igate": Geometry(32, 1, 4, 32, (1, 1))}
    assert run("import", tmp_path / "net.csv", "--size", "B=4,H=32", "--out", tmp_path / "t.npz") == 0
    with pytest.raises(ImportFormatError, match=r"ifmap width: is open \(--size B=N gives it\)"):
        read(tmp_path / "net.csv", size={"H": 3})


def test_what_was_rounded_up_or_taken_as_depthwise_is_told(tmp_path):
    got = written(tmp_path, f"{CONV}\na,58,58,3,3,4,8,2,\nDP_b,28,28,3,3,8,1,1,\n")
    assert "a has 29×29 for 28×28" in told(got) and "depthwise, as SCALE-Sim does for the DP in the name: DP_b" in told(
        got
    )


def test_a_batch_of_its_own_is_a_layers(tmp_path):
    got = written(tmp_path, f"{CONV} Batch Size\nx,5,5,1,1,2,6,1,1\ny,5,5,1,1,2,6,1,3\nz,5,5,3,3,2,6,1,3\n")
    assert [layer.samples for layer in got.layers] == [1, 3, 3]
    assert [layer.samples for layer in to_trace(got).snapshots[0].layers] == [1, 3, 3]


# ---- sheets and configurations

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'


def workbook(path, sheets, strings=()):
    """An .xlsx of rows of cells, (type, value) each."""
    with zipfile.ZipFile(path, "w") as book:
        book.writestr("xl/sharedStrings.xml", f"<sst {MAIN}>{''.join(f'<si><t>{s}</t></si>' for s in strings)}</sst>")
        for number, rows in enumerate(sheets, start=1):
            cells = [
                "".join(f'<c r="{chr(65 + i)}{r}" t="{t}"><v>{v}</v></c>' for i, (t, v) in enumerate(row) if v != "")
                for r, row in enumerate(rows, start=1)
            ]
            text = "".join(f"<row>{row}</row>" for row in cells)
            book.writestr(
                f"xl/worksheets/sheet{number}.xml", f"<worksheet {MAIN}><sheetData>{text}</sheetData></worksheet>"
            )


def test_a_workbook_is_read_from_the_sheet_that_has_a_topology(tmp_path):
    header = [*CONV.rstrip(",").split(", "), "x"]
    row = [("s", 8), *(("n", n) for n in ("9.0", 8, 3, 3, 3, 5, 1))]
    workbook(tmp_path / "net.xlsx", [[[("str", "notes")]], [[("s", i) for i in range(8)], row]], header)
    assert geometries(read(tmp_path / "net.xlsx")) == ONE


@pytest.mark.parametrize(
    ("content", "rule"),
    [
        (b"PK", "must be an .xlsx workbook"),
        (b'<!DOCTYPE x [<!ENTITY a "b">]><worksheet/>', "must be plain XML"),
        (f'<worksheet {MAIN}><row><c r="ZZZ1"><v>1</v></c></row></worksheet>'.encode(), "cell ZZZ1: must come after"),
        (f'<worksheet {MAIN}><row><c t="s"><v>7</v></c></row></worksheet>'.encode(), "must be an .xlsx workbook"),
    ],
)
def test_a_bad_workbook_is_one_line(content, rule, tmp_path):
    if content == b"PK":
        (tmp_path / "net.xlsx").write_bytes(content)
    else:
        with zipfile.ZipFile(tmp_path / "net.xlsx", "w") as book:
            book.writestr("xl/worksheets/sheet1.xml", content)
    with pytest.raises(ImportFormatError, match=rule) as caught:
        read(tmp_path / "net.xlsx")
    assert "\n" not in str(caught.value)


CFG = (
    "[architecture_presets]\nArrayHeight : 8\n[sparsity]\nSparsitySupport : {}\nOptimizedMapping : {}\nBlockSize : 8\n"
)


@pytest.mark.parametrize(
    ("support", "mapping", "weights", "note"),
    [
        ("false", "true", [None, None], "SparsitySupport is off"),
        ("true", "false", [Blocks(3, 4), Blocks(1, 4)], "N:M is that of the topology"),
        ("true", "true", [Blocks(None, 8, 40)] * 2, "OptimizedMapping: N:8 with an N of each filter"),
    ],
)
def test_a_configuration_says_which_sparsity_holds(support, mapping, weights, note, tmp_path):
    (tmp_path / "a.cfg").write_text(CFG.format(support, mapping))
    got = read(tmp_path / "a.cfg", topology=SCALESIM / "sparse_gemm.csv")
    assert [layer.tensors.get("weight") for layer in got.layers] == weights and note in told(got)
    words = to_trace(got).provenance["tensors"]["GEMM_1#2"]
    assert words.startswith("weight drawn, " + ("N of each filter" if mapping == support == "true" else ""))


def test_a_bad_configuration_is_one_line(tmp_path):
    for text, rule in {
        "x": "must be a configuration",
        "[a]\nb=1": "format: the ending '.cfg' does not tell",
        CFG.format("maybe", "true"): "SparsitySupport: must be true or false, got 'maybe'",
        CFG.format("true", "true").replace("8", "1"): "BlockSize: must be an integer of 2 or more",
        CFG.format("true", "true"): "give them with --topology",
    }.items():
        (tmp_path / "a.cfg").write_text(text)
        with pytest.raises(ImportFormatError, match=rule):
            read(tmp_path / "a.cfg", "auto" if "[a]" in text else "scalesim")
