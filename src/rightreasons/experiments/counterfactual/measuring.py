"""What is measured of a counterfactual method for a table, and the networks that judge it."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from rightreasons.attribution.from_data import labeled_references, search_settings
from rightreasons.core import Batch, Counterfactual, Counterfactuals
from rightreasons.counterfactuals import COUNTERFACTUALS, random_other, runner_up
from rightreasons.data import ImageDataset
from rightreasons.experiments.build import build_test, build_training
from rightreasons.experiments.config import RunConfig
from rightreasons.experiments.counterfactual.parts import class_autoencoders, learnt_parts
from rightreasons.experiments.run import Resources, train
from rightreasons.metrics import Estimate, bootstrap
from rightreasons.metrics.counterfactual import distances, im1, im1_anchors, im2, validity
from rightreasons.models import AdaptedClassifier
from rightreasons.models.autoencoder import Autoencoder
from rightreasons.training.evaluation import device_of


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
        judges: An autoencoder for each class, and one of all.
        parts: Folder of the networks that methods need.
        steps: Of training at least.
    """

    data: str
    seed: int
    model: AdaptedClassifier
    oracle: AdaptedClassifier
    training: ImageDataset
    asked: Batch
    real: Batch
    judges: tuple[list[Autoencoder], Autoencoder]
    parts: Path
    steps: int

    def target(self, kind: str) -> Tensor:
        """The class to reach with each image: the runner-up, or one drawn evenly from all but the predicted one."""
        if kind == "random":
            return random_other(self.model, self.asked.inputs, seed=self.seed)
        return runner_up(self.model, self.asked.inputs)

    def method(self, name: str) -> Counterfactual:
        """The method with its defaults; what it needs of images and networks comes from the training images."""
        class_ = COUNTERFACTUALS[name]
        filled = search_settings(class_, self.training, labeled_references(self.training))
        return class_(**filled, **learnt_parts(class_, self.model, self.training, self.parts, steps=self.steps))


def bench(
    data: str,
    seed: int,
    runs: Mapping[str, RunConfig],
    out: Path,
    resources: Resources,
    *,
    part: tuple[int, int, int, int],
) -> Bench:
    """Open it; networks that ``out`` does not hold are trained and kept there.

    Args:
        data: Name of the data set.
        seed: Of the networks and of random targets.
        runs: How ``model`` and ``oracle`` are trained.
        out: Folder of the networks.
        resources: Where it runs.
        part: First test image that is asked about, how many are, how many real ones there are, and steps of training.

    Raises:
        ValueError: There are fewer test images, or the real ones would be among those that are asked about.
    """
    first, count, real, steps = part
    config = runs["model"]
    test = build_test(config.data, seed=config.data_seed, folder=resources.folder)
    training = build_training(config.data, seed=config.data_seed, folder=resources.folder)[0]
    if not (0 < real <= first and count > 0 and first + count <= len(test)):
        raise ValueError(f"expected real images before image {first}, and {count} from there on, of {len(test)}")
    model, oracle = (train(run, out / f"{data}-{name}-{seed}", resources).model for name, run in runs.items())
    device, parts = device_of(model), out / "parts"
    judges = class_autoencoders(training, device, parts, steps=steps)
    asked, beside = (test.batch(torch.arange(*ends)).to(device) for ends in ((first, first + count), (0, real)))
    return Bench(data, seed, model, oracle, training, asked, beside, judges, parts, steps)


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
    original = bench.model(inputs).argmax(dim=1)
    gaps = distances(_unit(bench, inputs), _unit(bench, found.images))
    looks = _looks(bench, found.images, target, original)
    anchors = im1_anchors(
        _unit(bench, inputs), target, original, judges, real=_unit(bench, bench.real.inputs), labels=bench.real.target
    )
    counted = {name: getattr(gaps, name) for name in ("l2", "l1", "linf", "l0", "tv")} | looks
    return {
        "validity": found.valid,
        "oracle": validity(bench.oracle, found.images, target),
        **{name: values.double().masked_fill(~found.valid, math.nan) for name, values in counted.items()},
        "queries": found.queries,
        "gradients": found.gradients,
        "im1_real": anchors.real,
        "im1_original": anchors.original,
        "im2_real": im2(_unit(bench, bench.real.inputs), bench.real.target, judges, whole),
        "im2_original": im2(_unit(bench, inputs), original, judges, whole),
    }


def _looks(bench: Bench, images: Tensor, target: Tensor, original: Tensor) -> dict[str, Tensor]:
    judges, whole = bench.judges
    shown = _unit(bench, images)
    return {"im1": im1(shown, target, original, judges), "im2": im2(shown, target, judges, whole)}


def _unit(bench: Bench, images: Tensor) -> Tensor:
    """From 0 to 1, as the autoencoders were trained."""
    low, high = bench.training.pixel_range
    return (images - low) / (high - low)
