"""How an operator with a weight hands relevance to its inputs.

Each rule says which contributions x w count and in which shares; a share is handed out in proportion to them,
R_in = x * (back(w) of R_out / sum). All is plain tensor algebra on the graph, so that a loss on the map has its right
gradient.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from rightreasons.attribution.lrp.message import Message, divided, stabilized
from rightreasons.attribution.tape.linear_map import LinearMap
from rightreasons.core import Catalogue

Inputs = Literal["all", "positive", "negative", "ones", "above low", "below high"]
"""The input itself, its part above or below zero, ones, or the input minus the lowest or highest value it may take."""


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """One use of an operator with a weight.

    Attributes:
        map: The operator as a function.
        inputs, weight, bias, outputs: Its tensors.
        nonnegative: No input is below zero.
        low, high: Bounds of the inputs, for the layer that reads the image; of one image or of each.
    """

    map: LinearMap
    inputs: Tensor
    weight: Tensor
    bias: Tensor | None
    outputs: Tensor
    nonnegative: bool = False
    low: Tensor | None = None
    high: Tensor | None = None

    def part(self, which: Inputs) -> Tensor | None:
        """That part of the inputs, ``None`` where it is zero."""
        if which == "negative":
            return None if self.nonnegative else self.inputs.clamp(max=0)
        if which == "positive" and not self.nonnegative:
            return self.inputs.clamp(min=0)
        if which == "ones":
            return torch.ones_like(self.inputs)
        if which in ("above low", "below high"):
            return self.inputs - self.bounds[which == "below high"]
        return self.inputs

    @property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The lowest and highest value of each input."""
        if self.low is None or self.high is None:
            raise RuntimeError("a box without bounds")
        return self.low, self.high


@dataclass(frozen=True, slots=True, eq=False)
class Share:
    """A part of the relevance and the contributions in proportion to which it is handed out.

    Attributes:
        contributions: Pairs of inputs and weight.
        bias: Takes its own part, which is lost.
        factor: How much of the relevance.
        sign: Only of outputs above (1) or below (-1) zero; 0 means all.
        total: The sum of the contributions and the bias, where it is known already.
    """

    contributions: Sequence[tuple[Inputs, Tensor]]
    bias: Tensor | None
    factor: float = 1.0
    sign: int = 0
    total: Tensor | None = None


@dataclass(frozen=True)
class Rule(ABC):
    """How relevance is handed on: ``rule(layer, message) -> message`` about the layer's inputs.

    Args:
        stabilizer: Added to each sum, away from zero, before it divides.
    """

    stabilizer: float = 1e-6

    def __post_init__(self) -> None:
        if self.stabilizer < 0:
            raise ValueError(f"expected stabilizer to be 0 or more, got {self.stabilizer}")

    @abstractmethod
    def shares(self, layer: Layer) -> list[Share]:
        """Which contributions count, and in which shares."""

    def __call__(self, layer: Layer, message: Message, lost: list[Tensor] | None = None) -> Message:
        """The relevance of the inputs; into ``lost`` goes, if given, what biases and stabilizers took."""
        gradients: dict[Inputs, Tensor] = {}
        for share in self.shares(layer):
            if share.sign < 0 and message.positive:
                continue  # nothing there
            total = _total(layer, share)
            slopes = _slopes(layer, share, message, total, self.stabilizer)
            if lost is not None:
                lost.append(_taken(layer, share, slopes, total, self.stabilizer))
            for which, weight in share.contributions:
                if which == "negative" and layer.nonnegative:
                    continue
                back = layer.map.back(slopes, weight, layer.inputs)
                gradients[which] = gradients[which] + back if which in gradients else back
        return _message(layer, gradients)


def _total(layer: Layer, share: Share) -> Tensor:
    if share.total is not None:
        return share.total
    total: Tensor | None = None
    for which, weight in share.contributions:
        inputs = layer.part(which)
        if inputs is not None:
            one = layer.map(inputs, weight, share.bias if total is None else None)
            total = one if total is None else total + one
    if total is None:
        raise RuntimeError("a share without contributions")
    return total


