"""Decoys: a sign of the class that is there in training and lies, or says nothing, in the test.

"Decoy-MNIST" names several protocols whose figures may not be compared. Each has a name here, and that name stands in
the name of the data set.

Everything an image needs is drawn once, when the wrapper is made, from the seed; the pixels are changed when a batch
is asked for.
"""

from __future__ import annotations

import colorsys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.core import Batch
from rightreasons.data.dataset import ImageDataset, Split, Wrapper, stream
from rightreasons.data.decoyed import DecoyDataset, blocks, other_class, require_unit_range
from rightreasons.data.pasted import PastedDecoy, TextureProtocol
from rightreasons.data.tag import TagDecoy, TagProtocol

LEVELS = 255
SHADE_STEP = 25
MOST_CLASSES = 10


@dataclass(frozen=True)
class PatchProtocol:
    """A grey square in one of the four corners, each with the same chance; in training its grey is 255 - 25 * class.

    Attributes:
        size: Side of the square in pixels.
        test: Its grey in the test. ``random``: that of a class drawn from all; ``inverted``: 25 * class, a systematic
            lie; ``other``: that of a class drawn from the others, where every pixel of the true class's grey is
            changed, also outside the square.
        mask: What counts as irrelevant: the image's own ``patch``, or all four ``corners``.
        source: Who published it.
    """

    size: int
    test: Literal["random", "inverted", "other"]
    mask: Literal["patch", "corners"]
    source: str


@dataclass(frozen=True)
class ColorProtocol:
    """The whole grey image multiplied by a color of its class; no mask could tell the color from the digit.

    In training color number ``class``, in validation and test color number 9 - class.

    Attributes:
        source: Who published it.
    """

    source: str


DECOYS: Mapping[str, PatchProtocol | ColorProtocol | TextureProtocol | TagProtocol] = MappingProxyType(
    {
        "decoy/rrr": PatchProtocol(4, "random", "patch", "Ross et al. 2017, arXiv:1703.03717, Decoy MNIST"),
        "decoy/typology": PatchProtocol(4, "random", "patch", "Friedrich et al. 2023, arXiv:2203.03668, Decoy-MNIST"),
        "decoy/cdep": PatchProtocol(5, "inverted", "corners", "Rieger et al. 2020, arXiv:1909.13584, DecoyMNIST"),
        "decoy/r4": PatchProtocol(4, "other", "patch", "R4, TMLR 2025, arXiv:2506.19680, Decoy-MNIST"),
        "decoy/color": ColorProtocol("Rieger et al. 2020, arXiv:1909.13584, ColorMNIST"),
        "decoy/tag": TagProtocol(5, 0.95, "ours"),
        "decoy/texture": TextureProtocol(48, 0.9, "ours, in the place of the two data sets of RES (Gao et al. 2022)"),
        "decoy/wallpaper": TextureProtocol(
            224, 0.95, "ours, after the Waterbirds of Sagawa et al. 2020, arXiv:1911.08731", backgrounds="wallpapers"
        ),
        "decoy/wallpaper-free": TextureProtocol(
            224, None, "ours: decoy/wallpaper whose background never tells the class", backgrounds="wallpapers"
        ),
        "decoy/texture-free": TextureProtocol(48, None, "ours: decoy/texture whose background never tells the class"),
    }
)

WITHOUT_SIGN: Mapping[str, str] = MappingProxyType(
    {"decoy/texture": "decoy/texture-free", "decoy/wallpaper": "decoy/wallpaper-free"}
)
"""Decoys that belong to the image, and the form of each that never tells the class: what a clean bound trains on."""


