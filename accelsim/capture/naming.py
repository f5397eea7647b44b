"""Names of products: that of the module whose weight it is, or of the module that ran and what it multiplied."""

from __future__ import annotations

import torch

from accelsim.capture.calls import Frame
from accelsim.capture.products import Product

WEIGHTS = ("weight", "weight_orig", "weight_g", "weight_v")  # what pruning and normalisation make of "weight"


def product_name(frame: Frame | None, parameter: str | None, product: Product) -> str:
    """``layer``, ``attention:in_proj_weight``, or ``attention:matmul`` of two activations."""
    path = "step" if frame is None or frame.name is None else frame.name
    what = "conv" if product.convolution else "matmul"
    tied = None if frame is None else _own_parameter(frame.module, product)
    if tied is not None:  # of another storage than the model's, where FSDP has put its parts together
        owner, tail = path, tied
    elif parameter is None:
        return f"{path}:{what}"
    elif ".parametrizations." in f".{parameter}":
        owner, _, rest = f".{parameter}".partition(".parametrizations.")
        owner, tail = owner.removeprefix("."), rest.split(".")[0]
    else:
        owner, _, tail = parameter.rpartition(".")
    owner = owner or path
    return owner if tail in WEIGHTS else f"{owner}:{tail}"


def _own_parameter(module: torch.nn.Module, product: Product) -> str | None:
    """The module's own parameter that is multiplied as it is, maybe tied to another module's."""
    for name, parameter in module._parameters.items():
        for tensor in (product.second, product.first):
            if parameter is not None and _same_storage(parameter, tensor):
                return name
    return None


def _same_storage(a: torch.Tensor, b: torch.Tensor) -> bool:
    try:
        return bool(a.untyped_storage()._cdata == b.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return False
