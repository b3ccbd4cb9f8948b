"""A configuration in, a trained model and its record out."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import Tensor

from rightreasons.core import BadModel, CorruptData, NotWritten, ResumeRefused
from rightreasons.data import FeatureDataset, ImageDataset, Subset, groups_of
from rightreasons.data.dataset import stream
from rightreasons.experiments.build import (
    Splits,
    build_fit_settings,
    build_model,
    build_recipe,
    build_run,
    check_names,
)
from rightreasons.experiments.config import RunConfig, as_dict, parse_run, read_toml, to_toml
from rightreasons.experiments.record import Record, environment, make_record
from rightreasons.metrics import average_group_accuracy, classification_report, worst_group_accuracy
from rightreasons.models import AdaptedClassifier
from rightreasons.models.checkpoints import load_weights, save_weights, write_whole
from rightreasons.training import Evaluation, FitResult, Objective, RecipeResult, default_accelerator, evaluate, fit
from rightreasons.training.checkpoint import FILE_NAME as CHECKPOINT

RECORD = "record.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.toml"
FITTED = 10_000
"""So many training images, and as many held out, are looked at again when training is over."""


@dataclass(frozen=True)
class Resources:
    """Where a run is carried out; nothing here changes what is asked.

    Attributes:
        device: ``auto`` (what Accelerate finds), ``cpu`` or ``cuda``.
        folder: Where the user's own copy of a named data set lies; nothing is fetched then.
        progress: Show bars.
        jobs: How many runs at once, where there are several; each in a process of its own.
    """

    device: str = "auto"
    folder: Path | None = None
    progress: bool = True
    jobs: int = 1

    def __post_init__(self) -> None:
        if self.jobs < 1:
            raise ValueError(f"expected at least one job, got {self.jobs}")


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        model: The trained classifier, in evaluation mode.
        record: What was run and what came out.
        config: The resolved configuration.
        out: Its folder.
        splits: Its images; ``None`` where it was finished before, and they were not asked for.
    """

    model: AdaptedClassifier
    record: Record
    config: RunConfig
    out: Path
    splits: Splits | None = None

    @property
    def weights(self) -> Path:
        """The file of the trained weights."""
        return self.out / WEIGHTS


def train(config: RunConfig, out: str | Path, resources: Resources = Resources()) -> Run:
    """Train as the configuration says, or take up what ``out`` already holds of this very run.

    ``out`` gets ``config.toml``, ``checkpoint.safetensors`` after each epoch, and in the end ``model.safetensors`` and
    ``record.json``. A killed run goes on from its checkpoint; a finished one is not run again; one with other settings
    is never overwritten.

    Args:
        config: What to run.
        out: Folder of the run.
        resources: Where it runs; without an effect on what is asked.

    Raises:
        ResumeRefused: ``out`` holds a run with other settings; the message names them.
        RightReasonsError, ValueError: See ``fit`` and the builders.
    """
    out = Path(out)
    check_names(config)
    accelerator = accelerator_for(resources.device)
    refuse_other_run(out, config)
    if is_finished(out):
        run = load_run(out)
        run.model.to(accelerator.device)
        return run
    with _folder_of_run(out) if accelerator.is_main_process else nullcontext():
        splits, model, objective = build_run(config, folder=resources.folder)
        if accelerator.is_main_process:
            write_whole(out / CONFIG, (to_toml(as_dict(config)) + "\n").encode())
        validate = {"test": splits.test} | ({"validation": splits.validation} if splits.validation else {})
        loop = partial(fit, validate=validate, resume=True, accelerator=accelerator, progress=resources.progress)
        result = trained(model, splits.train, objective, config, loop=loop, out=out)
    model.eval()
    record = make_record(
        "train",
        as_dict(config),
        _results(model, splits) | ({"recipe": result.report} if isinstance(result, RecipeResult) else {}),
        history=result.history,
        # A run that was resumed took the steps of the calls before as well.
        seconds=max(result.seconds, sum(line.get("seconds", 0.0) for line in result.history)),
        environment=environment(str(accelerator.device)),
    )
    if accelerator.is_main_process:
        save_weights(model.network, out / WEIGHTS)
        record.write(out / RECORD)
    accelerator.wait_for_everyone()
    return Run(model, record, config, out, splits)


