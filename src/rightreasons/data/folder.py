"""The user's own images: a folder with one sub-folder a class, and masks beside the images."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Int
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from rightreasons.core import Batch, CorruptData, DataUnavailable
from rightreasons.data.arrays import Subset
from rightreasons.data.dataset import ImageDataset, Wrapper

log = logging.getLogger(__name__)

SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})
MASKS = ("relevant", "irrelevant")
ORIENTATION = 0x0112
TURNED = range(5, 9)


UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
LEVELS = 255
SQUASHED = 1.02
"""Images whose sides change by more than this factor against each other count as squashed; less is rounding."""


class Entry(NamedTuple):
    """One image with what belongs to it."""

    image: Path
    number: int
    relevant: Path | None
    irrelevant: Path | None

    @property
    def masks(self) -> tuple[Path | None, Path | None]:
        """Both masks."""
        return self.relevant, self.irrelevant


class ImageFolder(ImageDataset):
    """Images in folders, read when a batch asks for them.

    The layout, where both mask folders and each mask in them are optional::

        root/CLASS/STEM.png (or .jpg, ...)
        root/CLASS/relevant/STEM.png
        root/CLASS/irrelevant/STEM.png

    An image with a mask of either kind counts as annotated. Images are shown upright by their EXIF orientation, and
    masks are drawn on the upright image. Of a mask with a transparent layer, what covers the layer counts, whatever
    its color; of a colored mask the strongest channel, 0 ... 255 to [0, 1], so that a red brush marks as much as a
    white one; in a palette mask every color but the first is 1, and so is the 1 of a mask that holds nothing but 0
    and 1. An image's own transparency is dropped. Of an animation the first picture counts.

    Args:
        path: The root.
        classes: Names of the classes in the order of the model's outputs; the sorted folder names by default.
        size: Side, or height and width, that all images are resized to; without it all must be of one size.
        channels: 1 for grey, 3 for color.

    Raises:
        DataUnavailable: There is no such folder.
        CorruptData: The folder is empty, holds a class that is not in ``classes``, an image that cannot be read or is
            of another size, or a mask without an image or of another size. One line that names the file.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        classes: Sequence[str] | None = None,
        size: int | tuple[int, int] | None = None,
        channels: Literal[1, 3] = 3,
    ) -> None:
        if channels not in (1, 3):
            raise ValueError(f"expected 1 or 3 channels, got {channels}")
        root = Path(path)
        self.name = f"folder/{root.resolve().name}"
        self.channels = channels
        self.classes = _classes(root, classes)
        self.entries = [
            entry
            for number, name in enumerate(self.classes)
            if (root / name).is_dir()
            for entry in _entries(root / name, number)
        ]
        self.resize = size is not None
        self.size = _common_size(self.entries, size)
        self.target = torch.tensor([entry.number for entry in self.entries])
        self.annotated = torch.tensor([any(entry.masks) for entry in self.entries])

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions, read from their files.

        Raises:
            CorruptData: A file cannot be read or is no longer of the size it was.
        """
        entries = [self.entries[position] for position in index.tolist()]
        return Batch(
            inputs=torch.stack([self.tensor_of(read_pixels(e.image, self.channels), e.image) for e in entries]),
            target=self.target[index],
            relevant=self._masks(entries, "relevant"),
            irrelevant=self._masks(entries, "irrelevant"),
            annotated=self.annotated[index] if self.annotated.any() else None,
            index=index,
        )

    def _masks(
        self, entries: Sequence[Entry], kind: Literal["relevant", "irrelevant"]
    ) -> Float[Tensor, "batch 1 height width"] | None:
        if all(getattr(entry, kind) is None for entry in self.entries):
            return None
        nothing = torch.zeros(1, *self.size)
        paths: list[Path | None] = [getattr(entry, kind) for entry in entries]
        return torch.stack([nothing if path is None else self.tensor_of(read_mask(path), path) for path in paths])

    def tensor_of(self, image: Image.Image, path: Path) -> Float[Tensor, "channels height width"]:
        """A picture at the data set's size, in [0, 1]; ``path`` is named where its size does not do."""
        height, width = self.size
        if image.size != (width, height):
            if not self.resize:
                raise CorruptData(f"{path} is {_measure(image.size)} now, expected {height}x{width} as before")
            image = image.resize((width, height), Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.array(image, dtype=np.float32)).div_(LEVELS)
        return pixels.unsqueeze(0) if pixels.ndim == 2 else pixels.permute(2, 0, 1)


