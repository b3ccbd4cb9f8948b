"""What an operator hears about its output, and hands on about its inputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Message:
    """Relevance R of a tensor v, in one of two forms.

    ``gradient`` is R / v where that is known without a division: R = v * gradient. Most rules deliver it, and the next
    operator can use it as it stands, which costs no more than a plain backward pass and has no pole at v = 0.
    ``relevance`` is R itself.

    Attributes:
        gradient: R / v, or ``None``.
        relevance: R, or ``None``.
        positive: R is zero wherever v is not above zero.
    """

    gradient: Tensor | None = None
    relevance: Tensor | None = None
    positive: bool = False

    def of(self, value: Tensor) -> Tensor:
        """R, for the tensor that this is about."""
        if self.relevance is not None:
            return self.relevance
        if self.gradient is None:
            raise RuntimeError("a message with neither form")
        return value * self.gradient

    def over(self, value: Tensor, stabilizer: float) -> Tensor:
        """R / v, stabilized only where a division is needed."""
        if self.gradient is not None:
            return self.gradient
        return divided(self.of(value), value, stabilizer)

    def joined(self, other: Message, value: Tensor) -> Message:
        """What two users of one tensor say about it together."""
        positive = self.positive and other.positive
        if self.gradient is not None and other.gradient is not None:
            return Message(gradient=self.gradient + other.gradient, positive=positive)
        return Message(relevance=self.of(value) + other.of(value), positive=positive)


def divided(numerator: Tensor, denominator: Tensor, stabilizer: float) -> Tensor:
    """N / (d + stabilizer * sign(d)), with sign(0) = 1; without a stabilizer, zero where d is zero."""
    if stabilizer > 0:
        return numerator / stabilized(denominator, stabilizer)
    zero = denominator == 0
    return torch.where(zero, 0.0, numerator / torch.where(zero, 1.0, denominator))


def stabilized(values: Tensor, stabilizer: float) -> Tensor:
    """The values moved away from zero."""
    return values + torch.copysign(values.new_tensor(stabilizer), values)
