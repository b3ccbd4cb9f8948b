"""Annotations as PNG files in folders, read and written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from rightreasons.core import CorruptData, DataUnavailable, NotWritten
from rightreasons.data.folder import read_mask
from rightreasons.data.masks.annotations import KINDS, LEVELS, Annotations, Conflict, Kind, Marks


def read_png(
    path: Path | str,
    *,
    relevant: Sequence[str] = ("relevant",),
    irrelevant: Sequence[str] = ("irrelevant",),
    conflict: Conflict = "keep",
) -> Annotations:
    """The masks in the folders ``relevant`` and ``irrelevant`` anywhere below a folder.

    The name of an image is the mask's path without that folder: ``cat/irrelevant/a.png`` belongs to ``cat/a.png`` (or
    ``.jpg``, ...). Masks of every form that :class:`~rightreasons.data.ImageFolder` reads are understood.

    Args:
        path: The folder; images in it are not looked at.
        relevant: Names of the folders with masks of what a model should look at.
        irrelevant: Names of the folders with masks of what it should not.
        conflict: What becomes of a pixel marked as both: ``keep`` it so, or ``error``.

    Raises:
        DataUnavailable: There is no such folder.
        CorruptData: There is no mask in it, or a file that is no PNG image.
    """
    root = Path(path)
    if not root.is_dir():
        raise DataUnavailable(f"expected a folder of masks, found no folder {root}")
    kinds: dict[str, Kind] = dict.fromkeys(relevant, KINDS[0]) | dict.fromkeys(irrelevant, KINDS[1])
    annotations = Annotations(_marks(root, kinds), conflict=conflict)
    if not annotations:
        raise CorruptData(f"no masks in {root}: expected PNG files in folders named {' or '.join(kinds)}")
    return annotations


def _marks(root: Path, kinds: dict[str, Kind]) -> Iterator[tuple[str, Marks]]:
    for file in sorted(root.rglob("*")):
        inside = file.relative_to(root)
        if file.is_dir() or inside.parent.name not in kinds or file.name.startswith("."):
            continue
        if file.suffix.lower() != ".png":
            raise CorruptData(f"expected masks as PNG files, got {file}")
        mask = torch.from_numpy(np.array(read_mask(file), dtype=np.float32)).div_(LEVELS)[None]
        yield (inside.parent.parent / file.name).as_posix(), Marks(**{kinds[inside.parent.name]: mask})


def write_png(annotations: Annotations, path: Path | str) -> None:
    """Write each mask as a gray PNG file, 255 for 1, as :func:`read_png` and an image folder read them.

    The mask of ``cat/a.jpg`` goes to ``cat/irrelevant/a.png`` (or ``cat/relevant/a.png``). Shares are rounded to
    1/255.

    Raises:
        CorruptData: Two images have the same stem, so that their masks would share a file.
        NotWritten: A full disk, for example.
    """
    root = Path(path)
    stems = {str(PurePosixPath(name).with_suffix("")): name for name in annotations}
    for name in annotations:
        other = stems[str(PurePosixPath(name).with_suffix(""))]
        if other != name:
            raise CorruptData(f"{name} and {other} have the same stem, so their masks would share a file")
    for stem, name in stems.items():
        marks = annotations[name]
        for kind in KINDS:
            mask = marks.of(kind)
            if mask is not None:
                file = root / PurePosixPath(stem).parent / kind / f"{PurePosixPath(stem).name}.png"
                _write((mask[0] * LEVELS).round().to(torch.uint8).numpy(), file)


def _write(values: np.ndarray[tuple[int, ...], np.dtype[np.uint8]], file: Path) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values).save(file)
    except OSError as error:
        raise NotWritten(f"cannot write {file}: {error.strerror or error}") from error
