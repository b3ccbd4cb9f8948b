"""Masks made worse in measured amounts, in the ways in which people's masks are worse than true ones.

Source: Gao et al. 2022 (RES), Sec. 1 and Fig. 1: an inaccurate boundary, an incomplete region, and masks that are
binary where explanations are continuous. The paper names them and does not say how to make them; how they are made
and measured here is ours, and so are marks where nothing is.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from rightreasons.core import Batch
from rightreasons.data.dataset import ImageDataset, Wrapper, stream
from rightreasons.data.masks.annotations import KINDS, Kind, Packed, pack, unpack
from rightreasons.data.masks.raster import Region

MARKED = 0.5
Field = NDArray[np.float64]


class Noise(NamedTuple):
    """How much worse a mask is than the true one.

    Attributes:
        boundary: Mean distance of its border from the true border, as a share of the size of the nearest connected true
            region, the radius of a disk of the same area; NaN where one of them has no border.
        missing: Share of the true region that is not marked; NaN without a region.
        wrong: Pixels marked outside of it, as a share of its area; NaN without a region.
    """

    boundary: float
    missing: float
    wrong: float


def degrade(
    mask: Float[Tensor, "1 height width"],
    *,
    boundary: float = 0.0,
    missing: float = 0.0,
    wrong: float = 0.0,
    softness: float = 0.0,
    seed: int = 0,
) -> Float[Tensor, "1 height width"]:
    """A mask made worse: its border displaced, parts dropped, false parts added, its edge made gradual.

    A pixel of at least 0.5 is marked. All random shapes are smooth fields of noise, correlated over half of the
    region's size; each noise draws its own, so that one does not change another. Sizes are radii of disks of the
    same area. A mask in which nothing is marked stays as it is, and so does one whose noises are all 0.

    Args:
        mask: The true one.
        boundary: Mean displacement of the border, inwards or outwards, as a share of the size of the connected region
            it belongs to; a drawn mask comes near to it (up to some 0.3), and :func:`measure` says how near.
        missing: Share of the region's area that is dropped: connected regions as a whole, in a random order, while
            they fit into it, then a part of one.
        wrong: Area of false parts outside of the region, as a share of the region's area.
        softness: Half of the width of the slope over which the mask falls from 1 to 0 across its border, as a share of
            its size; 0 leaves it binary. What is marked stays the same.
        seed: Of the noise.

    Returns:
        The worse mask, in [0, 1].

    Raises:
        ValueError: ``boundary`` or ``missing`` is not in [0, 1], another one is negative, or there is no room for the
            false parts.
    """
    check_noises(boundary=boundary, missing=missing, wrong=wrong, softness=softness)
    true = _marked(mask)
    if not true.any() or not any((boundary, missing, wrong, softness)):
        return mask.clone()
    region = _displaced(true, boundary, _white(seed, "boundary", true))
    region = _cut(region, missing, _white(seed, "missing", true), seed)
    region = _with_false_parts(region, true, wrong, _white(seed, "wrong", true))
    return torch.from_numpy(_softened(region, softness))[None].to(mask)


def check_noises(*, boundary: float, missing: float, wrong: float, softness: float) -> None:
    """Refuse noises that cannot be.

    Raises:
        ValueError: ``boundary`` or ``missing`` is not in [0, 1], or another one is negative or infinite.
    """
    if not (0 <= boundary <= 1 and 0 <= missing <= 1):
        raise ValueError(f"expected boundary and missing in [0, 1], got {boundary} and {missing}")
    if not (0 <= wrong < math.inf and 0 <= softness < math.inf):
        raise ValueError(f"expected wrong and softness >= 0, got {wrong} and {softness}")


def measure(mask: Float[Tensor, "1 height width"], degraded: Float[Tensor, "1 height width"]) -> Noise:
    """How much worse one mask is than another; a pixel of at least 0.5 is marked.

    A displaced border also misses and adds pixels, and a dropped part has a new border: one noise shows in all three.
    """
    true, other = _marked(mask), _marked(degraded)
    area = int(true.sum())
    if not area:
        return Noise(math.nan, math.nan, math.nan)
    missing, wrong = int((true & ~other).sum()) / area, int((other & ~true).sum()) / area
    if not other.any() or true.all() or other.all():
        return Noise(math.nan, missing, wrong)
    # On a border the signed distance is half a pixel in size, inside or outside.
    border = np.abs(_signed_distance(other)) <= MARKED
    inside = border & other
    distance = np.abs(_signed_distance(true) - MARKED) / _sizes(true)
    return Noise(float(distance[inside].mean()), missing, wrong)


class Degraded(Wrapper):
    """The same images with masks made worse by :func:`degrade`, each image's by noise of its own.

    Args:
        data: The images with their masks.
        boundary: Mean displacement of the border as a share of the region's size.
        missing: Share of the region's area that is dropped.
        wrong: Area of false parts as a share of the region's area.
        softness: Half the width of the gradual edge as a share of the region's size.
        seed: Of the noise; an image's depends on its position in ``data`` too.

    Raises:
        ValueError: A noise is out of its range.
    """

    def __init__(
        self,
        data: ImageDataset,
        *,
        boundary: float = 0.0,
        missing: float = 0.0,
        wrong: float = 0.0,
        softness: float = 0.0,
        seed: int = 0,
    ) -> None:
        self.noises = {"boundary": boundary, "missing": missing, "wrong": wrong, "softness": softness}
        check_noises(**self.noises)
        self.seed = seed
        told = ", ".join(f"{key} {value:g}" for key, value in self.noises.items() if value)
        super().__init__(data, f"degraded masks ({told or 'no noise'}, seed {seed})")

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions with their worse masks.

        Raises:
            ValueError: An image has no room for false parts.
        """
        batch = self.data.batch(index)
        relevant, irrelevant = (
            None if mask is None else self._worse(mask, index, kind)
            for kind, mask in zip(KINDS, (batch.relevant, batch.irrelevant), strict=True)
        )
        return replace(batch, relevant=relevant, irrelevant=irrelevant)

    def _worse(
        self, masks: Float[Tensor, "batch 1 height width"], index: Int[Tensor, " batch"], kind: Kind
    ) -> Float[Tensor, "batch 1 height width"]:
        return torch.stack([self._mask(mask, p, kind) for mask, p in zip(masks, index.tolist(), strict=True)])

    def _mask(self, mask: Tensor, position: int, kind: Kind) -> Float[Tensor, "1 height width"]:
        if (position, kind) not in self.made:
            seed = stream(self.seed, f"degraded {kind} {position}").initial_seed()
            try:
                self.made[position, kind] = pack(degrade(mask, **self.noises, seed=seed))
            except ValueError as error:
                raise ValueError(f"{kind} mask of image {position} of {self.data.name}: {error}") from error
        return unpack(self.made[position, kind])

    def _wrap(self, data: ImageDataset) -> None:
        super()._wrap(data)
        # Each mask is made once; epochs after the first find it here.
        self.made: dict[tuple[int, Kind], Packed] = {}


