"""A page of what lies inside a network: the feature maps of chosen layers, and what attention blocks weigh by.

The page is one file that loads nothing and runs no script.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from rightreasons.experiments.inside import BlockView, ChannelWeights, InsideView, LayerView
from rightreasons.models.checkpoints import write_whole
from rightreasons.reports.figures import Array, color_bar_png, data_uri, image_png
from rightreasons.reports.inside_pictures import (
    attention_picture,
    ends_of,
    heights,
    is_even,
    layer_scale,
    map_picture,
    maps_picture,
    place_picture,
    short,
    told_of_channels,
    told_of_places,
)
from rightreasons.reports.overlays import png_of
from rightreasons.reports.page import environment, pictures_of_ones_own

FILE, PICTURES = "index.html", "images"
SIDE = 96
"""Longer side of a map on the page, in pixels; smaller ones keep theirs."""
_SMALL = 64
_OWN = re.compile(r"\d{3}-(original|layer-.+|attention-.*)\.png")

KINDS = {
    "SqueezeExcite": "Multiplies each channel by a weight between 0 and 1.",
    "CBAM": "Multiplies each channel by a weight between 0 and 1, then each place.",
    "PositionAttention": "Adds to each place a mixture of all places, by likeness, times a learned scale.",
    "GlobalContext": "Adds to every place the same transformed mean of all places, weighted by shares.",
}


class Thumbnail(NamedTuple):
    """A map on the page."""

    channel: int
    uri: str
    dead: bool
    activity: str


class Grid(NamedTuple):
    """The maps of a layer for one image."""

    row: LayerRow
    maps: tuple[Thumbnail, ...]


class Place(NamedTuple):
    """What a block gives to the places of an image."""

    name: str
    uri: str
    told: str


class Strip(NamedTuple):
    """What a block multiplies the channels of an image by."""

    channels: int
    raised_path: str
    damped_path: str
    raised: str
    damped: str
    told: str


class Attended(NamedTuple):
    """A block for one image."""

    name: str
    kind: str
    change: str
    places: tuple[Place, ...]
    strip: Strip | None


@dataclass(frozen=True, eq=False)
class LayerRow:
    """A layer in the table at the top.

    Attributes:
        layer: The layer.
        shown: Channels that are shown, in their order.
        scale: Where its colors end; ``None`` where each map has a scale of its own.
    """

    layer: LayerView
    shown: tuple[int, ...]
    scale: float | None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height of a map."""
        height, width = self.layer.maps.shape[2:]
        return width, height

    @property
    def channels(self) -> int:
        """Of the layer."""
        return int(self.layer.maps.shape[1])

    @property
    def dead(self) -> int:
        """How many channels tell nothing about these images."""
        return int(self.layer.dead.sum())

    @property
    def never_positive(self) -> str:
        """How many channels the ReLU behind the layer empties; a dash where none takes the maps as they are."""
        never = self.layer.never_positive
        return "\N{EN DASH}" if never is None else f"{int(never.sum()):,}"

    @property
    def ends(self) -> tuple[str, str, str]:
        """What stands beneath the colors."""
        low, middle, high = ends_of(self.layer, self.scale)
        return low.replace("-", "\N{MINUS SIGN}"), middle, high

    @property
    def style(self) -> str:
        """How the browser enlarges a map: a small one place by place."""
        return "pixels" if max(self.size) < _SMALL else "smooth"


@dataclass(frozen=True, eq=False)
class Card:
    """An image with all that is shown of it.

    Attributes:
        name: For a reader.
        truth: Its class; ``None`` for a picture of the user's own.
        says: What the model takes it for.
        sure: The probability, in words.
        original: The image as an address.
        size: Its width and height.
        blocks: What the attention blocks weigh by.
        grids: The maps of the layers.
    """

    name: str
    truth: str | None
    says: str
    sure: str
    original: str
    size: tuple[int, int]
    blocks: tuple[Attended, ...]
    grids: tuple[Grid, ...]

    @property
    def style(self) -> str:
        """How the browser enlarges the image: a small one pixel by pixel."""
        return "pixels" if max(self.size) < _SMALL else "smooth"


@dataclass(frozen=True, eq=False)
class InsidePage:
    """What the page shows.

    Attributes:
        view: What lies inside.
        rerun: The command that looked.
    """

    view: InsideView
    rerun: str = ""

    @cached_property
    def rows(self) -> tuple[LayerRow, ...]:
        """The layers."""
        asked = self.view.settings
        return tuple(
            LayerRow(
                layer,
                tuple(layer.order[: asked.maps].tolist()),
                layer_scale(layer) if asked.scale == "layer" else None,
            )
            for layer in self.view.layers
        )

    @cached_property
    def cards(self) -> tuple[Card, ...]:
        """The images."""
        return tuple(_card(self, row) for row in range(len(self.view.looked.names)))

    @property
    def data(self) -> str:
        """Whose images these are."""
        looked = self.view.looked
        if looked.truth is None:
            return pictures_of_ones_own(len(looked.names))
        return str(self.view.record.config["data"])

    @property
    def kinds(self) -> list[tuple[BlockView, str]]:
        """The attention blocks, and what each does."""
        return [(block, _does(block)) for block in self.view.blocks]

    @property
    def has_places(self) -> bool:
        """Whether a block weighs places."""
        return any(block.places(0) for block in self.view.blocks)

    @property
    def verdict(self) -> str:
        """What is shown, in a sentence."""
        images, layers, blocks = len(self.view.looked.names), len(self.view.layers), len(self.view.blocks)
        told = f"{_count(images, 'image')}: the maps of {_count(layers, 'layer')}"
        if blocks:
            told += f", and what {_count(blocks, 'attention block')} {'weighs' if blocks == 1 else 'weigh'} by"
        return f"{told}."

    @property
    def signed(self) -> list[bool]:
        """Which color bars are needed."""
        return sorted({row.layer.signed for row in self.rows})


