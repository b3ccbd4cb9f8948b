"""Which images, and the class to reach with each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.core import ANY_OTHER, Batch
from rightreasons.counterfactuals import COUNTERFACTUALS, runner_up
from rightreasons.data import ImageDataset
from rightreasons.data.dataset import stream
from rightreasons.data.folder import name_of, pictures_in
from rightreasons.experiments.reveal.picture import read_picture
from rightreasons.models import AdaptedClassifier
from rightreasons.training import modes_kept

RUNNER_UP, TRUE, ANY = "runner-up", "true", "any"
LOOKED_AT = 256
"""Images that are asked at once whether the question makes sense for them."""


@dataclass(frozen=True)
class CounterfactualSettings:
    """What is asked.

    Attributes:
        method: Name of a counterfactual method.
        target: ``runner-up``, ``true``, ``any`` or the name or number of a class; empty is ``true`` for misclassified
            images and ``runner-up`` for others.
        settings: Of the method.
        images: How many images are drawn, of those that the model does not give the target already.
        index: Positions of images in the data, in the place of a draw.
        pictures: Picture files and folders of them, in the place of the data's images.
        misclassified: Draw among the images that the model gets wrong.
        frames: Points on the way from the original to its counterfactual.
        seed: Of the draw.

    Raises:
        ValueError: An unknown method, no image, or options that exclude each other.
    """

    method: str = "wachter"
    target: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    images: int = 8
    index: tuple[int, ...] = ()
    pictures: tuple[str, ...] = ()
    misclassified: bool = False
    frames: int = 21
    seed: int = 0

    def __post_init__(self) -> None:
        COUNTERFACTUALS[self.method]
        if self.images < 1 or self.frames < 2:
            raise ValueError(f"expected at least one image and two frames, got {self.images} and {self.frames}")
        named = [name for name in ("index", "pictures", "misclassified") if getattr(self, name)]
        if len(named) > 1:
            raise ValueError(f"expected one way to name images, got {' and '.join(named)}")
        if self.pictures and self.target == TRUE:
            raise ValueError("nobody knows the true class of a picture of your own: name another target")
        if not self.target:
            object.__setattr__(self, "target", TRUE if self.misclassified else RUNNER_UP)


@dataclass(frozen=True, eq=False)
class Asked:
    """The images, and the class to reach with each.

    Attributes:
        names: Of the images, for a reader.
        inputs: The originals.
        truth: Their classes; ``None`` for pictures of the user's own.
        predicted: What the model says.
        target: The class asked for, or any other.
        index: Positions in the data; ``None`` for pictures.
    """

    names: tuple[str, ...]
    inputs: Float[Tensor, "images channels height width"]
    truth: Int[Tensor, " images"] | None
    predicted: Int[Tensor, " images"]
    target: Int[Tensor, " images"]
    index: Int[Tensor, " images"] | None

    def only(self, rows: Bool[Tensor, " images"]) -> Asked:
        """Some of them."""
        numbers = rows.nonzero()[:, 0]
        return Asked(
            names=tuple(self.names[row] for row in numbers.tolist()),
            inputs=self.inputs[numbers],
            truth=None if self.truth is None else self.truth[numbers],
            predicted=self.predicted[numbers],
            target=self.target[numbers],
            index=None if self.index is None else self.index[numbers],
        )


def ask(data: ImageDataset, model: AdaptedClassifier, settings: CounterfactualSettings) -> Asked:
    """The images of the settings, and the class to reach with each.

    Raises:
        ValueError: No image is left for the question, or a target is the class that the model predicts.
        CorruptData: A picture cannot be read.
    """
    if not (settings.pictures or settings.index):
        return _drawn(data, model, settings)
    if settings.pictures:
        files = picture_files(settings.pictures)
        inputs = torch.cat([read_picture(file, data) for file in files])
        asked = _posed(model, Batch(inputs, torch.zeros(len(files), dtype=torch.long)), data.classes, settings.target)
        asked = replace(asked, names=tuple(file.name for file in files), truth=None, index=None)
    else:
        wrong = [position for position in settings.index if not 0 <= position < len(data)]
        if wrong:
            raise ValueError(f"expected positions from 0 to {len(data) - 1}, got {wrong[0]}")
        asked = _called(data, _posed(model, data.batch(torch.tensor(settings.index)), data.classes, settings.target))
    same = asked.target == asked.predicted
    if same.any():
        name = data.classes[int(asked.predicted[same][0])]
        raise ValueError(
            f"expected another class than the model gives already, got {name!r} for {some_names(asked, same)}"
        )
    return asked


def _called(data: ImageDataset, asked: Asked) -> Asked:
    """The same question with the images called by their files, where they have any."""
    positions = () if asked.index is None else tuple(asked.index.tolist())
    return replace(asked, names=tuple(name_of(data, position, otherwise="image {:,}") for position in positions))


def picture_files(paths: Sequence[str]) -> list[Path]:
    """The pictures themselves, and those in folders, by name.

    Raises:
        ValueError: A folder holds none.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        inside = pictures_in(path) if path.is_dir() else [path]
        if not inside:
            raise ValueError(f"the folder {path} holds no picture")
        files += inside
    return files


