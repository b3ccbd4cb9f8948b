"""A value of an arm chosen without the test: candidates learn from a part of the training images, the rest judges them.

What judges a candidate is given a :class:`Held`, which has no test images, and the data are built without loading them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from rightreasons.core import Batch, MissingAnnotation, TrainingDiverged
from rightreasons.data import DATASETS, DecoyDataset, ImageDataset, Subset, Wrapper, swapped
from rightreasons.data.dataset import stream
from rightreasons.experiments.build import (
    build_model,
    build_objective,
    build_training,
)
from rightreasons.experiments.config import RunConfig, as_dict
from rightreasons.experiments.override import has_key, with_value
from rightreasons.experiments.record import Record, environment, make_record
from rightreasons.experiments.run import Resources, accelerator_for, trained
from rightreasons.models import AdaptedClassifier
from rightreasons.training import evaluate, fit

KIND = "select"
JUDGES = ("validation", "swap")
FREE = ("terms", "training", "model", "recipe")
FREE_DATA = ("annotated", "degrade")
"""Of the data only what the masks of the training images are: the rest would change what a choice is judged on."""


@dataclass(frozen=True)
class Select:
    """How a value is chosen, on one seed; the winner is then used for all seeds.

    Attributes:
        key: What is chosen, such as ``terms.rrr.weight``.
        values: The candidates.
        by: ``validation``: accuracy on held-out training images, decoys and all. ``swap``: the same where every image
            bears the decoy of another class, or, without a generated decoy, where its irrelevant pixels come from an
            image of another class; the worst of several such swaps.
        share: Of each class of the training images that is held out.
        epochs: Of the candidates; those of the arm unless given.
        swaps: How many swaps the worst is taken of.
        seed: Of the search.
    """

    key: str
    values: tuple[Any, ...]
    by: str
    share: float = 0.1
    epochs: int | None = None
    swaps: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        section, *inside = self.key.split(".")
        if not inside or (section not in FREE and (section != "data" or inside[0] not in FREE_DATA)):
            raise ValueError(
                f"{self.key!r} cannot be chosen: a choice must not change the images, or the seed, that it is judged "
                f"on. A key under {', '.join(f'{name}.' for name in FREE)} can be, or data.annotated, or data.degrade"
            )
        if len(set(map(str, self.values))) < 2 or len(set(map(str, self.values))) < len(self.values):
            raise ValueError(f"expected at least two different values of {self.key} to choose from, got {self.values}")
        if self.by not in JUDGES:
            raise ValueError(f"expected by to be validation or swap, got {self.by!r}: nothing is chosen by the test")
        if not 0 < self.share < 1:
            raise ValueError(f"expected a held-out share between 0 and 1, got {self.share}")
        if self.swaps < 1 or (self.epochs is not None and self.epochs < 1):
            raise ValueError(f"expected at least one swap and one epoch, got {self.swaps} and {self.epochs}")

    def candidates(self, config: RunConfig) -> tuple[RunConfig, ...]:
        """What is trained for the choice, a value each."""
        data = replace(config.data, validation=self.share)
        training = replace(config.training, epochs=self.epochs or config.training.epochs)
        base = replace(config, seed=self.seed, data=data, training=training)
        return tuple(with_value(base, self.key, value) for value in self.values)

    def described(self, candidate: RunConfig) -> dict[str, Any]:
        """All that decides a candidate's score."""
        return {"run": as_dict(candidate), "by": self.by, "swaps": self.swaps if self.by == "swap" else 0}

    def check(self, config: RunConfig, arm: str) -> None:
        """Refuse what could not be chosen honestly, or at all.

        Raises:
            ValueError: The arm has no such key or does not take a value; two values are the same; or its test images
                are drawn anew with each seed, so that those of one seed would be among the training images of the
                search.
        """
        if not has_key(config, self.key):
            raise ValueError(f"{arm} has no {self.key!r} to choose")
        made = self.candidates(config)
        twins = [value for place, value in enumerate(self.values) if made[place] in made[:place]]
        if twins:
            raise ValueError(f"expected different values of {self.key} for {arm}, got {twins[0]} twice")
        data = config.data
        if data.name not in DATASETS and not data.test and data.seed is None:
            raise ValueError(
                f"{arm} is tested on a share of {data.name} that is drawn anew with each seed, so the search would see "
                "the test images of other seeds; name a test folder, or set data.seed"
            )


