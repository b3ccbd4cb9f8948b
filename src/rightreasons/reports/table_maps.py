"""The same images under every arm of a table, as pictures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np
from PIL import Image

from rightreasons.experiments.table_views import ArmView, ShownImage, TableViews
from rightreasons.reports.figures import (
    Array,
    Heatmap,
    as_picture,
    data_uri,
    heatmap_png,
    image_png,
    lifted,
    mask_outline,
    share_inside,
)
from rightreasons.reports.gallery import SIDE, reduced


class MapCell(NamedTuple):
    """One image under one arm: the map, the predicted class, whether that is right, and the share in the mask."""

    uri: str
    says: str
    correct: bool
    inside: float | None


class MapRow(NamedTuple):
    """An arm: its cells by explainer, and the mean share of its maps in the mask."""

    name: str
    cells: dict[str, tuple[MapCell, ...]]
    inside: dict[str, float | None]


@dataclass(frozen=True, eq=False)
class Pictured:
    """An image that every arm is shown.

    Attributes:
        shown: The image.
        truth: Name of its class.
    """

    shown: ShownImage
    truth: str

    @cached_property
    def uri(self) -> str:
        """The image itself, as an address."""
        small = np.asarray(reduced(as_picture(self.shown.image.permute(1, 2, 0).numpy())), dtype=np.float64)
        return data_uri(image_png(small / 255))

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return int(self.shown.image.shape[2]), int(self.shown.image.shape[1])

    @property
    def style(self) -> str:
        """How the browser enlarges it: small images pixel by pixel."""
        return "pixels" if max(self.size) < SIDE else "smooth"

    @cached_property
    def outline(self) -> str:
        """The border of the mask as SVG path data; empty without a mask."""
        return "" if self.mask is None else mask_outline(self.mask)

    @property
    def mask(self) -> Array | None:
        """The irrelevant pixels; ``None`` where nothing is marked."""
        mask = self.shown.irrelevant
        return None if mask is None or not bool(mask.any()) else np.asarray(mask.numpy())


def pictured(views: TableViews) -> tuple[Pictured, ...]:
    """The images with the names of their classes."""
    return tuple(Pictured(image, views.classes[image.truth]) for image in views.images)


def map_rows(views: TableViews, images: Sequence[Pictured]) -> tuple[MapRow, ...]:
    """The arms with weights, in their order."""
    return tuple(_row(arm, views, images) for arm in views.arms)


def _row(arm: ArmView, views: TableViews, images: Sequence[Pictured]) -> MapRow:
    cells = {name: tuple(_cell(arm, name, k, views, images) for k in range(len(images))) for name in views.explainers}
    inside = {name: _mean([cell.inside for cell in own]) for name, own in cells.items()}
    return MapRow(arm.name, cells, inside)


def _cell(arm: ArmView, explainer: str, k: int, views: TableViews, images: Sequence[Pictured]) -> MapCell:
    values, signed = np.asarray(arm.heatmaps[explainer][k].numpy()), views.explainers[explainer]
    small = np.asarray(reduced(Image.fromarray(values.astype(np.float32))))
    shown, _ = lifted(Heatmap(small, signed))
    mask = images[k].mask
    share = None if mask is None else share_inside(values, mask, signed=signed)
    return MapCell(
        uri=data_uri(heatmap_png(shown.values, signed=signed)),
        says=views.classes[arm.predictions[k]],
        correct=arm.predictions[k] == images[k].shown.truth,
        inside=share if share is not None and np.isfinite(share) else None,
    )


def _mean(shares: Sequence[float | None]) -> float | None:
    known = [share for share in shares if share is not None]
    return sum(known) / len(known) if known else None