class PatchDecoy(DecoyDataset):
    """Images with a grey square in a corner; made by :func:`decoy`.

    Masks and annotations that the images carried are replaced: ``irrelevant`` is the protocol's mask, ``relevant`` the
    foreground if asked for, and all images are annotated.
    """

    def __init__(
        self,
        data: ImageDataset,
        settings: PatchProtocol,
        *,
        split: Split,
        seed: int,
        foreground: float | None,
        change: str,
    ) -> None:
        _, height, width = data.shape
        if not 1 <= settings.size <= min(height, width) // 2:
            raise ValueError(
                f"expected a patch of 1 to {min(height, width) // 2} pixels for images of {height}x{width}, "
                f"got {settings.size}: choose another with size="
            )
        self.settings, self.split, self.foreground = settings, split, foreground
        self.source = settings.source
        classes = len(data.classes)
        self.inverted = split == "test" and settings.test == "inverted"
        bottom, right = torch.randint(2, (2, len(data)), generator=stream(seed, "corner"))
        self.top, self.left = bottom * (height - settings.size), right * (width - settings.size)
        self.shown = data.target
        if split == "test" and settings.test == "random":
            self.shown = torch.randint(classes, (len(data),), generator=stream(seed, "shade"))
        elif split == "test" and settings.test == "other":
            self.shown = other_class(data.target, classes, stream(seed, "shade"))
        self.drawn = self.shown
        super().__init__(data, change)

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions with their squares."""
        batch = self.data.batch(index)
        patch = self.patch(index)
        inputs = self._recolored(batch.inputs, index)
        inputs = torch.where(patch, self._shade(self.shown[index]) / LEVELS, inputs)
        mask = self._corners(patch) if self.settings.mask == "corners" else patch
        relevant = None
        if self.foreground is not None:
            bright = batch.inputs.amax(dim=1, keepdim=True) > self.foreground
            relevant = (bright & ~mask).to(inputs.dtype)
        return replace(batch, inputs=inputs, relevant=relevant, irrelevant=mask.to(inputs.dtype), annotated=None)

    def patch(self, index: Int[Tensor, " batch"]) -> Bool[Tensor, "batch 1 height width"]:
        """Where each image's square is."""
        _, height, width = self._shape
        return blocks(self.top[index], self.left[index], self.settings.size, (height, width))

    def _shade(self, shown: Int[Tensor, " batch"]) -> Float[Tensor, "batch 1 1 1"]:
        """The grey of a class, 0 ... 255."""
        steps = SHADE_STEP * shown
        return (steps if self.inverted else LEVELS - steps).to(torch.float32).view(-1, 1, 1, 1)

    def _recolored(self, inputs: Tensor, index: Tensor) -> Tensor:
        """Under ``other``: every pixel of the true class's grey takes the grey drawn for the square."""
        if self.split == "train" or self.settings.test != "other":
            return inputs
        own = self._shade(self.target[index])
        same = ((inputs * LEVELS).round() == own).all(dim=1, keepdim=True)
        return torch.where(same, self._shade(self.drawn[index]) / LEVELS, inputs)

    def _corners(self, patch: Bool[Tensor, "batch 1 height width"]) -> Bool[Tensor, "batch 1 height width"]:
        size = self.settings.size
        corners = torch.zeros_like(patch)
        for rows in (slice(size), slice(-size, None)):
            for columns in (slice(size), slice(-size, None)):
                corners[..., rows, columns] = True
        return corners

    def _wrap(self, data: ImageDataset) -> None:
        require_unit_range(data)
        super()._wrap(data)
        self._shape = data.shape


