"""Pictures of heat maps: colour maps, PNG files, outlines of masks and contact sheets.

Raw heat maps come in; every choice of display (scale, colours) is made here and nowhere below.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from rightreasons.reports.canvas import MARGIN, Ends, Panels, Sheet, fitted

Array = NDArray[Any]

LEVELS = 255
"""Colours of a map; an odd number, so that zero has a colour of its own in the middle of a signed one."""

_TOWARDS = ("#fcfbf8", "#f6d494", "#e8923c", "#b04a12", "#4d1c05")
_AGAINST = ("#fcfbf8", "#d3cbea", "#9f8cd0", "#6a4bab", "#2c1463")
_UNDEFINED = (128, 128, 128)

_PERCENTILE = 99.0


class Heatmap(NamedTuple):
    """Raw values of one heat map, (H, W), or of several, (N, H, W); signed if negative values mean evidence against."""

    values: Array
    signed: bool = False


def _lab(color: str) -> Array:
    """CIELAB (D65) of an sRGB color written as #rrggbb."""
    srgb = np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    f = np.cbrt(_RGB_TO_XYZ @ linear / _WHITE)
    return np.asarray([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def _srgb(lab: Array) -> Array:
    """The 8-bit sRGB colors of CIELAB ones, (N, 3); the inverse of ``_lab`` above its linear toe."""
    middle = (lab[:, 0] + 16) / 116
    f = np.stack([middle + lab[:, 1] / 500, middle, middle - lab[:, 2] / 200], axis=1)
    linear = np.clip((f**3 * _WHITE) @ np.linalg.inv(_RGB_TO_XYZ).T, 0, 1)
    srgb = np.where(linear <= 0.0031308, linear * 12.92, 1.055 * linear ** (1 / 2.4) - 0.055)
    whole: Array = np.rint(srgb * 255).astype(np.uint8)
    return whole


_RGB_TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
_WHITE = _RGB_TO_XYZ.sum(axis=1)


def _ramp(anchors: Sequence[str], levels: int) -> Array:
    """Colors through the anchors whose lightness L* falls evenly from the first to the last, (levels, 3)."""
    lab = np.stack([_lab(color) for color in anchors])
    lightness = np.linspace(lab[0, 0], lab[-1, 0], levels)
    return _srgb(np.stack([np.interp(-lightness, -lab[:, 0], lab[:, k]) for k in range(3)], axis=1))


SEQUENTIAL = _ramp(_TOWARDS, LEVELS)
"""Nothing (near white) to much (dark brown), (255, 3) uint8; lightness falls evenly."""

DIVERGING = np.concatenate([_ramp(_AGAINST, LEVELS // 2 + 1)[:0:-1], _ramp(_TOWARDS, LEVELS // 2 + 1)])
"""Against (purple) over zero (near white) to for (brown), (255, 3) uint8; told apart with any color vision."""


def end_of_scale(values: Array) -> float:
    """The absolute value at which a map's color reaches its end: the 99th percentile of its own absolute values.

    Where that is zero (a map that is sparse) it is the largest one, and 1 for a map of zeros.
    """
    size = np.abs(values[np.isfinite(values)])
    if size.size == 0 or size.max() == 0:
        return 1.0
    return float(np.percentile(size, _PERCENTILE)) or float(size.max())


def lifted(maps: Heatmap) -> tuple[Heatmap, float]:
    """A map whose colors begin at its smallest value, and that value: 0 for a signed map, or where it reaches 0.

    RISE, for one, gives every pixel a share of the score; what tells is by how much the shares differ.
    """
    known = maps.values[np.isfinite(maps.values)]
    least = 0.0 if maps.signed or not known.size else max(0.0, float(known.min()))
    return Heatmap(maps.values - least, maps.signed), least


def heatmap_image(values: Array, *, signed: bool, scale: float | None = None) -> Image.Image:
    """A heat map in colors, one pixel a value; undefined values (NaN) are gray.

    Args:
        values: (H, W), raw. Negative values of an unsigned map count as zero.
        signed: Take the diverging colors, centered at zero, and not the sequential ones.
        scale: The absolute value at the end of the colors; ``end_of_scale`` of this map if not given.

    Raises:
        ValueError: The map has no two axes, or the scale is not positive.
    """
    values = np.asarray(values, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"expected a heat map of shape (H, W), got shape {values.shape}")
    scale = end_of_scale(values if signed else np.maximum(values, 0)) if scale is None else scale
    if not scale > 0:
        raise ValueError(f"expected a positive scale, got {scale}")
    share = np.clip(np.nan_to_num(values / scale), -1 if signed else 0, 1)
    level = (share + 1) / 2 if signed else share
    index = np.where(np.isnan(values), LEVELS, np.rint(level * (LEVELS - 1))).astype(np.uint8)
    picture = Image.fromarray(index).convert("P")
    picture.putpalette([*(DIVERGING if signed else SEQUENTIAL).ravel().tolist(), *_UNDEFINED])
    return picture


def heatmap_png(values: Array, *, signed: bool, scale: float | None = None) -> bytes:
    """The PNG file of ``heatmap_image``."""
    return _png(heatmap_image(values, signed=signed, scale=scale))


def color_bar_png(*, signed: bool) -> bytes:
    """The color bar as a PNG file, one pixel a color from the smallest value at the left to the largest."""
    return _png(_bar(signed))


def _bar(signed: bool) -> Image.Image:
    values = np.linspace(-1.0 if signed else 0.0, 1.0, LEVELS)[None]
    return heatmap_image(values, signed=signed, scale=1.0)


def as_picture(image: Array) -> Image.Image:
    """An image of floats in [0, 1], (H, W), (H, W, 1) or (H, W, 3), as 8-bit gray or RGB.

    Raises:
        ValueError: Another shape.
    """
    image = np.asarray(image, dtype=np.float64)
    if image.ndim == 3 and image.shape[-1] == 1:
        image = image[..., 0]
    if image.ndim != 2 and (image.ndim != 3 or image.shape[-1] != 3):
        raise ValueError(f"expected an image of shape (H, W) or (H, W, 3), got shape {image.shape}")
    return Image.fromarray(np.rint(np.clip(np.nan_to_num(image), 0, 1) * 255).astype(np.uint8))


def image_png(image: Array) -> bytes:
    """The PNG file of an image of floats in [0, 1]."""
    return _png(as_picture(image))


def data_uri(png: bytes) -> str:
    """A PNG file as an address that holds the file itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")


def mask_outline(mask: Array) -> str:
    """The border of a mask's pixels as the path data of an SVG whose unit is one pixel."""
    inside = np.pad(np.asarray(mask) > 0.5, 1).astype(np.int8)
    horizontal = np.diff(inside, axis=0)[:, 1:-1] != 0
    vertical = np.diff(inside, axis=1)[1:-1].T != 0
    rows = [f"M{a} {y}H{b}" for y, line in enumerate(horizontal) for a, b in _runs(line)]
    columns = [f"M{x} {a}V{b}" for x, line in enumerate(vertical) for a, b in _runs(line)]
    return "".join(rows + columns)


def share_inside(values: Array, mask: Array, *, signed: bool) -> float:
    """The share of a map's absolute values (of its positive ones, if unsigned) that lies in a mask; NaN for zeros."""
    size = np.nan_to_num(np.abs(values) if signed else np.maximum(values, 0))
    total = float(size.sum())
    return float(size[np.asarray(mask) > 0.5].sum()) / total if total > 0 else float("nan")


def contact_sheet(
    images: Sequence[Array] | Array | Mapping[str, Sequence[Array]],
    heatmaps: Mapping[str, Heatmap],
    labels: Sequence[str],
    *,
    cell: int = 168,
) -> Image.Image:
    """A sheet with one row an image: the image, its map by each method, its label beneath; color bars at the foot.

    Each map is scaled by itself, see ``end_of_scale``.

    Args:
        images: (H, W) or (H, W, 3) in [0, 1] each; or several columns of them by name, the images themselves first.
        heatmaps: By the method's name, maps of all images, (N, H, W).
        labels: What is written under each image.
        cell: Side of a picture in pixels.

    Raises:
        ValueError: The numbers of images, maps and labels differ, or there is none.
    """
    shown = images if isinstance(images, Mapping) else {"input": images}
    counts = {len(labels), *map(len, shown.values()), *(len(maps.values) for maps in heatmaps.values())}
    if len(counts) > 1 or not min(counts):
        raise ValueError(f"expected as many images as maps and labels, and at least one, got {sorted(counts)}")
    columns = {name: [as_picture(image) for image in several] for name, several in shown.items()}
    for name, maps in heatmaps.items():
        single = [lifted(Heatmap(values, maps.signed))[0].values for values in maps.values]
        columns[name] = [heatmap_image(values, signed=maps.signed) for values in single]
    sheet = Sheet(columns=len(columns), rows=len(labels), cell=cell, texts=[*columns, *labels])
    for column, (name, pictures) in enumerate(columns.items()):
        sheet.write(sheet.left(column), MARGIN, name, cell)
        for row, picture in enumerate(pictures):
            sheet.picture.paste(fitted(picture, cell), (sheet.left(column), sheet.top(row)))
    for row, label in enumerate(labels):
        sheet.write(MARGIN, sheet.top(row) + cell + 2, label, sheet.picture.width - 2 * MARGIN)
    for column, maps in enumerate(heatmaps.values(), start=len(shown)):
        ends = ("against", "0", "for") if maps.signed else ("least", "", "most")
        sheet.color_bar(sheet.left(column), sheet.top(len(labels)), ends, _bar(maps.signed))
    sheet.foot(sheet.lettering.note)
    return sheet.picture


def figure(
    image: Array | Mapping[str, Array],
    heatmaps: Mapping[str, Heatmap],
    *,
    title: str = "",
    label: str = "",
    overlay: bool = False,
    columns: int = 4,
) -> Image.Image:
    """One image and its maps by several methods side by side, each with a color bar and the values at its ends.

    Each map is scaled by itself, see ``end_of_scale``; a signed one has zero in the middle of its colors.

    Args:
        image: (H, W) or (H, W, 3) in [0, 1]; or several by name, the image itself first.
        heatmaps: By the method's name, one map (H, W) each.
        title: Above all.
        label: Beneath the image, such as the predicted class and its probability.
        overlay: Lay the maps over the image in gray; where a map is zero, the image is seen.
        columns: Pictures side by side; more go into further rows.

    Raises:
        ValueError: A map is not of the image's size, or there is no column.
    """
    if columns < 1:
        raise ValueError(f"expected at least one column, got {columns}")
    shown = {name: as_picture(one) for name, one in (image if isinstance(image, Mapping) else {"input": image}).items()}
    picture = next(iter(shown.values()))
    for name, maps in heatmaps.items():
        if np.shape(maps.values) != picture.size[::-1]:
            raise ValueError(f"expected the map {name!r} of size {picture.size[::-1]}, got {np.shape(maps.values)}")
    panels = Panels(picture, [*shown, *heatmaps], title=title, label=label, columns=columns)
    for place, one in enumerate(shown.values()):
        panels.show(place, one)
    panels.tell()
    for place, raw in enumerate(heatmaps.values(), start=len(shown)):
        maps, least = lifted(raw)
        scale = end_of_scale(maps.values if maps.signed else np.maximum(maps.values, 0))
        colored = heatmap_image(maps.values, signed=maps.signed, scale=scale)
        panels.show(place, _laid_over(picture, colored, maps, scale) if overlay else colored)
        panels.bar(place, _ends(maps, least, scale), _bar(maps.signed))
    panels.foot(_SCALE_NOTE if heatmaps else "", _OVERLAY_NOTE if overlay else "", panels.lettering.note)
    return panels.picture


_SCALE_NOTE = "Each map has a scale of its own, which ends at the 99th percentile of its absolute values."
_OVERLAY_NOTE = "The image lies beneath in gray."


def overlay_picture(image: Image.Image, maps: Heatmap) -> Image.Image:
    """A map over the gray image of its size: the larger a value, the more of its color; the least one shows the image.

    Raises:
        ValueError: The map is not of the image's size.
    """
    if np.shape(maps.values) != image.size[::-1]:
        raise ValueError(f"expected a map of size {image.size[::-1]}, got {np.shape(maps.values)}")
    shown, _ = lifted(maps)
    scale = end_of_scale(shown.values if shown.signed else np.maximum(shown.values, 0))
    return _laid_over(image, heatmap_image(shown.values, signed=shown.signed, scale=scale), shown, scale)


def _laid_over(picture: Image.Image, colored: Image.Image, maps: Heatmap, scale: float) -> Image.Image:
    """The colors over the gray image, the more of them the larger a value; undefined ones cover it."""
    values = np.asarray(maps.values, dtype=np.float64)
    size = np.abs(values) if maps.signed else np.maximum(values, 0)
    cover = np.clip(np.where(np.isnan(size), 1, size / scale), 0, 1) ** 0.5
    mask = Image.fromarray(np.rint(cover * 255).astype(np.uint8))
    return Image.composite(colored.convert("RGB"), picture.convert("L").convert("RGB"), mask)


def _ends(maps: Heatmap, least: float, scale: float) -> Ends:
    """The values at the ends of a map's colors."""
    if not np.any(maps.values):
        return "", f"{_short(least)} everywhere", ""
    return (_short(-scale), "0", _short(scale)) if maps.signed else (_short(least), "", _short(least + scale))


def _short(value: float) -> str:
    return f"{float(f'{value:.3g}'):g}"


def _runs(line: Array) -> list[tuple[int, int]]:
    """First and one-past-last position of each run of true values."""
    edges = np.flatnonzero(np.diff(np.pad(line.astype(np.int8), 1)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]


def _png(picture: Image.Image) -> bytes:
    file = io.BytesIO()
    picture.save(file, format="PNG", optimize=True)
    return file.getvalue()
