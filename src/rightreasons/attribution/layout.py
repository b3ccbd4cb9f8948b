"""Where tokens lie: which are patches of the image, and on what grid."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from rightreasons.core import BadModel
from rightreasons.core.tensors import resized

_MOST_PREFIXES = 8
"""Class, distillation and register tokens ahead of the patches, at most."""


def at_pixels(values: Float[Tensor, "batch tokens"], size: tuple[int, int]) -> Float[Tensor, "batch 1 height width"]:
    """Values of tokens as a map of the image: the patches on their grid, enlarged bilinearly.

    Tokens ahead of the patches (of the class, registers) are left out.

    Raises:
        BadModel: No grid of patches has so many tokens.
    """
    rows, columns = patch_grid(values.shape[1], size)
    patches = values[:, values.shape[1] - rows * columns :]
    return resized(patches.reshape(-1, 1, rows, columns), size)


def patch_grid(tokens: int, size: tuple[int, int], where: str = "") -> tuple[int, int]:
    """Rows and columns of the square patches that an image of this size was cut into.

    Patches that cover the image exactly are preferred, then few tokens beside them. A row of tokens is its own grid.

    Args:
        tokens: How many there are, those ahead of the patches included.
        size: Height and width of the image.
        where: Begins the message of the error.

    Raises:
        BadModel: There is no such grid.
    """
    height, width = size
    fits = []
    for side in range(1, min(height, width) + 1):
        rows, columns = height // side, width // side
        beside = tokens - rows * columns
        if 0 <= beside <= min(_MOST_PREFIXES, rows * columns - 1) and (rows * columns > 1 or side == 1):
            fits.append((bool(height % side or width % side), beside, (rows, columns)))
    if not fits:
        raise BadModel(
            f"{where}{tokens} tokens are no grid of square patches of an image of {height}x{width}, so that their "
            "values have no place in it"
        )
    return min(fits)[2]
