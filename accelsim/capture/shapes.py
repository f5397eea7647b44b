"""The layers of a PyTorch model, by running it once on an input of a shape: as the topology of a checkpoint."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from accelsim.capture.models import MODELS, build
from accelsim.capture.own import sides
from accelsim.errors import AccelsimError, ImportFormatError
from accelsim.workload.geometry import Geometry
from accelsim.workload.importers.base import Imported, ImportedLayer, LeftOut, Names

OTHERS = (
    nn.Conv1d,
    nn.Conv3d,
    nn.ConvTranspose1d,
    nn.ConvTranspose2d,
    nn.ConvTranspose3d,
    nn.RNNBase,
    nn.MultiheadAttention,
)


def topology(name: str, size: Sequence[int], *, allow_code: bool = False) -> Imported:
    """The convolutions and linear layers of a model, in the order in which they run; nothing of it is computed.

    Parameters
    ----------
    name : str
        As :func:`accelsim.capture.models.build` takes it.
    size : sequence of int
        Of the input, the batch first.
    allow_code : bool
        Whether a model that is not one of ``MODELS`` may be imported, which runs its code.

    Raises
    ------
    AccelsimError
        If there is no such model, it may not be imported, or fails on such an input.
    """
    if name not in MODELS and not allow_code:
        raise ImportFormatError(f"{name}: importing a model runs its code; --allow-code says that it may")
    names, layers, left_out = Names(), [], []

    def noted(label: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
            if not isinstance(module, (nn.Conv2d, nn.Linear)):
                left_out.append(LeftOut(label, f"{type(module).__name__}, which is not read of a model"))
                return
            kind = "conv" if isinstance(module, nn.Conv2d) else "linear"
            layers.append(ImportedLayer(names.add(label), kind, _geometry(module, inputs[0])))

        return hook

    with torch.device("meta"), torch.no_grad():
        model = build(name).eval()
        for label, module in model.named_modules():
            if isinstance(module, (nn.Conv2d, nn.Linear, *OTHERS)):
                module.register_forward_hook(noted(label or "layer"))
        try:
            model(torch.zeros(*size))
        except AccelsimError:
            raise
        except Exception as error:  # a user's model may raise anything
            shape = "×".join(map(str, size))
            raise ImportFormatError(
                f"{name}: must run on an input of {shape}: {' '.join(str(error).split())[:200]}"
            ) from error
    return Imported(Path(name), "model", name.rpartition(":")[2], tuple(layers), size[0], left_out=tuple(left_out))


def _geometry(module: nn.Conv2d | nn.Linear, input: torch.Tensor) -> Geometry:
    """Of a layer on an input; the tokens of a linear layer are a map of one column."""
    if isinstance(module, nn.Linear):
        return Geometry(input.shape[-1], input[0, ..., 0].numel(), 1, module.out_features, (1, 1))
    channels, height, width = input.shape[1:]
    rows, columns = module.kernel_size
    stride, dilation = (module.stride[0], module.stride[1]), (module.dilation[0], module.dilation[1])
    padding = sides(module, (rows, columns))
    return Geometry(
        channels, height, width, module.out_channels, (rows, columns), stride, padding, dilation, module.groups
    )
