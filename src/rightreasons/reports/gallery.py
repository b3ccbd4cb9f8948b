"""A page of some images out of many, with their maps: drawn at random, and those at the ends of what was measured.

The page is one file that loads nothing. A small script filters the images by class, verdict and method; without it the
page shows all of them.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jinja2
import numpy as np
import torch
from PIL import Image

from rightreasons.data import ImageDataset
from rightreasons.experiments import RevealedMaps, Summary, summarize
from rightreasons.experiments.baselines import TARGETED
from rightreasons.experiments.reveal.summary import SHOWN
from rightreasons.models.checkpoints import write_whole
from rightreasons.reports.figures import (
    Heatmap,
    as_picture,
    color_bar_png,
    data_uri,
    heatmap_png,
    image_png,
    lifted,
)
from rightreasons.reports.sheets import pictures

FILE = "index.html"
PICTURES = 600
"""Most pictures on a page, images and maps together."""
SIDE = 112
"""Longer side of a picture on the page, in pixels; smaller images keep theirs."""
_CLASSES = 200

ORDER = ("most on irrelevant pixels", "least confident", "most confident", "drawn at random")


class Thumbnail(NamedTuple):
    """A map on a card."""

    key: str
    title: str
    uri: str
    told: str


@dataclass(frozen=True, eq=False)
class Card:
    """An image with what the model said and its maps.

    Attributes:
        line: Of the index.
        reasons: Why it is shown.
        uri: The image itself.
        size: Width and height of the picture.
        maps: One a method.
    """

    line: Mapping[str, Any]
    reasons: tuple[str, ...]
    uri: str
    size: tuple[int, int]
    maps: tuple[Thumbnail, ...]

    @property
    def correct(self) -> bool:
        """Whether the prediction is the truth."""
        return bool(self.line["label"] == self.line["prediction"])

    @property
    def name(self) -> str:
        """The file, or the position of an image that has none."""
        return self.line["name"] or f"image {self.line['position']:,}"


@dataclass(frozen=True, eq=False)
class Gallery:
    """What the page shows.

    Attributes:
        maps: The maps of the whole data set.
        data: Its images.
        summary: The index in short.
        rerun: The command that made the maps.
    """

    maps: RevealedMaps
    data: ImageDataset
    summary: Summary
    rerun: str = ""

    @cached_property
    def groups(self) -> dict[str, list[Card]]:
        """The cards by the first reason why they are shown; an image is shown once."""
        reasons: dict[int, list[str]] = {}
        lines: dict[int, Mapping[str, Any]] = {}
        for reason in ORDER:
            for line in self.summary.shown.get(reason, ()):
                reasons.setdefault(line["position"], []).append(reason)
                lines[line["position"]] = line
        groups: dict[str, list[Card]] = {}
        for position, told in reasons.items():
            groups.setdefault(told[0], []).append(self._card(lines[position], tuple(told)))
        return groups

    def _card(self, line: Mapping[str, Any], reasons: tuple[str, ...]) -> Card:
        (picture,) = pictures(self.data.batch(torch.tensor([line["position"]])), self.data.pixel_range)
        small = np.asarray(reduced(as_picture(picture)), dtype=np.float64) / 255
        return Card(line, reasons, data_uri(image_png(small)), (small.shape[1], small.shape[0]), self._thumbnails(line))

    def _thumbnails(self, line: Mapping[str, Any]) -> tuple[Thumbnail, ...]:
        found = []
        for key, title in self.maps.titles.items():
            values = reduced(Image.fromarray(self.maps.heatmap(line, key)[0].numpy().astype(np.float32)))
            shown, _ = lifted(Heatmap(np.asarray(values), self.maps.signed[key]))
            png = heatmap_png(shown.values, signed=shown.signed)
            found.append(Thumbnail(key, title, data_uri(png), _told(line["methods"][key])))
        return tuple(found)

    @property
    def masks(self) -> list[str]:
        """The kinds of masks that there are."""
        told = self.summary.methods.values()
        return [kind for kind in ("irrelevant", "relevant") if any(getattr(m, kind).count for m in told)]

    @property
    def classes(self) -> list[tuple[str, int, int]]:
        """The classes with their images and those told right; the worst first, and no more than one can read."""
        found = [(name, images, right) for name, (images, right) in self.summary.classes.items()]
        return sorted(found, key=lambda row: (row[2] / row[1], row[0]))[:_CLASSES]

    @property
    def labels(self) -> list[str]:
        """The classes of the images that are shown."""
        return sorted({card.line["label"] for cards in self.groups.values() for card in cards})

    @property
    def explained(self) -> str:
        """Which class the maps explain, in words."""
        config = self.maps.record.config
        told = "the predicted class" if config["target"] == "predicted" else "the true class"
        told = f"{told} against {config['against']}" if config["against"] else told
        start = config.get("baseline", "")
        return f"{told}, from {TARGETED.get(start, f'the baseline {start}')}" if start else told


def reduced(picture: Image.Image) -> Image.Image:
    """No larger than a picture on the page; averaged, not sampled."""
    ratio = SIDE / max(picture.size)
    if ratio >= 1:
        return picture
    size = (max(1, round(picture.width * ratio)), max(1, round(picture.height * ratio)))
    return picture.resize(size, Image.Resampling.BOX)


def _told(numbers: Mapping[str, float | None]) -> str:
    if numbers["max_abs"] is None:
        return "not finite"
    if numbers["max_abs"] == 0:
        return "zero everywhere"
    return "" if numbers["irrelevant"] is None else f"{100 * numbers['irrelevant']:.0f}\N{NO-BREAK SPACE}% irrelevant"


def gallery_of(maps: RevealedMaps, data: ImageDataset, *, rerun: str = "") -> Gallery:
    """Read the index once and choose what is shown: fewer images where there are many methods.

    Args:
        maps: In their folder.
        data: The images that were explained.
        rerun: The command that made the maps, for the reader.
    """
    shown = max(10, min(SHOWN, PICTURES // (len(maps.titles) + 1)))
    images = maps.record.config["images"]
    return Gallery(maps, data, summarize(maps.lines(), list(maps.titles), images=images, shown=shown), rerun)


def render_gallery(gallery: Gallery) -> str:
    """The whole page as one HTML text."""
    environment = _environment()
    script = environment.get_template("gallery.js").render()
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    bars = {sign: data_uri(color_bar_png(signed=sign)) for sign in sorted(set(gallery.maps.signed.values()))}
    return environment.get_template("gallery.html").render(
        page=gallery, script=script, digest=digest, bars=bars, record=gallery.maps.record
    )


def write_gallery(maps: RevealedMaps, data: ImageDataset, *, rerun: str = "") -> Gallery:
    """Write ``index.html`` beside the maps.

    Raises:
        NotWritten: The file cannot be written; an older one is left as it was.
    """
    gallery = gallery_of(maps, data, rerun=rerun)
    write_whole(maps.out / FILE, render_gallery(gallery).encode(errors="backslashreplace"))
    return gallery


def _percent(share: float | None) -> str:
    known = share is not None and math.isfinite(share)
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%" if known and share is not None else "not defined"


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("rightreasons.reports"),
        autoescape=lambda name: name is not None and name.endswith(".html"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = _percent
    return environment
