"""The shape of a handwritten digit in six numbers, so that one can ask what a change left as it was.

Images are bright strokes on a dark background.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from jaxtyping import Float
from scipy import ndimage
from torch import Tensor

SCALE = 4
"""Times that an image is enlarged before it is measured."""

TRIMMED = 0.01
"""Share of the stroke that may stick out on each side of width and height."""

AT_ONCE = 256

Masks = npt.NDArray[np.bool_]
Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Morphology:
    """Measurements of a stroke, in pixels of the image; NaN where an image has no stroke.

    Attributes:
        area: Of the stroke, in square pixels.
        length: Of its skeleton.
        thickness: Twice the mean distance of the skeleton from the background.
        slant: Angle to the vertical in degrees, positive where the stroke leans to the right.
        width: Horizontal side of the parallelogram that leans as the stroke does and holds it.
        height: Of this parallelogram.
    """

    area: Float[Tensor, " batch"]
    length: Float[Tensor, " batch"]
    thickness: Float[Tensor, " batch"]
    slant: Float[Tensor, " batch"]
    width: Float[Tensor, " batch"]
    height: Float[Tensor, " batch"]


@dataclass(frozen=True, eq=False)
class MorphologyChange:
    """By how much two measurements differ; NaN where either image has no stroke.

    Attributes:
        area: ``|after - before| / before``.
        length: The same.
        thickness: The same.
        slant: The absolute difference in degrees: a share of an angle near zero says nothing.
        width: As the area.
        height: As the area.
        relative_slant: The difference as a share of the angle before, as it has been published; its mean is that of
            the few images that hardly lean.
    """

    area: Float[Tensor, " batch"]
    length: Float[Tensor, " batch"]
    thickness: Float[Tensor, " batch"]
    slant: Float[Tensor, " batch"]
    width: Float[Tensor, " batch"]
    height: Float[Tensor, " batch"]
    relative_slant: Float[Tensor, " batch"]


def digit_morphology(images: Float[Tensor, "batch 1 height width"], *, scale: int = SCALE) -> Morphology:
    """Measure the stroke of each image.

    The image is enlarged by bicubic interpolation and the stroke is what lies above the middle of its own range of
    values. Its skeleton is what thinning leaves; its slant is ``atan(-m11 / m02)`` of the central moments; width and
    height are those of the parallelogram of this slant outside of which 1 % of the stroke lies on each side.

    Source: Castro et al. 2019 (Morpho-MNIST), arXiv:1809.10780, section 2. Ours: no smoothing while enlarging; Guo and
    Hall's thinning in place of the ridges of the distance transform; moments, width and height are those of the
    stroke and not of gray values, so that faint noise does not count; a corner of the skeleton counts as two steps and
    not as a diagonal as well; the angle in degrees.

    Args:
        images: Bright strokes on a dark background.
        scale: Times that they are enlarged; thickness is exact to one enlarged pixel.

    Raises:
        ValueError: ``scale`` is below 1, or the images have several channels.
    """
    if scale < 1:
        raise ValueError(f"expected a scale of at least 1, got {scale}")
    if images.shape[1] != 1:
        raise ValueError(f"expected images of one channel, got {images.shape[1]}")
    rows = [_measured(mask, scale) for part in torch.split(images, AT_ONCE) for mask in _thinned(_strokes(part, scale))]
    table = torch.tensor(np.array(rows).reshape(-1, 6), dtype=torch.float64, device=images.device)
    return Morphology(*table.unbind(dim=1))


def morphology_change(before: Morphology, after: Morphology) -> MorphologyChange:
    """By how much the images' measurements differ from those of their originals."""
    gaps = {f.name: (getattr(after, f.name) - getattr(before, f.name)).abs() for f in fields(Morphology)}
    shares = {name: gap / getattr(before, name).abs() for name, gap in gaps.items()}
    # A point has no length, and an upright stroke no slant, of which anything were a share.
    shares = {name: share.masked_fill(share.isinf(), torch.nan) for name, share in shares.items()}
    relative = shares.pop("slant")
    return MorphologyChange(**shares, slant=gaps["slant"], relative_slant=relative)


