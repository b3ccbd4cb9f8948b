"""What a data set of images is here: batches by index, with everything that a loss or a metric may need."""

from __future__ import annotations

import copy
import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor
from torch.utils.data import Dataset

from rightreasons.core import Batch
from rightreasons.core.tensors import content

Split = Literal["train", "test"]


class ImageDataset(ABC, Dataset[Batch]):
    """Images with labels and perhaps masks; ``batch(index)`` fetches many at once.

    A ``DataLoader`` fetches whole batches from it (``collate_fn=whole``), one tensor operation instead of a loop
    over images. Wrappers (decoys, subsets, other pixel ranges) take any data set and are one themselves.

    Attributes:
        name: Where the images come from and what was done to them, such as ``mnist/train + decoy/rrr``.
        classes: Name of each class.
        target: Class of each image, (N,) int64.
        pixel_range: Smallest and largest value a pixel of ``inputs`` may have.
        held: Which images are for validation, where the data set says so because some are of the same source;
            ``None`` where any may be held out.
    """

    name: str
    classes: tuple[str, ...]
    target: Int[Tensor, " images"]
    pixel_range: tuple[float, float] = (0.0, 1.0)
    held: Bool[Tensor, " images"] | None = None

    @abstractmethod
    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions, with ``Batch.index`` set to them."""

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, position: int) -> Batch:
        """A batch of one."""
        return self.batch(torch.tensor([range(len(self))[position]]))

    def __getitems__(self, positions: Sequence[int]) -> Batch:
        """A whole batch at once; PyTorch's ``DataLoader`` calls this."""
        return self.batch(torch.as_tensor(positions))

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self[0].inputs.shape[1:]
        return channels, height, width

    def fingerprint(self, chunk: int = 4096) -> str:
        """SHA-256 over all that batches hold but the index: data sets with the same one hold the same numbers.

        Names, types and shapes of the fields are part of it; the size of the chunks that are read is not.
        """
        return _digest(self, torch.split(torch.arange(len(self)), chunk))

    def sampled_fingerprint(self, images: int = 32) -> str:
        """SHA-256 over all labels and some evenly spaced images with all they carry; cheap, so it proves less."""
        some = torch.linspace(0, len(self) - 1, min(images, len(self))).round().long()
        labels = hashlib.sha256(content(self.target)).hexdigest()
        return hashlib.sha256(f"{labels} {_digest(self, [some])}".encode()).hexdigest()


def _digest(data: ImageDataset, rows: Iterable[Int[Tensor, " _"]]) -> str:
    """One digest a field, fed chunk by chunk, so that the cuts do not matter; then one over all of them."""
    names = [field.name for field in fields(Batch) if field.name != "index"]
    digests = {name: hashlib.sha256() for name in names}
    kinds: dict[str, str] = {}
    for index in rows:
        batch = data.batch(index)
        for name, digest in digests.items():
            value = getattr(batch, name)
            kind = "none" if value is None else f"{value.dtype} {tuple(value.shape[1:])}"
            if kinds.get(name) != kind:
                kinds[name] = kind
                digest.update(f"{name} {kind};".encode())
            if value is not None:
                digest.update(content(value))
    return hashlib.sha256("".join(digest.hexdigest() for digest in digests.values()).encode()).hexdigest()


class Wrapper(ImageDataset):
    """A data set that shows another one changed.

    Attributes:
        data: The data set inside.
        change: What was done to it; ends the name.
    """

    def __init__(self, data: ImageDataset, change: str) -> None:
        self.change = change
        self._wrap(data)

    def over(self, data: ImageDataset) -> Wrapper:
        """The same change over another data set of the same images."""
        other = copy.copy(self)
        other._wrap(data)
        return other

    def _wrap(self, data: ImageDataset) -> None:
        self.data = data
        self.name = f"{data.name} + {self.change}"
        self.classes = data.classes
        self.target = data.target
        self.pixel_range = data.pixel_range
        self.held = data.held


def stream(seed: int, purpose: str) -> torch.Generator:
    """Random numbers of their own for each purpose, so that draws under one seed do not depend on each other."""
    digest = hashlib.sha256(f"{seed}/{purpose}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))


def whole(batch: Batch) -> Batch:
    """The ``collate_fn`` for a ``DataLoader``: the batch is whole already."""
    return batch
