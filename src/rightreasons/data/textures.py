"""Grey textures drawn from numbers: families that a network tells apart easily, each image of a family its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.data.dataset import stream

Plane = Float[Tensor, "height width"]

PERIOD = (5.0, 11.0)
"""Shortest and longest period of a pattern in pixels."""

DARKEST, BRIGHTEST = 0.1, 0.9
LEAST_CONTRAST = 0.25


def stripes(along: Plane, across: Plane) -> Plane:
    """Bands with soft edges."""
    return (2 * math.pi * along).sin()


def checks(along: Plane, across: Plane) -> Plane:
    """A chessboard."""
    return torch.sign((2 * math.pi * along).sin() * (2 * math.pi * across).sin())


def dots(along: Plane, across: Plane) -> Plane:
    """Disks on a square grid."""
    return torch.where(_in_cell(along).square() + _in_cell(across).square() < 0.09, 1.0, -1.0)


def waves(along: Plane, across: Plane) -> Plane:
    """Thin lines that swing."""
    return torch.where(_in_cell(along + 0.35 * (math.pi * across).sin()).abs() < 0.2, 1.0, -1.0)


def bricks(along: Plane, across: Plane) -> Plane:
    """Long bricks in rows, each row moved by half a brick."""
    row = across.floor()
    brick = along / 2 + 0.5 * row.remainder(2)
    joint = torch.minimum(0.5 - _in_cell(across).abs(), 1.0 - 2 * _in_cell(brick).abs())
    return torch.where(joint < 0.12, 1.0, -1.0)


def rings(along: Plane, across: Plane) -> Plane:
    """Circles around a place near the middle."""
    return (2 * math.pi * (along.square() + across.square()).sqrt()).sin()


FAMILIES: Mapping[str, Callable[[Plane, Plane], Plane]] = MappingProxyType(
    {"stripes": stripes, "checks": checks, "dots": dots, "waves": waves, "bricks": bricks, "rings": rings}
)


@dataclass(frozen=True, eq=False)
class Textures:
    """Textures for a number of images: what each looks like follows from the seed and its position alone.

    The period, the direction, the place and the two greys are drawn for each image and do not depend on the family, so
    that only the pattern tells the families apart.

    Attributes:
        side: Height and width in pixels.
        seed: Of all draws.
    """

    side: int
    seed: int

    families: ClassVar[int] = len(FAMILIES)

    def __post_init__(self) -> None:
        if self.side < 1:
            raise ValueError(f"expected a side of at least 1 pixel, got {self.side}")

    def draw(self, positions: Int[Tensor, " batch"], families: Int[Tensor, " batch"]) -> Tensor:
        """The textures of images at these positions, each of its family, (B, 1, side, side) in [0, 1].

        Args:
            positions: Which images.
            families: Number of the family of each, in the order of :data:`FAMILIES`.

        Raises:
            ValueError: There is no family of that number.
        """
        if len(families) and not (int(families.min()) >= 0 and int(families.max()) < len(FAMILIES)):
            raise ValueError(f"expected families 0 to {len(FAMILIES) - 1}, got {families.aminmax()}")
        made = [self._one(p, f) for p, f in zip(positions.tolist(), families.tolist(), strict=True)]
        return torch.stack(made) if made else torch.empty(0, 1, self.side, self.side)

    def _one(self, position: int, family: int) -> Float[Tensor, "1 height width"]:
        generator = stream(self.seed, f"texture {position}")
        angle, period, down, right, dark, contrast = torch.rand(6, generator=generator).tolist()
        period = PERIOD[0] + (PERIOD[1] - PERIOD[0]) * period
        places = torch.arange(self.side, dtype=torch.float32) / self.side - 0.25
        rows, columns = torch.meshgrid(*(self.side * (places - offset / 2) for offset in (down, right)), indexing="ij")
        turn = math.pi * angle
        along = (math.cos(turn) * columns + math.sin(turn) * rows) / period
        across = (math.cos(turn) * rows - math.sin(turn) * columns) / period
        pattern = (list(FAMILIES.values())[family](along, across) + 1) / 2
        low = DARKEST + dark * (BRIGHTEST - LEAST_CONTRAST - DARKEST)
        high = low + LEAST_CONTRAST + contrast * (BRIGHTEST - LEAST_CONTRAST - low)
        grain = torch.randn(self.side, self.side, generator=generator)
        texture: Tensor = low + (high - low) * pattern + 0.03 * _smooth(grain)
        return texture.clamp(0, 1)[None]


def _in_cell(places: Plane) -> Plane:
    """Distance from the middle of the cell of size 1, -0.5 to 0.5."""
    return places - places.floor() - 0.5


def _smooth(noise: Plane) -> Plane:
    return F.avg_pool2d(noise[None, None], 3, stride=1, padding=1)[0, 0] * 3
