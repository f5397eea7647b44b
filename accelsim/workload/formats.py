"""The formats of other tools: one row each. Reader, command, help, page and tests loop over them."""

from __future__ import annotations

from dataclasses import dataclass

ENOUGH = 0.95  # of the multiplications: a file of which less is read says so


@dataclass(frozen=True)
class Format:
    """One format.

    Parameters
    ----------
    name : str
        As ``--format`` takes it.
    title : str
        What it is, for help and page.
    endings : tuple of str
        Of its files.
    shapes, weights, activations : str
        Where they come from, for the page: what the format can hold.
    reader : str, optional
        The module in ``importers`` with a function ``read``, and ``tells`` where another format has the same ending.
    writer : str, optional
        The module in ``exporters`` with a function ``files``.
    options : tuple of str
        Those of OPTIONS that its reader takes.
    is_layer : bool
        Whether a file holds one layer, so that a folder of them is a network.
    """

    name: str
    title: str
    endings: tuple[str, ...]
    shapes: str
    weights: str
    activations: str
    reader: str | None = None
    writer: str | None = None
    options: tuple[str, ...] = ()
    is_layer: bool = False


# What a reader may be told. By name, with _ for -: what the command's argument is called, and its help.
OPTIONS = {
    "topology": ("FILE", "strides and sizes of maps, for files without: any other file that can be imported"),
    "tensors": ("DIR", "DNNsim's .npy files (default: net_traces/NETWORK, or beside the model)"),
    "size": ("NAME=N,…", "sizes that the file leaves open, by the name that it has for them, or tokens"),
    "map": ("LAYER=TENSOR,…", "the tensors of layers that are called otherwise in the file"),
    "entry": ("KEY", "which of the models in a checkpoint, such as model_ema"),
    "batch_axis": ("N", "the axis of the first input that is the samples (default: the first, 0)"),
}

FORMATS = (
    Format(
        "scalesim",
        "SCALE-Sim topologies of versions 1 to 3, convolutions and `-i gemm`; with `--topology`, a `.cfg`",
        (".csv", ".xlsx", ".cfg"),
        shapes="from the file",
        weights="N:M pattern where given, else drawn",
        activations="drawn",
        reader="scalesim",
        writer="scalesim",
        options=("topology", "size"),
    ),
    Format(
        "dnnsim",
        "DNNsim's `model.csv`, `trace_params.csv` or `conv_params.csv`, and its `.npy` files",
        (),
        shapes="from both",
        weights="from the file",
        activations="from the file; gradients in a training layout",
        reader="dnnsim",
        options=("tensors",),
    ),
    Format(
        "onnx",
        "ONNX models, with `pip install 'accelsim-sparse[import]'`",
        (".onnx",),
        shapes="by ONNX's shape inference",
        weights="from the file, constant expressions evaluated",
        activations="drawn",
        reader="onnx",
        options=("size", "batch_axis"),
    ),
    Format(
        "tflite",
        "models of TensorFlow Lite",
        (".tflite",),
        shapes="from the file",
        weights="from the file",
        activations="drawn",
        reader="tflite",
    ),
    Format(
        "trace",
        "accelsim's own traces",
        (".npz",),
        shapes="from the file",
        weights="drawn",
        activations="drawn",
        reader="trace",
    ),
    Format(
        "pytorch",
        "checkpoints: state_dict, Lightning, whole models, TorchScript, safetensors (in several files too), arrays",
        (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".npz", ".json"),
        shapes="from a `--topology`",
        weights="from the file, as its forward pass has them",
        activations="drawn",
        reader="pytorch",
        options=("topology", "map", "entry"),
    ),
    Format(
        "timeloop",
        "Timeloop problems of versions 0.3 and 0.4, convolutions and matrices, told by projection",
        (".yaml", ".yml"),
        shapes="from the file",
        weights="drawn, of the density given",
        activations="drawn, of the density given",
        reader="timeloop",
        writer="timeloop",
        is_layer=True,
    ),
    Format(
        "timeloop-0.3",
        "the same as version 0.3 spells them, to write; `timeloop` reads both",
        (".yaml",),
        shapes="from the file",
        weights="drawn, of the density given",
        activations="drawn, of the density given",
        writer="timeloop_v3",
    ),
    Format(
        "fibertree",
        "weights, activations and gradients as fibertrees in YAML, as TeAAL's tools take them",
        (".yaml",),
        shapes="from the file",
        weights="from the file",
        activations="from the file",
        writer="fibertree",
    ),
    Format(
        "zigzag",
        "workloads of ZigZag and Stream",
        (".yaml", ".yml"),
        shapes="from the file",
        weights="drawn",
        activations="drawn",
        reader="zigzag",
    ),
    Format(
        "maestro",
        "MAESTRO's networks",
        (".m",),
        shapes="from the file",
        weights="drawn",
        activations="drawn",
        reader="maestro",
    ),
    Format(
        "stonne",
        "STONNE's command lines",
        (".sh", ".txt"),
        shapes="from the file",
        weights="drawn, of the sparsity given",
        activations="drawn, of the sparsity given",
        reader="stonne",
    ),
    Format(
        "onnxim",
        "ONNXim's lists of models, and language models by their sizes",
        (".json",),
        shapes="from the file, or its ONNX models",
        weights="drawn, or the ONNX model's",
        activations="drawn",
        reader="onnxim",
        options=("size",),
    ),
    Format(
        "smtx",
        "sparse matrices of DLMC, one a layer",
        (".smtx",),
        shapes="a linear layer, or from a `--topology`",
        weights="from the file",
        activations="drawn",
        reader="smtx",
        writer="smtx",
        options=("topology", "size"),
        is_layer=True,
    ),
    Format(
        "mtx",
        "MatrixMarket, one matrix a layer",
        (".mtx",),
        shapes="a linear layer, or from a `--topology`",
        weights="from the file",
        activations="drawn",
        reader="mtx",
        writer="mtx",
        options=("topology", "size"),
        is_layer=True,
    ),
    Format(
        "mask",
        "masks as text, rows of 0 and 1, one a layer",
        (".txt",),
        shapes="a linear layer, or from a `--topology`",
        weights="from the file",
        activations="drawn",
        reader="mask",
        writer="mask",
        options=("topology", "size"),
        is_layer=True,
    ),
)


def readers() -> list[Format]:
    """The formats that can be read."""
    return [row for row in FORMATS if row.reader]


def writers() -> list[Format]:
    """The formats that can be written."""
    return [row for row in FORMATS if row.writer]


def named(name: str, rows: list[Format]) -> Format | None:
    """The row of that name; None if there is none."""
    return next((row for row in rows if row.name == name), None)


def listed(rows: list[Format]) -> str:
    """``scalesim (.csv .xlsx), onnx (.onnx), …``"""
    return ", ".join(f"{row.name} ({' '.join(row.endings)})" if row.endings else row.name for row in rows)


def page() -> str:
    """The table of docs/importers.md, in Markdown."""
    lines = ["| format | what | shapes | weights | activations, gradients | out |", "|---|---|---|---|---|---|"]
    for row in FORMATS:
        endings = ", ".join(f"`{ending}`" for ending in row.endings) or "a folder"
        cells = (f"`{row.name}`", f"{row.title} ({endings})", row.shapes, row.weights, row.activations)
        if not row.reader:
            cells = (*cells[:2], "not read", "", "")
        lines.append(f"| {' | '.join(cells)} | {'yes' if row.writer else ''} |")
    return "\n".join(lines) + "\n"
