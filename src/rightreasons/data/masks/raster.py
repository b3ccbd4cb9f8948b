"""From what a person drew (outlines, boxes, strokes) to pixels: a pixel is in when its center is.

Places are (x, y) in pixels from the upper left corner of the image, so that the first pixel's center is (0.5, 0.5);
what lies outside the image is cut off.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from itertools import pairwise

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

Point = tuple[float, float]
Size = tuple[int, int]
Region = NDArray[np.bool_]


def mask_of(*regions: Region) -> Float[Tensor, "1 height width"]:
    """The mask of what any of the regions holds, as :class:`~rightreasons.data.Marks` takes it.

    Raises:
        ValueError: There is no region.
    """
    if not regions:
        raise ValueError("expected at least one region, got none")
    return torch.from_numpy(np.asarray(np.logical_or.reduce(regions), np.bool_))[None].to(torch.float32)


def polygon(rings: Iterable[Sequence[Point]], size: Size) -> Region:
    """The pixels inside by the even-odd rule: those from which a ray crosses the outlines an odd number of times.

    A ring inside another one is a hole, and so is what a ring that crosses itself goes around twice. An edge that is
    gone along there and back changes nothing, so a cut may lead from an outline to the hole in it.

    Args:
        rings: Closed outlines; the last corner is joined to the first.
        size: Height and width of the image.
    """
    height, width = size
    flips = np.zeros((height, width + 1), np.int32)
    for ring in rings:
        for start, end in pairwise((*ring, *ring[:1])):
            # The same edge in both directions must be cut at the very same places.
            top, bottom = (start, end) if start[1] <= end[1] else (end, start)
            rows, columns = _crossings(top, bottom, size)
            flips[rows, columns] += 1
    return np.asarray(flips[:, :-1].cumsum(axis=1) % 2 == 1, np.bool_)


def _crossings(top: Point, bottom: Point, size: Size) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Rows whose centers the edge crosses, and in each the first column whose center is right of it."""
    height, width = size
    first, last = (min(max(math.ceil(y - 0.5), 0), height) for y in (top[1], bottom[1]))
    rows = np.arange(first, last)
    if not len(rows):
        return rows, rows
    x = top[0] + (rows + 0.5 - top[1]) * ((bottom[0] - top[0]) / (bottom[1] - top[1]))
    return rows, np.ceil(x - 0.5).clip(0, width).astype(np.intp)


def box(corner: Point, width: float, height: float, size: Size, *, rotation: float = 0.0) -> Region:
    """The pixels in a box.

    Args:
        corner: Its upper left corner, which it is turned about.
        width: Of the box.
        height: Of the box.
        size: Height and width of the image.
        rotation: Degrees, clockwise as seen.
    """
    corners = ((0.0, 0.0), (width, 0.0), (width, height), (0.0, height))
    return polygon([[_turned(point, corner, rotation) for point in corners]], size)


def ellipse(center: Point, radius_x: float, radius_y: float, size: Size, *, rotation: float = 0.0) -> Region:
    """The pixels in an ellipse.

    Args:
        center: Its center, which it is turned about.
        radius_x: Half of its width.
        radius_y: Half of its height.
        size: Height and width of the image.
        rotation: Degrees, clockwise as seen.
    """
    if radius_x <= 0 or radius_y <= 0:
        return np.zeros(size, np.bool_)
    x, y = _centers(size)
    x, y = x - center[0], y - center[1]
    cosine, sine = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    along, across = x * cosine + y * sine, y * cosine - x * sine
    return np.asarray((along / radius_x) ** 2 + (across / radius_y) ** 2 <= 1, np.bool_)


def stroke(points: Sequence[Point], width: float, size: Size) -> Region:
    """The pixels under a round brush that is led along the points; a single point is a dot.

    Args:
        points: Where the brush was led.
        width: Its diameter.
        size: Height and width of the image.

    Raises:
        ValueError: The width is not positive.
    """
    if not width > 0:
        raise ValueError(f"expected a stroke of a positive width, got {width}")
    drawn = np.zeros(size, np.bool_)
    for start, end in pairwise(points) if len(points) > 1 else [(point, point) for point in points]:
        near = tuple(
            slice(max(0, math.floor(min(a, b) - width / 2)), max(0, math.ceil(max(a, b) + width / 2)))
            for a, b in ((start[1], end[1]), (start[0], end[0]))
        )
        x, y = (np.broadcast_to(axis, size)[near] for axis in _centers(size))
        drawn[near] |= _distance(x, y, start, end) <= width / 2
    return drawn


def _distance(x: NDArray[np.float64], y: NDArray[np.float64], start: Point, end: Point) -> NDArray[np.float64]:
    """Of each place from a straight line between two points."""
    across, down = end[0] - start[0], end[1] - start[1]
    length = across * across + down * down
    x, y = x - start[0], y - start[1]
    share = np.clip((x * across + y * down) / length, 0, 1) if length else np.zeros_like(x)
    return np.asarray(np.hypot(x - share * across, y - share * down), np.float64)


def _centers(size: Size) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x, y = (np.arange(side, dtype=np.float64) + np.float64(0.5) for side in (size[1], size[0]))
    return x[None, :], y[:, None]


def _turned(point: Point, about: Point, rotation: float) -> Point:
    cosine, sine = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
    return about[0] + point[0] * cosine - point[1] * sine, about[1] + point[0] * sine + point[1] * cosine
