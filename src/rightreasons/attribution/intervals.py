"""Bounds on what a network can say, and on its gradient, while some pixels move within a box."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.contextual import named, recorded_steps
from rightreasons.attribution.operators import words
from rightreasons.attribution.tape import Step
from rightreasons.attribution.tape.calls import pair, pulled
from rightreasons.attribution.tape.canonize import affine
from rightreasons.attribution.tape.names import AVERAGES, MAXIMA, MOVES, SUMS
from rightreasons.attribution.tape.step import misuse
from rightreasons.core import BadModel, Classifier

RISING = words(
    "relu relu6 leaky_relu elu selu celu softplus sigmoid logsigmoid tanh softsign hardtanh hardsigmoid clamp clamp_min"
    " clamp_max"
)
"""Functions of one number that never fall."""


class Interval(NamedTuple):
    """Numbers that lie between two."""

    low: Tensor
    high: Tensor

    @property
    def center(self) -> Tensor:
        """The middle."""
        return (self.low + self.high) / 2

    @property
    def radius(self) -> Tensor:
        """Half the width."""
        return (self.high - self.low) / 2

    def __add__(self, other: Interval) -> Interval:  # type: ignore[override]
        return Interval(self.low + other.low, self.high + other.high)

    def scaled(self, factor: Interval) -> Interval:
        """The products with a factor that is nowhere negative."""
        ends = self.low * factor.low, self.low * factor.high, self.high * factor.low, self.high * factor.high
        return Interval(torch.minimum(ends[0], ends[1]), torch.maximum(ends[2], ends[3]))


def around(center: Tensor, radius: Tensor) -> Interval:
    """The interval of that middle and half width."""
    return Interval(center - radius, center + radius)


@dataclass(frozen=True, eq=False)
class Bounds:
    """One pass over boxes of images, with bounds on all it computes.

    Attributes:
        steps: The operators that ran on the images themselves, the logits last.
        intervals: What each of them can give.
    """

    steps: Sequence[Step]
    intervals: Sequence[Interval]

    @property
    def logits(self) -> Interval:
        """Bounds on the logits, (B, classes) each."""
        return self.intervals[-1]

    def gradient(self, seed: Interval) -> Interval:
        """Bounds on the gradient with respect to the pixels, (B, C, H, W), by interval arithmetic on the way back.

        Args:
            seed: Bounds on the gradient with respect to the logits.

        Raises:
            BadModel: An operator's derivative has no bounds here.
        """
        with torch.autocast(seed.low.device.type, enabled=False):
            return self._gradient(seed)

    def _gradient(self, seed: Interval) -> Interval:
        messages: list[Interval | None] = [None] * len(self.steps)
        messages[-1] = seed
        for number in range(len(self.steps) - 1, 0, -1):
            message, step = messages[number], self.steps[number]
            if message is None:
                continue
            for parent, sent in zip(step.parents, self._sent(step, message), strict=True):
                before = messages[parent]
                messages[parent] = sent if before is None else before + sent
            messages[number] = None
        found = messages[0]
        if found is None:
            raise BadModel("the logits do not hang on the image by operators that could be followed")
        return found

    def _sent(self, step: Step, message: Interval) -> list[Interval]:
        parents = [self.steps[p] for p in step.parents]
        inner = [self.intervals[p] for p in step.parents]
        if step.linear is not None:
            map_, weight, values = step.linear.map, step.linear.weight, parents[0].value
            center = map_.back(message.center, weight, values)
            return [around(center, map_.back(message.radius, weight.abs(), values))]
        if step.operator in ("relu", "leaky_relu", "softplus"):
            return [message.scaled(_derivative(step, inner[0]))]
        if step.operator == "max_pool2d":
            return [_through_maxima(step, inner[0], message)]
        if step.operator == "batch_norm":
            scale = _per_channel(affine(step, parents[0].value)[0], message.low)
            return [around(message.center * scale, message.radius * scale.abs())]
        if step.operator in MOVES | AVERAGES | SUMS:
            given = [p.value for p in parents]
            middles = pulled(step, given, message.center)
            spreads = pulled(_absolute(step), given, message.radius)
            return [around(middle, spread.abs()) for middle, spread in zip(middles, spreads, strict=True)]
        raise BadModel(
            f"the derivative of the operator {named(step)} has no bounds here: convolutions, dense layers, ReLU, "
            "leaky ReLU, softplus, pooling, BatchNorm and residual sums have"
        )


def bounds(
    model: Classifier,
    inputs: Float[Tensor, "batch channels height width"],
    radius: Float[Tensor, "batch _ height width"],
    *,
    graph: bool,
) -> Bounds:
    """Bounds on all that a network computes while each pixel moves by at most ``radius``.

    BatchNorm in training mode is taken with the statistics of the images themselves, which no pixel moves: in training
    the bounds are those of a network that is frozen at this batch.

    Source: interval bound propagation, Gowal et al. 2018, arXiv:1810.12715, section 3.

    Raises:
        BadModel: An operator has no bounds.
    """
    steps = recorded_steps(model, inputs, graph=graph)
    intervals = [around(inputs, radius.expand_as(inputs))]
    with torch.set_grad_enabled(graph), torch.autocast(inputs.device.type, enabled=False):
        for step in steps[1:]:
            parents = [steps[p].value for p in step.parents]
            intervals.append(_ahead(step, parents, [intervals[p] for p in step.parents]))
    return Bounds(steps, intervals)


def _ahead(step: Step, parents: Sequence[Tensor], given: Sequence[Interval]) -> Interval:
    if step.linear is not None:
        linear = step.linear
        center = linear.map(given[0].center, linear.weight, linear.bias)
        return around(center, linear.map(given[0].radius, linear.weight.abs()))
    if step.operator == "batch_norm":
        scale, shift = (_per_channel(part, given[0].low) for part in affine(step, parents[0]))
        return around(given[0].center * scale + shift, given[0].radius * scale.abs())
    unbounded = _unbounded(step)
    if unbounded is None and step.operator in RISING | MAXIMA | MOVES | AVERAGES:
        return Interval(step.again(*(g.low for g in given)), step.again(*(g.high for g in given)))
    plain = len(given) == 1 or (step.operator in ("add", "sub", "rsub") and not step.kwargs)
    if unbounded is None and step.operator in SUMS and plain:
        center = step.again(*(g.center for g in given))
        if len(given) > 1:
            return around(center, given[0].radius + given[1].radius)
        radius = step.again(given[0].radius) - step.again(torch.zeros_like(given[0].radius))
        return around(center, radius.abs())
    raise BadModel(
        f"the operator {named(step, unbounded)} has no bounds here: convolutions, dense layers, rising activations, "
        "pooling, BatchNorm and residual sums have"
    )


def _unbounded(step: Step) -> str | None:
    """How an operator is used that it may fall where its input rises, or is no multiple."""
    names = ("input", "size", "scale_factor", "mode")
    if step.operator in ("interpolate", "upsample"):
        mode = (dict(zip(names, step.args, strict=False)) | step.kwargs).get("mode")
        return "with negative weights (bicubic)" if mode == "bicubic" else None
    settings = [s for s in (*step.args[1:], *step.kwargs.values()) if isinstance(s, int | float)]
    if step.operator in ("leaky_relu", "elu") and any(s < 0 for s in settings):
        return "that falls below zero"
    return misuse(step)


def _absolute(step: Step) -> Step:
    """A multiple by the absolute values of its constants."""
    if step.operator not in ("mul", "div"):
        return step
    args = tuple(a.abs() if isinstance(a, Tensor) else a for a in step.args)
    return replace(step, args=args, kwargs={k: v.abs() if isinstance(v, Tensor) else v for k, v in step.kwargs.items()})


def _per_channel(part: Tensor, values: Tensor) -> Tensor:
    return part.view(-1, *(1,) * (values.ndim - 2))


def _derivative(step: Step, inner: Interval) -> Interval:
    """Of an activation whose derivative never falls (or never rises: a slope above 1; the ends are then swapped)."""
    if step.operator == "softplus":
        given = dict(zip(("input", "beta"), step.args, strict=False)) | step.kwargs
        beta = given.get("beta", 1)
        return Interval((beta * inner.low).sigmoid(), (beta * inner.high).sigmoid())
    slope = 0.0
    if step.operator == "leaky_relu":
        given = dict(zip(("input", "negative_slope"), step.args, strict=False)) | step.kwargs
        slope = given.get("negative_slope", 0.01)
    low, high = ((end > 0).to(end.dtype) for end in inner)
    return Interval(slope + (1 - slope) * low, slope + (1 - slope) * high)


def _through_maxima(step: Step, inner: Interval, message: Interval) -> Interval:
    """A value that may be the largest of its window may have its derivative; one that must be, has it."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = dict(zip(names, step.args, strict=False)) | step.kwargs
    size = pair(given["kernel_size"])
    overlaps = pair(given.get("stride") or size) != size or pair(given.get("dilation", 1)) != [1, 1]
    if overlaps or pair(given.get("padding", 0)) != [0, 0] or given.get("ceil_mode"):
        raise BadModel(
            "the derivative of max-pooling over windows that overlap, are dilated or padded, or reach over the edge "
            "(ceil_mode) has no bounds here"
        )
    rows, columns = size

    def spread(values: Tensor) -> Tensor:
        wide = values.repeat_interleave(rows, -2).repeat_interleave(columns, -1)
        missing = (inner.low.shape[-1] - wide.shape[-1], inner.low.shape[-2] - wide.shape[-2])
        return F.pad(wide, (0, missing[0], 0, missing[1]))

    inside = spread(torch.ones_like(message.low)) > 0
    possible = (inner.high >= spread(step.again(inner.low))) & inside
    rivals = spread(F.avg_pool2d(possible.to(inner.low.dtype), size, divisor_override=1))
    certain = possible & (rivals == 1)
    ends = (kind.to(inner.low.dtype) for kind in (certain, possible))
    return Interval(spread(message.low), spread(message.high)).scaled(Interval(*ends))
