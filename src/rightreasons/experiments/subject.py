"""A model and the images that it is asked about, from what a user names."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch

from rightreasons.core import BadModel
from rightreasons.data import DATASETS, ImageDataset
from rightreasons.experiments.build import build_data, build_model, open_folder, shown
from rightreasons.experiments.config import DataConfig, ModelConfig
from rightreasons.experiments.run import RECORD, Resources, Run, load_run
from rightreasons.models import AdaptedClassifier, check_fits


@dataclass(frozen=True)
class Question:
    """What a user names beside a run or a file of weights.

    Attributes:
        data: The images; ``None`` takes the test images of the run.
        model: The network that weights belong to; a run has its own.
        seed: Of decoys and draws.
    """

    data: DataConfig | None = None
    model: ModelConfig | None = None
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and images it was not trained on.

    Attributes:
        model: In evaluation mode.
        data: The images.
        run: The run it comes from, if any.
    """

    model: AdaptedClassifier
    data: ImageDataset
    run: Run | None


def open_subject(path: Path | None, question: Question, resources: Resources) -> Subject:
    """A run's model, or a network with weights, and the images to show it.

    Args:
        path: Folder of a finished run or a file of weights; ``None`` takes the weights of ``question.model``.
        question: Images and network.
        resources: Where the data lie.

    Raises:
        BadModel: Neither a run nor weights, or they cannot take the images.
        ValueError: No data were named and there is no run to take them from.
    """
    run = load_run(path) if path is not None and _is_run(path) else None
    images = question_images(question, run, resources)
    model = run.model if run is not None else _with_weights(path, question, images)
    check_fits(model, images[0].inputs, images.target)
    return Subject(model, images, run)


def _is_run(path: Path) -> bool:
    if not path.exists():
        raise BadModel(f"no run or weights at {path}")
    return path.is_dir() or path.name == RECORD


def _with_weights(path: Path | None, question: Question, images: ImageDataset) -> AdaptedClassifier:
    config = question.model
    if config is None or not (path or config.weights):
        raise BadModel("expected the folder of a run, or a network and its weights: --model and --weights")
    config = replace(config, weights=str(path or config.weights))
    return build_model(config, images.shape, len(images.classes), seed=question.seed).eval()


def question_images(question: Question, run: Run | None, resources: Resources) -> ImageDataset:
    """The named images (all of a folder), or else the test images of the run."""
    data = question.data
    if data is None:
        if run is None:
            raise ValueError("expected images to look at: name them with --data")
        return build_data(run.config.data, seed=run.config.data_seed, folder=resources.folder).test
    if run is not None:
        data = replace(data, pixels=run.config.data.pixels)
    if data.name in DATASETS:
        return build_data(data, seed=question.seed, folder=resources.folder).test
    classes = tuple(run.record.results["classes"]) if run is not None else None
    return shown(open_folder(data.name, data, classes=classes), data, "test", seed=question.seed)


def describe(data: ImageDataset) -> dict[str, str]:
    """What is in a data set, in words."""
    first = data[0]
    kinds = [kind for kind in ("relevant", "irrelevant") if getattr(first, kind) is not None]
    channels, height, width = data.shape
    counts = torch.bincount(data.target, minlength=len(data.classes))
    return {
        "name": data.name,
        "images": f"{len(data):,}",
        "size": f"{channels} x {height} x {width}",
        "pixel values": f"{data.pixel_range[0]:g} to {data.pixel_range[1]:g}",
        "classes": f"{len(data.classes)}: {', '.join(data.classes[:10])}" + (", ..." if len(data.classes) > 10 else ""),
        "images a class": f"{int(counts.min()):,} to {int(counts.max()):,}",
        "masks": ", ".join(kinds) or "none",
        "fingerprint": data.fingerprint()[:16],
    }