def is_finished(out: Path) -> bool:
    """Whether the folder holds a run that is over."""
    return (out / RECORD).exists() and (out / WEIGHTS).exists()


def trained(
    model: AdaptedClassifier,
    data: ImageDataset,
    objective: Objective,
    config: RunConfig,
    *,
    loop: Callable[..., FitResult],
    out: Path,
) -> FitResult:
    """Train a model on images as the configuration says: by the loop, or by the recipe that calls it."""
    settings = build_fit_settings(config.training, config.seed, config.data.pixels)
    recipe = build_recipe(config.recipe)
    if recipe is not None and settings.annotated_batch:
        raise ValueError("annotated_batch belongs to a run without a recipe, whose stages see images of their own")
    if recipe is None:
        return loop(model, data, objective, settings, out=out)
    return recipe(model, data, objective, settings, fit=loop, out=out)


def _results(model: AdaptedClassifier, splits: Splits) -> dict[str, Any]:
    held = {} if splits.validation is None else {"validation": fitted(model, splits.validation)}
    return {
        "test": scores(model, splits.test),
        "train": fitted(model, splits.train),
        **held,
        "cost": weight_counts(model, splits.train),
        "classes": list(splits.train.classes),
        "shape": list(splits.train.shape),
        "layer": model.layer,
        "test_fingerprint": splits.test.sampled_fingerprint(),
    }


def refuse_other_run(out: Path, config: RunConfig) -> None:
    """Keep what other settings left in a folder from being written over.

    Raises:
        ResumeRefused: The folder holds a run, finished or not, with other settings; the message names them.
        CorruptData: Its record is damaged.
    """
    wanted = as_dict(config)
    if (out / RECORD).exists():
        held = resolved(Record.read(out / RECORD))
    elif (out / CONFIG).exists() and _begun(out):
        held = as_dict(parse_run(read_toml(out / CONFIG)))
    else:
        return
    before, now = dict(_flat(held)), dict(_flat(wanted))
    keys = [key for key in dict.fromkeys([*now, *before]) if before.get(key) != now.get(key)]
    if keys:
        differing = ", ".join(f"{key} was {before.get(key)!r} and is now {now.get(key)!r}" for key in keys)
        raise ResumeRefused(
            f"{out} holds another run: {differing}. Name another folder for this one, or remove that one"
        )


def _begun(out: Path) -> bool:
    """Whether there is a checkpoint, of the run itself or of a stage of its recipe."""
    return (out / CHECKPOINT).exists() or any(out.glob(f"*/{CHECKPOINT}"))


def resolved(record: Record) -> dict[str, Any]:
    """The configuration of a record with what has a default by now filled in: older records know fewer keys.

    Raises:
        CorruptData: It is not the record of a run.
    """
    try:
        return as_dict(parse_run(record.config))
    except ValueError as error:
        raise CorruptData(f"the record holds no configuration of a run: {error}") from error


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


@contextmanager
def _folder_of_run(out: Path) -> Iterator[None]:
    """The folder of a run, made before any work is done for it; where no step was made nothing is left behind."""
    made = [folder for folder in (out, *out.parents) if not folder.exists()]
    make_folder(out)
    try:
        yield
    except BaseException:
        if not _begun(out):
            (out / CONFIG).unlink(missing_ok=True)
            for folder in made:
                if not any(folder.iterdir()):
                    folder.rmdir()
        raise


