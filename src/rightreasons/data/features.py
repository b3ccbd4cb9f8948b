"""What a frozen network makes of a data set's images: computed once, kept on disk, and a data set itself."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from filelock import FileLock
from jaxtyping import Float, Int
from safetensors import SafetensorError
from torch import Tensor, nn

from rightreasons.core import BadModel, Batch, CorruptData
from rightreasons.core.hooks import modes_kept
from rightreasons.core.tensors import content, weights_digest
from rightreasons.data.dataset import ImageDataset, Wrapper

log = logging.getLogger(__name__)

MARKED = 0.5
IMAGES = 32
"""Images a pass."""


class FeatureDataset(Wrapper):
    """The maps that a frozen network makes of the images, with the masks brought to their grid.

    A cell of a mask is marked where at least half of its area is; a mask counts by the mean of its pixels. All is held
    in memory: an epoch over it costs neither images nor the network.

    Args:
        data: The images.
        part: The frozen network, or its part up to a layer: images to maps (B, K, h, w). Run in evaluation mode.
        folder: Where the maps are kept, one file for these images under these weights.
        told: What the part is called in the name of the data set.

    Raises:
        BadModel: The part returns no maps.
        CorruptData: A kept file is damaged; it has been removed.
    """

    def __init__(self, data: ImageDataset, part: nn.Module, folder: Path, *, told: str = "a frozen network") -> None:
        self.part, self.folder = part, folder
        super().__init__(data, f"features of {told}")

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The maps of these positions."""
        return replace(self.beside[index], inputs=self.maps[index], index=index)

    def frozen_weights(self) -> int:
        """The weights of the frozen network that run for an image; what lies behind its last layer is not counted."""
        ran: set[nn.Module] = set()
        handles = [m.register_forward_pre_hook(lambda module, _: ran.add(module)) for m in self.part.modules()]
        try:
            with modes_kept(self.part), torch.no_grad():
                self.part.eval()
                self.part(self.data.batch(torch.arange(1)).inputs)
        finally:
            for handle in handles:
                handle.remove()
        return sum(weight.numel() for module in ran for weight in module.parameters(recurse=False))

    def _wrap(self, data: ImageDataset) -> None:
        super()._wrap(data)
        self.maps = kept_features(self.part, data, self.folder)
        self.pixel_range = (float(self.maps.min()), float(self.maps.max()))
        size = (self.maps.shape[2], self.maps.shape[3])
        self.beside = _joined([_without_images(batch, size) for batch in _chunks(data)])


def kept_features(part: nn.Module, data: ImageDataset, folder: Path) -> Float[Tensor, "images maps height width"]:
    """The maps of all images: read if ``folder`` has those of the same images under the same weights, else computed.

    Two processes that want the same maps compute them once.

    Raises:
        BadModel: The part returns no maps.
        CorruptData: The file is damaged; it has been removed.
    """
    path = folder / f"{features_key(part, data)}.safetensors"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(path.with_suffix(".lock")):
        if not path.is_file():
            log.info("computing the features of %d images", len(data))
            whole = path.with_suffix(".partial")
            safetensors.torch.save_file({"maps": _computed(part, data)}, whole)
            whole.replace(path)
    try:
        return safetensors.torch.load_file(path)["maps"]
    except (SafetensorError, OSError, KeyError) as error:
        path.unlink(missing_ok=True)
        raise CorruptData(f"{path} is damaged ({error}) and was removed; run again to compute it anew") from error


def features_key(part: nn.Module, data: ImageDataset) -> str:
    """SHA-256 over the part as it prints, its weights and buffers by name, and all images as the part sees them."""
    digest = hashlib.sha256(f"{part!r} {weights_digest(part)}".encode())
    for batch in _chunks(data):
        digest.update(f"{tuple(batch.inputs.shape)};".encode())
        digest.update(content(batch.inputs))
    return digest.hexdigest()


def on_cells(
    mask: Float[Tensor, "batch 1 height width"] | None, size: tuple[int, int]
) -> Float[Tensor, "batch 1 rows columns"] | None:
    """A mask on a coarser grid: a cell is marked where the mean of the mask over its area is at least 0.5."""
    if mask is None:
        return None
    return (F.adaptive_avg_pool2d(mask, size) >= MARKED).to(mask.dtype)


def _computed(part: nn.Module, data: ImageDataset) -> Tensor:
    maps = []
    with modes_kept(part), torch.no_grad():
        part.eval()
        for batch in _chunks(data):
            maps.append(part(batch.inputs).float())
    if not maps or maps[0].ndim != 4:
        raise BadModel(f"expected maps (B, K, h, w) of a frozen part, got {tuple(maps[0].shape) if maps else 'none'}")
    return torch.cat(maps).contiguous()


def _chunks(data: ImageDataset) -> Iterator[Batch]:
    for start in range(0, len(data), IMAGES):
        yield data.batch(torch.arange(start, min(start + IMAGES, len(data))))


def _without_images(batch: Batch, size: tuple[int, int]) -> Batch:
    """What a batch carries beside its images, masks on the coarse grid."""
    return replace(
        batch,
        inputs=batch.inputs.new_zeros(len(batch), 0, *size),
        relevant=on_cells(batch.relevant, size),
        irrelevant=on_cells(batch.irrelevant, size),
    )


def _joined(batches: list[Batch]) -> Batch:
    columns = {f.name: [getattr(batch, f.name) for batch in batches] for f in fields(Batch)}
    joined: dict[str, Any] = {
        name: None if values[0] is None else torch.cat(values) for name, values in columns.items()
    }
    return Batch(**joined)
