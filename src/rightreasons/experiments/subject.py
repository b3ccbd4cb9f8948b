"""A model and the images that it is asked about, from what a user names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial, reduce
from pathlib import Path

import torch

from rightreasons.core import BadModel, CorruptData
from rightreasons.data import DATASETS, ImageDataset
from rightreasons.data.marks import marks_by_kind
from rightreasons.experiments.build import build_data, build_model, build_training, open_folder, shown
from rightreasons.experiments.config import DataConfig, ModelConfig
from rightreasons.experiments.run import RECORD, Resources, Run, accelerator_for, load_run
from rightreasons.models import AdaptedClassifier, check_fits
from rightreasons.training import device_of


@dataclass(frozen=True)
class Question:
    """What a user names beside a run or a file of weights.

    Attributes:
        data: The images; ``None`` takes the test images of the run.
        model: The network that weights belong to; a run has its own.
        layer: The layer to explain; empty takes the run's or the network's own.
        seed: Of decoys and draws.
    """

    data: DataConfig | None = None
    model: ModelConfig | None = None
    layer: str = ""
    seed: int = 0


def _unknown() -> None:
    """No training images."""


@dataclass(frozen=True, eq=False)
class Subject:
    """A model and images it was not trained on.

    Attributes:
        model: In evaluation mode.
        data: The images.
        run: The run it comes from, if any.
        training: Opens the images that it was trained on; gives ``None`` where nobody knows them.
        progress: Show bars where something is trained for it.
    """

    model: AdaptedClassifier
    data: ImageDataset
    run: Run | None
    training: Callable[[], ImageDataset | None] = _unknown
    progress: bool = False


def open_subject(path: Path | None, question: Question, resources: Resources) -> Subject:
    """A run's model, or a network with weights, and the images to show it.

    Args:
        path: Folder of a finished run or a file of weights; ``None`` takes the weights of ``question.model``.
        question: Images and network.
        resources: Where the data lie.

    Raises:
        BadModel: Neither a run nor weights, they cannot take the images, or there is no such layer.
        ValueError: No data were named and there is no run to take them from, or they have other classes than the run.
    """
    run = load_run(path) if path is not None and _is_run(path) else None
    if run is None:
        _refuse_no_weights(path, question.model)
    images = question_images(question, run, resources)
    if run is not None and images.classes != tuple(run.record.results["classes"]):
        raise ValueError(
            f"{path} was trained on the classes {', '.join(run.record.results['classes'])}; "
            f"{images.name} has {', '.join(images.classes)}"
        )
    model = run.model if run is not None else _with_weights(path, question, images)
    model = model.explaining(question.layer) if question.layer else model
    model.to(accelerator_for(resources.device).device)
    check_fits(model, images[0].inputs.to(device_of(model)), images.target)
    return Subject(model, images, run, partial(training_images, run, question, resources), resources.progress)


def training_images(run: Run | None, question: Question, resources: Resources) -> ImageDataset | None:
    """What a model was trained on: that of its run, or the training part of named data; ``None`` if unknown."""
    if run is not None:
        return build_training(run.config.data, seed=run.config.data_seed, folder=resources.folder)[0]
    if question.data is not None and question.data.name in DATASETS:
        return build_training(question.data, seed=question.seed, folder=resources.folder)[0]
    return None


def _is_run(path: Path) -> bool:
    if not path.exists():
        raise BadModel(f"no run or weights at {path}")
    return path.is_dir() or path.name == RECORD


def _refuse_no_weights(path: Path | None, config: ModelConfig | None) -> None:
    """Before any images are opened, or asked for."""
    if config is None or not (path or config.weights):
        raise BadModel("expected the folder of a run, or a network and its weights: --model and --weights")


def _with_weights(path: Path | None, question: Question, images: ImageDataset) -> AdaptedClassifier:
    config = question.model or ModelConfig()
    if path and config.weights:
        raise ValueError(f"expected one file of weights, got {path} and {config.weights}")
    config = replace(config, weights=str(path or config.weights))
    return build_model(config, images.shape, len(images.classes), seed=question.seed).eval()


def question_images(question: Question, run: Run | None, resources: Resources) -> ImageDataset:
    """The named images (all of a folder), or else the test images of the run."""
    data = question.data
    if data is None:
        if run is None:
            raise ValueError("expected images to look at: name them with --data")
        test = build_data(run.config.data, seed=run.config.data_seed, folder=resources.folder).test
        _refuse_changed(test, run)
        return test
    if run is not None:
        data = _as_trained(data, run)
    if data.name in DATASETS or not Path(data.name).is_dir():
        return build_data(data, seed=question.seed, folder=resources.folder).test
    classes = tuple(run.record.results["classes"]) if run is not None else None
    return shown(open_folder(data.name, data, classes=classes), data, "test", seed=question.seed)


def _refuse_changed(test: ImageDataset, run: Run) -> None:
    """Images added to a folder move the split, so that the run may have been trained on what it is tested on."""
    recorded = run.record.results.get("test_fingerprint")
    if recorded is not None and recorded != test.sampled_fingerprint():
        raise CorruptData(
            f"{test.name} is not what {run.out} was tested on: images or masks have changed since; "
            "train again, or name images with --data"
        )


def _as_trained(data: DataConfig, run: Run) -> DataConfig:
    """The images in the form that the run's model takes: its pixel range, channels and, unless told, size."""
    trained = run.config.data
    channels = run.record.results["shape"][0]
    return replace(data, pixels=trained.pixels, channels=channels, resize=data.resize or trained.resize)


def describe(data: ImageDataset) -> dict[str, str]:
    """What is in a data set, in words."""
    annotated, kinds = marks_by_kind(data)
    count = int(annotated.sum())
    blank = f" (blank: no pixel is marked in {count:,} annotated images)"
    masks = [kind + blank * (not bool(marked.any())) for kind, marked in kinds.items()]
    marked = reduce(torch.logical_or, kinds.values(), torch.zeros_like(annotated))
    channels, height, width = data.shape
    counts = torch.bincount(data.target, minlength=len(data.classes))
    return {
        "name": data.name,
        "images": f"{len(data):,}",
        "size": f"{channels} x {height} x {width}",
        "pixel values": f"{data.pixel_range[0]:g} to {data.pixel_range[1]:g}",
        "classes": f"{len(data.classes)}: {', '.join(data.classes[:10])}" + (", ..." if len(data.classes) > 10 else ""),
        "images a class": f"{int(counts.min()):,} to {int(counts.max()):,}",
        "masks": ", ".join(masks) or "none",
        "annotated": f"{count:,}",
        "with a mark": f"{int(marked.sum()):,}",
        "fingerprint": data.fingerprint()[:16],
    }
