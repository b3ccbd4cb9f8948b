"""Augmentations that move an image and its masks together."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import Batch
from rightreasons.core.protocols import LATER
from rightreasons.data.elastic import displacements
from rightreasons.data.randomize import Randomizing, randomized


@dataclass(frozen=True)
class Augmentation:
    """What may happen to an image; each is drawn evenly for each image.

    Called as ``augmentation(batch, generator)``, which is what the training loop asks for, it returns the batch moved.

    Attributes:
        shift: Most whole pixels along each axis.
        rotation: Most degrees, either way.
        scale: Most relative change of the size, either way: 0.1 means 0.9 to 1.1.
        crop: Smallest share of the sides that is kept of the image; what is kept lies anywhere in it and is enlarged
            to the full size.
        flip: Left and right are exchanged half of the time.
        fill: Value of pixels that come in from outside; in masks they are 0, so unknown.
        masks: How masks are read between pixels: ``bilinear`` as the images, so that edges become shares, or
            ``nearest``, so that a binary mask stays binary.
        irrelevant: What becomes of the irrelevant pixels of annotated images, before anything moves: they are kept,
            or replaced by what tells nothing, ``uniform`` noise or the same place of another image of the batch
            (``swapped``); the cheapest of counterexamples, as no copy is made.
        borrow: With ``irrelevant``: the masks of how many annotated images of the batch each image takes over.
        grow: With ``irrelevant``: by how many pixels its masks are grown.
        low: Smallest value of uniform noise.
        high: Largest value of uniform noise; the range should be that of the pixels.
        elastic: Strength of an elastic distortion, see :func:`rightreasons.data.elastic.displacements`; 0 for none.
        elastic_smoothness: Its smoothness, in pixels.

    Raises:
        ValueError: A setting is out of its range.
    """

    shift: int = 0
    rotation: float = 0.0
    scale: float = 0.0
    crop: float = 1.0
    flip: bool = False
    fill: float = 0.0
    masks: Literal["bilinear", "nearest"] = "bilinear"
    irrelevant: Literal["keep", "uniform", "swapped"] = "keep"
    low: float = 0.0
    high: float = 1.0
    borrow: int = field(default=0, metadata={LATER: True})
    grow: int = field(default=0, metadata={LATER: True})
    elastic: float = 0.0
    elastic_smoothness: float = 4.0

    def __post_init__(self) -> None:
        if self.shift < 0 or self.rotation < 0:
            raise ValueError(f"expected shift and rotation >= 0, got {self.shift} and {self.rotation}")
        if not 0 <= self.scale < 1:
            raise ValueError(f"expected scale in [0, 1), got {self.scale}")
        if not 0 < self.crop <= 1:
            raise ValueError(f"expected crop in (0, 1], got {self.crop}")
        if not (0 <= self.elastic < math.inf and 0 < self.elastic_smoothness < math.inf):
            raise ValueError(
                f"expected elastic >= 0 and elastic_smoothness > 0, got {self.elastic} and {self.elastic_smoothness}"
            )
        if self.masks not in ("bilinear", "nearest"):
            raise ValueError(f"expected masks bilinear or nearest, got {self.masks!r}")
        if self.irrelevant not in ("keep", "uniform", "swapped"):
            raise ValueError(f"expected irrelevant pixels keep, uniform or swapped, got {self.irrelevant!r}")
        if not self.low < self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")
        if self.borrow < 0 or self.grow < 0:
            raise ValueError(f"expected borrow and grow >= 0, got {self.borrow} and {self.grow}")
        if self.irrelevant == "keep" and (self.borrow or self.grow):
            raise ValueError("borrow and grow say which pixels to replace; say by what: irrelevant uniform or swapped")

    @property
    def moves(self) -> bool:
        """Whether an image can move at all."""
        return bool(self.shift or self.rotation or self.scale or self.crop < 1 or self.flip or self.elastic)

    def __call__(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch moved, see :func:`augment`."""
        return augment(batch, self, generator)