class ColorDecoy(DecoyDataset):
    """Grey images in the color of a class; made by :func:`decoy`. There is no mask, and the images' own is dropped."""

    def __init__(self, data: ImageDataset, settings: ColorProtocol, *, split: Split, change: str) -> None:
        self.settings, self.split, self.source = settings, split, settings.source
        last = len(data.classes) - 1
        self.shown = data.target if split == "train" else last - data.target
        self.colors = hues(len(data.classes))
        super().__init__(data, change)

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions in color."""
        batch = self.data.batch(index)
        colors = self.colors[self.shown[index]].view(-1, 3, 1, 1)
        return replace(batch, inputs=batch.inputs * colors, relevant=None, irrelevant=None, annotated=None)

    def patch(self, index: Int[Tensor, " batch"]) -> Bool[Tensor, "batch 1 height width"]:
        """Everywhere that is not black."""
        return self.data.batch(index).inputs > 0

    def _wrap(self, data: ImageDataset) -> None:
        require_unit_range(data)
        if data.shape[0] != 1:
            raise ValueError(f"expected grey images (one channel) for a color decoy, got {data.shape[0]} channels")
        super()._wrap(data)


def decoy(
    data: ImageDataset,
    protocol: str,
    *,
    split: Split,
    seed: int = 0,
    size: int | None = None,
    foreground: float | None = None,
) -> DecoyDataset:
    """The images with the decoy of a published protocol.

    Read as follows where a source leaves something open: a "random color" is that of a class drawn from all, the
    image's own among them; the "other" class of ``decoy/r4`` is drawn evenly, and its corners are drawn like those of
    ``decoy/rrr``; the ten colors of ``decoy/color`` are even steps in HSL from CSS red to CSS purple. ``decoy/rrr`` and
    ``decoy/typology`` put the same decoys on the same images and differ in what is trained on them. Validation
    images are ``train`` for ``decoy/rrr`` and ``decoy/cdep``, and ``test`` for ``decoy/color``.

    Args:
        data: Images with pixels in [0, 1] and at most ten classes.
        protocol: One of ``DECOYS``.
        split: Whether the decoy tells the class (``train``) or misleads (``test``), whatever images are given.
        seed: Of corners, greys and tags; ``decoy/color`` draws nothing.
        size: Side of the patch or tag, if not the protocol's; small images need a smaller one. The name tells it. Under
            ``decoy/texture``, the side of the canvas.
        foreground: Pixels of the clean image above this value, outside the mask, become ``relevant``. Under
            ``decoy/texture``, they are the object.

    Raises:
        ValueError: No such protocol or split, or the images do not fit it.
    """
    if protocol not in DECOYS:
        raise ValueError(f"no decoy named {protocol!r}. There are: {', '.join(DECOYS)}")
    if split not in get_args(Split):
        raise ValueError(f"expected split train or test, got {split!r}")
    if len(data.classes) > MOST_CLASSES:
        raise ValueError(f"expected at most {MOST_CLASSES} classes for a decoy, got {len(data.classes)}")
    made = _made(data, protocol, split=split, seed=seed, size=size, foreground=foreground)
    made.protocol = protocol
    return made


def _made(
    data: ImageDataset, protocol: str, *, split: Split, seed: int, size: int | None, foreground: float | None
) -> DecoyDataset:
    settings = DECOYS[protocol]
    if isinstance(settings, ColorProtocol):
        if size is not None or foreground is not None:
            raise ValueError(f"expected neither size nor foreground for {protocol}, which has no patch")
        return ColorDecoy(data, settings, split=split, change=f"{protocol} ({split})")
    told = settings.size if isinstance(settings, TextureProtocol) and size is None else size
    change = f"{protocol} ({split}, seed {seed}" + ("" if told is None else f", {told}x{told}") + ")"
    settings = settings if size is None else replace(settings, size=size)
    if isinstance(settings, TextureProtocol):
        return PastedDecoy(data, settings, split=split, seed=seed, foreground=foreground, change=change)
    if isinstance(settings, TagProtocol):
        return TagDecoy(data, settings, split=split, seed=seed, foreground=foreground, change=change)
    return PatchDecoy(data, settings, split=split, seed=seed, foreground=foreground, change=change)


def swapped(data: ImageDataset, seed: int = 0) -> ImageDataset:
    """The same data with every decoy swapped for another class's, also where other wrappers lie around the decoy.

    Raises:
        ValueError: There is no decoy in it.
    """
    return _with_decoy(data, lambda found: found.swapped(seed))


def unrelated(data: ImageDataset, seed: int = 0) -> ImageDataset:
    """The same data with signs that say nothing of the class, see :meth:`DecoyDataset.unrelated`.

    Raises:
        ValueError: There is no decoy in it.
    """
    return _with_decoy(data, lambda found: found.unrelated(seed))


def _with_decoy(data: ImageDataset, change: Callable[[DecoyDataset], DecoyDataset]) -> ImageDataset:
    if isinstance(data, DecoyDataset):
        return change(data)
    if isinstance(data, Wrapper):
        return data.over(_with_decoy(data.data, change))
    raise ValueError(f"expected data with a decoy, got {data.name}")


def hues(number: int) -> Float[Tensor, "colors 3"]:
    """Colors in even HSL steps from red (0, 100 %, 50 %) to purple (300 degrees, 100 %, 25.1 %)."""
    steps = [position / max(number - 1, 1) for position in range(number)]
    lightness = (0.5, 128 / 510)
    return torch.tensor(
        [colorsys.hls_to_rgb(s * 300 / 360, lightness[0] + s * (lightness[1] - lightness[0]), 1.0) for s in steps]
    )
