"""Search, measure, write down."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution import ClassBaseline, IntegratedGradients
from rightreasons.attribution.from_data import labeled_references, search_settings
from rightreasons.core import ANY_OTHER, Counterfactual
from rightreasons.counterfactuals import COUNTERFACTUALS, Limits, overlay, way, way_probabilities
from rightreasons.counterfactuals.anytime import SLACK
from rightreasons.data import DATASETS, ImageDataset
from rightreasons.experiments.counterfactual.answers import Answers, reached_class, results
from rightreasons.experiments.counterfactual.asked import Asked, CounterfactualSettings, ask, some_names
from rightreasons.experiments.making import called, check_settings
from rightreasons.experiments.parts import Keep, learnt_parts
from rightreasons.experiments.record import environment, make_record
from rightreasons.experiments.reveal.sample import origin
from rightreasons.experiments.run import Resources, accelerator_for, make_folder
from rightreasons.experiments.subject import Subject
from rightreasons.metrics.counterfactual import boundary, distances
from rightreasons.models import AdaptedClassifier, contrast

COUNTERFACTUAL = "counterfactual.json"
CHUNK = 16
"""Images whose way is followed at once."""


def counterfactuals(subject: Subject, settings: CounterfactualSettings, out: Path, resources: Resources) -> Answers:
    """Search, measure and write ``out/counterfactual.json``.

    Args:
        subject: The model and its images; its training images are looked among.
        settings: What is asked.
        out: Folder to write into.
        resources: Where it runs.

    Raises:
        ValueError: See :class:`CounterfactualSettings`; or a target is the predicted class, an image leaves its range,
            or there is no training image of a class where the method needs one. The message names the images.
    """
    device = accelerator_for(resources.device).device
    model = subject.model.to(device)
    asked = ask(subject.data, model, settings)
    training = subject.training()
    bank = None if training is None else labeled_references(training)
    method = build_counterfactual(settings, model, subject.data, training, bank, progress=subject.progress)
    _check(method, asked, subject.data.classes)
    make_folder(out)
    answers = _measured(model, method, asked, subject.data, bank, settings.frames)
    config = {**asdict(settings), **origin(subject), "settings": {k: str(v) for k, v in settings.settings.items()}}
    record = make_record("counterfactual", config, results(answers), environment=environment(str(device)))
    record.write(out / COUNTERFACTUAL)
    return replace(answers, record=record)


def build_counterfactual(
    settings: CounterfactualSettings,
    model: AdaptedClassifier,
    data: ImageDataset,
    training: ImageDataset | None,
    bank: Mapping[str, Tensor] | None,
    *,
    progress: bool = False,
) -> Counterfactual:
    """The method; the pixels' range, real images and trained networks come from the data unless they are set.

    Raises:
        ValueError: A setting that it does not have, or it needs training images and there are none.
    """
    class_, told = COUNTERFACTUALS[settings.method], f"counterfactual {settings.method!r}"
    # Before anything is trained for it.
    check_settings(class_, settings.settings, told)
    filled, known = search_settings(class_, data, bank), inspect.signature(class_).parameters
    given = {*filled, *settings.settings}
    missing = [name for name, value in known.items() if value.default is value.empty and name not in given]
    if missing and training is None:
        raise ValueError(
            f"{settings.method} needs training images, and none are known: name the folder of a run, or data that have "
            f"a training part: {', '.join(DATASETS)}"
        )
    if missing and training is not None:
        filled |= learnt_parts(class_, model, training, Keep(progress=progress))
    # What comes from the data is no part of an error's message: it holds whole data sets.
    return called(partial(class_, **filled), settings.settings, told)


def _check(method: Counterfactual, asked: Asked, classes: Sequence[str]) -> None:
    """Refuse what the method could only answer by row numbers, or not at all."""
    low, high = getattr(method, "low", -math.inf), getattr(method, "high", math.inf)
    slack = SLACK * (high - low) if math.isfinite(high - low) else 0.0
    outside = ~((asked.inputs >= low - slack) & (asked.inputs <= high + slack)).flatten(1).all(dim=1)
    if outside.any():
        raise ValueError(f"expected pixels from {low:g} to {high:g}, got other values in {some_names(asked, outside)}")
    labels = getattr(method, "labels", None)
    if labels is not None:
        missing = sorted(set(asked.target.tolist()) - {ANY_OTHER} - set(labels.tolist()))
        if missing:
            raise ValueError(
                f"no training image of class {classes[missing[0]]!r}, so {COUNTERFACTUALS.name_of(method)} has none "
                "to show"
            )


def _measured(
    model: AdaptedClassifier,
    method: Counterfactual,
    asked: Asked,
    data: ImageDataset,
    bank: Mapping[str, Tensor] | None,
    frames: int,
) -> Answers:
    """Search, then everything that is told about what was found."""
    where = next(model.parameters(), asked.inputs).device
    inputs, target, predicted = (t.to(where) for t in (asked.inputs, asked.target, asked.predicted))
    found = method(model, inputs, target)
    rows = torch.split(torch.arange(len(inputs), device=where), CHUNK)
    ways = [way_probabilities(model, way(inputs[row], found.images[row], frames=frames)) for row in rows]
    chances = torch.cat(ways, dim=1)
    other = reached_class(chances[-1], predicted, target)
    limits = Limits(lead=getattr(method, "lead", 0.0), max_queries=1000)
    drawn = overlay(model, inputs, found.images, target, pixel_range=data.pixel_range, limits=limits)
    maps, baseline = _contrasts(model, inputs, predicted, other, bank)
    return Answers(
        asked=asked,
        found=_at_hand(found),
        classes=tuple(data.classes),
        pixel_range=data.pixel_range,
        way=chances.cpu(),
        overlay=_at_hand(drawn),
        contrasts=maps.cpu(),
        baseline=baseline,
        distances=_at_hand(distances(inputs, found.images, pixel_range=data.pixel_range)),
        boundary=_at_hand(boundary(model, inputs, found.images, other, predicted, steps=20)),
    )


def _contrasts(
    model: AdaptedClassifier, inputs: Tensor, predicted: Tensor, other: Tensor, bank: Mapping[str, Tensor] | None
) -> tuple[Float[Tensor, "images 1 height width"], str]:
    """What speaks for the prediction and against the other class: integrated gradients from an image of that class."""
    maps = torch.full_like(inputs[:, :1], math.nan)
    if bank is None:
        return maps, "no training images are known, from which such a map would start"
    known = torch.isin(other, bank["labels"].to(other.device))
    if known.any():
        method = IntegratedGradients(baseline=ClassBaseline(bank["references"], bank["labels"]))
        maps[known] = method(contrast(model, other[known]), inputs[known], predicted[known]).detach()
    return maps, "the nearest training image of the other class"


def _at_hand(values: Any) -> Any:
    """The same with all tensors on the CPU."""
    tensors = {f.name: getattr(values, f.name) for f in fields(values)}
    return replace(values, **{name: t.detach().cpu() for name, t in tensors.items() if isinstance(t, Tensor)})
