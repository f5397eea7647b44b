"""Forward products and their gradients: each product's autograd node is tagged with its record, and says what ran."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from accelsim.capture.products import Form, Product

KEY = "accelsim"  # in a node's metadata: a list of records
IN_FUNCTION = (-1, -1)  # instead of a record's inputs, where a custom Function is the node


@dataclass(eq=False)
class Record:
    """One product of a forward pass, until its gradients have come.

    Parameters
    ----------
    name : str
        Of the module that was running, with what it multiplied.
    operation : str
    inputs : (int, int)
        Which inputs of the autograd node are its operands.
    multiplications : int
    form : Form, optional
        None where it is not stored, for the reason ``reason``.
    layer : str
        Its name in the trace.
    operands : tuple of int
        Addresses of its operands' storage.
    held : Product, optional
        Of a product of a backward pass that may be differentiated again: it is written if it is.
    is_loose : bool
        Whether the products of its gradients are layers of their own, as of a convolution differentiated twice.
    rows : Rows, optional
        The samples of its result; of fused attention, the indices stored.
    parts : list of Record
        Of fused attention, its two products.
    ran : bool
        Whether its gradients came already; once more they are layers of their own.
    """

    name: str
    operation: str
    inputs: tuple[int, int]
    multiplications: int
    form: Form | None = None
    reason: str = ""
    layer: str = ""
    operands: tuple[int | None, ...] = ()
    held: Product | None = None
    gradient: torch.Tensor | None = None
    is_loose: bool = False
    ran: bool = False
    events: list[int] = field(default_factory=list)
    rows: Any = None
    parts: list[Record] = field(default_factory=list)


Hook = Callable[[Record, "Sequence[torch.Tensor | None]"], None]


def tag(tensor: torch.Tensor, record: Record, begins: Hook, ends: Hook) -> list[Any]:
    """Mark the node that made a tensor; gives the handles of its hooks, to remove."""
    node = tensor.grad_fn
    if node is None:
        return []
    put_records(node, [record])
    index = tensor.output_nr
    return [
        node.register_prehook(lambda gradients: begins(record, [gradients[index]])),
        node.register_hook(lambda inputs, _: ends(record, inputs)),
    ]


def put_records(node: torch.autograd.graph.Node, records: list[Any]) -> None:
    """The products that a node is of."""
    _metadata(node)[KEY] = records


def _metadata(node: torch.autograd.graph.Node) -> dict[str, Any]:
    known: Any = node.metadata  # declared as a method, and none
    metadata: dict[str, Any] = known
    return metadata


def records_here() -> list[Record] | None:
    """The records of the node whose backward pass is running, if it has some."""
    node = torch._C._current_autograd_node()
    return None if node is None else _metadata(node).get(KEY)


def operand_of(record: Record, addresses: Sequence[int | None]) -> int | None:
    """Which of a record's operands a product has as one of its own; None where neither is there."""
    for which, address in enumerate(record.operands):
        if address is not None and address in addresses:
            return which
    return None
