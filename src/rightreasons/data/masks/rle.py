"""The two run-length codes that masks come in: COCO's, and the one of Label Studio's brush."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from rightreasons.core import CorruptData
from rightreasons.data.masks.raster import Region, Size

FIRST = 48
DIGITS = 5
MORE = 1 << DIGITS
SIGN = MORE >> 1


def to_runs(region: Region) -> list[int]:
    """COCO's uncompressed code: how many pixels are out, in, out, ..., column by column."""
    flat = np.concatenate([[False], region.T.ravel()])
    changes = np.flatnonzero(flat[1:] != flat[:-1])
    runs: list[int] = np.diff(np.concatenate([[0], changes, [flat.size - 1]])).tolist()
    return runs


def from_runs(runs: Sequence[int], size: Size) -> Region:
    """The pixels of COCO's uncompressed code.

    Raises:
        CorruptData: The runs do not fill the image.
    """
    height, width = size
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise CorruptData(f"expected runs over {height * width} pixels ({height}x{width}), got {sum(runs)}")
    inside = np.arange(len(runs)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, runs).reshape(width, height).T)


def to_text(runs: Sequence[int]) -> str:
    """COCO's compressed code: runs as text.

    Each number, from the fourth on less the one two before, is cut into groups of 5 bits, the lowest first, until
    those left are all copies of the sign; 32 is added where more groups follow, then 48, which makes it a character.
    """
    text = []
    for place, run in enumerate(runs):
        number = run - runs[place - 2] if place > 2 else run
        more = True
        while more:
            group = number & (MORE - 1)
            number >>= DIGITS
            more = number != (-1 if group & SIGN else 0)
            text.append(chr(group + MORE * more + FIRST))
    return "".join(text)


def from_text(text: str) -> list[int]:
    """The runs of COCO's compressed code.

    Raises:
        CorruptData: A character does not belong to the code, or the last number is cut off.
    """
    runs: list[int] = []
    number = shift = 0
    for character in text:
        group = ord(character) - FIRST
        if not 0 <= group < 2 * MORE:
            raise CorruptData(f"expected a compressed run-length code, got the character {character!r} in it")
        number |= (group & (MORE - 1)) << shift
        shift += DIGITS
        if group & MORE:
            continue
        if group & SIGN:
            number -= 1 << shift
        runs.append(number + runs[-2] if len(runs) > 2 else number)
        number = shift = 0
    if shift:
        raise CorruptData("the compressed run-length code ends within a number")
    return runs


def unpack_brush(data: bytes, count: int) -> NDArray[np.uint32]:
    """The ``count`` numbers that Label Studio's brush packs, four a pixel (red, green, blue, alpha).

    A stream of bits: 32 with how many numbers there are, 5 with the bits of a number less one, four times 4 with the
    bits of a length less one. Then pieces: 1 bit (whether one number is repeated), 2 bits (which of the four sizes
    the length has), the length less one, and the one number or as many as the length says.
    Source: the format of the package thi.ng/rle-pack, as told in its documentation.

    Raises:
        CorruptData: It holds another count of numbers, or ends too early.
    """
    bits = _Bits(data)
    told, word = bits.number(32), bits.number(5) + 1
    if told != count:
        raise CorruptData(f"expected a brush's run-length code of {count} numbers, got {told}")
    lengths = [bits.number(4) + 1 for _ in range(4)]
    pieces: list[NDArray[np.uint32]] = []
    done = 0
    while done < count:
        repeated = bits.number(1)
        length = bits.number(lengths[bits.number(2)]) + 1
        pieces.append(bits.words(1, word).repeat(length) if repeated else bits.words(length, word))
        done += length
    return np.concatenate(pieces)[:count] if pieces else np.zeros(0, np.uint32)


class _Bits:
    """A stream of bits, the highest of each byte first."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.place = 0

    def number(self, bits: int) -> int:
        """The next one of that many bits."""
        chunk, skipped = self._take(bits)
        return (int.from_bytes(chunk, "big") >> (8 * len(chunk) - skipped - bits)) & ((1 << bits) - 1)

    def words(self, count: int, bits: int) -> NDArray[np.uint32]:
        """The next numbers of so many bits each."""
        chunk, skipped = self._take(count * bits)
        single = np.unpackbits(np.frombuffer(chunk, np.uint8))[skipped : skipped + count * bits]
        weights = np.uint32(1) << np.arange(bits - 1, -1, -1, dtype=np.uint32)
        return np.asarray((single.reshape(count, bits) * weights).sum(axis=1), np.uint32)

    def _take(self, bits: int) -> tuple[bytes, int]:
        """The bytes that hold the next bits, and how many bits of the first are over."""
        start, self.place = self.place, self.place + bits
        if self.place > 8 * len(self.data):
            raise CorruptData("the brush's run-length code ends too early")
        return self.data[start // 8 : -(-self.place // 8)], start % 8
