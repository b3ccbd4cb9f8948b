"""Operators with a weight: what they compute with another weight, and the way back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from rightreasons.core import BadModel

Kind = Literal["dense", "convolution"]

_MOST_PRODUCTS = 2**24
"""Numbers held at once on the fast way back: 64 MB."""


@dataclass(frozen=True, slots=True)
class LinearMap:
    """A dense layer, a convolution or a transposed one, as a function of input, weight and bias.

    Attributes:
        kind: Dense or convolution of either sort.
        axes: Dimensions of space.
        stride, padding, dilation, output_padding: One number an axis.
        groups: Of channels.
        transposed: A transposed convolution.
    """

    kind: Kind
    axes: int = 0
    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    output_padding: tuple[int, ...] = ()
    groups: int = 1
    transposed: bool = False

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        """The operator with this weight and bias."""
        if self.kind == "dense":
            return F.linear(inputs, weight, bias)
        return torch.convolution(
            inputs,
            weight,
            bias,
            self.stride,
            self.padding,
            self.dilation,
            self.transposed,
            self.output_padding,
            self.groups,
        )

    def back(self, slopes: Tensor, weight: Tensor, inputs: Tensor) -> Tensor:
        """The product of ``slopes`` with the operator's Jacobian; of ``inputs`` only the shape counts."""
        if self.kind == "dense":
            return slopes @ weight
        if self._reads_few_channels(slopes, weight):
            return self._back_to_few_channels(slopes, weight, inputs)
        backward = torch.ops.aten.convolution_backward.default
        way = (self.stride, self.padding, self.dilation, self.transposed, self.output_padding, self.groups)
        gradients = backward(slopes, inputs.detach(), weight, None, *way, (True, False, False))
        return gradients[0]  # type: ignore[no-any-return]

    def _reads_few_channels(self, slopes: Tensor, weight: Tensor) -> bool:
        """Whether the way back is one to an image on a CPU, where oneDNN takes 16 channels' time for it."""
        if self.axes != 2 or self.transposed or self.groups != 1 or slopes.device.type != "cpu":
            return False
        products = weight[0].numel() * slopes.numel() // slopes.shape[1]
        return weight.shape[1] <= 3 and slopes.ndim == 4 and products <= _MOST_PRODUCTS

    def _back_to_few_channels(self, slopes: Tensor, weight: Tensor, inputs: Tensor) -> Tensor:
        """The same as one product of matrices, added up over the places of the kernel; up to three times as fast."""
        size, kernel = (inputs.shape[-2], inputs.shape[-1]), (weight.shape[-2], weight.shape[-1])
        if torch.is_grad_enabled() or max(self.stride) > 2:
            shares = weight.flatten(1).t() @ slopes.flatten(2)
            return F.fold(shares, size, kernel, dilation=self.dilation, padding=self.padding, stride=self.stride)
        # For a weight that is trained, matmul would copy the slopes into another order.
        shares = weight.detach().flatten(1).t() @ slopes.flatten(2)
        return self._added(shares.view(len(slopes), -1, *kernel, *slopes.shape[2:]), size)

    def _added(self, shares: Tensor, size: tuple[int, int]) -> Tensor:
        """``F.fold``, a place of the kernel at a time, in a quarter to a half of its time."""
        rows, channels, height, width, *places = shares.shape
        top, left = self.padding
        total = shares.new_zeros(rows, channels, size[0] + 2 * top, size[1] + 2 * left)
        for i in range(height):
            down = slice(
                i * self.dilation[0], i * self.dilation[0] + (places[0] - 1) * self.stride[0] + 1, self.stride[0]
            )
            for j in range(width):
                start = j * self.dilation[1]
                along = slice(start, start + (places[1] - 1) * self.stride[1] + 1, self.stride[1])
                total[:, :, down, along] += shares[:, :, i, j]
        return total[:, :, top : top + size[0], left : left + size[1]]

    def scaled(self, weight: Tensor, scale: Tensor) -> Tensor:
        """The weight that multiplies each output channel by ``scale``."""
        if not self.transposed:
            return weight * scale.view(-1, *(1,) * (weight.ndim - 1))
        grouped = weight.view(self.groups, -1, *weight.shape[1:])
        return (grouped * scale.view(self.groups, 1, -1, *(1,) * self.axes)).view_as(weight)

    def along_channels(self, values: Tensor) -> Tensor:
        """One value a channel, in a shape that goes with the output."""
        return values if self.kind == "dense" else values.view(-1, *(1,) * self.axes)


@dataclass(frozen=True, slots=True, eq=False)
class Weighted:
    """A linear map with its own weight and bias."""

    map: LinearMap
    weight: Tensor
    bias: Tensor | None


_DENSE = ("input", "weight", "bias")
_CONVOLUTION = (*_DENSE, "stride", "padding", "dilation", "groups")
_TRANSPOSED = (*_DENSE, "stride", "padding", "output_padding", "groups", "dilation")

WEIGHTED = {"linear": _DENSE} | {
    f"{name}{axes}d": signature
    for name, signature in (("conv", _CONVOLUTION), ("conv_transpose", _TRANSPOSED))
    for axes in (1, 2, 3)
}
"""The operators with a weight and the names of their arguments."""


def weighted(operator: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Weighted:
    """The linear map of such a call.

    Raises:
        BadModel: Padding that differs from side to side.
    """
    given = dict(zip(WEIGHTED[operator], args, strict=False)) | dict(kwargs)
    weight, bias = given["weight"], given.get("bias")
    if operator == "linear":
        return Weighted(LinearMap("dense"), weight, bias)
    axes = weight.ndim - 2
    dilation = _each(given.get("dilation", 1), axes)
    return Weighted(
        LinearMap(
            "convolution",
            axes,
            stride=_each(given.get("stride", 1), axes),
            padding=_padding(given.get("padding", 0), dilation, weight),
            dilation=dilation,
            output_padding=_each(given.get("output_padding", 0), axes),
            groups=given.get("groups", 1),
            transposed=operator.startswith("conv_transpose"),
        ),
        weight,
        bias,
    )


def _each(setting: int | Sequence[int], axes: int) -> tuple[int, ...]:
    if isinstance(setting, int):
        return (setting,) * axes
    return tuple(setting) * axes if len(setting) == 1 else tuple(setting)


def _padding(padding: int | str | Sequence[int], dilation: tuple[int, ...], weight: Tensor) -> tuple[int, ...]:
    axes = len(dilation)
    if not isinstance(padding, str):
        return _each(padding, axes)
    both = [
        step * (size - 1) if padding == "same" else 0 for step, size in zip(dilation, weight.shape[2:], strict=True)
    ]
    if any(total % 2 for total in both):
        raise BadModel(
            f"a convolution with padding='same' and kernel {tuple(weight.shape[2:])} pads one side more than the "
            "other, for which relevance is not worked out; pad by a layer of its own"
        )
    return tuple(total // 2 for total in both)
