"""What is measured of a counterfactual method for a table, and the networks that judge it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from rightreasons.attribution.from_data import labeled_references, search_settings
from rightreasons.core import Batch, Counterfactual, Counterfactuals
from rightreasons.counterfactuals import COUNTERFACTUALS, random_other, runner_up
from rightreasons.data import ImageDataset
from rightreasons.data.dataset import stream
from rightreasons.experiments.build import build_test, build_training
from rightreasons.experiments.config import RunConfig
from rightreasons.experiments.parts import Keep, class_autoencoders, learnt_parts
from rightreasons.experiments.run import Resources, train
from rightreasons.metrics import Estimate, Morphology, bootstrap, digit_morphology, morphology_change
from rightreasons.metrics.counterfactual import (
    boundary,
    cout,
    distances,
    im1,
    im1_anchors,
    im2,
    neighbor_ratio,
    validity,
)
from rightreasons.models import AdaptedClassifier
from rightreasons.models.autoencoder import Autoencoder
from rightreasons.training.evaluation import device_of

WAY = ("cout", "sharpness", "overshoot")

STROKES = ("mnist", "digits")
"""Data sets of strokes, whose shape is measured."""


@dataclass(frozen=True)
class Sizes:
    """How much is measured.

    Attributes:
        first: Position of the first test image that is asked about.
        images: How many are.
        real: So many test images from the beginning are the real ones.
        steps: Of training at least, of each network that a method or a measure needs.
        neighbors: Training images of a class at most, among which the nearest is looked for.

    Raises:
        ValueError: The real ones would be among those that are asked about, or there would be none.
    """

    first: int
    images: int
    real: int
    steps: int
    neighbors: int

    def __post_init__(self) -> None:
        if not (0 < self.real <= self.first and self.images > 0):
            raise ValueError(
                f"expected real images before image {self.first}, and some from there on, got {self.real} and "
                f"{self.images}"
            )
        if self.neighbors < 1:
            raise ValueError(f"expected at least one training image of a class, got {self.neighbors}")


@dataclass(frozen=True, eq=False)
class Bench:
    """One data set with all that judges a counterfactual of its images.

    Attributes:
        data: Name of the data set.
        seed: Of the networks and of random targets.
        model: The classifier that is asked.
        oracle: A second one, of another architecture and seed.
        training: The training images.
        asked: The test images that are changed.
        real: Other test images.
        neighbors: Some training images of each class, among which the nearest is looked for.
        judges: An autoencoder for each class, and one of all.
        keep: How the networks that methods need are trained, and where they are kept.
    """

    data: str
    seed: int
    model: AdaptedClassifier
    oracle: AdaptedClassifier
    training: ImageDataset
    asked: Batch
    real: Batch
    neighbors: Batch
    judges: tuple[list[Autoencoder], Autoencoder]
    keep: Keep

    def target(self, kind: str) -> Tensor:
        """The class to reach with each image: the runner-up, or one drawn evenly from all but the predicted one."""
        if kind == "random":
            return random_other(self.model, self.asked.inputs, seed=self.seed)
        return runner_up(self.model, self.asked.inputs)

    @cached_property
    def original(self) -> Int[Tensor, " batch"]:
        """What the model says of each image that is asked about."""
        with torch.no_grad():
            said: Tensor = self.model(self.asked.inputs).argmax(dim=1)
        return said.as_subclass(Tensor)

    @cached_property
    def shapes(self) -> Morphology | None:
        """Of the strokes of the images that are asked about; ``None`` where the images are no strokes."""
        return digit_morphology(self.asked.inputs) if self.data in STROKES else None

    def method(self, name: str) -> Counterfactual:
        """The method with its defaults; what it needs of images and networks comes from the training images."""
        class_ = COUNTERFACTUALS[name]
        filled = search_settings(class_, self.training, labeled_references(self.training))
        return class_(**filled, **learnt_parts(class_, self.model, self.training, self.keep))


def bench(
    data: str,
    seed: int,
    runs: Mapping[str, RunConfig],
    out: Path,
    resources: Resources,
    *,
    sizes: Sizes,
) -> Bench:
    """Open it; networks that ``out`` does not hold are trained and kept there.

    Args:
        data: Name of the data set.
        seed: Of the networks and of random targets.
        runs: How ``model`` and ``oracle`` are trained.
        out: Folder of the networks.
        resources: Where it runs.
        sizes: How much is measured.

    Raises:
        ValueError: There are fewer test images.
    """
    config = runs["model"]
    test = build_test(config.data, seed=config.data_seed, folder=resources.folder)
    training = build_training(config.data, seed=config.data_seed, folder=resources.folder)[0]
    end = sizes.first + sizes.images
    if end > len(test):
        raise ValueError(f"expected at least {end} test images, got {len(test)} of {data}")
    model, oracle = (train(run, out / f"{data}-{name}-{seed}", resources).model for name, run in runs.items())
    device, keep = device_of(model), Keep(out / "parts", sizes.steps, resources.progress)
    return Bench(
        *(data, seed, model, oracle, training),
        asked=test.batch(torch.arange(sizes.first, end)).to(device),
        real=test.batch(torch.arange(sizes.real)).to(device),
        neighbors=some_of_each_class(training, sizes.neighbors).to(device),
        judges=class_autoencoders(training, device, keep),
        keep=keep,
    )


def some_of_each_class(data: ImageDataset, most: int) -> Batch:
    """So many images of each class at most, evenly drawn and always the same."""
    order = torch.randperm(len(data), generator=stream(0, "references"))
    labels = data.target[order]
    rows = [order[labels == label][:most] for label in range(len(data.classes))]
    return data.batch(torch.cat(rows).sort().values)


def figures(bench: Bench, name: str, kind: str) -> dict[str, Estimate | float]:
    """Means over the images with bootstrap intervals: validity, oracle and cost over all, the rest over the valid ones.

    The time is that of all images together, an image, without training; ``cpu_milliseconds`` counts this process alone.
    """
    method, target = bench.method(name), bench.target(kind)
    cpu = time.process_time()
    found = method(bench.model, bench.asked.inputs, target)
    cpu = time.process_time() - cpu
    with torch.no_grad():
        scores = _scores(bench, found, target)
    means = {name: bootstrap(values.double().cpu()) for name, values in scores.items()}
    each = 1000 / len(target)
    return {**means, "milliseconds": each * found.seconds, "cpu_milliseconds": each * cpu}


def _scores(bench: Bench, found: Counterfactuals, target: Tensor) -> dict[str, Tensor]:
    """One number an image; NaN where it does not count."""
    inputs, (judges, whole) = bench.asked.inputs, bench.judges
    original, valid = bench.original, validity(bench.model, found.images, target)
    gaps = distances(_unit(bench, inputs), _unit(bench, found.images))
    looks = _looks(bench, found.images, target) | _shape(bench, found.images) | _way(bench, found.images, target, valid)
    anchors = im1_anchors(
        _unit(bench, inputs), target, original, judges, real=_unit(bench, bench.real.inputs), labels=bench.real.target
    )
    counted = {name: getattr(gaps, name) for name in ("l2", "l1", "linf", "l0", "tv")} | looks
    return {
        "validity": valid,
        "oracle": validity(bench.oracle, found.images, target),
        **{name: values.double().masked_fill(~valid, math.nan) for name, values in counted.items()},
        "queries": found.queries,
        "gradients": found.gradients,
        "im1_real": anchors.real,
        "im1_original": anchors.original,
        "im2_real": im2(_unit(bench, bench.real.inputs), bench.real.target, judges, whole),
        "im2_original": im2(_unit(bench, inputs), original, judges, whole),
    }


def _looks(bench: Bench, images: Tensor, target: Tensor) -> dict[str, Tensor]:
    """How real the images look."""
    judges, whole = bench.judges
    shown, bank, real = (_unit(bench, each) for each in (images, bench.neighbors.inputs, bench.real.inputs))
    labels, real_labels = bench.neighbors.target, bench.real.target
    return {
        "im1": im1(shown, target, bench.original, judges),
        "im2": im2(shown, target, judges, whole),
        "neighbor_ratio": neighbor_ratio(shown, target, bank, labels, real=real, real_labels=real_labels),
    }


def _shape(bench: Bench, images: Tensor) -> dict[str, Tensor]:
    """By how much the strokes changed."""
    if bench.shapes is None:
        return {}
    return {f"{name}_change": v for name, v in vars(morphology_change(bench.shapes, digit_morphology(images))).items()}


def _way(bench: Bench, images: Tensor, target: Tensor, valid: Tensor) -> dict[str, Tensor]:
    """What lies on the way from the original to the valid ones."""
    row = valid.nonzero()[:, 0]
    told = {name: torch.full(target.shape, math.nan, device=target.device) for name in WAY}
    if len(row):
        way = bench.asked.inputs[row], images[row], target[row], bench.original[row]
        line = boundary(bench.model, *way)
        for name, values in zip(WAY, (cout(bench.model, *way), line.sharpness, line.overshoot), strict=True):
            told[name][row] = values
    return told


def _unit(bench: Bench, images: Tensor) -> Tensor:
    """From 0 to 1, as the autoencoders were trained."""
    low, high = bench.training.pixel_range
    return (images - low) / (high - low)
