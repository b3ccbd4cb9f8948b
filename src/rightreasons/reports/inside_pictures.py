"""Pictures of what lies inside a network: the maps of a layer in a grid, and attention over the image."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from rightreasons.core.tensors import resized
from rightreasons.experiments.inside import BlockView, ChannelWeights, LayerView, PlaceWeights
from rightreasons.reports.canvas import CELL, MARGIN, Panels, Sheet, fitted
from rightreasons.reports.figures import (
    LEVELS,
    Array,
    Heatmap,
    as_picture,
    end_of_scale,
    heatmap_image,
    overlay_picture,
)

ACROSS, SIDE = 8, 88
"""Maps side by side in a picture of a layer, and the side of each in pixels."""
FLAT = 0.01
"""Weights that differ by less than this share of the largest count as even, and are not drawn as if they differed."""
RAISED, DAMPED = (10, 92, 158), (176, 57, 26)
_STRIP, _LINE = 64, (120, 120, 120)


def layer_scale(layer: LayerView) -> float:
    """The absolute value at which the colors of a layer end, over all its maps and images."""
    return end_of_scale(layer.maps.numpy())


def map_picture(layer: LayerView, row: int, channel: int, scale: float | None) -> Image.Image:
    """One map in colors, one pixel a value; by its own scale where there is none for the layer."""
    values: Array = layer.maps[row, channel].numpy()
    return heatmap_image(values, signed=layer.signed, scale=scale)


def maps_picture(layer: LayerView, row: int, channels: Sequence[int], scale: float | None, title: str) -> Image.Image:
    """The maps of these channels in a grid, each with its number beneath, and what the colors mean."""
    rows, columns = math.ceil(len(channels) / ACROSS), max(4, min(ACROSS, len(channels)))
    sheet = Sheet(columns=columns, rows=rows, cell=SIDE, texts=[title])
    sheet.write(MARGIN, MARGIN, title, sheet.picture.width - 2 * MARGIN)
    for place, channel in enumerate(channels):
        down, across = divmod(place, ACROSS)
        corner = sheet.left(across), sheet.top(down)
        sheet.picture.paste(fitted(map_picture(layer, row, channel, scale), SIDE), corner)
        dead = ", dead" if bool(layer.dead[channel]) else ""
        sheet.write(corner[0], corner[1] + SIDE + 2, f"{channel}{dead}", SIDE)
    bar = heatmap_image(np.linspace(-1.0 if layer.signed else 0.0, 1.0, LEVELS)[None], signed=layer.signed, scale=1.0)
    sheet.cell = 3 * SIDE
    sheet.color_bar(sheet.left(0), sheet.top(0) + rows * (SIDE + sheet.line + 10), ends_of(layer, scale), bar)
    sheet.foot("Beneath each map stands its channel.", sheet.lettering.note)
    return sheet.picture


def ends_of(layer: LayerView, scale: float | None) -> tuple[str, str, str]:
    """What stands beneath the colors of a layer."""
    if scale is None:
        return ("-", "0", "+") if layer.signed else ("0", "", "its most")
    return (short(-scale), "0", short(scale)) if layer.signed else ("0", "", short(scale))


def short(value: float) -> str:
    """Three digits."""
    return f"{float(f'{value:.3g}'):g}"


def is_even(weights: Tensor) -> bool:
    """Whether the weights differ by next to nothing."""
    largest = float(weights.max())
    return largest - float(weights.min()) <= FLAT * abs(largest)


def place_picture(image: Array, places: PlaceWeights) -> Image.Image:
    """The weights of places, upsampled over the gray image, which is enlarged if it is small.

    The place that asks has a frame. Weights that are even leave the image alone.
    """
    large = enlarged(image)
    values = torch.zeros_like(places.values) if is_even(places.values) else places.values
    upsampled = resized(values[None, None], (large.height, large.width))[0, 0].numpy()
    picture = overlay_picture(large, Heatmap(upsampled))
    if places.cell is not None:
        _frame(picture, places.cell, (values.shape[0], values.shape[1]))
    return picture


def enlarged(image: Array) -> Image.Image:
    """The image, its pixels repeated where it is small, so that upsampled weights are smooth over it."""
    picture = as_picture(image)
    factor = max(1, CELL // max(picture.size))
    return picture.resize((factor * picture.width, factor * picture.height), Image.Resampling.NEAREST)


def _frame(picture: Image.Image, cell: tuple[int, int], size: tuple[int, int]) -> None:
    """A dark frame with a light one around it, so that it is seen on any ground."""
    (row, column), (height, width) = cell, size
    left, right = (round(picture.width * k / width) for k in (column, column + 1))
    top, bottom = (round(picture.height * k / height) for k in (row, row + 1))
    draw = ImageDraw.Draw(picture)
    draw.rectangle((left, top, right - 1, bottom - 1), outline=(255, 255, 255), width=4)
    draw.rectangle((left + 1, top + 1, right - 2, bottom - 2), outline=(17, 19, 23), width=2)


def told_of_places(places: PlaceWeights) -> str:
    """The range of the weights in words; shares are counted in even ones."""
    unit = 1.0 if places.even is None else places.even
    least, largest = (_rounded(float(end) / unit) for end in (places.values.min(), places.values.max()))
    if is_even(places.values):
        return f"even, {largest} everywhere" if places.even is None else "an even share everywhere"
    return f"{least} to {largest}" + ("" if places.even is None else " times an even share")


def _rounded(value: float) -> str:
    """Three digits; next to nothing is 0."""
    return short(value) if abs(value) >= 0.005 else "0"


def attention_picture(image: Array, block: BlockView, row: int, title: str) -> Image.Image:
    """The image, what the block gives to its places, and beneath them what it multiplies the channels by."""
    places = block.places(row)
    panels = Panels(as_picture(image), ["input", *(p.name for p in places)], title=title, label="", columns=4)
    panels.show(0, enlarged(image))
    for number, weights in enumerate(places, start=1):
        panels.show(number, place_picture(image, weights))
        left, top = panels.corner(number)
        for line, text in enumerate(panels.broken(told_of_places(weights), panels.cell, panels.lettering)[:2]):
            panels.write(left, top + panels.height + 4 + line * panels.line, text, panels.cell)
    channels = block.channels(row)
    if channels is not None:
        _under(panels, strip_picture(channels, max(panels.cell, panels.picture.width - 2 * MARGIN)))
        panels.foot(f"Channels from the first to the last. {told_of_channels(channels)}")
    return panels.picture


def _under(panels: Panels, strip: Image.Image) -> None:
    drawn = panels.picture
    panels.spread(max(drawn.width, strip.width + 2 * MARGIN), drawn.height + strip.height + MARGIN)
    panels.picture.paste(drawn, (0, 0))
    panels.picture.paste(strip, (MARGIN, drawn.height))


def heights(channels: ChannelWeights) -> Array:
    """How far each weight lies above the mean, as a share of the largest distance; 0 for weights that are even."""
    values: Array = channels.values.double().numpy()
    if is_even(channels.values):
        return np.zeros_like(values)
    apart = values - values.mean()
    found: Array = apart / np.abs(apart).max()
    return found


def strip_picture(channels: ChannelWeights, width: int) -> Image.Image:
    """One bar a channel, up from the mean where it is raised, down where it is damped."""
    shares = heights(channels)
    strip = Image.new("RGB", (width, _STRIP), "white")
    draw, middle = ImageDraw.Draw(strip), _STRIP // 2
    step = width / len(shares)
    for number, share in enumerate(shares):
        left, right = (
            round(number * step),
            max(round(number * step), round((number + 1) * step) - (2 if step > 4 else 1)),
        )
        end = round(middle - share * (middle - 1))
        draw.rectangle((left, min(end, middle), right, max(end, middle)), fill=RAISED if share > 0 else DAMPED)
    draw.line((0, middle, width, middle), fill=_LINE)
    return strip


def told_of_channels(channels: ChannelWeights) -> str:
    """The weights in words."""
    ends = [short(float(end)) for end in (channels.values.min(), channels.mean, channels.values.max())]
    if is_even(channels.values):
        return f"Weights are even, {ends[2]} for every channel."
    return f"Weights from {ends[0]} to {ends[2]}, mean {ends[1]}: bars above it are raised, below it damped."
