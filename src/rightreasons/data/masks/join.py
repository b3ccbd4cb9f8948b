"""Annotations and the images they belong to."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from rightreasons.core import Batch, CorruptData
from rightreasons.data.dataset import Wrapper
from rightreasons.data.folder import SUFFIXES, ImageFolder, sizes_of
from rightreasons.data.masks.annotations import KINDS, LEVELS, Annotations, Kind

SHOWN = 3
# An image folder's images lie one below the other: CLASS/NAME.
DEPTH = 2


class WithAnnotations(Wrapper):
    """Images of a folder with masks from elsewhere, resized as the images are; see :func:`with_annotations`.

    Attributes:
        annotated: Which images a person annotated, there or in the folder itself.
    """

    data: ImageFolder

    def __init__(self, data: ImageFolder, annotations: Annotations, names: dict[int, str]) -> None:
        self.annotations = annotations
        self.names = names
        self.annotated = data.annotated.clone()
        self.annotated[list(names)] = True
        super().__init__(data, f"{len(names)} annotations")

    def named(self) -> Annotations:
        """The annotations of these images under the names of the images: ``CLASS/FILE``."""
        paths = {name: self.data.entries[position].image for position, name in self.names.items()}
        return Annotations(("/".join(path.parts[-DEPTH:]), self.annotations[name]) for name, path in paths.items())

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions; what the folder's own masks mark stays marked."""
        batch = self.data.batch(index)
        if not self.annotated.any():
            return batch
        relevant, irrelevant = (self._masks(batch, index, kind) for kind in KINDS)
        return replace(batch, relevant=relevant, irrelevant=irrelevant, annotated=self.annotated[index])

    def _masks(
        self, batch: Batch, index: Int[Tensor, " batch"], kind: Kind
    ) -> Float[Tensor, "batch 1 height width"] | None:
        own = batch.relevant if kind == "relevant" else batch.irrelevant
        if not self.annotations.has(kind):
            return own
        nothing = torch.zeros(1, *self.data.size)
        masks = torch.stack([self._mask(position, kind, nothing) for position in index.tolist()])
        return masks if own is None else torch.maximum(own, masks)

    def _mask(self, position: int, kind: Kind, nothing: Tensor) -> Float[Tensor, "1 height width"]:
        mask = None if position not in self.names else self.annotations[self.names[position]].of(kind)
        if mask is None:
            return nothing
        path = self.data.entries[position].image
        image = Image.fromarray((mask[0] * LEVELS).round().to(torch.uint8).numpy())
        upright = sizes_of(path)[1]
        if image.size != upright:
            # Annotated on a smaller or larger copy.
            image = image.resize(upright, Image.Resampling.BILINEAR)
        return self.data.tensor_of(image, path)


def with_annotations(
    data: ImageFolder, annotations: Annotations, *, others: Sequence[ImageFolder] = ()
) -> WithAnnotations:
    """The images of a folder with these masks; ``annotated`` is true where there is one.

    The name of an annotation and the path of its image have the same end: a class and a file, or a file alone where
    only one image is called so. Where none is, names are compared without ``.png``, ``.jpg``, ....

    Args:
        data: The images.
        annotations: Marks of these images, or of some of them.
        others: Further folders whose images may be among the annotations, such as that of the test images.

    Raises:
        CorruptData: An annotation fits no image or several, two fit one image, or one is of another aspect ratio than
            its image, or there is nothing to learn from any of them.
    """
    annotations.check_marks()
    folders = (data, *others)
    index = _Index([entry.image for folder in folders for entry in folder.entries])
    unmatched = [name for name in annotations if not index.candidates(name)]
    if unmatched:
        raise CorruptData(
            f"{len(unmatched)} of {len(annotations)} annotations fit no image in "
            f"{' or '.join(folder.name for folder in folders)}: {_some(unmatched)}; there are images such as "
            f"{_some(['/'.join(path.parts[-DEPTH:]) for path in index.paths])}"
        )
    names: dict[int, str] = {}
    for name in annotations:
        position = index.position(name)
        if position in names:
            raise CorruptData(f"the annotations {names[position]} and {name} fit one image: {index.paths[position]}")
        names[position] = name
    own = {position: name for position, name in names.items() if position < len(data)}
    for position, name in own.items():
        _check_size(annotations.size(name), name, data.entries[position].image)
    return WithAnnotations(data, annotations, own)


class _Index:
    """Images by the ends of their paths."""

    def __init__(self, paths: Sequence[Path]) -> None:
        self.paths = [path.resolve() for path in paths]
        self.exact: dict[str, list[int]] = {}
        self.stems: dict[str, list[int]] = {}
        for position, path in enumerate(self.paths):
            for depth in range(1, DEPTH + 1):
                end = "/".join(path.parts[-depth:])
                self.exact.setdefault(end, []).append(position)
                self.stems.setdefault(_stem(end), []).append(position)

    def candidates(self, name: str) -> list[int]:
        """The images that an annotation of that name may belong to."""
        end = "/".join(PurePosixPath(name).parts[-DEPTH:])
        return self.exact.get(end) or self.stems.get(_stem(end), [])

    def position(self, name: str) -> int:
        """The one whose path has the longest end in common with the name.

        Raises:
            CorruptData: There are several.
        """
        found = self.candidates(name)
        common = [_common(PurePosixPath(name).parts, self.paths[position].parts) for position in found]
        best = [position for position, length in zip(found, common, strict=True) if length == max(common)]
        if len(best) > 1:
            raise CorruptData(f"the annotation {name} fits {len(best)} images: {_some(map(str, self._shown(best)))}")
        return best[0]

    def _shown(self, positions: Iterable[int]) -> list[Path]:
        return [self.paths[position] for position in positions]


def _stem(end: str) -> str:
    path = PurePosixPath(end)
    return str(path.with_suffix("")) if path.suffix.lower() in SUFFIXES else end


def _common(name: Sequence[str], path: Sequence[str]) -> int:
    """How many folders above the file they have in common."""
    length = 0
    for a, b in zip(reversed(name[:-1]), reversed(path[:-1]), strict=False):
        if a != b:
            break
        length += 1
    return length


def _check_size(size: tuple[int, int], name: str, path: Path) -> None:
    stored, upright = sizes_of(path)
    height, width = size
    if _same_aspect((width, height), upright):
        return
    turned = stored != upright and _same_aspect((width, height), stored)
    hint = "; it fits the image as stored, but masks are drawn on the image turned upright" if turned else ""
    raise CorruptData(
        f"the annotation {name} is {height}x{width}, but its image {path} is {upright[1]}x{upright[0]} "
        f"(height x width), so it belongs to another image{hint}"
    )


def _same_aspect(a: tuple[int, int], b: tuple[int, int]) -> bool:
    """Whether one may be the other resized, with sides rounded to whole pixels."""
    return abs(a[0] * b[1] - a[1] * b[0]) <= max(*a, *b) / 2


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:SHOWN]) + (", ..." if len(listed) > SHOWN else "")