def _displaced(region: Region, amount: float, white: Field) -> Region:
    """The region whose border is moved along a smooth field, by ``amount`` of its part's size in the mean."""
    if not amount or region.all():
        return region
    distance = _signed_distance(region)
    field = _smooth(white, region)
    field = field / np.abs(field[np.abs(distance) <= 1]).mean()
    return np.asarray(distance + amount * _sizes(region) * field > 0, np.bool_)


def _sizes(region: Region) -> Field:
    """At each pixel the size of the connected part that it lies in or is nearest to."""
    labels, _ = ndimage.label(region)
    _, nearest = ndimage.distance_transform_edt(~region, return_indices=True)
    radii = np.sqrt(np.bincount(labels.ravel()) / math.pi)
    return np.asarray(radii[labels[tuple(nearest)]], np.float64)


def _cut(region: Region, share: float, white: Field, seed: int) -> Region:
    """The region without a share of its area."""
    if not share:
        return region
    labels, parts = ndimage.label(region)
    left = round(share * int(region.sum()))
    kept = region.copy()
    order = torch.randperm(parts, generator=stream(seed, "degrade parts")) + 1
    for number in order.tolist():
        part = labels == number
        if int(part.sum()) > left:
            kept &= ~_highest(_smooth(white, region), part, left)
            break
        kept &= ~part
        left -= int(part.sum())
    return kept


def _with_false_parts(region: Region, true: Region, share: float, white: Field) -> Region:
    """The region and false parts outside of it and of the true one."""
    area = round(share * int(true.sum()))
    if not area:
        return region
    room = ~(region | true)
    if area > int(room.sum()):
        raise ValueError(f"expected room for {area} pixels of false parts, got {int(room.sum())} pixels outside")
    return region | _highest(_smooth(white, true), room, area)


def _highest(field: Field, where: Region, count: int) -> Region:
    """The pixels of the largest values."""
    chosen = np.zeros(field.shape, np.bool_)
    order = np.argsort(np.where(where, -field, np.inf), axis=None, kind="stable")
    chosen.ravel()[order[:count]] = True
    return chosen


def _softened(region: Region, softness: float) -> Field:
    """A slope across the border that passes 0.5 where the border is."""
    if not softness or not region.any() or region.all():
        return region.astype(np.float64)
    width = softness * _radius(int(region.sum()))
    return np.asarray((MARKED + _signed_distance(region) / (2 * width)).clip(0, 1), np.float64)


def _signed_distance(region: Region) -> Field:
    """Distance of each pixel's center from the border, negative outside; the image's edge is no border."""
    inside, outside = ndimage.distance_transform_edt(region), ndimage.distance_transform_edt(~region)
    return np.asarray(np.where(region, inside - MARKED, MARKED - outside), np.float64)


def _smooth(white: Field, region: Region) -> Field:
    """Noise correlated over half of the region's size, but at least a pixel."""
    return np.asarray(ndimage.gaussian_filter(white, max(1.0, _radius(int(region.sum())) / 2)), np.float64)


def _white(seed: int, purpose: str, like: Region) -> Field:
    generator = stream(seed, f"degrade {purpose}")
    return np.asarray(torch.randn(like.shape, generator=generator, dtype=torch.float64).numpy(), np.float64)


def _marked(mask: Tensor) -> Region:
    return np.asarray((mask[0].detach().cpu() >= MARKED).numpy(), np.bool_)


def _radius(area: int) -> float:
    return math.sqrt(area / math.pi)