def augment(batch: Batch, settings: Augmentation, generator: torch.Generator) -> Batch:
    """The batch with every image moved in its own way, and its masks with it.

    One affine map an image, and a displacement of each place where that is asked for, applied by one resampling. All
    draws come from ``generator``, whatever the device of the batch.
    """
    if settings.irrelevant != "keep":
        pixels = (settings.low, settings.high)
        batch = randomized(batch, Randomizing(settings.irrelevant, pixels, settings.borrow, settings.grow), generator)
    if not settings.moves:
        return batch
    height, width = batch.inputs.shape[-2:]
    theta = _affine(settings, len(batch), (height, width), generator).to(batch.inputs)
    grid = F.affine_grid(theta, [len(batch), 1, height, width], align_corners=False)
    if settings.elastic:
        grid = grid + _distortion(settings, len(batch), (height, width), generator).to(grid)
    inputs = _sampled(batch.inputs - settings.fill, grid, "bilinear") + settings.fill
    relevant, irrelevant = (
        None if mask is None else _sampled(mask, grid, settings.masks).clamp(0, 1)
        for mask in (batch.relevant, batch.irrelevant)
    )
    return replace(batch, inputs=inputs, relevant=relevant, irrelevant=irrelevant)


def _affine(
    settings: Augmentation, number: int, shape: tuple[int, int], generator: torch.Generator
) -> Float[Tensor, "batch 2 3"]:
    """Maps from places in the result to places in the image, in ``grid_sample``'s units (half a side is 1).

    Turning and scaling are about the center and in pixels, so that an oblong image is not sheared.
    """
    half = torch.tensor([shape[1], shape[0]], dtype=torch.float64) / 2
    angle = math.radians(settings.rotation) * _signed(number, generator)
    kept = 1 - (1 - settings.crop) * _uniform(number, generator)
    zoom = kept / (1 + settings.scale * _signed(number, generator))
    mirror = torch.where((_uniform(number, generator) < 0.5) & settings.flip, -1.0, 1.0)
    turn = torch.stack([angle.cos() * mirror, angle.sin(), -angle.sin() * mirror, angle.cos()], dim=1).view(-1, 2, 2)
    linear = zoom.view(-1, 1, 1) * turn * half.view(1, 1, 2) / half.view(1, 2, 1)
    places = 2 * settings.shift + 1
    shift = (torch.stack([_uniform(number, generator) for _ in range(2)], dim=1) * places).floor() - settings.shift
    window = (1 - kept).view(-1, 1) * torch.stack([_signed(number, generator) for _ in range(2)], dim=1)
    return torch.cat([linear, (window - shift / half).unsqueeze(2)], dim=2)


def _distortion(
    settings: Augmentation, number: int, size: tuple[int, int], generator: torch.Generator
) -> Float[Tensor, "batch height width 2"]:
    """The elastic displacements, in ``grid_sample``'s units."""
    strength, smoothness = settings.elastic, settings.elastic_smoothness
    moved = displacements(number, size, strength=strength, smoothness=smoothness, generator=generator)
    return moved.permute(0, 2, 3, 1) * 2 / torch.tensor([size[1], size[0]])


def _sampled(
    images: Float[Tensor, "batch channels height width"],
    grid: Float[Tensor, "batch height width 2"],
    mode: Literal["bilinear", "nearest"],
) -> Float[Tensor, "batch channels height width"]:
    # Within the outermost half pixel an image is its border, not a blend with what lies outside.
    height, width = images.shape[-2:]
    center = 1 - 1 / torch.tensor([width, height]).to(grid)
    grid = torch.where(grid.abs() <= 1, torch.minimum(torch.maximum(grid, -center), center), grid)
    return F.grid_sample(images, grid, mode=mode, padding_mode="zeros", align_corners=False)


def _uniform(number: int, generator: torch.Generator) -> Float[Tensor, " batch"]:
    """Evenly from [0, 1)."""
    return torch.rand(number, generator=generator, dtype=torch.float64, device=generator.device).cpu()


def _signed(number: int, generator: torch.Generator) -> Float[Tensor, " batch"]:
    """Evenly from [-1, 1)."""
    return 2 * _uniform(number, generator) - 1
