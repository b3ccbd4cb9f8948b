"""Pictures of a change: what was removed in red and what was added in blue, over the original in gray."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from rightreasons.reports.canvas import Panels
from rightreasons.reports.figures import LEVELS, Array, as_picture, end_of_scale, heatmap_image

REMOVED, ADDED, EDGE = (235, 64, 52), (47, 128, 255), (255, 196, 0)
FAINTEST = 0.45
"""How opaque the smallest change that is drawn is, so that nothing drawn looks like a ghost."""
STEEP = 0.2
"""Edges less steep than that, as a share of the image's steepest, are not drawn."""
_PAUSE, _STEP = 700, 60


class Slice(NamedTuple):
    """What one picture tells of a counterfactual, each of the same size.

    Attributes:
        original: (H, W) or (H, W, 3) in [0, 1].
        changed: The counterfactual, likewise.
        difference: (H, W), what is drawn of the change; positive where something was added.
        contrast: (H, W), what speaks for the predicted class against the other one; ``None`` without a map.
    """

    original: Array
    changed: Array
    difference: Array
    contrast: Array | None = None


def difference_layer(difference: Array) -> Image.Image:
    """The change alone: red where something was removed, blue where it was added, transparent elsewhere.

    Raises:
        ValueError: It has no two axes.
    """
    values = np.asarray(difference, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"expected a difference of shape (H, W), got shape {values.shape}")
    share = np.clip(np.abs(values) / end_of_scale(values), 0, 1)
    alpha = np.where(values == 0, 0, FAINTEST + (1 - FAINTEST) * share)
    colors = np.where((values > 0)[..., None], ADDED, REMOVED)
    return _rgba(colors, alpha)


def edge_layer(edges: Array) -> Image.Image:
    """The edges of an image as a layer: yellow where they are steep, transparent elsewhere."""
    values = np.asarray(edges, dtype=np.float64)
    return _rgba(np.broadcast_to(EDGE, (*values.shape, 3)), np.where(values < STEEP, 0, 0.4 + 0.6 * values))


def difference_picture(original: Array, difference: Array) -> Image.Image:
    """The change over the original in gray."""
    gray = as_picture(original).convert("L").convert("RGBA")
    return Image.alpha_composite(gray, difference_layer(difference)).convert("RGB")


def slice_picture(content: Slice, *, title: str, labels: Sequence[str]) -> Image.Image:
    """One picture that tells it all: original, counterfactual, signed difference, and the contrastive map if any.

    Source: the "contrastive explanation" slice that the attention report asks for (its section 4.4) and does not show;
    its form is ours.

    Args:
        content: The pictures.
        title: Above all.
        labels: Beneath each picture but the map, which has its color bar there.

    Raises:
        ValueError: Not three labels.
    """
    names = ["original", "counterfactual", "difference"]
    if len(labels) != len(names):
        raise ValueError(f"expected {len(names)} labels, one a picture but the map, got {len(labels)}")
    names += ["contrastive map"] * (content.contrast is not None)
    original = as_picture(content.original)
    panels = Panels(original, names, title=title, label="", columns=len(names))
    shown = [original, as_picture(content.changed), difference_picture(content.original, content.difference)]
    if content.contrast is not None:
        shown.append(heatmap_image(content.contrast, signed=True))
    for place, picture in enumerate(shown):
        panels.show(place, picture)
    for place, label in enumerate(labels):
        left, top = panels.corner(place)
        for number, line in enumerate(panels.broken(label, panels.cell, panels.lettering)[:2]):
            panels.write(left, top + panels.height + 4 + number * panels.line, line, panels.cell)
    if content.contrast is not None:
        bar = heatmap_image(np.linspace(-1, 1, LEVELS)[None], signed=True, scale=1.0)
        panels.bar(len(names) - 1, ("against", "0", "for"), bar)
    panels.foot("Red: removed. Blue: added. Only what the class needs and what can be seen is drawn.")
    return panels.picture


def way_gif(original: Array, changed: Array, *, frames: int, side: int = 168) -> bytes:
    """The straight way from the original to the counterfactual and back, as an animation.

    Args:
        original: (H, W) or (H, W, 3) in [0, 1].
        changed: The counterfactual.
        frames: On the way there.
        side: Shorter images are enlarged to it, pixel by pixel.
    """
    start, end = (np.asarray(a, dtype=np.float64) for a in (original, changed))
    pictures = [as_picture((1 - share) * start + share * end) for share in np.linspace(0, 1, frames)]
    factor = max(1, side // max(pictures[0].size))
    size = (factor * pictures[0].width, factor * pictures[0].height)
    large = [picture.resize(size, Image.Resampling.NEAREST) for picture in pictures]
    pauses = [_PAUSE, *[_STEP] * (frames - 2), _PAUSE]
    file = io.BytesIO()
    there_and_back, lasting = large + large[-2:0:-1], pauses + pauses[-2:0:-1]
    large[0].save(file, "GIF", save_all=True, append_images=there_and_back[1:], duration=lasting, loop=0)
    return file.getvalue()


def png_of(picture: Image.Image) -> bytes:
    """The PNG file of a picture."""
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()


def _rgba(colors: Array, alpha: Array) -> Image.Image:
    whole = np.concatenate([colors, np.rint(255 * alpha)[..., None]], axis=2)
    return Image.fromarray(whole.astype(np.uint8), "RGBA")
