"""What is told of feature maps and of attention, in numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.experiments.inside.asked import cell_of
from rightreasons.models import BlockAttention

NAMED = 5
"""Channels of the largest and of the smallest weights that are named."""


@dataclass(frozen=True, eq=False)
class LayerView:
    """The maps of a layer in the images shown.

    Attributes:
        name: The layer.
        kind: Its class.
        maps: Raw.
        rectified: Whether a ReLU layer takes them as they are.
    """

    name: str
    kind: str
    maps: Float[Tensor, "images channels height width"]
    rectified: bool = False

    @cached_property
    def signed(self) -> bool:
        """Whether a value is below zero, as before a ReLU."""
        return bool((self.maps < 0).any())

    @cached_property
    def activity(self) -> Float[Tensor, "images channels"]:
        """Mean absolute value of a map; not finite ones count as zero."""
        return self.maps.abs().nan_to_num(0.0, 0.0, 0.0).mean(dim=(2, 3))

    @cached_property
    def order(self) -> Int[Tensor, " channels"]:
        """The channels from the most active to the least, over all images, so that images can be compared."""
        return self.activity.mean(dim=0).sort(descending=True, stable=True).indices

    @cached_property
    def dead(self) -> Bool[Tensor, " channels"]:
        """Channels that have the same value at every place of every image, and so tell nothing about these images."""
        several = self.maps.numel() > self.maps.shape[1]
        same = self.maps.amax(dim=(0, 2, 3)) == self.maps.amin(dim=(0, 2, 3))
        return same & several

    @cached_property
    def never_positive(self) -> Bool[Tensor, " channels"] | None:
        """Channels that are not dead, and of which the ReLU behind the layer leaves nothing in these images.

        ``None`` where no ReLU layer takes the maps as they are: a normalization between them may raise what is below 0.
        """
        if not self.rectified:
            return None
        return (self.maps.amax(dim=(0, 2, 3)) <= 0) & ~self.dead

    def told(self, shown: int) -> dict[str, Any]:
        """What the record says."""
        (_, channels, height, width), never = self.maps.shape, self.never_positive
        return {
            "kind": self.kind,
            "channels": channels,
            "size": [height, width],
            "least": float(self.maps.min()),
            "largest": float(self.maps.max()),
            "dead": self.dead.nonzero()[:, 0].tolist(),
            "never_positive": None if never is None else never.nonzero()[:, 0].tolist(),
            "shown": self.order[:shown].tolist(),
            "activity": self.activity.mean(dim=0).tolist(),
        }


@dataclass(frozen=True, eq=False)
class ChannelWeights:
    """What a block multiplies the channels of an image by.

    Attributes:
        values: Between 0 and 1.
    """

    values: Float[Tensor, " channels"]

    @property
    def mean(self) -> float:
        """Against which a channel is raised or damped."""
        return float(self.values.mean())

    @property
    def raised(self) -> list[tuple[int, float]]:
        """The channels of the largest weights above the mean, the largest first."""
        return [(c, w) for c, w in self._sorted(descending=True) if w > self.mean]

    @property
    def damped(self) -> list[tuple[int, float]]:
        """The channels of the smallest weights below the mean, the smallest first."""
        return [(c, w) for c, w in self._sorted(descending=False) if w < self.mean]

    def _sorted(self, *, descending: bool) -> list[tuple[int, float]]:
        weights, channels = self.values.sort(descending=descending, stable=True)
        return list(zip(channels[:NAMED].tolist(), weights[:NAMED].tolist(), strict=True))

    @property
    def told(self) -> dict[str, Any]:
        """What the record says."""
        ends = {"mean": self.mean, "least": float(self.values.min()), "largest": float(self.values.max())}
        above = int((self.values > self.mean).sum())
        return {**ends, "above_mean": above, "raised": self.raised, "damped": self.damped}


@dataclass(frozen=True, eq=False)
class PlaceWeights:
    """What a block gives to the places of an image.

    Attributes:
        name: What is shown.
        values: One a place.
        even: What each place would have if all had the same; ``None`` where the weights are no shares.
        cell: Row and column of the place that asks.
    """

    name: str
    values: Float[Tensor, "height width"]
    even: float | None = None
    cell: tuple[int, int] | None = None

    @property
    def told(self) -> dict[str, Any]:
        """What the record says."""
        row, column = divmod(int(self.values.argmax()), self.values.shape[1])
        ends = {"least": float(self.values.min()), "largest": float(self.values.max())}
        return {**ends, "even": self.even, "largest_at": [row, column], "asked_from": self.cell}


@dataclass(frozen=True, eq=False)
class BlockView:
    """What an attention block weighs by in the images shown.

    Attributes:
        name: The block.
        attention: What was recorded.
        image: Height and width of the images.
        queries: Pixels, column and row, whose place asks a position attention block.
    """

    name: str
    attention: BlockAttention
    image: tuple[int, int]
    queries: Sequence[tuple[int, int]]

    def channels(self, row: int) -> ChannelWeights | None:
        """The weights of an image's channels, if the block has such."""
        weights = self.attention.weights.get("channel")
        return None if weights is None else ChannelWeights(weights[row])

    def places(self, row: int) -> tuple[PlaceWeights, ...]:
        """The weights of an image's places, if the block has such."""
        weights, size = self.attention.weights, self.attention.size
        found = []
        if "spatial" in weights:
            found.append(PlaceWeights("weight of each place", weights["spatial"][row, 0]))
        if "context" in weights:
            found.append(PlaceWeights("share of each place", weights["context"][row, 0], 1 / (size[0] * size[1])))
        if "position" in weights:
            found += self._affinities(weights["position"][row])
        return tuple(found)

    def _affinities(self, position: Float[Tensor, "places places"]) -> list[PlaceWeights]:
        (height, width), even = self.attention.size, 1 / len(position)
        found = []
        for query in self.queries:
            cell = cell_of(query, self.image, (height, width))
            values = position[cell[0] * width + cell[1]].view(height, width)
            found.append(PlaceWeights(f"what pixel {query[0]},{query[1]} takes", values, even, cell))
        received = position.mean(dim=0).view(height, width)
        return [*found, PlaceWeights("what all take, mean", received, even)]

    def told(self) -> dict[str, Any]:
        """What the record says of the block."""
        return {"kind": self.attention.kind, "size": list(self.attention.size), "scale": self.attention.scale}

    def told_of(self, row: int) -> dict[str, Any]:
        """What the record says of the block in an image."""
        channels = self.channels(row)
        return {
            "change": float(self.attention.change[row]),
            "channel": None if channels is None else channels.told,
            "places": {places.name: places.told for places in self.places(row)},
        }


def joined(parts: Sequence[BlockAttention]) -> BlockAttention:
    """The same block in several passes as if in one, on the CPU."""
    first = parts[0]
    return BlockAttention(
        kind=first.kind,
        size=first.size,
        weights={key: torch.cat([part.weights[key].cpu() for part in parts]) for key in first.weights},
        scale=first.scale,
        change=torch.cat([part.change.cpu() for part in parts]),
    )
