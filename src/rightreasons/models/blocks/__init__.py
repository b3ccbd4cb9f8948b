"""Attention blocks, and how they are put behind a backbone."""

from rightreasons.models.blocks.attach import BLOCKS, Attached, attach
from rightreasons.models.blocks.attended import BlockAttention, attended
from rightreasons.models.blocks.block import AttentionBlock
from rightreasons.models.blocks.cbam import CBAM
from rightreasons.models.blocks.global_context import GlobalContext
from rightreasons.models.blocks.position_attention import PositionAttention
from rightreasons.models.blocks.squeeze_excite import SqueezeExcite

__all__ = [
    "BLOCKS",
    "CBAM",
    "Attached",
    "AttentionBlock",
    "BlockAttention",
    "GlobalContext",
    "PositionAttention",
    "SqueezeExcite",
    "attach",
    "attended",
]
