"""The change of a function of one number over the change of that number."""

from __future__ import annotations

import torch
from torch import Tensor

from rightreasons.attribution.operators import words
from rightreasons.attribution.tape import Step
from rightreasons.attribution.tape.calls import pulled

SMOOTH = words("gelu silu mish softplus tanh tanhshrink sigmoid logsigmoid exp erf sin cos")
"""Smooth functions that bend over a way of about 1."""

SCALED = words("log sqrt rsqrt reciprocal square pow")
"""Smooth functions that bend over a way of about their argument."""


def change_ratio(step: Step, high: Tensor, low: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """(high - low) / (x - b) where high = f(x) and low = f(b), and the derivative where x is b.

    The rescale rule of DeepLIFT: Shrikumar et al. 2017, arXiv:1704.02685, section 3.5.1.
    """
    return _relu_ratio(high, low, x, b) if step.operator == "relu" else quotient(step, high, low, x, b)


def quotient(step: Step, high: Tensor, low: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """(high - low) / (x - b) where high = f(x) and low = f(b).

    Where x and b are so near that the quotient is mostly rounding, the derivative in their middle takes its place; its
    own derivatives are those of the quotient's limit, so that what is trained through it has no pole either. Where the
    derivative itself has a pole, as that of a root at 0, a value that does not change has no share: 0.
    """
    way = x - b
    near = way.abs() <= _nearness(step, x, b)
    ratio = (high - low) / torch.where(near, 1.0, way)
    if not bool(near.any()):
        return ratio
    middle = torch.where(near, (x + b) / 2, 1.0)  # at 1 all of these functions are smooth
    slope = _derivative(step, middle)
    pole = near & ~slope.isfinite()
    if not bool(pole.any()):
        return torch.where(near, slope, ratio)
    # From 1 to 1 instead, for the way back meets what was not chosen as well.
    return torch.where(pole, 0.0, _away_from(pole, step, x, b))


def _away_from(pole: Tensor, step: Step, x: Tensor, b: Tensor) -> Tensor:
    x, b = torch.where(pole, 1.0, x), torch.where(pole, 1.0, b)
    return quotient(step, step.again(x), step.again(b), x, b)


def _relu_ratio(high: Tensor, low: Tensor, x: Tensor, b: Tensor) -> Tensor:
    """No rounding to fear: the quotient is 1 for two values above zero, however near they are."""
    way, change = x - b, high - low
    if not torch.is_grad_enabled():
        # 0 / 0 is the only NaN, but for those that the network made.
        ratio = change.div_(way)
        return torch.where(way == 0, (x > 0).to(ratio.dtype), ratio)
    near = way == 0
    return torch.where(near, (x > 0).to(way.dtype), change / torch.where(near, 1.0, way))


def _nearness(step: Step, x: Tensor, b: Tensor) -> Tensor | float:
    """How near is too near.

    A smooth function's quotient has an error of rounding / d, its derivative one of d squared; trained through, they
    are rounding / d squared and d squared, alike at the fourth root of the rounding. With a kink in between only the
    quotient is right, down to the rounding of x itself.
    """
    rounding = torch.finfo(x.dtype).eps
    if step.operator in SMOOTH:
        return float(rounding**0.25)
    if step.operator in SCALED:
        return float(rounding**0.25) * torch.minimum(x.detach().abs(), b.detach().abs())
    return float(8 * rounding) * (x.detach().abs() + b.detach().abs())


def _derivative(step: Step, at: Tensor) -> Tensor:
    (slope,) = pulled(step, [at], torch.ones_like(at))
    return slope
