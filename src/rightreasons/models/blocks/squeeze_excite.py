"""Squeeze-and-excitation."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.models.blocks.block import AttentionBlock, bottleneck


class SqueezeExcite(AttentionBlock):
    """Each channel times a weight between 0 and 1 that follows from the means of all channels.

    ``x * s`` with ``s = sigmoid(W2 relu(W1 z))``, z the mean over places.

    Source: Hu et al. 2018, arXiv:1709.01507, Eq. 2 to 4, which have no biases. So has Table 4 of the
    attention-and-counterfactuals paper: at the default reduction a block adds 2 C^2 / 16 weights, 524,288 behind
    ResNet50, as printed, and 204,800 behind any backbone of 1,280 channels. The 204,863 and 258,800 that follow from
    its EfficientNetB0 and MobileNetV2 rows come of exchanged digits (4,419,692 for 4,419,629; 2,682,042 for 2,628,042):
    no reduction, with or without biases, gives either, and the same block cannot differ behind equally many channels.

    Args:
        channels: C.
        reduction: The layer between is narrower by this factor.
        bias: Give both layers biases.

    Raises:
        ValueError: A number below 1.
    """

    def __init__(self, channels: int, reduction: int = 16, *, bias: bool = False) -> None:
        super().__init__()
        hidden = bottleneck(channels, reduction)
        self.excite = nn.Sequential(
            nn.Linear(channels, hidden, bias=bias), nn.ReLU(), nn.Linear(hidden, channels, bias=bias), nn.Sigmoid()
        )

    def attention(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """The weight of each channel, (B, C), under ``channel``."""
        return {"channel": self.excite(features.mean(dim=(2, 3)))}

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The features, each channel times its weight."""
        return features * self.attention(features)["channel"][:, :, None, None]
