"""What the attention blocks have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod

from jaxtyping import Float
from torch import Tensor, nn


class AttentionBlock(nn.Module, ABC):
    """Features (B, C, H, W) in, features of the same shape out, weighted by attention that can be looked at."""

    @abstractmethod
    def attention(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """The weights that the block gives to these features, by name, on the graph; nothing is kept.

        ``channel`` is (B, C), ``spatial`` and ``context`` are (B, 1, H, W), and ``position`` is (B, H W, H W), in rows:
        how much every place gives to one.
        """

    @abstractmethod
    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The features as the attention weights them."""


def bottleneck(channels: int, reduction: int) -> int:
    """Width between two layers that narrow the channels by ``reduction`` and widen them again; at least 1.

    Raises:
        ValueError: A number below 1.
    """
    if channels < 1 or reduction < 1:
        raise ValueError(f"expected channels and reduction of at least 1, got {channels} and {reduction}")
    return max(1, channels // reduction)
