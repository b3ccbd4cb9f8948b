"""Squares: the shade of a small square is the class, and that of a large one goes with it in training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from torch import Tensor

from rightreasons.data.arrays import ArrayDataset
from rightreasons.data.dataset import ImageDataset, Split, stream
from rightreasons.data.decoyed import blocks

SIDE = 64
CLASS_SIDE, CONFOUNDER_SIDE = 10, 24
MIDDLE, CONTRAST, NOISE = 0.5, 0.15, 0.1
"""Grey of the ground, what a square's grey differs from it by, and the sd of the noise, in units of white."""

IMAGES = {"train": 1000, "test": 1600}
GROUPS = MappingProxyType({"symmetric": (0.49, 0.01, 0.01, 0.49), "asymmetric": (0.25, 0.25, 0.49, 0.01)})
"""Share of the training images in each group, 2 * class + confounder; in the test each group is a quarter."""

DRAW_SEED = 0


def squares(split: Split = "train", *, shares: Sequence[float] = GROUPS["symmetric"]) -> ArrayDataset:
    """Grey images of 64x64 pixels with two squares on a noisy ground; the same ones every time.

    The class is the shade of the small square, dark (0) or bright (1); the confounder is that of the large square. Each
    lies anywhere, and they do not overlap. ``group`` is 2 * class + confounder, ``relevant`` marks the small square and
    ``irrelevant`` the large one.

    Args:
        split: 1,000 images to train on (the paper's 800, and 200 to be held out for validation), or 1,600 to test on.
        shares: Of the four groups in training; in the test they are of one size.

    Raises:
        ValueError: Not four shares that add up to 1.

    Source: the sizes and the shares are those of arXiv:2604.04518 (2026), SQUARES. The drawing is ours: sizes, shades,
    places and noise of the squares are not told there.
    """
    if len(shares) != 4 or min(shares) < 0 or abs(sum(shares) - 1) > 1e-6:
        raise ValueError(f"expected four shares that add up to 1, got {tuple(shares)}")
    asked = tuple(shares) if split == "train" else (0.25,) * 4
    generator = stream(DRAW_SEED, f"squares {split} {asked}")
    group = _groups(asked, IMAGES[split], generator)
    target, confounder = group // 2, group % 2
    large = _placed(torch.zeros(len(group), 1, SIDE, SIDE, dtype=torch.bool), CONFOUNDER_SIDE, generator)
    small = _placed(large, CLASS_SIDE, generator)
    grey = MIDDLE + NOISE * torch.randn((len(group), 1, SIDE, SIDE), generator=generator)
    for square, bright in ((large, confounder), (small, target)):
        grey += CONTRAST * square * (2 * bright - 1).view(-1, 1, 1, 1)
    return ArrayDataset(
        (255 * grey.clamp(0, 1)).round().to(torch.uint8),
        target,
        classes=("dark", "bright"),
        name=f"squares/{split}, groups {', '.join(f'{share:g}' for share in asked)}",
        relevant=small,
        irrelevant=large,
        group=group,
    )


@dataclass(frozen=True)
class Squares:
    """The squares as a named data set.

    Attributes:
        shares: Of the four groups in training.
    """

    shares: tuple[float, ...]

    def __call__(self, split: Split, *, folder: Path | None = None, cache: Path | None = None) -> ImageDataset:
        """The images of a split.

        Raises:
            ValueError: A folder was named; these images are drawn.
        """
        if folder is not None:
            raise ValueError(f"expected no folder, as the squares are drawn, got {folder}")
        return squares(split, shares=self.shares)


def _groups(shares: Sequence[float], count: int, generator: torch.Generator) -> Int[Tensor, " images"]:
    """As many images of each group as its share says, in random order; what rounding leaves open goes to the last."""
    sizes = [round(share * count) for share in shares[:-1]]
    group = torch.repeat_interleave(torch.arange(4), torch.tensor([*sizes, count - sum(sizes)]))
    return group[torch.randperm(count, generator=generator)]


def _placed(
    taken: Bool[Tensor, "images 1 height width"], size: int, generator: torch.Generator
) -> Bool[Tensor, "images 1 height width"]:
    """A square in each image, evenly from all places where it covers nothing that is taken."""
    # Row by row and then column by column: a window of size * size values would cost as many comparisons.
    covered = F.max_pool2d(F.max_pool2d(taken.float(), (size, 1), stride=1), (1, size), stride=1)
    free = covered == 0
    place = torch.multinomial(free.flatten(1).float(), 1, generator=generator)[:, 0]
    across = free.shape[-1]
    return blocks(place // across, place % across, size, (taken.shape[-2], taken.shape[-1]))
