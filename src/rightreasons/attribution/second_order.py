"""Passes whose gradient is differentiated again, at the price of the derivatives that are not zero."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rightreasons.attribution.forward import channels_last
from rightreasons.attribution.operators import operator_of
from rightreasons.attribution.tape.linear_map import LinearMap, weighted
from rightreasons.core import BadModel


class TwiceDifferentiated(TorchFunctionMode):
    """Runs a pass, and the gradient of its images, so that the derivative of that gradient is cheap.

    Torch's ReLU and max-pooling send a gradient of zeros back through the whole pass when their backward is
    differentiated; here a ReLU is a product with a constant and a pooling a choice of places, which send none. A
    convolution's weights get no gradient while this context is open, in which only that of the images is asked for,
    and its second derivative is one way back instead of a convolution over the batch. Values and derivatives are those
    of the plain pass.
    """

    def __init__(self) -> None:
        super().__init__()
        self.is_open = False

    def __enter__(self) -> TwiceDifferentiated:
        super().__enter__()  # type: ignore[no-untyped-call]
        self.is_open = True
        return self

    def __exit__(self, *details: Any) -> None:
        self.is_open = False
        super().__exit__(*details)  # type: ignore[no-untyped-call]

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a call, the three operators in their own form."""
        kwargs = kwargs or {}
        operator, in_place = operator_of(func, args, kwargs)
        if in_place or not args or not isinstance(args[0], Tensor):
            return func(*args, **kwargs)
        if operator == "relu":
            return torch.where(args[0].detach() <= 0, 0.0, args[0])
        if operator == "max_pool2d" and args[0].ndim == 4:
            return _max_pool2d(*args, **kwargs)
        if operator == "conv2d" and args[0].ndim == 4 and not torch.is_autocast_enabled(args[0].device.type):
            return self._conv2d(func, args, kwargs)
        return func(*args, **kwargs)

    def _conv2d(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: Any) -> Any:
        try:
            given = weighted("conv2d", args, kwargs)
        except BadModel:  # padding that differs from side to side
            return func(*args, **kwargs)
        return _Convolution.apply(args[0], given.weight, given.bias, given.map, self)  # type: ignore[no-untyped-call]


def _max_pool2d(inputs: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    kwargs.pop("return_indices", None)
    places = F.max_pool2d(inputs.detach(), *args, **kwargs, return_indices=True)[1]
    if inputs.stride(1) == 1:  # channels last in memory, and so they stay
        return inputs.flatten(-2).mT.gather(-2, places.flatten(-2).mT).mT.view(places.shape)
    return inputs.flatten(-2).gather(-1, places.flatten(-2)).view_as(places)


class _Convolution(torch.autograd.Function):
    """A convolution, whose way back to the images can be differentiated by :class:`_WayBack`."""

    @staticmethod
    def forward(
        ctx: Any, inputs: Tensor, weight: Tensor, bias: Tensor | None, map_: LinearMap, context: TwiceDifferentiated
    ) -> Tensor:
        ctx.save_for_backward(inputs, weight)
        ctx.map, ctx.context = map_, context
        return map_(inputs, weight, bias)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        inputs, weight = ctx.saved_tensors
        way_back: Callable[..., Tensor] = _WayBack.apply
        of_inputs, of_weight, of_bias = ctx.needs_input_grad[:3]
        trained = not ctx.context.is_open
        return (
            way_back(slopes[0], weight, inputs.detach(), ctx.map) if of_inputs else None,
            _of_weight(ctx.map, slopes[0], inputs, weight) if of_weight and trained else None,
            slopes[0].sum((0, 2, 3)) if of_bias and trained else None,
            None,
            None,
        )


class _WayBack(torch.autograd.Function):
    """The gradient of a convolution with respect to its input."""

    @staticmethod
    def forward(ctx: Any, slopes: Tensor, weight: Tensor, inputs: Tensor, map_: LinearMap) -> Tensor:
        ctx.save_for_backward(slopes, weight)
        ctx.map = map_
        return map_.back(slopes, weight, inputs)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, *again: Tensor) -> tuple[Tensor | None, Tensor | None, None, None]:
        slopes, weight = ctx.saved_tensors
        # The layout of a single channel is lost on the way.
        way = channels_last(again[0]) if slopes.stride(1) == 1 else again[0]
        of_slopes, of_weight = ctx.needs_input_grad[:2]
        return (
            ctx.map(way, weight) if of_slopes else None,
            _of_weight(ctx.map, slopes, way, weight) if of_weight else None,
            None,
            None,
        )


def _of_weight(map_: LinearMap, slopes: Tensor, inputs: Tensor, weight: Tensor) -> Tensor:
    way = (map_.stride, map_.padding, map_.dilation, map_.transposed, map_.output_padding, map_.groups)
    backward = torch.ops.aten.convolution_backward.default
    return backward(slopes, inputs, weight, None, *way, (False, True, False))[1]  # type: ignore[no-any-return]
