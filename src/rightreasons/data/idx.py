"""Files in the IDX format of the MNIST data."""

from __future__ import annotations

import math
import struct

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

from rightreasons.core import CorruptData

MAGIC = b"\x00\x00\x08"
MOST_AXES = 8


def parse_idx(content: bytes, name: str) -> UInt8[Tensor, ...]:
    """The array of bytes in an IDX file.

    Two zero bytes, the type (only 0x08, unsigned byte), the number of axes, the length of each axis as big-endian
    32-bit integers, then the values, last axis fastest.

    Args:
        content: The whole file, uncompressed.
        name: What the error calls it.

    Raises:
        CorruptData: Not an IDX file of bytes, or too short or too long.
    """
    if len(content) < 4 or content[:3] != MAGIC or not 1 <= content[3] <= MOST_AXES:
        raise CorruptData(
            f"{name}: expected an IDX file of bytes (00 00 08 ..), got {content[:4].hex(' ') or 'nothing'}"
        )
    start = 4 + 4 * content[3]
    if len(content) < start:
        raise CorruptData(f"{name}: expected an IDX header of {start} bytes, got {len(content)} bytes")
    shape = struct.unpack(f">{content[3]}I", content[4:start])
    expected = start + math.prod(shape)
    if len(content) != expected:
        raise CorruptData(f"{name}: expected {expected} bytes for an array of shape {shape}, got {len(content)}")
    return torch.from_numpy(np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy())
