"""The gallery of counterfactuals: what was changed, what the model says on the way, and how near they are.

The page is one file that loads nothing. A small script moves along the way and filters; without it the page shows the
counterfactuals themselves.
"""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
import numpy as np
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import ANY_OTHER
from rightreasons.counterfactuals import edges
from rightreasons.experiments.counterfactual import Answers
from rightreasons.metrics import Estimate
from rightreasons.models.checkpoints import write_whole
from rightreasons.reports.figures import (
    Array,
    as_picture,
    color_bar_png,
    data_uri,
    heatmap_png,
    image_png,
    mask_outline,
)
from rightreasons.reports.overlays import (
    Slice,
    difference_layer,
    difference_picture,
    edge_layer,
    png_of,
    slice_picture,
    way_gif,
)
from rightreasons.reports.page import environment, pictures_of_ones_own

FILE, PICTURES = "index.html", "images"
SIDE = 224
"""Longer side of a picture on the page, in pixels; smaller images keep theirs."""
SHOWN = 200
"""Counterfactuals on the page; all are written as pictures."""
_SMALL = 96
_SUMMARY = {
    "validity": ("Valid", "share that flips the model"),
    "l2": ("L2", "Euclidean length of the change, in units of the pixels' range"),
    "l1": ("L1", "sum of absolute changes"),
    "linf": ("L\N{INFINITY}", "largest change of a value"),
    "l0": ("Visibly changed pixels", "by more than 5 of 255 levels"),
    "sparsity": ("Unchanged share", "of the pixels, by the same measure"),
    "tv": ("Total variation", "of the change"),
    "sharpness": ("Boundary sharpness", "steepest change of the class's probability along the way, which has length 1"),
    "overshoot": ("Overshoot", "how far behind the boundary it lies, as a share of the way"),
    "queries": ("Queries", "images that ran forward, for each"),
}
"""Rows of the summary and what they mean."""
FEW = 6
"""Of fewer images a mean has no bootstrap interval on the page."""


class Figure(NamedTuple):
    """A row of the summary."""

    name: str
    told: str
    value: str
    ends: str


@dataclass(frozen=True, eq=False)
class Card:
    """A counterfactual on the page.

    Attributes:
        row: Of the answers.
        told: What the record says of it.
        asked_any: Whether any other class was asked for.
        goal: The class that it is about.
        size: Width and height of the pictures.
        original: Address of the original; the other pictures likewise.
        gray: The original in gray.
        changed: The counterfactual.
        layer: What is drawn of the change.
        edges: Of the counterfactual.
        contrast: The contrastive map; empty without one.
        removed: Outline of the regions from which something was removed, as SVG path data.
        added: Outline of those to which something was added.
    """

    row: int
    told: dict[str, Any]
    asked_any: bool
    goal: str
    size: tuple[int, int]
    original: str
    gray: str
    changed: str
    layer: str
    edges: str
    contrast: str
    removed: str
    added: str

    @property
    def style(self) -> str:
        """How the browser enlarges it: small images pixel by pixel."""
        return "pixels" if max(self.size) < _SMALL else "smooth"

    @property
    def pair(self) -> str:
        """From which class to which, for a reader."""
        return f"{self.told['predicted']} \N{RIGHTWARDS ARROW} {self.goal}"

    @property
    def way(self) -> list[tuple[float, float]]:
        """Probabilities of both classes on the way."""
        return list(zip(self.told["way"]["predicted"], self.told["way"]["other"], strict=True))

    @property
    def steps(self) -> str:
        """The same for the script, in whole per mille."""
        return json.dumps([[round(1000 * p) for p in pair] for pair in self.way])

    def curve(self, which: int) -> str:
        """Points of one class's curve in a box of 100 by 40."""
        last = len(self.way) - 1
        return " ".join(f"{100 * k / last:.1f},{40 - 40 * pair[which]:.1f}" for k, pair in enumerate(self.way))

    @property
    def left_out(self) -> str:
        """What is not drawn, in words."""
        drawn = self.told["drawn"]
        out = [
            f"{drawn[key]:,} {word}" for key, word in (("needless", "not needed"), ("faint", "too faint")) if drawn[key]
        ]
        return " and ".join(out)


