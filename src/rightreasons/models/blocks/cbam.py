"""The convolutional block attention module."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.models.blocks.block import AttentionBlock, bottleneck


class CBAM(AttentionBlock):
    """Each channel times a weight, then each place times a weight, both between 0 and 1.

    ``x' = Mc * x`` with ``Mc = sigmoid(MLP(mean) + MLP(max))`` over places, then ``Ms * x'`` with
    ``Ms = sigmoid(convolution([mean; max]))`` over the channels of ``x'``.

    Source: Woo et al. 2018, arXiv:1807.06521, Eq. 1 to 3. As these equations have it, without the biases and the
    normalization behind the convolution that their code adds; so it is in Table 4 of the attention-and-counterfactuals
    paper, whose blocks add 204,898 weights behind EfficientNetB0 and 524,386 behind ResNet50.

    Args:
        channels: C.
        reduction: The layer between those of the MLP is narrower by this factor.
        kernel: Side of the convolution in pixels of the map; odd.
        bias: Give the layers biases.

    Raises:
        ValueError: A number below 1, or an even kernel.
    """

    def __init__(self, channels: int, reduction: int = 16, *, kernel: int = 7, bias: bool = False) -> None:
        super().__init__()
        if kernel < 1 or kernel % 2 == 0:
            raise ValueError(f"expected an odd kernel of at least 1, got {kernel}")
        hidden = bottleneck(channels, reduction)
        self.mlp = nn.Sequential(
            nn.Linear(channels, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, channels, bias=bias)
        )
        self.place = nn.Conv2d(2, 1, kernel, padding=kernel // 2, bias=bias)

    def attention(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """The weight of each channel, (B, C), under ``channel``, and of each place, (B, 1, H, W), under ``spatial``."""
        channel = (self.mlp(features.mean(dim=(2, 3))) + self.mlp(features.amax(dim=(2, 3)))).sigmoid()
        scaled = features * channel[:, :, None, None]
        pooled = torch.cat([scaled.mean(dim=1, keepdim=True), scaled.amax(dim=1, keepdim=True)], dim=1)
        return {"channel": channel, "spatial": self.place(pooled).sigmoid()}

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The features times both weights."""
        weights = self.attention(features)
        return features * weights["channel"][:, :, None, None] * weights["spatial"]