@dataclass(frozen=True, eq=False)
class Held:
    """All that a choice may see: there are no test images in it.

    Attributes:
        train: What the candidates learn from.
        held_out: Training images that they do not learn from.
    """

    train: ImageDataset
    held_out: ImageDataset


@dataclass(frozen=True)
class Chosen:
    """A choice, with what it rests on.

    Attributes:
        select: How it was made.
        value: The winner: the first of the best.
        scores: Of each candidate, a share; ``None`` for one that diverged.
    """

    select: Select
    value: Any
    scores: tuple[float | None, ...]

    @property
    def told(self) -> str:
        """The choice in words."""
        s = self.select
        judge = f"worst of {s.swaps} swaps" if s.by == "swap" else "accuracy"
        others = ", ".join(f"{value}: {_percent(score)}" for value, score in zip(s.values, self.scores, strict=True))
        epochs = "" if s.epochs is None else f" after {s.epochs} epochs"
        return (
            f"{s.key} = {self.value}, by the {judge} on {100 * s.share:g} % of the training images held out, "
            f"seed {s.seed} alone{epochs} ({others})"
        )

    def doubt(self, classes: int) -> str:
        """Says that the choice means nothing where no candidate does better than guessing among the classes."""
        known = [score for score in self.scores if score is not None]
        if max(known, default=1.0) > 1 / classes:
            return ""
        return f"; none is above chance ({100 / classes:.1f}), so the choice says nothing"


def _percent(score: float | None) -> str:
    return "diverged" if score is None else f"{100 * score:.1f}"


def hold_out(config: RunConfig, folder: Path | None = None) -> Held:
    """The training images of a candidate in two parts; the test images are not loaded.

    Raises:
        ValueError: The configuration holds nothing out.
    """
    train, held_out = build_training(config.data, seed=config.data_seed, folder=folder)
    if held_out is None:
        raise ValueError("expected a share of the training images to hold out, got data.validation = 0")
    return Held(train, held_out)


def try_candidate(config: RunConfig, select: Select, out: Path, resources: Resources) -> Record:
    """Train a candidate and judge it; one that diverges has no score.

    Raises:
        RightReasonsError, ValueError: See ``fit`` and the builders.
    """
    held = hold_out(config, resources.folder)
    accelerator = accelerator_for(resources.device)
    model = build_model(config.model, held.train.shape, len(held.train.classes), seed=config.seed)
    more: dict[str, Any] = {"environment": environment(str(accelerator.device))}
    scores: list[float] = []
    try:
        # As a run of the table trains, but with nothing to validate on.
        loop = partial(fit, resume=True, accelerator=accelerator, progress=resources.progress)
        done = trained(model, held.train, build_objective(config.terms, held.train), config, loop=loop, out=out)
    except TrainingDiverged as error:
        return make_record(KIND, select.described(config), {"score": None, "diverged": str(error)}, **more)
    scores = judge(model, held, select)
    results = {"score": min(scores), "scores": scores, "images": len(held.held_out)}
    more |= {"history": done.history, "seconds": done.seconds}
    return make_record(KIND, select.described(config), results, **more)


def judge(model: AdaptedClassifier, held: Held, select: Select) -> list[float]:
    """The accuracies of which the worst counts: one on the held-out images, or one a swap."""
    if select.by == "validation":
        return [evaluate(model, held.held_out).accuracy]
    return [evaluate(model, misled(held.held_out, seed)).accuracy for seed in range(select.swaps)]