@dataclass(frozen=True, eq=False)
class CounterfactualPage:
    """What the page shows.

    Attributes:
        answers: The counterfactuals.
        rerun: The command that found them.
    """

    answers: Answers
    rerun: str = ""

    @cached_property
    def cards(self) -> tuple[Card, ...]:
        """The first ones, as many as a page can hold."""
        return tuple(_card(self.answers, row) for row in range(min(SHOWN, len(self.answers.asked.names))))

    @property
    def pairs(self) -> list[tuple[str, int]]:
        """From which class to which, and how often; the most frequent first."""
        return Counter(card.pair for card in self.cards).most_common()

    @cached_property
    def summary(self) -> dict[str, Estimate]:
        """Means with their intervals."""
        return self.answers.summary()

    @property
    def figures(self) -> list[Figure]:
        """The rows of the summary that are defined."""
        rows = []
        for key, (name, told) in _SUMMARY.items():
            found, unit = self.summary[key], "%" if key in ("validity", "sparsity") else ""
            if math.isfinite(found.value):
                # Few values, drawn again and again, give hardly more than the lowest and the highest of them.
                ends = "" if key != "validity" and found.count < FEW else _ends(found, unit)
                rows.append(Figure(name, told, _number(found.value, unit), ends))
        return [*rows, Figure("Milliseconds", "of the search, an image", _number(self.answers.milliseconds, ""), "")]

    @property
    def few(self) -> int:
        """So many images are needed for an interval, where there are fewer."""
        return FEW if int(self.answers.valid.sum()) < FEW else 0

    @property
    def verdict(self) -> str:
        """The result in a sentence."""
        return verdict(self.answers)

    @property
    def data(self) -> str:
        """Whose images these are."""
        asked = self.answers.asked
        if asked.truth is None:
            return pictures_of_ones_own(len(asked.names))
        return str(self.answers.record.config["data"])

    @property
    def method(self) -> str:
        """The name of the method."""
        return str(self.answers.record.config["method"])


def verdict(answers: Answers) -> str:
    """How many are valid and how near they are, in a sentence with intervals."""
    summary, images = answers.summary(), len(answers.asked.names)
    valid = int(answers.valid.sum())
    told = f"{valid:,} of {images:,} {'counterfactual is' if images == 1 else 'counterfactuals are'} valid"
    shown = _ends(summary["validity"], "%")
    told += f" ({_number(summary['validity'].value, '%')}, 95 % interval {shown})" if shown else ""
    if not valid:
        return f"{told}. Those that came nearest are shown."
    parts = []
    for key, name in (("l2", "L2"), ("l0", "visibly changed pixels")):
        parts.append(f"{name} {_number(summary[key].value, '')}")
        # The lowest and the highest of the images themselves: in brackets they would be taken for an interval.
        if valid > 1:
            values = getattr(answers.distances, key)[answers.valid]
            low, high = float(values.min()), float(values.max())
            ends = [f"{end:,.0f}" if key == "l0" else _number(end, "") for end in (low, high)]
            parts[-1] += f", over the {valid:,} images from {' to '.join(ends)}"
    return f"{told}. Of {'these' if valid > 1 else 'it'}{' on average' * (valid > 1)}: {'; '.join(parts)}."


def render_counterfactuals(page: CounterfactualPage) -> str:
    """The whole page as one HTML text; everything the caller wrote is escaped."""
    script = jinja2.Environment(loader=jinja2.PackageLoader("rightreasons.reports"), autoescape=True).get_template(
        "counterfactual.js"
    )
    text = script.render()
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return (
        environment(percent=_percent, short=_short)
        .get_template("counterfactual.html")
        .render(page=page, script=text, digest=digest, bars={True: data_uri(color_bar_png(signed=True))})
    )