def _slopes(layer: Layer, share: Share, message: Message, total: Tensor, stabilizer: float) -> Tensor:
    """The share of R_out over the sum."""
    if total is layer.outputs and message.gradient is not None:
        # R / z is known: only the stabilizer is left to divide by.
        slopes = _damped(message.gradient, total, stabilizer) if stabilizer > 0 else message.gradient
    else:
        slopes = divided(message.of(layer.outputs), total, stabilizer)
    if share.sign and not message.positive:
        slopes = slopes * (share.sign * layer.outputs > 0)
    return slopes if share.factor == 1 else share.factor * slopes


def _damped(gradient: Tensor, total: Tensor, stabilizer: float) -> Tensor:
    """The gradient times |z| / (|z| + stabilizer); off the graph in memory that is used again."""
    size = total.abs()
    if torch.is_grad_enabled():
        return gradient * (size / (size + stabilizer))
    return size.div_(size + stabilizer).mul_(gradient)


def _taken(layer: Layer, share: Share, slopes: Tensor, total: Tensor, stabilizer: float) -> Tensor:
    """What the bias and the stabilizer take of a share."""
    taken = slopes * (stabilized(total, stabilizer) - total)
    if share.bias is not None:
        taken = taken + slopes * layer.map.along_channels(share.bias)
    return taken.sum()


def _message(layer: Layer, gradients: dict[Inputs, Tensor]) -> Message:
    if gradients.keys() <= {"all", "positive", "negative"}:
        return Message(gradient=_gradient(layer, gradients))
    relevance = torch.zeros_like(layer.inputs)
    for which, gradient in gradients.items():
        part = layer.part(which)
        if part is not None:
            relevance = relevance + (gradient if which == "ones" else part * gradient)
    return Message(relevance=relevance)


def _gradient(layer: Layer, gradients: dict[Inputs, Tensor]) -> Tensor:
    """R / x of the inputs, where each part has one of its own."""
    above, below = gradients.get("positive"), gradients.get("negative")
    whole = gradients.get("all")
    if above is not None and not layer.nonnegative:
        zeros = torch.zeros_like(layer.inputs)
        above = torch.where(layer.inputs >= 0, above, zeros if below is None else below)
    parts = [g for g in (whole, above) if g is not None]
    return parts[0] if len(parts) == 1 else parts[0] + parts[1]


@dataclass(frozen=True)
class Epsilon(Rule):
    """R in proportion to x w; small sums hand on less.

    Source: Bach et al. 2015, doi:10.1371/journal.pone.0130140, Eq. 58.
    """

    def shares(self, layer: Layer) -> list[Share]:
        """All contributions."""
        return [Share([("all", layer.weight)], layer.bias, total=layer.outputs)]


@dataclass(frozen=True)
class Zero(Epsilon):
    """LRP-0: the epsilon rule without a stabilizer; on a ReLU network the input times its gradient.

    Source: Bach et al. 2015, Eq. 56.
    """

    stabilizer: float = 0.0


@dataclass(frozen=True)
class Gamma(Rule):
    """Contributions that agree with the sign of the output count (1 + gamma)-fold.

    Of outputs above zero the positive weights of positive inputs are favored, and so on for all four signs; for inputs
    from zero on and outputs above zero this is the paper's rule.

    Source: Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10, Table 1; for all signs Andeol et al. 2021,
    arXiv:2106.04260.

    Args:
        gamma: How much they are favored.
    """

    gamma: float = 0.25

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.gamma < 0:
            raise ValueError(f"expected gamma to be 0 or more, got {self.gamma}")

    def shares(self, layer: Layer) -> list[Share]:
        """One share of outputs above zero, one of those below."""
        up, down = (
            layer.weight + self.gamma * layer.weight.clamp(min=0),
            layer.weight + self.gamma * layer.weight.clamp(max=0),
        )
        bias = layer.bias
        bias_up = None if bias is None else bias + self.gamma * bias.clamp(min=0)
        bias_down = None if bias is None else bias + self.gamma * bias.clamp(max=0)
        return [
            Share([("positive", up), ("negative", down)], bias_up, sign=1),
            Share([("positive", down), ("negative", up)], bias_down, sign=-1),
        ]


