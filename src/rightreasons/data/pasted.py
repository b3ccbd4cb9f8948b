"""Objects cut out of their images and pasted on backgrounds that tell the class in training only."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Int
from scipy import ndimage
from torch import Tensor

from rightreasons.core import Batch
from rightreasons.data.dataset import ImageDataset, Split, stream
from rightreasons.data.decoyed import DecoyDataset, other_class, require_unit_range
from rightreasons.data.stamps import Wallpapers
from rightreasons.data.textures import Textures

FOREGROUND = 0.05
"""A pixel of a clean image above this value belongs to its object."""

LEVELS = 255
MARKED = 0.5


@dataclass(frozen=True)
class TextureProtocol:
    """Each object somewhere on a larger background; families of backgrounds are dealt out among the classes.

    Class k has the families k, k + classes, k + 2 classes, ... In training an image bears a family of its own class
    with the chance ``agreement``, else one of another class; in the test one of a class drawn from all, so that the
    background says nothing.

    Attributes:
        size: Side of the canvas in pixels.
        agreement: Chance that a training image bears its own class's texture; ``None``: it says nothing there either.
        source: Who published it.
        marked: How much of the background a person has marked as irrelevant in a training image, as a multiple of the
            object's area; the rest is unknown. In the test all of it is known.
        backgrounds: ``textures``, which are drawn, or patches of ``wallpapers``, which are photographs and paintings
            in two groups; no wallpaper is in two of training, validation and test.
    """

    size: int
    agreement: float | None
    source: str
    marked: float = 1.0
    backgrounds: Literal["textures", "wallpapers"] = "textures"


class PastedDecoy(DecoyDataset):
    """Objects on other backgrounds; made by ``decoy``.

    The object is the clean image's ``relevant`` mask, or else what lies inside the outline of its bright pixels.
    ``relevant`` is the object; ``irrelevant`` is what lies around it, in training a part of that as people mark it,
    some patches that are together as large as the protocol says. All images are annotated; masks that the images
    carried are replaced. Images are drawn when they are first asked for and kept as bytes.
    """

    def __init__(
        self,
        data: ImageDataset,
        settings: TextureProtocol,
        *,
        split: Split,
        seed: int,
        foreground: float | None,
        change: str,
    ) -> None:
        classes = len(data.classes)
        self.settings, self.split, self.source, self.seed = settings, split, settings.source, seed
        self.foreground = FOREGROUND if foreground is None else foreground
        self.backgrounds = _backgrounds(settings, data, split, seed)
        if classes > self.backgrounds.families:
            raise ValueError(f"expected at most {self.backgrounds.families} classes for a background, got {classes}")
        room = torch.tensor([settings.size - side for side in data.shape[1:]])
        if int(room.min()) < 0:
            raise ValueError(f"expected a canvas of at least {max(data.shape[1:])} pixels, got {settings.size}")
        self.top, self.left = (
            torch.rand(2, len(data), generator=stream(seed, "place")) * (room + 1).unsqueeze(1)
        ).long()
        self.shown = self._shown(data.target, classes, seed)
        self.turn = torch.randint(self.backgrounds.families, (len(data),), generator=stream(seed, "family"))
        super().__init__(data, change)

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions on their textures."""
        missing = sorted(set(index[~self.made[index]].tolist()))
        if missing:
            self._make(torch.tensor(missing))
        relevant = self.objects[index]
        return replace(
            self.data.batch(index),
            inputs=self.pixels[index].to(torch.float32).div_(LEVELS),
            relevant=relevant.to(torch.float32),
            irrelevant=self.around[index].to(torch.float32),
            annotated=None,
        )

    def patch(self, index: Int[Tensor, " batch"]) -> Bool[Tensor, "batch 1 height width"]:
        """The background of each image."""
        self.batch(index)
        return ~self.objects[index]

    def families(self, index: Int[Tensor, " batch"]) -> Int[Tensor, " batch"]:
        """Which family of textures each image bears."""
        shown, classes = self.shown[index], len(self.classes)
        return shown + classes * (self.turn[index] % ((self.backgrounds.families - 1 - shown) // classes + 1))

    def _shown(self, target: Tensor, classes: int, seed: int) -> Int[Tensor, " images"]:
        generator = stream(seed, "background")
        if self.split == "test" or self.settings.agreement is None:
            return torch.randint(classes, target.shape, generator=generator)
        agrees = torch.rand(target.shape, generator=generator) < self.settings.agreement
        return torch.where(agrees, target, other_class(target, classes, generator))

    def _make(self, index: Int[Tensor, " batch"]) -> None:
        """Draw these images."""
        batch = self.data.batch(index)
        inputs, (height, width) = batch.inputs, batch.inputs.shape[-2:]
        top, left = self.top[index].tolist(), self.left[index].tolist()
        canvas = self.backgrounds.draw(index, self.families(index)).repeat(1, self._copies, 1, 1)
        bright = inputs.amax(dim=1) > self.foreground
        inside = filled(bright) if batch.relevant is None else batch.relevant[:, 0] >= MARKED
        for row, position in enumerate(index.tolist()):
            place = (slice(top[row], top[row] + height), slice(left[row], left[row] + width))
            under = canvas[row][:, *place]
            canvas[row][:, *place] = torch.where(inside[row], inputs[row], under)
            self.objects[position, 0][place] = inside[row]
        self.around[index] = self._marked(index)
        self.pixels[index] = (canvas * LEVELS).round().to(torch.uint8)
        self.made[index] = True

    def _marked(self, index: Int[Tensor, " batch"]) -> Bool[Tensor, "batch 1 height width"]:
        """What is known to be background: in training the highest places of a smooth field of noise."""
        outside = ~self.objects[index]
        if self.split == "test":
            return outside
        coarse = [torch.randn(1, 5, 5, generator=stream(self.seed, f"marks {p}")) for p in index.tolist()]
        field = F.interpolate(torch.stack(coarse), outside.shape[-2:], mode="bicubic").masked_fill(~outside, -torch.inf)
        wanted = (self.settings.marked * (~outside).sum(dim=(1, 2, 3))).long()
        ranks = field.flatten(1).argsort(dim=1, descending=True).argsort(dim=1).view_as(outside)
        return outside & (ranks < wanted.view(-1, 1, 1, 1))

    def _wrap(self, data: ImageDataset) -> None:
        require_unit_range(data)
        super()._wrap(data)
        self._copies = 1 if data.shape[0] == 3 and self.settings.backgrounds == "wallpapers" else data.shape[0]
        size = (self.settings.size, self.settings.size)
        self.pixels = torch.zeros(len(data), data.shape[0], *size, dtype=torch.uint8)
        self.objects = torch.zeros(len(data), 1, *size, dtype=torch.bool)
        self.around = torch.zeros_like(self.objects)
        self.made = torch.zeros(len(data), dtype=torch.bool)


def _backgrounds(settings: TextureProtocol, data: ImageDataset, split: Split, seed: int) -> Textures | Wallpapers:
    if settings.backgrounds == "textures":
        return Textures(settings.size, seed)
    if data.shape[0] != 3:
        raise ValueError(f"expected images of three channels for wallpapers, got {data.shape[0]}")
    folds = torch.zeros(len(data), dtype=torch.int64) if data.held is None else data.held.long()
    return Wallpapers(settings.size, seed, folds if split == "train" else folds + 2)


def filled(marked: Bool[Tensor, "batch height width"]) -> Bool[Tensor, "batch height width"]:
    """Each mask with its holes: what cannot be reached from the border without crossing it."""
    whole = [ndimage.binary_fill_holes(mask) for mask in marked.numpy()]
    return torch.from_numpy(np.stack(whole)) if whole else marked