def file_of(data: ImageDataset, position: int) -> Path | None:
    """The file of an image, behind parts of a folder and changes to it; ``None`` where it has none."""
    while not isinstance(data, ImageFolder):
        if not isinstance(data, Wrapper):
            return None
        position = int(data.index[position]) if isinstance(data, Subset) else position
        data = data.data
    return data.entries[position].image


def name_of(data: ImageDataset, position: int, *, otherwise: str = "{}") -> str:
    """What to call an image: ``CLASS/FILE`` where it has a file, or else its position in the words of ``otherwise``."""
    file = file_of(data, position)
    return otherwise.format(position) if file is None else f"{file.parent.name}/{file.name}"


def _classes(root: Path, classes: Sequence[str] | None) -> tuple[str, ...]:
    if not root.is_dir():
        raise DataUnavailable(f"expected a folder of images, found no folder {root}")
    visible = [entry for entry in sorted(root.iterdir()) if not entry.name.startswith(".")]
    found = [entry.name for entry in visible if entry.is_dir()]
    if not found:
        raise CorruptData(f"no classes in {root}: expected a sub-folder of images for each class")
    for kind in MASKS:
        if kind in found and kind not in (classes or ()):
            raise CorruptData(f"{root / kind} is not a class: masks go into {root}/CLASS/{kind}")
    if classes is None:
        return tuple(found)
    for name in found:
        if name not in classes:
            raise CorruptData(f"unknown class {name!r}: {root / name} is none of {', '.join(classes)}")
    return tuple(classes)


def _entries(folder: Path, number: int) -> list[Entry]:
    """The images of one class with their masks, by name."""
    images = _images(folder)
    masks = {kind: _masks_of(folder, kind, images) for kind in MASKS}
    return [Entry(path, number, *(masks[kind].get(stem) for kind in MASKS)) for stem, path in images.items()]


def pictures_in(folder: Path) -> list[Path]:
    """The pictures that lie in a folder directly, by name."""
    return sorted(path for path in folder.iterdir() if path.is_file() and path.suffix.lower() in SUFFIXES)


def _images(folder: Path) -> dict[str, Path]:
    images: dict[str, Path] = {}
    ignored = []
    for path in sorted(folder.iterdir()):
        if path.name.startswith(".") or (path.is_dir() and path.name in MASKS):
            continue
        if path.is_dir():
            raise CorruptData(f"unexpected folder {path}: beside the images only {' and '.join(MASKS)} may lie")
        if path.suffix.lower() not in SUFFIXES:
            ignored.append(path)
        elif path.stem in images:
            raise CorruptData(f"{path} and {images[path.stem]} have the same stem, so masks would fit both")
        else:
            images[path.stem] = path
    if ignored:
        log.warning("%d files in %s are no images and are left out, such as %s", len(ignored), folder, ignored[0].name)
    if not images:
        raise CorruptData(f"no images in {folder}: expected files such as IMAGE.png")
    return images


def _masks_of(folder: Path, kind: str, images: dict[str, Path]) -> dict[str, Path]:
    masks = {}
    for path in sorted((folder / kind).glob("*")):
        if path.name.startswith("."):
            continue
        if path.suffix.lower() != ".png":
            raise CorruptData(f"expected masks as PNG files, got {path}")
        if path.stem not in images:
            raise CorruptData(f"mask without image: {path} expects an image {folder / path.stem}.png (or .jpg, ...)")
        masks[path.stem] = path
    return masks


