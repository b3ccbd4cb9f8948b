"""From pixels to outlines that :func:`rightreasons.data.masks.raster.polygon` turns into the same pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from rightreasons.data.masks.raster import Region

Corner = tuple[int, int]


def outlines(region: Region) -> list[list[Corner]]:
    """One closed outline a connected part, along the edges of its pixels.

    A hole hangs on the outline by a cut that is gone along there and back, so that each part is a single polygon.

    Returns:
        Corners (x, y) of each part; the last one is joined to the first.
    """
    labels, _ = ndimage.label(region)
    parts = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), start=1):
        rings = _rings(labels[rows, columns] == number)
        parts.append(_joined([[(x + columns.start, y + rows.start) for x, y in ring] for ring in rings]))
    return parts


def _joined(rings: list[list[Corner]]) -> list[Corner]:
    """One ring that goes around all of them from a corner of the first."""
    first, *holes = rings
    if not holes:
        return first
    home = first[0]
    path = [*first, home]
    for ring in holes:
        path += [*ring, ring[0], home]
    return path


def _rings(part: NDArray[np.bool_]) -> list[list[Corner]]:
    """Outlines of a part, the outer one first: steps along pixel edges with the part on the right, linked up."""
    steps = _steps(part)
    rings = []
    while steps:
        start = here = next(iter(steps))
        ring: list[Corner] = []
        while here in steps:
            ahead = steps[here].pop()
            if not steps[here]:
                del steps[here]
            ring.append(here)
            here = ahead
        rings.append(_corners([*ring, start]))
    return rings


def _steps(part: NDArray[np.bool_]) -> dict[Corner, list[Corner]]:
    """From each corner of a pixel on the border to the next ones; the first lies on the outer outline."""
    inside = np.pad(part, 1)
    own = inside[1:-1, 1:-1]
    borders = (
        (own & ~inside[:-2, 1:-1], (0, 0), (1, 0)),
        (own & ~inside[1:-1, 2:], (1, 0), (1, 1)),
        (own & ~inside[2:, 1:-1], (1, 1), (0, 1)),
        (own & ~inside[1:-1, :-2], (0, 1), (0, 0)),
    )
    steps: dict[Corner, list[Corner]] = {}
    for border, start, end in borders:
        for y, x in np.argwhere(border).tolist():
            steps.setdefault((x + start[0], y + start[1]), []).append((x + end[0], y + end[1]))
    return steps


def _corners(ring: list[Corner]) -> list[Corner]:
    """A closed ring (its first corner comes again last) without the places where it goes straight on."""
    places = ring[:-1]
    turns = []
    for i, here in enumerate(places):
        before, after = places[i - 1], places[(i + 1) % len(places)]
        if (here[0] - before[0], here[1] - before[1]) != (after[0] - here[0], after[1] - here[1]):
            turns.append(here)
    return turns