def _drawn(data: ImageDataset, model: AdaptedClassifier, settings: CounterfactualSettings) -> Asked:
    """At random, of those images for which the question makes sense."""
    order = torch.randperm(len(data), generator=stream(settings.seed, "counterfactual"))
    wanted, parts = settings.images, list[Asked]()
    for index in torch.split(order, LOOKED_AT):
        asked = _posed(model, data.batch(index), data.classes, settings.target)
        fits = asked.target != asked.predicted
        if settings.misclassified and asked.truth is not None:
            fits &= asked.predicted != asked.truth
        # As many as are missing, in the order of the draw.
        part = asked.only(fits & (fits.cumsum(dim=0) <= wanted))
        parts, wanted = [*parts, part], wanted - len(part.names)
        if not wanted:
            break
    found = _joined(parts)
    if not found.names:
        wrong = settings.misclassified or settings.target == TRUE
        told = "the model gets none wrong" if wrong else f"the model takes all of them for {settings.target!r} already"
        raise ValueError(f"no image of {data.name} is left to ask about: {told}")
    return _called(data, found)


def _posed(model: AdaptedClassifier, batch: Batch, classes: Sequence[str], target: str) -> Asked:
    """The question about these images, whether or not it makes sense."""
    where = next(model.parameters(), batch.inputs).device
    inputs = batch.inputs.to(where)
    with modes_kept(model), torch.no_grad():
        predicted = model.eval()(inputs).argmax(dim=1).as_subclass(Tensor).cpu()
    truth = batch.target.cpu()
    if target == RUNNER_UP:
        asked = runner_up(model, inputs).cpu()
    elif target == TRUE:
        asked = truth
    else:
        asked = torch.full_like(predicted, ANY_OTHER if target == ANY else _class_of(target, classes))
    index = batch.index
    names = () if index is None else tuple(f"image {position:,}" for position in index.tolist())
    return Asked(names, batch.inputs.cpu(), truth, predicted, asked, index)


def _class_of(name: str, classes: Sequence[str]) -> int:
    if name in classes:
        return list(classes).index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    some = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    raise ValueError(f"no class {name!r} to reach. There are: {some}; or {RUNNER_UP}, {TRUE}, {ANY}")


def _joined(parts: Sequence[Asked]) -> Asked:
    tensors = {f.name: [getattr(part, f.name) for part in parts] for f in fields(Asked) if f.name != "names"}
    return Asked(
        names=tuple(name for part in parts for name in part.names),
        **{name: torch.cat(values) for name, values in tensors.items()},
    )


def some_names(asked: Asked, rows: Bool[Tensor, " images"], most: int = 5) -> str:
    """The names of these images, for a message."""
    names = [asked.names[row] for row in rows.nonzero()[:, 0].tolist()]
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
