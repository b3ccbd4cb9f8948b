"""The global context block."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.models.blocks.block import AttentionBlock, bottleneck


class GlobalContext(AttentionBlock):
    """To every place, the same transformed mean of all places is added; the mean is weighted by attention.

    ``x_i + W2 relu(LN(W1 sum_j a_j x_j))`` with ``a = softmax over places of Wk x``.

    Source: Cao et al. 2019, arXiv:1904.11492, section 3.4 (GC block). Without biases but those of the normalization.

    The attention-and-counterfactuals paper (section 6.4.4) calls something else by this name: squeeze-and-excitation
    with a residual, ``x + x * sigmoid(W2 relu(W1 mean))``, without attention over places. ``gated`` gives that; its
    weights are as many as those of ``SqueezeExcite``, as in the paper's Table 4.

    Args:
        channels: C.
        reduction: The layer between is narrower by this factor.
        gated: Take the form of that paper.
        bias: Give the layers biases.

    Raises:
        ValueError: A number below 1.
    """

    def __init__(self, channels: int, reduction: int = 16, *, gated: bool = False, bias: bool = False) -> None:
        super().__init__()
        hidden = bottleneck(channels, reduction)
        self.gated = gated
        # A bias of the attention would cancel in the softmax.
        self.place = None if gated else nn.Conv2d(channels, 1, 1, bias=False)
        self.transform = nn.Sequential(
            nn.Linear(channels, hidden, bias=bias),
            nn.Identity() if gated else nn.LayerNorm(hidden),
            nn.ReLU(),
            nn.Linear(hidden, channels, bias=bias),
        )

    def attention(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> dict[str, Float[Tensor, "batch ..."]]:
        """The weight of each place, (B, 1, H, W), under ``context``; if ``gated``, that of each channel instead."""
        if self.place is None:
            return {"channel": self.transform(features.mean(dim=(2, 3))).sigmoid()}
        scores: Tensor = self.place(features)
        return {"context": scores.flatten(1).softmax(dim=1).view_as(scores)}

    def forward(
        self, features: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """The features plus the context."""
        weights = self.attention(features)
        if self.gated:
            return features + features * weights["channel"][:, :, None, None]
        added: Tensor = self.transform((features * weights["context"]).sum(dim=(2, 3)))
        return features + added[:, :, None, None]
