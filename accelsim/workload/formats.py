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
    "size": ("NAME=N,…", "sizes that the file leaves open, by the name that it has for them"),
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
        "ONNX models, with `pip install 'accelsim[import]'`",
        (".onnx",),
        shapes="by ONNX's shape inference",
        weights="from the file, constant expressions evaluated",
        activations="drawn",
        reader="onnx",
        options=("size", "batch_axis"),
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
        "Timeloop problems",
        (".yaml", ".yml"),
        shapes="from the file",
        weights="drawn",
        activations="drawn",
        writer="timeloop",
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