def _strokes(images: Tensor, scale: int) -> Masks:
    """Which enlarged pixels belong to the stroke, with a margin of one that does not."""
    values = images.detach().double().cpu()
    large = F.interpolate(values, scale_factor=scale, mode="bicubic", align_corners=False)
    low, high = (end(values, dim=(1, 2, 3), keepdim=True) for end in (torch.amin, torch.amax))
    # A blank image has no middle.
    stroke = (large >= (low + high) / 2) & (high > low)
    found: Masks = F.pad(stroke[:, 0], (1, 1, 1, 1)).numpy()
    return found


def _thinned(strokes: Masks) -> list[tuple[Masks, Masks]]:
    """Each stroke with its skeleton."""
    skeletons, removed = strokes.copy(), True
    while removed:
        removed = False
        for second in (False, True):
            erased = _erasable(skeletons, second=second)
            removed |= bool(erased.any())
            skeletons[:, 1:-1, 1:-1] &= ~erased
    return list(zip(strokes, skeletons, strict=True))


def _erasable(masks: Masks, *, second: bool) -> Masks:
    """Pixels that one pass of Guo and Hall 1989 takes away: on one side of the stroke, no end and no bridge.

    The neighbors are named as in the paper, clockwise from the one above, ``p2`` to ``p9``.
    """
    places = ((-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1), (-1, -1))
    height, width = (side - 2 for side in masks.shape[1:])
    p2, p3, p4, p5, p6, p7, p8, p9 = (
        masks[:, 1 + down : 1 + down + height, 1 + right : 1 + right + width] for down, right in places
    )
    pairs = ((p2, p3, p4), (p4, p5, p6), (p6, p7, p8), (p8, p9, p2))
    runs = sum((~side & (corner | after)).astype(np.uint8) for side, corner, after in pairs)
    one = sum((a | b).astype(np.uint8) for a, b in ((p9, p2), (p3, p4), (p5, p6), (p7, p8)))
    other = sum((a | b).astype(np.uint8) for a, b in ((p2, p3), (p4, p5), (p6, p7), (p8, p9)))
    around = np.minimum(one, other)
    kept = (p6 | p7 | ~p9) & p8 if not second else (p2 | p3 | ~p5) & p4
    found: Masks = masks[:, 1:-1, 1:-1] & (runs == 1) & (around >= 2) & (around <= 3) & ~kept
    return found


def _measured(masks: tuple[Masks, Masks], scale: int) -> tuple[float, ...]:
    """Area, length, thickness, slant, width and height of one stroke with its skeleton."""
    stroke, skeleton = masks
    if not stroke.any():
        return (np.nan,) * 6
    depth = ndimage.distance_transform_edt(stroke)[skeleton]
    down, right = (place.astype(np.float64) for place in np.nonzero(stroke))
    down, right = down - down.mean(), right - right.mean()
    # A stroke in a single row leans nowhere.
    lean = (down * right).sum() / (np.square(down).sum() or 1.0)
    sides = _span(right - lean * down), _span(down)
    long, thick = _length(skeleton), 2 * depth.mean()
    lengths = (length / scale for length in (long, thick, *sides))
    long, thick, width, height = lengths
    return stroke.sum() / scale**2, long, thick, float(np.degrees(np.arctan(-lean))), width, height


def _length(skeleton: Masks) -> float:
    """Of a line one pixel wide: 1 from a pixel to one beside it, the root of 2 to one across a corner.

    A corner is not cut where a pixel beside both leads around it.
    """
    beside = (skeleton[1:] & skeleton[:-1]).sum() + (skeleton[:, 1:] & skeleton[:, :-1]).sum()
    a, b, c, d = skeleton[:-1, :-1], skeleton[:-1, 1:], skeleton[1:, :-1], skeleton[1:, 1:]
    across = (a & d & ~b & ~c).sum() + (b & c & ~a & ~d).sum()
    return float(beside + np.sqrt(2) * across)


def _span(places: Numbers) -> float:
    """From where 1 % of the stroke is left behind to where 1 % is still to come; a pixel is one long."""
    edges = np.arange(np.floor(places.min()) - 0.5, np.ceil(places.max()) + 1)
    passed = np.concatenate([[0], np.histogram(places, edges)[0].cumsum()]) / len(places)
    low, high = np.interp([TRIMMED, 1 - TRIMMED], passed, edges)
    return float(high - low)