def render_inside(page: InsidePage) -> str:
    """The whole page as one HTML text; everything the caller wrote is escaped."""
    bars = {sign: data_uri(color_bar_png(signed=sign)) for sign in (False, True)}
    return environment().get_template("inside.html").render(page=page, bars=bars)


def write_inside(view: InsideView, out: Path, *, rerun: str = "") -> InsidePage:
    """Write the page and, under ``images/``, of each image the original, a grid of each layer, and each block.

    Such pictures of an earlier page that this one does not have are removed.

    Raises:
        NotWritten: A file cannot be written; an older one is left as it was.
    """
    (out / PICTURES).mkdir(exist_ok=True)
    page, written = InsidePage(view, rerun), set[Path]()
    for row, name in enumerate(view.looked.names):
        image = picture_of(view, row)
        files = {"original": image_png(image)}
        for told in page.rows:
            title = f"{name}: {told.layer.name}, {len(told.shown)} of {told.channels} maps"
            files[f"layer-{_safe(told.layer.name)}"] = png_of(
                maps_picture(told.layer, row, told.shown, told.scale, title)
            )
        for block in view.blocks:
            title = f"{name}: {block.attention.kind} {block.name}"
            files[f"attention-{_safe(block.name)}"] = png_of(attention_picture(image, block, row, title))
        for stem, data in files.items():
            path = out / PICTURES / f"{row:03d}-{stem}.png"
            write_whole(path, data)
            written.add(path)
    _remove_others(out / PICTURES, written)
    write_whole(out / FILE, render_inside(page).encode(errors="backslashreplace"))
    return page


def _remove_others(folder: Path, written: set[Path]) -> None:
    """Pictures of an earlier page; files of other names are the user's."""
    for path in folder.iterdir():
        if path not in written and _OWN.fullmatch(path.name):
            path.unlink()


def picture_of(view: InsideView, row: int) -> Array:
    """The image as (H, W) or (H, W, 3) in [0, 1]; of other numbers of channels, such as cached features, the mean."""
    low, high = view.pixel_range
    values: Array = ((view.looked.inputs[row] - low) / (high - low or 1.0)).clamp(0, 1).permute(1, 2, 0).numpy()
    return values if values.shape[2] == 3 else values.mean(axis=2)


def _card(page: InsidePage, row: int) -> Card:
    view = page.view
    looked, (chance, best) = view.looked, view.probabilities[row].max(dim=0)
    image = picture_of(view, row)
    return Card(
        name=looked.names[row],
        truth=None if looked.truth is None else view.classes[int(looked.truth[row])],
        says=view.classes[int(best)],
        sure=f"{100 * float(chance):.1f}\N{NO-BREAK SPACE}%",
        original=data_uri(image_png(image)),
        size=(image.shape[1], image.shape[0]),
        blocks=tuple(_attended(block, image, row) for block in view.blocks),
        grids=tuple(Grid(told, tuple(_thumbnail(told, row, channel) for channel in told.shown)) for told in page.rows),
    )


def _thumbnail(told: LayerRow, row: int, channel: int) -> Thumbnail:
    layer = told.layer
    picture = _reduced(map_picture(layer, row, channel, told.scale))
    activity = short(float(layer.activity[row, channel]))
    return Thumbnail(channel, data_uri(png_of(picture)), bool(layer.dead[channel]), activity)


def _reduced(picture: Image.Image) -> Image.Image:
    """No larger than a map on the page; averaged, not sampled."""
    ratio = SIDE / max(picture.size)
    if ratio >= 1:
        return picture
    size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    return picture.convert("RGB").resize(size, Image.Resampling.BOX)


def _attended(block: BlockView, image: Array, row: int) -> Attended:
    places = tuple(
        Place(p.name, data_uri(png_of(place_picture(image, p).quantize(256))), told_of_places(p))
        for p in block.places(row)
    )
    channels, change = block.channels(row), float(block.attention.change[row])
    told = f"{100 * change:.3g}\N{NO-BREAK SPACE}%" if np.isfinite(change) else "not defined"
    return Attended(block.name, block.attention.kind, told, places, None if channels is None else _strip(channels))


def _strip(channels: ChannelWeights) -> Strip:
    paths, named = {True: "", False: ""}, not is_even(channels.values)
    for number, share in enumerate(heights(channels)):
        paths[bool(share > 0)] += f"M{number + 0.5:g} 20V{20 - 19 * share:.1f}"
    return Strip(
        channels=len(channels.values),
        raised_path=paths[True],
        damped_path=paths[False],
        raised=_named(channels.raised if named else []),
        damped=_named(channels.damped if named else []),
        told=told_of_channels(channels),
    )


def _named(channels: list[tuple[int, float]]) -> str:
    return ", ".join(f"{channel} ({short(weight)})" for channel, weight in channels) or "none"


def _does(block: BlockView) -> str:
    """What a block does, in a sentence or two."""
    attention = block.attention
    if attention.kind == "GlobalContext" and "channel" in attention.weights:
        return "Adds to each channel itself times a weight between 0 and 1."
    told = KINDS.get(attention.kind, "")
    if attention.scale is None:
        return told
    learned = f"Its learned scale is {short(attention.scale)}"
    idle = ": the block hands its features on, whatever it attends to" if attention.scale == 0 else ""
    return f"{told} {learned}{idle}."


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _safe(name: str) -> str:
    """A layer's name in that of a file."""
    return re.sub(r"[^\w.-]", "_", name)
