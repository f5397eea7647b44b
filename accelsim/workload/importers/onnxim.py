"""ONNXim's JSON: lists of models, which are ONNX files, and descriptions of language models.

A list names ``models/NAME/NAME.onnx``, beside the list or in the folder above. A language model is its sizes: for each
of its blocks the projections of query, key and value as one, that of the output, and the feed-forward layers, for
``--size tokens=N`` (default: max_seq_length). Products of activations are left out, named.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelsim.errors import ImportFormatError
from accelsim.workload.importers import onnx
from accelsim.workload.importers.base import Imported, ImportedLayer, LeftOut, Names, blame, product, read_text

MOST_BLOCKS = 1024


def read(path: Path, size: Mapping[str, int] | None = None) -> Imported:
    """Read a list of models, or a language model.

    Raises
    ------
    ImportFormatError
        One line that names the file and the key.
    """
    with blame(path):
        content = json.loads(read_text(path))
        if not isinstance(content, dict):
            raise ImportFormatError("must be an object, is none")
        if isinstance(content.get("models"), list):
            return _list(path, content["models"], size or {})
        return _language(path, content, size or {})


def tells(path: Path) -> bool:
    """Whether a file is either."""
    try:
        text = read_text(path) if path.is_file() and path.suffix.lower() == ".json" else ""
    except ImportFormatError:
        return False
    return '"models"' in text or '"num_hidden_layers"' in text


def _list(path: Path, models: list[Any], size: Mapping[str, int]) -> Imported:
    parts: list[Imported] = []
    for model in models:
        name = model.get("name") if isinstance(model, dict) else None
        if not isinstance(name, str) or "/" in name or name in ("", ".", ".."):
            raise ImportFormatError(f"models: must have a name each, got {str(model)[:60]}")
        batch = model.get("batch_size", 1)
        if type(batch) is not int or batch < 1:
            raise ImportFormatError(f"{name[:60]}: batch_size: must be an integer of 1 or more, got {str(batch)[:40]}")
        places = [
            folder / "models" / name / f"{name}.onnx" for folder in (path.absolute().parent, path.absolute().parents[1])
        ]
        file = next((place for place in places if place.is_file()), None)
        if file is None:
            raise ImportFormatError(f"{name[:60]}: models/{name[:60]}/{name[:60]}.onnx must be there, is not")
        part = onnx.read(file, dict(size))
        if part.samples == 1 and batch > 1:
            part = replace(part, samples=batch)
        parts.append(part)
    if not parts:
        raise ImportFormatError("models: must name a model, names none")
    if len(parts) == 1:
        return replace(parts[0], path=path, format="onnxim")
    names = Names()
    layers = [
        replace(layer, name=names.add(f"{part.network}/{layer.name}"), samples=part.samples_of(layer))
        for part in parts
        for layer in part.layers
    ]
    left_out = [left for part in parts for left in part.left_out]
    told = [f"{part.network}: {text}" for part in parts for text in part.told]
    return Imported(path, "onnxim", path.stem, tuple(layers), 1, None, tuple(left_out), tuple(told), is_network=False)


def _language(path: Path, content: Mapping[str, Any], size: Mapping[str, int]) -> Imported:
    def number(key: str, default: int | None = None) -> int:
        value = content.get(key, default)
        if type(value) is not int or value < 1:
            raise ImportFormatError(f"{key}: must be an integer of 1 or more, got {str(value)[:40]}")
        return value

    hidden, heads = number("hidden_size"), number("num_attention_heads")
    kv, inner, blocks = number("num_kv_heads", heads), number("intermediate_size"), number("num_hidden_layers")
    tokens = size.get("tokens") or number("max_seq_length")
    if hidden % heads or blocks > MOST_BLOCKS:
        raise ImportFormatError(f"hidden_size: must be a multiple of {heads} heads, in at most {MOST_BLOCKS} blocks")
    width = hidden // heads
    is_gated = str(content.get("ffn_type", "default")).lower() in ("llama", "gated", "swiglu")
    shapes = {"qkv": (hidden, hidden + 2 * kv * width), "out": (hidden, hidden)}
    shapes |= {"gate": (hidden, inner)} if is_gated else {}
    shapes |= {"up": (hidden, inner), "down": (inner, hidden)}
    layers, left_out = [], []
    for block in range(blocks):
        for name, (channels, filters) in shapes.items():
            layers.append(ImportedLayer(f"block{block}/{name}", "linear", product(tokens, channels, filters)))
        count = 2 * heads * tokens * tokens * width
        left_out.append(LeftOut(f"block{block}/attention", "products of two activations", count))
    told = (f"{tokens} tokens, of one sequence (--size tokens=N for another number)",)
    return Imported(path, "onnxim", path.stem, tuple(layers), left_out=tuple(left_out), told=told)