def chosen(config: RunConfig, select: Select, score_of: Callable[[Mapping[str, Any]], Record | None]) -> Chosen | None:
    """The choice from the records of the candidates; ``None`` while one is missing.

    Args:
        config: The arm.
        select: How it is chosen.
        score_of: The record of a candidate by its configuration.

    Raises:
        ValueError: All candidates diverged.
    """
    records = [score_of(select.described(candidate)) for candidate in select.candidates(config)]
    found = [record.results["score"] for record in records if record is not None]
    if len(found) < len(records):
        return None
    ranked = [-math.inf if score is None else float(score) for score in found]
    if max(ranked) == -math.inf:
        raise ValueError(f"every candidate for {select.key} diverged: {', '.join(map(str, select.values))}")
    return Chosen(select, select.values[ranked.index(max(ranked))], tuple(found))


def misled(data: ImageDataset, seed: int) -> ImageDataset:
    """The images with the decoys of other classes, or, without decoys, on the irrelevant pixels of other classes.

    Raises:
        MissingAnnotation: There is no decoy, and no image has a mask.
    """
    return swapped(data, seed) if bears_decoy(data) else _regrounded(data, seed)


def bears_decoy(data: ImageDataset) -> bool:
    """Whether there is a decoy that can be swapped, however many wrappers lie around it."""
    while isinstance(data, Wrapper) and not isinstance(data, DecoyDataset):
        data = data.data
    return isinstance(data, DecoyDataset)


def _regrounded(data: ImageDataset, seed: int) -> ImageDataset:
    batch = data.batch(torch.arange(len(data)))
    masked = batch.annotated_rows() & ((batch.relevant is not None) | (batch.irrelevant is not None))
    if not masked.any():
        raise MissingAnnotation(
            f"{data.name} has neither a decoy nor masks, so nothing can be swapped; choose by validation"
        )
    return Regrounded(Subset(data, masked.nonzero().squeeze(1), change="annotated"), seed)


class Regrounded(Wrapper):
    """Each image with its irrelevant pixels from an image of another class; the definition is ours.

    Irrelevant is what the mask says or, where there is only a relevant mask, all other pixels. Where the other image
    is relevant at such a pixel, the mean of its irrelevant pixels is taken: its object must not come along.

    Args:
        data: Images with masks.
        seed: Of the draw of the others.

    Raises:
        ValueError: There is only one class among them.
    """

    def __init__(self, data: ImageDataset, seed: int = 0) -> None:
        target, generator = data.target, stream(seed, "reground")
        if bool((target == target[0]).all()):
            raise ValueError(f"expected images of at least two classes to swap between, got {data.name}")
        self.other = torch.zeros_like(target)
        for number in range(len(data.classes)):
            own, others = ((target == number).nonzero().squeeze(1), (target != number).nonzero().squeeze(1))
            self.other[own] = others[torch.randint(len(others), own.shape, generator=generator)]
        super().__init__(data, f"other background (seed {seed})")

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions."""
        own, other = self.data.batch(index), self.data.batch(self.other[index])
        free = irrelevant_of(other)
        mean = (other.inputs * free).sum((2, 3), keepdim=True) / free.sum((2, 3), keepdim=True).clamp(min=1)
        ground = torch.where(free >= 0.5, other.inputs, mean)
        return replace(own, inputs=torch.where(irrelevant_of(own) >= 0.5, ground, own.inputs))


def irrelevant_of(batch: Batch) -> Tensor:
    """The mask of irrelevant pixels, (B, 1, H, W); all that is not relevant where only that was marked.

    Raises:
        MissingAnnotation: There are no masks.
    """
    if batch.irrelevant is not None:
        return batch.irrelevant
    if batch.relevant is not None:
        return 1 - batch.relevant
    raise MissingAnnotation("expected images with masks, got none")
