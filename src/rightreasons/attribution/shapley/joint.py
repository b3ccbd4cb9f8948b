"""Operators of several numbers, taken apart so that what the inputs add sums to the change of the output exactly."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from rightreasons.attribution.shapley.elementwise import change_ratio
from rightreasons.attribution.shapley.pair import Ends
from rightreasons.attribution.tape import Slot, Step
from rightreasons.attribution.tape.calls import attention_scores, normalized, pulled, unpooled
from rightreasons.core import BadModel


def linear(here: Ends, parents: list[Ends], slopes: Tensor) -> list[Tensor]:
    """What is linear in its inputs together: its own backward, the same at every value."""
    return pulled_each(here.step, [p.step.value for p in parents], slopes)


def product(here: Ends, parents: list[Ends], slopes: Tensor) -> list[Tensor]:
    """Each factor's change meets the mean of the other: d(uv) = du mean(v) + mean(u) dv, the Shapley value of two.

    For a product of matrices as well; it is the operator's Jacobian in the middle.

    Raises:
        BadModel: There are more than two factors.
    """
    if here.step.operator == "einsum" and len(parents) > 2:
        raise BadModel(
            "the way back through an einsum of more than two tensors of the image is not known; write it as products "
            "of two"
        )
    return pulled_each(here.step, [p.rows(p.middle) for p in parents], slopes)


def division(here: Ends, parents: list[Ends], slopes: Tensor) -> list[Tensor]:
    """A product turned round: y = u / v is u = y v, so dy = (du - mean(y) dv) / mean(v).

    Unlike u times 1 / v it bears a v that is near zero at one end.

    Raises:
        BadModel: The division rounds.
    """
    step = here.step
    if step.kwargs.get("rounding_mode") is not None:
        raise BadModel("the way back through a division that rounds is not known; divide without rounding_mode")
    if len(parents) == 1 and step.operator == "div" and isinstance(step.args[0], Slot):
        return linear(here, parents, slopes)
    below = parents[-1]
    slopes = slopes / below.middle
    handed = [summed_to(-slopes * here.middle, below.step.value.shape)]
    if len(parents) == 2:
        handed.insert(0, summed_to(slopes, parents[0].step.value.shape))
    return handed


def pulled_each(step: Step, values: list[Tensor], slopes: Tensor) -> list[Tensor]:
    """``slopes`` times the operator's Jacobian at these inputs, for each of the slopes' first dimension."""
    if len(slopes) == 1:
        return [part[None] for part in pulled(step, values, slopes[0])]
    return pulled(step, values, slopes, each=True)


def summed_to(slopes: Tensor, shape: torch.Size) -> Tensor:
    """Slopes of values that were broadcast, summed over what was one value; the first dimension stays."""
    classes, more = len(slopes), slopes.ndim - 1 - len(shape)
    return slopes.sum_to_size(classes, *(1,) * more, *shape).reshape(classes, *shape)


def softmax_weights(here_image: Tensor, here_baseline: Tensor, axis: int) -> Tensor:
    """Means of the probabilities at both ends, L = (p - p') / (log p - log p'), from the logs.

    Masked probabilities are zero at both ends and have a mean of zero.
    """
    high, low = here_image.log_softmax(axis), here_baseline.log_softmax(axis)
    return logarithmic_mean(high, low)


def logarithmic_mean(high: Tensor, low: Tensor) -> Tensor:
    """(e^a - e^b) / (a - b) of logs a and b, and e^((a + b) / 2) where they are near."""
    way = high - low
    masked = ~way.isfinite()
    near = masked | (way.abs() <= torch.finfo(way.dtype).eps ** 0.25)
    far = (high.exp() - low.exp()) / torch.where(near, 1.0, way)
    # exp(d/2) - exp(-d/2) over d is 1 + d^2 / 24 + ...
    close = torch.where(masked, 0.0, ((high + low) / 2).exp())
    return torch.where(near, close, far)


def through_softmax(slopes: Tensor, weights: Tensor, axis: int) -> Tensor:
    """The slopes ahead of a softmax; ``axis`` counts from the end.

    p = exp(z - lse), so dp_i = L_i (dz_i - d lse), and since the dp sum to zero d lse = sum L_j dz_j / sum L: with the
    logarithmic means L in the place of p this is the softmax's own backward, and exact over any way.
    """
    shared = (slopes * weights).sum(axis, keepdim=True) / weights.sum(axis, keepdim=True)
    return weights * (slopes - shared)


def through_log_softmax(slopes: Tensor, weights: Tensor, axis: int) -> Tensor:
    """Likewise without the exponential: d log p_i = dz_i - sum L_j dz_j / sum L."""
    return slopes - weights / weights.sum(axis, keepdim=True) * slopes.sum(axis, keepdim=True)


def softmax(here: Ends, parents: list[Ends], slopes: Tensor) -> list[Tensor]:
    """Softmax and log-softmax; our own rule, see :func:`through_softmax`.

    Raises:
        BadModel: It names no dimension.
    """
    step, (parent,) = here.step, parents
    axis = step.kwargs.get("dim", step.args[1] if len(step.args) > 1 else None)
    if not isinstance(axis, int):
        raise BadModel("the way back through a softmax without a dimension is not known; name its dim")
    axis = axis if axis < 0 else axis - parent.step.value.ndim
    weights = softmax_weights(parent.image, parent.baseline, axis)
    through = through_softmax if step.operator == "softmax" else through_log_softmax
    return [through(slopes, weights, axis)]


def attention(here: Ends, parents: list[Ends], slopes: Tensor) -> list[Tensor]:
    """Two products and a softmax in between, each by its rule."""
    query, key, value = parents
    ends = [
        attention_scores(here.step, query.image, key.image),
        attention_scores(here.step, query.baseline, key.baseline),
    ]
    (image, scale, nowhere), (baseline, _, _) = ends
    slopes = slopes if nowhere is None else slopes.masked_fill(nowhere, 0.0)
    weights = (image.softmax(-1) + baseline.softmax(-1)) / 2
    inner = through_softmax(slopes @ value.middle.mT, softmax_weights(image, baseline, -1), -1) * scale
    handed = [inner @ key.middle, inner.mT @ query.middle, weights.mT @ slopes]
    return [summed_to(h, p.step.value.shape) for h, p in zip(handed, parents, strict=True)]


def normalization(here: Ends, parents: list[Ends], slopes: Tensor) -> list[Tensor]:
    """Layer, group and RMS norm: y = c / r with c = x - mean and r the root of mean(c^2) + eps.

    As :func:`division`, dy = (dc - mean(y) dr) / mean(r), and d(r^2) = 2 mean(r) dr = 2 mean(mean(c) dc): the norm's
    own backward with means of both ends in it. Our own rule; it is exact and has no pole.
    """
    step, (parent,) = here.step, parents
    shape = parent.step.value.shape
    axes, groups, weight, eps = normalized(step, parent.step.value)
    slopes = slopes if weight is None else slopes * weight
    centers = step.operator != "rms_norm"
    (image, root), (baseline, other) = (
        _centered(v, groups, axes, eps, centers=centers) for v in (parent.image, parent.baseline)
    )
    axes = axes if groups is None else (-1,)
    slopes = slopes if groups is None else slopes.reshape(len(slopes), shape[0], groups, -1)
    size = math.prod(image.shape[axis] for axis in axes)
    radius = (root + other) / 2
    along = (slopes * (image / root + baseline / other)).sum(axes, keepdim=True) / 2
    slopes = (slopes - along * (image + baseline) / (2 * size * radius)) / radius
    if centers:
        slopes = slopes - slopes.mean(axes, keepdim=True)
    return [slopes.reshape(len(slopes), *shape)]


def _centered(
    values: Tensor, groups: int | None, axes: tuple[int, ...], eps: float, *, centers: bool
) -> tuple[Tensor, Tensor]:
    """Values less their mean, and the root of their mean square."""
    values = values if groups is None else values.reshape(len(values), groups, -1)
    values = values - values.mean(axes, keepdim=True) if centers else values
    return values, (values.square().mean(axes, keepdim=True) + eps).sqrt()


def max_pool2d(here: Ends, parents: list[Ends], slopes: Tensor, function: Ends | None = None) -> list[Tensor]:
    """The change of the maximum goes to the place of the larger one.

    There the input changes in the same direction by as much or more, so the multiplier lies between 0 and 1. The place
    is that of shap's DeepExplainer: Lundberg and Lee 2017, arXiv:1705.07874.

    Args:
        here: The pooling.
        parents: What it reads.
        slopes: Multipliers of its output.
        function: What a function of one number reads whose output the pooling reads and nothing else does. The
            multipliers are then those of this; the function's are needed at the places of the maxima only.
    """
    (parent,), step = parents, here.step
    if here.image_indices is None or here.baseline_indices is None:
        raise RuntimeError("a max-pooling that was not written down")
    indices = torch.where(here.image >= here.baseline, here.image_indices, here.baseline_indices)
    image, baseline = _at(parent.image, indices), _at(parent.baseline, indices)
    share = _share(here.change, image - baseline)
    if function is not None:
        reads = _at(function.image, indices), _at(function.baseline, indices)
        share = share * change_ratio(parent.step, image, baseline, *reads)
    slopes = slopes * share
    classes, rows = slopes.shape[:2]
    shape = parent.step.value.shape
    shaped = parent.step.value if classes == 1 else parent.step.value.new_empty((classes * rows, *shape[1:]))
    indices = indices.expand(classes, *indices.shape).flatten(0, 1)
    return [unpooled(step, slopes.flatten(0, 1), shaped, indices).view(classes, *shape)]


def _at(values: Tensor, indices: Tensor) -> Tensor:
    """The values at these places of their maps; one row of values may stand for all."""
    flat = values.flatten(2).expand(len(indices), -1, -1)
    return flat.gather(2, indices.flatten(2)).view(indices.shape)


def _share(change: Tensor, way: Tensor) -> Tensor:
    """The change of a maximum over that of the input at its place; 1, the derivative, where neither changes."""
    still = way == 0
    return torch.where(still, 1.0, change / torch.where(still, 1.0, way))


def maximum(here: Ends, parents: list[Ends], slopes: Tensor) -> list[Tensor]:
    """The same for other maxima, by their Jacobians at both ends."""
    ways = [p.rows(p.change) for p in parents]
    images, baselines = ([p.rows(v).detach() for p, v in zip(parents, ends, strict=True)] for ends in _both(parents))
    rising = here.image >= here.baseline
    way = torch.where(rising, pushed(here, images, ways), pushed(here, baselines, ways))
    slopes = slopes * _share(here.change, way)
    up = pulled_each(here.step, images, torch.where(rising, slopes, 0.0))
    down = pulled_each(here.step, baselines, torch.where(rising, 0.0, slopes))
    return [a + b for a, b in zip(up, down, strict=True)]


def _both(parents: list[Ends]) -> tuple[list[Tensor], list[Tensor]]:
    return [p.image for p in parents], [p.baseline for p in parents]


def pushed(here: Ends, values: list[Tensor], ways: list[Tensor]) -> Tensor:
    """The Jacobian at these values times these changes, as the backward of its backward."""
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        inputs = [v.detach().requires_grad_() for v in values]
        output = here.step.again(*inputs)
        slopes = torch.zeros_like(output, requires_grad=True)
        back = torch.autograd.grad(output, inputs, slopes, create_graph=True)
        (forth,) = torch.autograd.grad(back, slopes, ways, create_graph=graph)
    return forth
