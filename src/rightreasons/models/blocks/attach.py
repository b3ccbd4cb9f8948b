"""A backbone, an attention block behind it or none, and a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import BadModel, Catalogue
from rightreasons.core.hooks import modes_kept
from rightreasons.models.blocks.block import AttentionBlock
from rightreasons.models.blocks.cbam import CBAM
from rightreasons.models.blocks.global_context import GlobalContext
from rightreasons.models.blocks.position_attention import PositionAttention
from rightreasons.models.blocks.squeeze_excite import SqueezeExcite

BLOCKS: Catalogue[AttentionBlock] = Catalogue(
    "attention block",
    squeeze_excite=SqueezeExcite,
    cbam=CBAM,
    position_attention=PositionAttention,
    global_context=GlobalContext,
)

Block = nn.Module | Mapping[str, Any] | str | None
"""A block itself, its name with settings under ``name`` and theirs, its name alone, or none: ``None`` or empty."""


class Attached(nn.Module):
    """A backbone with a block behind it and a head; made by :func:`attach`.

    Attributes:
        backbone: Gives the feature map.
        block: The attention block, or the identity.
        head: The mean over places, then the dense layers.
        explained_layer: What is explained unless another layer is named: the map that the head meets.
    """

    explained_layer = "block"

    def __init__(self, backbone: nn.Module, block: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone
        self.block = block
        self.head = head

    def forward(self, inputs: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch classes"]:
        """The logits."""
        logits: Tensor = self.head(self.block(self.backbone(inputs)))
        return logits

    def attention(self, inputs: Float[Tensor, "batch _ _ _"]) -> dict[str, Float[Tensor, "batch ..."]]:
        """What the block gives weight to in these images, see :meth:`AttentionBlock.attention`; empty without a block.

        In evaluation mode and off the graph; the network is left as it was.
        """
        if not isinstance(self.block, AttentionBlock):
            return {}
        with torch.no_grad(), modes_kept(self):
            self.eval()
            return self.block.attention(self.backbone(inputs))


def attach(
    backbone: nn.Module,
    block: Block,
    classes: int,
    *,
    channels: int | None = None,
    hidden: int = 128,
    dropout: float = 0.5,
) -> Attached:
    """A network of a backbone, an attention block or none, and the paper's head.

    The head is the mean over places, a dense layer with ReLU, dropout, and a dense layer of logits. With
    ``nn.Identity()`` as backbone it takes feature maps that were computed before.

    Source: the attention-and-counterfactuals paper, sections 6.2.3 and 6.4.5 (``build_backbone_attention``); the
    softmax belongs to the loss.

    Args:
        backbone: Returns maps (B, C, H, W); of :func:`rightreasons.models.backbone` or one's own.
        block: A block, the name of one in ``BLOCKS``, a mapping with ``name`` and its settings, or ``None``.
        classes: Number of classes.
        channels: C, where the backbone does not say so by an attribute of that name.
        hidden: Width of the dense layer between; 0 leaves it out.
        dropout: Share of it that is dropped in training.

    Raises:
        ValueError: No such block, a setting it does not have, or a number out of range.
        BadModel: The number of channels is not known.
    """
    width = channels if channels is not None else getattr(backbone, "channels", None)
    if not isinstance(width, int):
        raise BadModel(f"{type(backbone).__name__} does not say how many channels it gives; name them: channels=...")
    return Attached(backbone, _block(block, width), _head(width, classes, hidden, dropout))


def _block(block: Block, channels: int) -> nn.Module:
    if isinstance(block, nn.Module):
        return block
    settings = dict(block) if isinstance(block, Mapping) else {"name": block or ""}
    name = settings.pop("name", "")
    if not name and not settings:
        return nn.Identity()
    try:
        return BLOCKS[name](channels, **settings)
    except TypeError as error:
        raise ValueError(f"block {name!r} cannot be made with {settings}: {error}") from error


def _head(channels: int, classes: int, hidden: int, dropout: float) -> nn.Sequential:
    if classes < 1 or hidden < 0 or not 0 <= dropout < 1:
        raise ValueError(
            f"expected classes >= 1, hidden >= 0 and dropout in [0, 1), got {classes}, {hidden} and {dropout}"
        )
    pool: list[nn.Module] = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    if hidden == 0:
        return nn.Sequential(*pool, nn.Dropout(dropout), nn.Linear(channels, classes))
    dense = [nn.Linear(channels, hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, classes)]
    return nn.Sequential(*pool, *dense)
