"""What stands on the features of a frozen network: a head with an attention block, and the network's last layers."""

from __future__ import annotations

from typing import Any

from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import BadModel
from rightreasons.models.blocks.attach import Attached, Block, attach
from rightreasons.models.pretrained import efficientnet_lite0


class AttentionHead(Attached):
    """An attention block, or none, and the paper's head, for feature maps in the place of images.

    Args:
        shape: Channels, height and width of a map.
        classes: Number of classes.
        block: Name of an attention block, or a mapping of ``name`` and its settings; empty for none.
        hidden: Width of the head's dense layer; 0 leaves it out.
        dropout: Share of it that is dropped in training.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1280, 3, 3),
        classes: int = 10,
        *,
        block: Block = "",
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        made = attach(nn.Identity(), block, classes, channels=shape[0], hidden=hidden, dropout=dropout)
        super().__init__(made.backbone, made.block, made.head)


class Lite0Tail(Attached):
    """The layers of the trained EfficientNet-Lite0 behind one of its blocks, an attention block or none, and a head.

    With the cached features of that block (``_blocks.10``) in the place of images it fine-tunes the last layers alone,
    without a pass through those before. Normalizations keep the statistics that they were trained to, and no block is
    dropped at random.

    Args:
        shape: Channels, height and width of a map of the block.
        classes: Number of classes.
        after: The block's number, 0 to 15; 15 leaves the last convolution to train.
        block: Name of an attention block, or a mapping of ``name`` and its settings; empty for none.
        hidden: Width of the head's dense layer; 0 leaves it out.
        dropout: Share of it that is dropped in training.

    Raises:
        BadModel: There is no such block, or its maps have another number of channels.
        MissingExtra: The packages with the network and its weights are not installed.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (112, 7, 7),
        classes: int = 10,
        *,
        after: int = 10,
        block: Block = "",
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        made = attach(_Tail(after, shape[0]), block, classes, hidden=hidden, dropout=dropout)
        super().__init__(made.backbone, made.block, made.head)


class _Tail(nn.Module):
    """Maps of a block in, the last map out."""

    def __init__(self, after: int, channels: int) -> None:
        super().__init__()
        network: Any = efficientnet_lite0().network
        blocks = list(network._blocks)
        if not 0 <= after < len(blocks):
            raise BadModel(f"expected a block of 0 to {len(blocks) - 1}, got {after}")
        given = blocks[after]._bn2.num_features
        if channels != given:
            raise BadModel(f"expected the {given} maps of _blocks.{after}, got {channels}")
        self.blocks = nn.ModuleList(blocks[after + 1 :])
        self.last = nn.Sequential(network._conv_head, network._bn1, network._swish)
        self.channels: int = network._bn1.num_features

    def train(self, mode: bool = True) -> _Tail:
        """The mode of all but the normalizations, which stay as in evaluation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, maps: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch channels height width"]:
        """The last map."""
        for block in self.blocks:
            maps = block(maps)
        found: Tensor = self.last(maps)
        return found