@dataclass(frozen=True)
class AlphaBeta(Rule):
    """Positive contributions get alpha times the relevance, negative ones minus beta times.

    Source: Bach et al. 2015, Eq. 60.

    Args:
        alpha: Of the positive contributions.
        beta: Of the negative ones; alpha - beta = 1, so that relevance is conserved.
    """

    alpha: float = 2.0
    beta: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.beta < 0 or abs(self.alpha - self.beta - 1) > 1e-9:
            raise ValueError(f"expected alpha - beta = 1 and beta of 0 or more, got {self.alpha} and {self.beta}")

    def shares(self, layer: Layer) -> list[Share]:
        """One share of positive contributions, one of negative ones."""
        up, down, bias = layer.weight.clamp(min=0), layer.weight.clamp(max=0), layer.bias
        positive = Share(
            [("positive", up), ("negative", down)], None if bias is None else bias.clamp(min=0), factor=self.alpha
        )
        negative = Share(
            [("positive", down), ("negative", up)], None if bias is None else bias.clamp(max=0), factor=-self.beta
        )
        return [positive, negative] if self.beta else [positive]


@dataclass(frozen=True)
class ZPlus(Rule):
    """Positive contributions only: alpha-beta with alpha 1 and beta 0, and the deep Taylor rule of hidden layers.

    Source: Montavon et al. 2017, arXiv:1512.02479, section 4.1.
    """

    def shares(self, layer: Layer) -> list[Share]:
        """The positive contributions."""
        bias = None if layer.bias is None else layer.bias.clamp(min=0)
        parts: list[tuple[Inputs, Tensor]] = [
            ("positive", layer.weight.clamp(min=0)),
            ("negative", layer.weight.clamp(max=0)),
        ]
        return [Share(parts, bias)]


@dataclass(frozen=True)
class WSquare(Rule):
    """R in proportion to the squared weights, whatever the input: for a first layer with unbounded inputs.

    Source: Montavon et al. 2017, arXiv:1512.02479, section 4.1.
    """

    def shares(self, layer: Layer) -> list[Share]:
        """Squared weights; a bias takes the share of its square."""
        bias = None if layer.bias is None else layer.bias.square()
        return [Share([("ones", layer.weight.square())], bias)]


@dataclass(frozen=True)
class Flat(Rule):
    """R spread evenly over what an output sees.

    Source: Lapuschkin et al. 2019, doi:10.1038/s41467-019-08987-4, supplement.
    """

    def shares(self, layer: Layer) -> list[Share]:
        """Ones."""
        return [Share([("ones", torch.ones_like(layer.weight))], None)]


@dataclass(frozen=True)
class ZBox(Rule):
    """The deep Taylor rule of a layer that reads pixels between two bounds: x w - low w+ - high w-.

    The bounds are in the pixel range of the inputs; a standardization ahead of the layer is applied to them too.

    Source: Montavon et al. 2017, arXiv:1512.02479, section 4.1 (z^B).

    Args:
        low: Lowest value of a pixel.
        high: Highest.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.low >= self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")

    def shares(self, layer: Layer) -> list[Share]:
        """One share, (x - low) w+ + (x - high) w-; the bias cancels."""
        up, down = layer.weight.clamp(min=0), layer.weight.clamp(max=0)
        low, high = layer.bounds
        # The bounds are those of one image, so that only one runs through the layer again.
        total = layer.outputs - layer.map(low, up, layer.bias) - layer.map(high, down)
        return [Share([("above low", up), ("below high", down)], None, total=total)]


RULES: Catalogue[Rule] = Catalogue(
    "relevance rule",
    zero=Zero,
    epsilon=Epsilon,
    gamma=Gamma,
    alpha_beta=AlphaBeta,
    z_plus=ZPlus,
    w_square=WSquare,
    flat=Flat,
    z_box=ZBox,
)