def _common_size(entries: Sequence[Entry], size: int | tuple[int, int] | None) -> tuple[int, int]:
    """Height and width of what a batch holds, once every header has been read."""
    chosen = (size, size) if isinstance(size, int) else size
    if chosen is not None and min(chosen) < 1:
        raise ValueError(f"expected a size of at least one pixel, got {size}")
    first: tuple[int, int] | None = None
    proportions = None if chosen is None else Proportions(chosen)
    for entry in entries:
        stored, upright = sizes_of(entry.image)
        first = first or upright
        if proportions is not None:
            proportions.add(entry.image, upright)
        if chosen is None and upright != first:
            raise CorruptData(
                f"{entry.image} is {_measure(upright)}, but {entries[0].image} is {_measure(first)}: "
                "resize all alike with --resize 64 (in Python size=64)"
            )
        for mask in filter(None, entry.masks):
            _check_mask_size(mask, entry.image, stored, upright)
    if first is None:
        raise CorruptData("no images in any of the classes")
    if proportions is not None and proportions.words:
        _warn_once(proportions.words)
    return chosen or (first[1], first[0])


@cache
def _warn_once(told: str) -> None:
    """A folder is opened several times for one command."""
    log.warning("%s", told)


class Proportions:
    """Counts images that a resizing squashes.

    Args:
        size: Height and width of all images afterwards.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.images = self.squashed = 0
        self.most, self.example = SQUASHED, ""

    def add(self, path: Path, size: tuple[int, int]) -> None:
        """An image of this width and height."""
        ratio = size[0] * self.size[0] / (size[1] * self.size[1])
        stretch = max(ratio, 1 / ratio)
        self.images += 1
        self.squashed += stretch > SQUASHED
        if stretch > self.most:
            self.most, self.example = stretch, f"{path}, {_measure(size)}, by a factor of {stretch:.3g}"

    @property
    def words(self) -> str:
        """How many, and the most extreme; empty where there is none."""
        if not self.squashed:
            return ""
        height, width = self.size
        return (
            f"{self.squashed:,} of {self.images:,} {'image is' if self.images == 1 else 'images are'} squashed to "
            f"{height}x{width}, out of proportion; most of all {self.example}"
        )


def _check_mask_size(mask: Path, image: Path, stored: tuple[int, int], upright: tuple[int, int]) -> None:
    found = sizes_of(mask)[1]
    if found == upright:
        return
    hint = "; it fits the image as stored, but masks are drawn on the image turned upright" if found == stored else ""
    raise CorruptData(f"mask {mask} is {_measure(found)}, but its image {image} is {_measure(upright)}{hint}")


def sizes_of(path: Path) -> tuple[tuple[int, int], tuple[int, int]]:
    """Width and height as stored and as shown upright, from the header alone."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(ORIENTATION) in TURNED
            width, height = image.size
    except UNREADABLE as error:
        raise CorruptData(f"cannot read the image {path} ({_cause(error)})") from error
    return (width, height), ((height, width) if turned else (width, height))


def _upright(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except UNREADABLE as error:
        raise CorruptData(f"cannot read the image {path} ({_cause(error)})") from error


def read_pixels(path: Path, channels: int) -> Image.Image:
    """The upright image in 8 bits."""
    image = _upright(path)
    if image.mode.startswith("I;16"):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise CorruptData(f"{path} holds numbers of 32 bits: expected 8 or 16 bits a channel")
    if "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("L" if channels == 1 else "RGB")


def read_mask(path: Path) -> Image.Image:
    """The upright mask in grey, 255 for 1."""
    image = _upright(path)
    if image.mode == "P":
        return Image.fromarray((np.asarray(image) > 0).astype(np.uint8) * LEVELS)
    if "A" in image.getbands():
        # What was drawn on a transparent layer is what covers it, in whatever color.
        drawn = np.asarray(image.getchannel("A"))
        if drawn.min() < LEVELS:
            return Image.fromarray(drawn)
    # A red brush is as much of a mask as a white one: the strongest channel counts, not the brightness.
    values = (
        np.asarray(image.convert("RGB")).max(axis=2) if image.mode not in ("L", "1") else np.asarray(image.convert("L"))
    )
    return Image.fromarray(values * LEVELS if values.max() == 1 else values)


def _measure(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]} (height x width)"


def _cause(error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return "it is no image file"
    return str(error) or type(error).__name__
