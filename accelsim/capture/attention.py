"""Fused attention: the kernel runs, and its products are computed again for the samples that are stored.

A fused kernel shows neither the probabilities P nor the gradient of the scores. From q, k, v and the gradient of the
output both follow: P = softmax(scale·q·kᵀ + mask), dS = P·(dP − Σ P·dP), dP = dO·vᵀ. They agree with the kernel's
within rounding. Dropout within the kernel hides which of P it dropped; then P without dropout is stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from accelsim.capture.events import Events
from accelsim.capture.pairing import IN_FUNCTION, Record, records_here
from accelsim.capture.products import Keep, NoForm, Product, matrix_form
from accelsim.capture.samples import Rows, tensors_in

FORWARD = tuple(
    f"_scaled_dot_product_{kind}"
    for kind in (
        "flash_attention_for_cpu", "flash_attention", "efficient_attention", "cudnn_attention",
        "fused_attention_overrideable",
    )
)  # fmt: skip
BACKWARD = tuple(f"{name}_backward" for name in FORWARD)


@dataclass(frozen=True, eq=False)
class Attention:
    """The arguments of a fused attention, of some samples."""

    query: torch.Tensor
    key: torch.Tensor
    value: torch.Tensor
    mask: torch.Tensor | None
    is_causal: bool
    scale: float
    dropout: float
    gradient: torch.Tensor | None

    @classmethod
    def of(cls, func: Any, args: Sequence[Any], kwargs: dict[str, Any]) -> Attention:
        """From the arguments of the operation, forward or backward."""
        given = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        query, key, value = given["query"], given["key"], given["value"]
        scale = given.get("scale")
        heads = query.shape[1] // key.shape[1]
        if heads > 1:  # grouped queries
            key, value = (t.repeat_interleave(heads, dim=1) for t in (key, value))
        return cls(
            query, key, value, given.get("attn_mask", given.get("attn_bias")), bool(given.get("is_causal", False)),
            1 / math.sqrt(query.shape[-1]) if scale is None else scale, float(given.get("dropout_p", 0.0)),
            given.get("grad_out", given.get("grad_out_")),
        )  # fmt: skip

    @property
    def multiplications(self) -> tuple[int, int]:
        """Of q·kᵀ and of P·v."""
        rows = math.prod(self.query.shape[:-1]) * self.key.shape[-2]
        return rows * self.query.shape[-1], rows * self.value.shape[-1]

    def of_samples(self, samples: Sequence[int]) -> Attention:
        """Those of some samples."""
        index = torch.as_tensor(list(samples), device=self.query.device)

        def pick(t: torch.Tensor | None) -> Any:
            return t if t is None or t.ndim < 4 or len(t) == 1 < len(self.query) else t.index_select(0, index)

        query, key, value, mask = (pick(t) for t in (self.query, self.key, self.value, self.mask))
        return Attention(query, key, value, mask, self.is_causal, self.scale, self.dropout, pick(self.gradient))

    def probabilities(self) -> torch.Tensor:
        """P, in the dtype of the query."""
        scores = (self.query.float() @ self.key.float().mT) * self.scale
        if self.is_causal:
            later = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(later, -math.inf)
        if self.mask is not None:
            scores = scores.masked_fill(~self.mask, -math.inf) if self.mask.dtype == torch.bool else scores + self.mask
        return scores.softmax(-1).to(self.query.dtype)

    def score_gradient(self, probabilities: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
        """The gradient of q·kᵀ, from that of the output."""
        p = probabilities.float()
        dp = gradient.float() @ self.value.float().mT
        return (p * (dp - (p * dp).sum(-1, keepdim=True)) * self.scale).to(self.query.dtype)


class Shadow:
    """The two products of each fused attention, and their gradients."""

    def __init__(self, events: Events):
        self._events = events

    def forward(self, call: Attention, name: str, output: Any) -> None:
        """q·kᵀ and P·v, computed again for the samples that are stored."""
        frame = self._events.calls.frame
        path = "step" if frame is None else frame.name
        records = []
        rows = self._events.lineage.find(call.query)
        for part, n in zip(("qk", "av"), call.multiplications, strict=True):
            self._events.book.multiplications += n
            records.append(Record(f"{path}:{part}", name, (0, 1), n))
        try:
            if self._events.calls.is_foreign:
                raise NoForm("outside the model")
            if rows is None or rows.axis:
                raise NoForm("samples not known")
            reason = self._events.book.reason_against(records[0].name)
            if reason:
                raise NoForm(reason)
            keep, plain = self._events.lineage.keep(rows)
            chosen, even = keep.rows(plain[0] or rows)
        except NoForm as error:
            for record in records:
                record.reason = str(error)
                self._events.book.leave(record.reason, name, record.multiplications)
        else:
            some = call.of_samples(chosen.reshape(-1).tolist())
            p = some.probabilities()
            batch = len(call.query) if not even else keep.batch
            for record, operands in zip(records, ((some.query, some.key.mT), (p, some.value)), strict=True):
                self._store_shadow(record, Product(name, *operands, (0, 1)), chosen, batch)
        self._await(records, tensors_in([output])[0])

    def _store_shadow(self, record: Record, product: Product, chosen: np.ndarray, batch: int) -> None:
        count = len(chosen)
        rows = Rows(0, np.repeat(np.arange(count), chosen.shape[1]))
        form = replace(matrix_form(product, rows, rows, Keep(count, tuple(range(count)))), batch=batch)
        record.form = form = self._events.lineage.thinned(form)
        record.layer = self._events.book.begin(record.name, form, batch, "fwd")
        for k, tensor in enumerate((product.first, product.second)):
            self._events.book.write(record.layer, form.names[k], form.takes[k](tensor))
        record.rows = chosen

    def _await(self, records: list[Record], output: torch.Tensor) -> None:
        both = Record(records[0].name, records[0].operation, IN_FUNCTION, 0, is_loose=True)
        both.parts = records
        self._events.pending = both, output

    def backward(self, call: Attention, name: str) -> None:
        here = records_here() or []
        records = here[0].parts if here else []
        total = sum(call.multiplications) * 2
        self._events.book.multiplications += total
        stored = [record for record in records if record.form is not None]
        if not stored or stored[0].ran:
            reason = records[0].reason if records and records[0].reason else "not paired"
            self._events.book.leave(reason, name, total)
            return
        some = call.of_samples(stored[0].rows.reshape(-1).tolist())
        if some.gradient is None:
            return
        gradients = some.score_gradient(some.probabilities(), some.gradient), some.gradient
        for record, gradient in zip(stored, gradients, strict=True):
            record.ran = True
            if record.form is not None:
                self._events.book.write(record.layer, "gradient", record.form.takes[2](gradient))
                for which in (0, 1):
                    self._events.book.ran(record.layer, record.form.computes(which))
        self._events.came = True