def make_folder(out: Path) -> None:
    """A folder to write into, made before any work is done for it.

    Raises:
        NotWritten: It cannot be made or written into.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = "a file stands there" if isinstance(error, FileExistsError) else error.strerror
        raise NotWritten(f"cannot make the folder {out}: {reason}") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise NotWritten(f"cannot write into the folder {out}: permission denied")


def fitted(model: AdaptedClassifier, data: ImageDataset) -> dict[str, float]:
    """Accuracy and cross-entropy of the weights that were kept, on at most ``FITTED`` of the images."""
    if len(data) > FITTED:
        data = Subset(data, torch.randperm(len(data), generator=stream(0, "fitted"))[:FITTED].sort().values)
    found = evaluate(model, data)
    return {"accuracy": found.accuracy, "loss": _cross_entropy(found), "images": float(len(data))}


def weight_counts(model: AdaptedClassifier, data: ImageDataset) -> dict[str, int]:
    """The weights that run for an image, ``parameters``, and those of them that training changes, ``trainable``.

    A frozen network whose features stand in the place of the images counts among the first.
    """
    own = list(model.network.parameters())
    frozen = data.frozen_weights() if isinstance(data, FeatureDataset) else 0
    trainable = sum(weight.numel() for weight in own if weight.requires_grad)
    return {"parameters": frozen + sum(weight.numel() for weight in own), "trainable": trainable}


def _cross_entropy(found: Evaluation) -> float:
    return float(F.cross_entropy(found.logits.double(), found.target))


def scores(model: AdaptedClassifier, data: ImageDataset) -> dict[str, Any]:
    """Accuracy, cross-entropy, macro F1 and the worst class's accuracy and name.

    Where the images are of two groups or more (``groups_of``), also the accuracy of the worst one and the groups' mean.
    """
    found = evaluate(model, data)
    report = classification_report(found.predictions, found.target, classes=len(data.classes))
    return {
        "accuracy": report.accuracy,
        "loss": _cross_entropy(found),
        "macro_f1": report.macro_f1,
        "worst_class": report.worst_class,
        "worst_class_name": data.classes[report.worst],
        "images": float(len(data)),
        **_group_scores(found, groups_of(data)),
    }


def _group_scores(found: Evaluation, group: Tensor | None) -> dict[str, float]:
    if group is None or int(torch.bincount(group).count_nonzero()) < 2:
        return {}
    return {
        "worst_group": worst_group_accuracy(found.predictions, found.target, group),
        "average_group": average_group_accuracy(found.predictions, found.target, group),
    }


def load_run(out: str | Path) -> Run:
    """A finished run from its folder, or from the path of its record.

    Raises:
        BadModel: The folder holds no finished run, or its network cannot be made.
        CorruptData: Its record is damaged.
    """
    out = Path(out)
    out = out.parent if out.name == RECORD else out
    missing = [name for name in (RECORD, WEIGHTS) if not (out / name).is_file()]
    if missing:
        begun = (out / CONFIG).is_file()
        hint = "; it was begun: the command that began it goes on where it stopped" if begun else ""
        raise BadModel(f"{out} holds no finished run: {missing[0]} is missing{hint}")
    record = Record.read(out / RECORD)
    if record.kind != "train" or not {"shape", "classes", "test"} <= set(record.results):
        raise CorruptData(f"{out / RECORD} is not the record of a training run")
    config = parse_run(record.config)
    shape, classes = tuple(record.results["shape"]), len(record.results["classes"])
    model = build_model(replace(config.model, weights=""), shape, classes, seed=config.seed)
    load_weights(model.network, out / WEIGHTS)
    return Run(model.eval(), record, config, out)


def accelerator_for(device: str) -> Accelerator:
    """Where to run.

    Raises:
        ValueError: No such device, or it is not here.
    """
    if device not in ("auto", "cpu", "cuda"):
        raise ValueError(f"expected device auto, cpu or cuda, got {device!r}")
    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("device cuda was asked for and torch sees no GPU here")
    return Accelerator(cpu=True) if device == "cpu" else default_accelerator()


def device_name(resources: Resources) -> str:
    """The device by name."""
    return str(accelerator_for(resources.device).device)
