"""What a model looks at in some images, kept in memory and written into one file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import Batch, ResumeRefused
from rightreasons.data import ImageDataset, Subset
from rightreasons.data.folder import file_of, name_of
from rightreasons.experiments.explain import Explained, explain
from rightreasons.experiments.record import environment, make_record
from rightreasons.experiments.reveal.methods import (
    Explainers,
    RevealSettings,
    Start,
    build_explainers,
    class_number,
    drawn,
    order,
)
from rightreasons.experiments.run import accelerator_for, make_folder
from rightreasons.experiments.subject import Subject
from rightreasons.metrics import ArtifactRelevance, EnergyInMask
from rightreasons.models import AdaptedClassifier
from rightreasons.models.checkpoints import write_whole
from rightreasons.training import evaluate

HEATMAPS = "heatmaps.safetensors"
# Not record.json: a run may lie in the same folder.
REVEALED = "reveal.json"
SHARDS = "shards"
AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class Revealed:
    """What a model looked at.

    Attributes:
        batch: The images with labels and masks.
        index: Their positions in the data.
        names: What they are called: class and file, or the position of an image that has no file.
        classes: Names of the classes.
        probabilities: Of all classes.
        heatmaps: Raw maps by the explainer's title.
        signed: Whether an explainer's values have a sign.
        shares: By a title, one number an image: how much of a map lies in a mask.
        pixel_range: Of the images.
        unfit: Why explainers that were asked for by ``all`` cannot explain the network, by name.
        starts: The images of another class at which maps begin, by the baseline's name.
    """

    batch: Batch
    index: Int[Tensor, " images"]
    names: tuple[str, ...]
    classes: tuple[str, ...]
    probabilities: Float[Tensor, "images classes"]
    heatmaps: Mapping[str, Float[Tensor, "images 1 height width"]]
    signed: Mapping[str, bool]
    shares: Mapping[str, Float[Tensor, " images"]]
    pixel_range: tuple[float, float]
    unfit: Mapping[str, str] = field(default_factory=dict)
    starts: Mapping[str, Start] = field(default_factory=dict)

    def told(self, row: int) -> tuple[str, ...]:
        """Truth, prediction, confidence and shares of an image, in words."""
        shares = (_percent(float(values[row])) for values in self.shares.values())
        truth = self.classes[int(self.batch.target[row])]
        return truth, *self.said(row), *shares

    def mean_shares(self) -> list[tuple[str, str]]:
        """Each share over the images that have one, in words."""
        return [(title, _percent(float(values.nanmean()))) for title, values in self.shares.items()]

    @property
    def areas(self) -> dict[str, float]:
        """The mean share of an image that each kind of mask covers: so much of a map lies there by chance."""
        masks = {"irrelevant": self.batch.irrelevant, "relevant": self.batch.relevant}
        sizes = {kind: mask.double().mean(dim=(1, 2, 3)) for kind, mask in masks.items() if mask is not None}
        return {kind: float(size[size > 0].mean()) for kind, size in sizes.items() if (size > 0).any()}

    def said(self, row: int) -> tuple[str, str]:
        """Prediction and confidence for an image, in words."""
        confidence, best = self.probabilities[row].max(dim=0)
        return self.classes[int(best)], _percent(float(confidence))


def _percent(value: float) -> str:
    return "none" if value != value else f"{100 * value:.0f} %"


def reveal_images(subject: Subject, settings: RevealSettings, out: Path, *, device: str = "auto") -> Revealed:
    """Explain some images; raw maps go to ``out/heatmaps.safetensors``, what was asked to ``out/reveal.json``.

    Raises:
        ResumeRefused: ``out`` holds the maps of a whole data set.
    """
    make_folder(out)
    if (out / SHARDS).exists():
        raise ResumeRefused(f"{out} holds the maps of a whole data set: name another folder with --out")
    data = subject.data
    where = accelerator_for(device).device
    model = subject.model.to(where)
    explainers = build_explainers(subject, settings)
    against = class_number(settings.against, data.classes)
    index = _asked(model, data, settings, against)
    found = explain(model, Subset(data, index), explainers.methods, target=settings.target, against=against)
    config = {**asdict(settings), **origin(subject), "explainers": explainers.settings}
    positions = index.tolist()
    files = [file.as_posix() for position in positions if (file := file_of(data, position)) is not None]
    results: dict[str, Any] = {"index": positions, "files": files, "explained_class": found.target.tolist()}
    names = tuple(name_of(data, position) for position in positions)
    shown = revealed(subject, data.batch(index), found, explainers, names=names)
    begun = {f"baseline.{name}": start.images for name, start in shown.starts.items()}
    if shown.starts:
        results["baselines"] = {name: {"taken": start.taken.tolist()} for name, start in shown.starts.items()}
    _write({**found.heatmaps, **begun, "index": index, "target": found.target}, out)
    make_record("reveal", config, results, environment=environment(str(where))).write(out / REVEALED)
    return shown


def _asked(
    model: AdaptedClassifier, data: ImageDataset, settings: RevealSettings, against: int | None
) -> Int[Tensor, " images"]:
    """Positions of images drawn at random; against a class, of those that are to be explained as another.

    Raises:
        ValueError: There are none.
    """
    if against is None:
        return drawn(len(data), settings.images, settings.seed)
    wanted, parts = len(data) if settings.images is None else settings.images, list[Tensor]()
    for index in torch.split(order(len(data), settings.seed), AT_ONCE):
        told = evaluate(model, Subset(data, index))
        explained = told.predictions if settings.target == "predicted" else told.target
        parts.append(index[explained != against][:wanted])
        wanted -= len(parts[-1])
        if not wanted:
            break
    found = torch.cat(parts).sort().values
    if not len(found):
        raise ValueError(f"no image of {data.name} is left to explain: all are {data.classes[against]!r} themselves")
    return found


def revealed(
    subject: Subject, batch: Batch, found: Explained, explainers: Explainers, *, names: tuple[str, ...]
) -> Revealed:
    """All that a sheet or a figure tells of a batch that was explained."""
    titles, data = explainers.titles, subject.data
    titled = {titles[key]: maps for key, maps in found.heatmaps.items()}
    return Revealed(
        batch=batch,
        index=batch.target.new_zeros(len(batch)) if batch.index is None else batch.index,
        names=names,
        classes=tuple(data.classes),
        probabilities=found.probabilities,
        heatmaps=titled,
        signed={titles[key]: method.signed for key, method in explainers.methods.items()},
        shares=_shares(subject.model, batch, titled),
        pixel_range=data.pixel_range,
        unfit=explainers.unfit,
        starts=explainers.starts(subject, batch.inputs),
    )


def _write(tensors: Mapping[str, Tensor], out: Path) -> None:
    whole = {name: values.contiguous() for name, values in tensors.items()}
    write_whole(out / HEATMAPS, safetensors.torch.save(whole))


def origin(subject: Subject) -> dict[str, str]:
    """Which images and which model, in words."""
    run = {"run": subject.run.record.key} if subject.run is not None else {}
    return {"data": subject.data.name, "model": repr(subject.model.network), **run}


def _shares(model: AdaptedClassifier, batch: Batch, heatmaps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    shares = {}
    for title, maps in heatmaps.items():
        if batch.irrelevant is not None:
            shares[f"{title} irrelevant"] = ArtifactRelevance()(model, batch, maps)
        if batch.relevant is not None:
            shares[f"{title} relevant"] = EnergyInMask()(model, batch, maps)
    return shares