def write_counterfactuals(answers: Answers, out: Path, *, rerun: str = "") -> CounterfactualPage:
    """Write the page and, under ``images/``, five files of each: original, counterfactual, difference, slice, way.

    Raises:
        NotWritten: A file cannot be written; an older one is left as it was.
    """
    (out / PICTURES).mkdir(exist_ok=True)
    frames = len(answers.way)
    for row in range(len(answers.asked.names)):
        content, stem = _slice(answers, row, math.inf), out / PICTURES / f"{row:03d}"
        files = {
            "original.png": image_png(content.original),
            "counterfactual.png": image_png(content.changed),
            "difference.png": png_of(difference_picture(content.original, content.difference)),
            "slice.png": png_of(slice_picture(content, title=_title(answers, row), labels=_labels(answers, row))),
            "way.gif": way_gif(content.original, content.changed, frames=frames),
        }
        for name, data in files.items():
            write_whole(stem.with_name(f"{stem.name}-{name}"), data)
    page = CounterfactualPage(answers, rerun)
    write_whole(out / FILE, render_counterfactuals(page).encode(errors="backslashreplace"))
    return page


def _card(answers: Answers, row: int) -> Card:
    content = _slice(answers, row, SIDE)
    goal = answers.classes[int(answers.other[row])]
    small = _reduced(answers.found.images[row][None], SIDE)
    gray = np.asarray(as_picture(content.original).convert("L")) / 255
    return Card(
        row=row,
        told=answers.record.results["images"][row],
        asked_any=bool(answers.asked.target[row] == ANY_OTHER),
        goal=goal,
        size=as_picture(content.original).size,
        original=data_uri(image_png(content.original)),
        gray=data_uri(image_png(gray)),
        changed=data_uri(image_png(content.changed)),
        layer=data_uri(png_of(difference_layer(content.difference))),
        edges=data_uri(png_of(edge_layer(edges(small)[0, 0].numpy()))),
        contrast="" if content.contrast is None else data_uri(heatmap_png(content.contrast, signed=True)),
        removed=mask_outline(content.difference < 0),
        added=mask_outline(content.difference > 0),
    )


def _slice(answers: Answers, row: int, side: float) -> Slice:
    """The pictures of one counterfactual, no larger than the side."""
    low, high = answers.pixel_range
    original, changed = (
        _picture(_reduced((images[row][None] - low) / (high - low), side))
        for images in (answers.asked.inputs, answers.found.images)
    )
    contrast = _reduced(answers.contrasts[row][None], side)[0, 0].numpy()
    known = bool(np.isfinite(contrast).all())
    difference = _reduced(answers.overlay.signed[row][None], side)[0, 0].numpy()
    return Slice(original, changed, difference, contrast if known else None)


def _reduced(images: Float[Tensor, "1 channels height width"], side: float) -> Float[Tensor, "1 channels _ _"]:
    ratio = side / max(images.shape[2:])
    if ratio >= 1:
        return images
    height, width = (max(1, round(ratio * length)) for length in images.shape[2:])
    return F.adaptive_avg_pool2d(images, (height, width))


def _picture(image: Float[Tensor, "1 channels height width"]) -> Array:
    values: Array = image[0].clamp(0, 1).permute(1, 2, 0).numpy()
    return values[..., 0] if values.shape[2] == 1 else values


def _title(answers: Answers, row: int) -> str:
    """Above a slice: the image and the two classes."""
    start, other = (answers.classes[int(classes[row])] for classes in (answers.asked.predicted, answers.other))
    return f"{answers.asked.names[row]}: {start} against {other}"


def _labels(answers: Answers, row: int) -> tuple[str, ...]:
    """Beneath the pictures of a slice."""
    told = answers.record.results["images"][row]
    before, after = answers.way[0, row], answers.way[-1, row]
    said = f"says {told['predicted']} ({_percent(float(before.max()))})"
    says = f"says {told['becomes']} ({_percent(float(after.max()))})"
    drawn = f"{told['drawn']['pixels']:,} pixels drawn"
    return said, says if told["valid"] else f"{says}: not valid", drawn


def _number(value: float, unit: str) -> str:
    if unit == "%":
        return f"{100 * value:.1f}\N{NO-BREAK SPACE}%"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.{1 if size >= 10 else 2 if size >= 1 else 3}f}"


def _short(value: float) -> str:
    return _number(value, "")


def _ends(found: Estimate, unit: str) -> str:
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return ""
    low = _number(found.low, unit).removesuffix("\N{NO-BREAK SPACE}%")
    return f"{low} to {_number(found.high, unit)}"


def _percent(share: float) -> str:
    return f"{100 * share:.1f}\N{NO-BREAK SPACE}%"
