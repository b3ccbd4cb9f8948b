"""The position attention module."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.models.blocks.block import AttentionBlock, bottleneck


class PositionAttention(AttentionBlock):
    """To each place, a mixture of all places by likeness is added, times a learned scale that starts at 0.

    ``x_j + scale * sum_i s_ji v_i`` with ``s_j = softmax over i of q_j . k_i``; q, k and v are linear in x.

    Source: Fu et al. 2019, arXiv:1809.02983, Eq. 1 and 2. Without their code's biases, as in Table 4 of the
    attention-and-counterfactuals paper: 2,048,001 more weights behind the 1,280 channels of MobileNetV2. Its other two
    rows (2,083,401 behind the 1,280 of EfficientNetB0, fewer than without the block behind ResNet50) are misprints.

    Args:
        channels: C.
        reduction: Queries and keys have fewer channels by this factor.
        bias: Give the three layers biases.

    Attributes:
        scale: A single weight; while it is 0, the block hands its features on.

    Raises:
        ValueError: A number below 1.
    """

    def __init__(self, channels: int, reduction: int = 8, *, bias: bool = False) -> None:
        super().__init__()
        narrow = bottleneck(channels, reduction)
        self.query = nn.Conv2d(channels, narrow, 1, bias=bias)
        self.key = nn.Conv2d(channels, narrow, 1, bias=bias)
        self.value = nn.Conv2d(channels, channels, 1, bias=bias)
        self.scale = nn.Parameter(torch.zeros(1))

    def attention(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """What each place takes from every other, (B, H W, H W), rows that add up to 1, under ``position``."""
        query, key = self.query(features).flatten(2), self.key(features).flatten(2)
        return {"position": (query.mT @ key).softmax(dim=2)}

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The features plus the scaled mixtures."""
        mixed: Tensor = self.value(features).flatten(2) @ self.attention(features)["position"].mT
        return features + self.scale * mixed.view_as(features)
