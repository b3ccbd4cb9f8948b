"""A configuration in, a trained model and its record out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from rightreasons.core import BadModel
from rightreasons.data import ImageDataset
from rightreasons.experiments.build import build_fit_settings, build_model, build_run
from rightreasons.experiments.config import RunConfig, as_dict, parse_run, to_toml
from rightreasons.experiments.record import Record, environment, key_of, make_record
from rightreasons.metrics import classification_report
from rightreasons.models import AdaptedClassifier
from rightreasons.models.checkpoints import load_weights, save_weights, write_whole
from rightreasons.training import evaluate, fit

RECORD = "record.json"
WEIGHTS = "model.safetensors"
CONFIG = "config.toml"


@dataclass(frozen=True)
class Resources:
    """Where a run is carried out; nothing here changes what is asked.

    Attributes:
        device: ``auto`` (what Accelerate finds), ``cpu`` or ``cuda``.
        folder: Where the user's own copy of a named data set lies; nothing is fetched then.
        progress: Show bars.
    """

    device: str = "auto"
    folder: Path | None = None
    progress: bool = True


@dataclass(frozen=True, eq=False)
class Run:
    """A finished run.

    Attributes:
        model: The trained classifier, in evaluation mode.
        record: What was run and what came out.
        config: The resolved configuration.
        out: Its folder.
    """

    model: AdaptedClassifier
    record: Record
    config: RunConfig
    out: Path

    @property
    def weights(self) -> Path:
        """The file of the trained weights."""
        return self.out / WEIGHTS


def train(config: RunConfig, out: str | Path, resources: Resources = Resources()) -> Run:
    """Train as the configuration says, or take up what ``out`` already holds of this very run.

    ``out`` gets ``config.toml``, ``checkpoint.safetensors`` after each epoch, and in the end ``model.safetensors`` and
    ``record.json``. A killed run goes on from its checkpoint; a finished one is not run again.

    Args:
        config: What to run.
        out: Folder of the run.
        resources: Where it runs; without an effect on what is asked.

    Raises:
        RightReasonsError, ValueError: See ``fit`` and the builders.
    """
    out = Path(out)
    if (out / RECORD).exists() and Record.read(out / RECORD).key == key_of("train", as_dict(config)):
        return load_run(out)
    accelerator = accelerator_for(resources.device)
    splits, model, objective = build_run(config, folder=resources.folder)
    if accelerator.is_main_process:
        out.mkdir(parents=True, exist_ok=True)
        write_whole(out / CONFIG, (to_toml(as_dict(config)) + "\n").encode())
    result = fit(
        model,
        splits.train,
        objective,
        build_fit_settings(config.training, config.seed),
        validate={"test": splits.test} | ({"validation": splits.validation} if splits.validation else {}),
        out=out,
        resume=True,
        accelerator=accelerator,
        progress=resources.progress,
    )
    model.eval()
    record = make_record(
        "train",
        as_dict(config),
        {"test": scores(model, splits.test), "classes": list(splits.train.classes), "shape": list(splits.train.shape)},
        history=result.history,
        seconds=result.seconds,
        environment=environment(str(accelerator.device)),
    )
    if accelerator.is_main_process:
        save_weights(model.network, out / WEIGHTS)
        record.write(out / RECORD)
    accelerator.wait_for_everyone()
    return Run(model, record, config, out)


def scores(model: AdaptedClassifier, data: ImageDataset) -> dict[str, float]:
    """Accuracy, macro F1 and the worst class's accuracy."""
    found = evaluate(model, data)
    report = classification_report(found.predictions, found.target, classes=len(data.classes))
    return {
        "accuracy": report.accuracy,
        "macro_f1": report.macro_f1,
        "worst_class": report.worst_class,
        "images": float(len(data)),
    }


def load_run(out: str | Path) -> Run:
    """A finished run from its folder.

    Raises:
        BadModel: The folder holds no finished run.
    """
    out = Path(out)
    missing = [name for name in (RECORD, WEIGHTS) if not (out / name).is_file()]
    if missing:
        raise BadModel(f"{out} holds no finished run: {missing[0]} is missing")
    record = Record.read(out / RECORD)
    config = parse_run({k: v for k, v in record.config.items() if v is not None})
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
    return Accelerator(cpu=device == "cpu")


def device_name(resources: Resources) -> str:
    """The device by name."""
    return str(accelerator_for(resources.device).device)
