"""Photographs of birds and mammals cut out exactly, and wallpapers to paste them on; fetched, never shipped.

The cut-outs are those of Debian's tuxpaint-stamps-default (GPL-2), the wallpapers those of gnome-backgrounds and
mate-backgrounds. Sources are dealt out to training, validation and test: no cut-out and no wallpaper is in two of them.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import ClassVar, Literal

import numpy as np
import safetensors.torch
import torch
import torch.nn.functional as F
from filelock import FileLock
from jaxtyping import Float, Int, UInt8
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from rightreasons.core import CorruptData, DataUnavailable
from rightreasons.data.arrays import ArrayDataset
from rightreasons.data.dataset import ImageDataset, Split, stream
from rightreasons.data.download import DebianPackage, default_cache

Fold = Literal["train", "validation", "test"]
FOLDS: tuple[Fold, ...] = ("train", "validation", "test")
FILE = "photographs.safetensors"
BOX, WALL = 128, 448
"""Longer side of a kept cut-out, shorter side of a kept wallpaper, in pixels."""

KINDS: Mapping[str, str] = MappingProxyType({"bird": "birds", "mammal": "mammals"})
DRAWN = frozenset({"cartoon", "toys", "hedgehog.png", "echidna.png"})
"""Folders and files that hold no photographs."""

WALLPAPERS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "made": (
            *("adwaita-l.webp", "grid-l.webp", "licorice-l.webp", "pixels-l.webp", "truchet-d.webp", "wood-l.webp"),
            *("Elephants.jpg", "Stripes.png", "Ubuntu-Mate-Warm-no-logo.png", "symbolic-l.webp"),
            *("Flow.png", "Gulp.png"),
        ),
        "grown": (
            *("Aqua.jpg", "Blinds.jpg", "Dune.jpg", "FreshFlower.jpg", "Garden.jpg", "GreenMeadow.jpg"),
            *("LadyBird.jpg", "RainDrops.jpg", "Storm.jpg", "TwoWings.jpg", "Wood.jpg", "YellowFlower.jpg"),
        ),
    }
)
"""Two groups of wallpapers, of which variants of one picture count once: things made, and nature."""

PACKAGES = (
    DebianPackage("tuxpaint-stamps-default", installed="/usr/share/tuxpaint/stamps"),
    DebianPackage("gnome-backgrounds", installed="/usr/share/backgrounds/gnome"),
    DebianPackage("mate-backgrounds", installed="/usr/share/backgrounds/mate"),
)
IMAGES: Mapping[Fold, int] = MappingProxyType({"train": 400, "validation": 750, "test": 750})
"""How many images are made of the cut-outs of each part, half of each class."""


@dataclass(frozen=True)
class Stamps:
    """Cut-outs of birds and mammals on grey, each larger or smaller and either way round; calling it loads a split.

    ``relevant`` is the cut-out, exactly. The validation images, made of cut-outs of their own, stand behind the
    training images, and the data set's ``held`` says which they are.
    """

    name: str = "stamps"

    def __call__(self, split: Split, *, folder: Path | None = None, cache: Path | None = None) -> ImageDataset:
        """The images of a split: from the packages unpacked in ``folder`` if named, else fetched into the cache.

        Raises:
            DataUnavailable: No source has them.
            CorruptData: The kept file is damaged; it has been removed.
        """
        held = photographs(folder, cache)
        folds: tuple[Fold, ...] = ("test",) if split == "test" else ("train", "validation")
        parts = [_fold_images(held, fold) for fold in folds]
        images, objects, target = (torch.cat(column) for column in zip(*parts, strict=True))
        data = ArrayDataset(images, target, classes=tuple(KINDS), name=f"{self.name}/{split}", relevant=objects)
        if split == "train":
            data.held = torch.arange(len(data)) >= IMAGES["train"]
        return data


@dataclass(frozen=True, eq=False)
class Wallpapers:
    """Patches of the wallpapers: what an image's looks like follows from the seed and its position alone.

    Attributes:
        side: Height and width of a patch.
        seed: Of all draws.
        folds: Which part each image belongs to, as a number in :data:`FOLDS`; wallpapers of that part alone are taken.
    """

    side: int
    seed: int
    folds: Int[Tensor, " images"]

    families: ClassVar[int] = len(WALLPAPERS)

    def draw(
        self, positions: Int[Tensor, " batch"], families: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch 3 height width"]:
        """The patches of images at these positions, each of its group, in [0, 1]."""
        held = photographs()
        return torch.stack([self._one(held, p, f) for p, f in zip(positions.tolist(), families.tolist(), strict=True)])

    def _one(self, held: Mapping[str, Tensor], position: int, family: int) -> Float[Tensor, "3 height width"]:
        group = list(WALLPAPERS)[family]
        names = parted(sorted(key for key in held if key.startswith(f"wallpaper/{group}/")))
        own = names[FOLDS[int(self.folds[position])]]
        generator = stream(self.seed, f"wallpaper {position}")
        which, size, down, right = torch.rand(4, generator=generator).tolist()
        wall = held[own[int(which * len(own))]]
        height, width = wall.shape[1:]
        cut = self.side + int(size * (min(height, width) - self.side))
        top, left = int(down * (height - cut + 1)), int(right * (width - cut + 1))
        patch = wall[None, :, top : top + cut, left : left + cut].float() / 255
        return F.interpolate(patch, (self.side, self.side), mode="area")[0]


def parted(names: Sequence[str]) -> dict[Fold, list[str]]:
    """The sources of each part: 40 % for training, 30 % for validation and the rest for the test, always the same."""
    order = torch.randperm(len(names), generator=stream(0, f"sources {names[0].rpartition('/')[0]}")).tolist()
    ends = [0, round(0.4 * len(names)), round(0.7 * len(names)), len(names)]
    return {fold: [names[i] for i in order[ends[k] : ends[k + 1]]] for k, fold in enumerate(FOLDS)}


def _fold_images(held: Mapping[str, Tensor], fold: Fold) -> tuple[Tensor, Tensor, Tensor]:
    """Images, cut-outs and classes of a part; every source is shown about as often as any other of its class."""
    images, objects, target = [], [], []
    generator = stream(0, f"stamps {fold}")
    for number, kind in enumerate(KINDS):
        names = parted(sorted(key for key in held if key.startswith(f"stamp/{kind}/")))[fold]
        for turn in range(IMAGES[fold] // len(KINDS)):
            size, flip = torch.rand(2, generator=generator).tolist()
            image, inside = _placed(held[names[turn % len(names)]], 0.6 + 0.4 * size, flip < 0.5)
            images.append(image)
            objects.append(inside)
            target.append(number)
    return torch.stack(images), torch.stack(objects), torch.tensor(target)


def _placed(stamp: UInt8[Tensor, "4 height width"], scale: float, flip: bool) -> tuple[Tensor, Tensor]:
    """A cut-out in the middle of a grey box, (3, BOX, BOX), and where it is."""
    height, width = (max(1, round(scale * side)) for side in stamp.shape[1:])
    # Weighted by alpha, or the color of what is transparent would shine through at the edges.
    cover = stamp[3:].float()
    seen = torch.cat([stamp[:3] * cover, cover])[None]
    *weighted, alpha = F.interpolate(seen, (height, width), mode="area")[0].flip(2 if flip else ())
    small = torch.stack([*(color / alpha.clamp(min=1) for color in weighted), alpha])
    box, inside = torch.full((3, BOX, BOX), 128, dtype=torch.uint8), torch.zeros(1, BOX, BOX, dtype=torch.bool)
    top, left = (BOX - height) // 2, (BOX - width) // 2
    place = (slice(None), slice(top, top + height), slice(left, left + width))
    inside[place] = small[3:] >= 128
    box[place] = torch.where(inside[place], small[:3].round().to(torch.uint8), box[place])
    return box, inside


_READ: dict[Path, dict[str, Tensor]] = {}
"""What this process has read: some 40 MB that many data sets share."""


def photographs(folder: Path | None = None, cache: Path | None = None) -> Mapping[str, UInt8[Tensor, "_ height width"]]:
    """All cut-outs (red, green, blue and alpha) and wallpapers by name, shrunk once and kept in the cache.

    Args:
        folder: Where the user's own copy of the three packages is unpacked; nothing is fetched then.
        cache: Where they are kept.

    Raises:
        DataUnavailable: No source has them, or the folder does not.
        CorruptData: The kept file is damaged; it has been removed.
    """
    path = Path(cache or default_cache()) / "photographs" / FILE
    if path not in _READ:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock")):
            if not path.is_file():
                _keep(shrunk([folder]) if folder is not None else _fetched(path.parent), path)
        _READ[path] = _read(path)
    return _READ[path]


def shrunk(folders: Sequence[Path]) -> dict[str, Tensor]:
    """All photographs found under these folders, small.

    Raises:
        DataUnavailable: A wallpaper, or all cut-outs of a kind, are missing.
    """
    files = sorted(path for folder in folders for path in folder.rglob("*") if path.is_file())
    held: dict[str, Tensor] = {}
    for kind, place in KINDS.items():
        own = [p for p in files if p.suffix == ".png" and place in p.parts and not DRAWN & set(p.parts)]
        if len(own) < len(FOLDS):
            raise DataUnavailable(f"expected cut-outs of {place} of tuxpaint-stamps-default, found {len(own)}")
        held |= {f"stamp/{kind}/{path.stem}": _pixels(path, "RGBA") for path in own}
    by_name = {path.name: path for path in files}
    for group, names in WALLPAPERS.items():
        missing = [name for name in names if name not in by_name]
        if missing:
            raise DataUnavailable(f"expected wallpaper {missing[0]} of gnome-backgrounds or mate-backgrounds")
        held |= {f"wallpaper/{group}/{name.partition('.')[0]}": _pixels(by_name[name], "RGB") for name in names}
    return held


def _fetched(folder: Path) -> dict[str, Tensor]:
    with tempfile.TemporaryDirectory(prefix=".partial-", dir=folder) as temporary:
        for package in PACKAGES:
            place = Path(temporary) / package.package
            place.mkdir()
            package.fetch((), place)
        return shrunk([Path(temporary)])


def _pixels(path: Path, mode: Literal["RGB", "RGBA"]) -> UInt8[Tensor, "_ height width"]:
    try:
        with Image.open(path) as opened:
            opened.draft("RGB", (2 * WALL, 2 * WALL))
            image = opened.convert(mode)
    except (OSError, SyntaxError, ValueError) as error:
        raise CorruptData(f"{path} cannot be read: {error}") from error
    ratio = BOX / max(image.size) if mode == "RGBA" else WALL / min(image.size)
    size = (max(1, round(image.width * ratio)), max(1, round(image.height * ratio)))
    return torch.from_numpy(np.array(image.resize(size, Image.Resampling.BOX))).permute(2, 0, 1).contiguous()


def _keep(held: dict[str, Tensor], path: Path) -> None:
    whole = path.with_suffix(".partial")
    safetensors.torch.save_file(held, whole)
    whole.replace(path)


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return safetensors.torch.load_file(path)
    except (SafetensorError, OSError) as error:
        path.unlink(missing_ok=True)
        raise CorruptData(f"{path} is damaged ({error}) and was removed; run again to make it anew") from error


STAMPS = Stamps()
"""Birds and mammals, cut out of photographs. Source: Debian, tuxpaint-stamps-default, GPL-2."""
