"""Data sets in memory, parts of data sets, and other pixel ranges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rightreasons.core import Batch
from rightreasons.data.dataset import ImageDataset, Wrapper


class ArrayDataset(ImageDataset):
    """Images in memory: kept as bytes, given out as float32 in [0, 1].

    Args:
        images: (N, C, H, W) uint8.
        target: Class of each image.
        classes: Name of each class.
        name: Where the images come from.
        relevant: Where a model should look, (N, 1, H, W), boolean or with values in [0, 1].
        irrelevant: Where it should not.
        annotated: Which images a person annotated; all, if masks are given without it.
        group: Group of each image.

    Raises:
        ValueError: Shapes, types or values do not go together.
    """

    def __init__(
        self,
        images: UInt8[Tensor, "images channels height width"],
        target: Int[Tensor, " images"],
        *,
        classes: Sequence[str],
        name: str,
        relevant: Bool[Tensor, "images 1 height width"] | Float[Tensor, "images 1 height width"] | None = None,
        irrelevant: Bool[Tensor, "images 1 height width"] | Float[Tensor, "images 1 height width"] | None = None,
        annotated: Bool[Tensor, " images"] | None = None,
        group: Int[Tensor, " images"] | None = None,
    ) -> None:
        if images.ndim != 4 or images.dtype != torch.uint8:
            raise ValueError(f"expected uint8 images (N, C, H, W), got {images.dtype} {tuple(images.shape)}")
        self.name = name
        self.classes = tuple(classes)
        self.images = images
        self.target = checked_target(target, len(images), len(self.classes))
        self.relevant = _checked_mask("relevant", relevant, images)
        self.irrelevant = _checked_mask("irrelevant", irrelevant, images)
        self.annotated = _checked_column("annotated", annotated, len(images))
        self.group = _checked_column("group", group, len(images))

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions."""
        return Batch(
            inputs=self.images[index].to(torch.float32).div_(255),
            target=self.target[index],
            relevant=None if self.relevant is None else self.relevant[index].to(torch.float32),
            irrelevant=None if self.irrelevant is None else self.irrelevant[index].to(torch.float32),
            annotated=None if self.annotated is None else self.annotated[index],
            group=None if self.group is None else self.group[index],
            index=index,
        )


class Subset(Wrapper):
    """Some of the images of a data set, in the order of ``index``.

    Args:
        data: All images.
        index: Positions in ``data``.
        change: What the part is called; the number of images unless given.

    Raises:
        ValueError: A position that ``data`` does not have.
    """

    def __init__(
        self, data: ImageDataset, index: Int[Tensor, " images"] | Sequence[int], *, change: str | None = None
    ) -> None:
        self.index = torch.as_tensor(index, dtype=torch.int64)
        if self.index.ndim != 1:
            raise ValueError(f"expected one row of positions, got shape {tuple(self.index.shape)}")
        if len(self.index) and not (int(self.index.min()) >= 0 and int(self.index.max()) < len(data)):
            raise ValueError(f"expected positions from 0 to {len(data) - 1}, got {self.index.aminmax()}")
        super().__init__(data, change or f"{len(self.index)} images")

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions of the part."""
        return replace(self.data.batch(self.index[index]), index=index)

    def _wrap(self, data: ImageDataset) -> None:
        super()._wrap(data)
        self.target = data.target[self.index]
        self.held = None if data.held is None else data.held[self.index]


class Rescaled(Wrapper):
    """The same images in another pixel range, such as 0 ... 255 or -1 ... 1, by a linear map; masks stay as they are.

    Args:
        data: The images.
        low: What the smallest possible value becomes.
        high: What the largest possible value becomes.

    Raises:
        ValueError: ``low`` is not below ``high``.
    """

    def __init__(self, data: ImageDataset, low: float, high: float) -> None:
        if not low < high:
            raise ValueError(f"expected low < high, got {low} and {high}")
        self.low, self.high = float(low), float(high)
        super().__init__(data, f"pixels in {low:g}..{high:g}")

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions, rescaled."""
        batch = self.data.batch(index)
        low, high = self.data.pixel_range
        factor = (self.high - self.low) / (high - low)
        return replace(batch, inputs=(batch.inputs - low) * factor + self.low)

    def _wrap(self, data: ImageDataset) -> None:
        super()._wrap(data)
        self.pixel_range = (self.low, self.high)


def checked_target(target: Tensor, images: int, classes: int) -> Int[Tensor, " images"]:
    """The labels as int64.

    Raises:
        ValueError: Wrong number, type or a class that does not exist.
    """
    if target.shape != (images,) or target.is_floating_point() or target.dtype == torch.bool:
        raise ValueError(f"expected {images} class numbers as target, got {target.dtype} {tuple(target.shape)}")
    target = target.to(torch.int64)
    wrong = target[(target < 0) | (target >= classes)]
    if len(wrong):
        raise ValueError(f"label out of range: expected 0 to {classes - 1}, got {int(wrong[0])}")
    return target


def _checked_mask(name: str, mask: Tensor | None, images: Tensor) -> Tensor | None:
    if mask is None:
        return None
    expected = (len(images), 1, *images.shape[-2:])
    if tuple(mask.shape) != expected:
        raise ValueError(f"expected {name} masks of shape {expected}, got {tuple(mask.shape)}")
    if mask.dtype == torch.bool:
        return mask
    if not mask.is_floating_point():
        raise ValueError(f"expected {name} masks that are boolean or in [0, 1], got {mask.dtype}")
    if mask.numel() and not (float(mask.min()) >= 0 and float(mask.max()) <= 1):
        raise ValueError(f"expected {name} masks in [0, 1], got {float(mask.min()):g} to {float(mask.max()):g}")
    return mask


def _checked_column(name: str, values: Tensor | None, images: int) -> Tensor | None:
    if values is not None and values.shape != (images,):
        raise ValueError(f"expected {name} of shape ({images},), got {tuple(values.shape)}")
    return values
