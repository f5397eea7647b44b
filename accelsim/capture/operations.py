"""The products of a convolution and of a linear layer, and their two gradients, each operand one's own choice."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F


@dataclass(frozen=True)
class Convolve:
    """A convolution of known geometry; padding is (top, bottom, left, right)."""

    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    dilation: tuple[int, int]
    groups: int
    features: int = 1  # the output's axis of filters

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        begin, extra = self._split()
        x = F.pad(x, extra) if any(extra) else x
        return F.conv2d(x, weight, bias, self.stride, begin, self.dilation, self.groups)

    def gradients(
        self, gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: tuple[bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Of input and weight, each only where wanted; of an operand that no wanted one reads the shape will do.

        One call of ``convolution_backward``, as autograd itself makes: the input gradient reads ``weight`` only, the
        weight gradient ``x`` only, so each may be another than the forward pass used. ``torch.nn.grad`` makes two.
        """
        begin, extra = self._split()
        height, width = x.shape[2:]
        if wanted[1]:
            x = F.pad(x, extra) if any(extra) else x
        else:
            x = x.new_empty(1).expand(*x.shape[:2], height + extra[3], width + extra[1])
        to_x, to_weight, _ = torch.ops.aten.convolution_backward(
            gradient, x, weight, None, self.stride, begin, self.dilation, False, (0, 0), self.groups, (*wanted, False)
        )  # fmt: skip
        return to_x[..., :height, :width] if wanted[0] else None, to_weight if wanted[1] else None

    def _split(self) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
        """Padding for both sides, and what the right and the bottom get beyond that (an even kernel under 'same')."""
        top, bottom, left, right = self.padding
        return (top, left), (0, right - left, 0, bottom - top)


class Multiply:
    """The product of a linear layer."""

    features = -1

    def product(self, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None) -> torch.Tensor:
        return F.linear(x, weight, bias)

    def gradients(
        self, gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, wanted: tuple[bool, bool]
    ) -> tuple[torch.Tensor | None, torch.Tensor | None]:
        """Of input and weight, each only where wanted."""
        to_x = gradient @ weight if wanted[0] else None
        return to_x, gradient.flatten(0, -2).T @ x.flatten(0, -2) if wanted[1] else None


Operation = Convolve | Multiply
