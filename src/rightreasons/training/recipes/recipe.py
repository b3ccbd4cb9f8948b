"""What a recipe is: a way to train that takes more than one call of ``fit``, or another task loss."""

from __future__ import annotations

import copy
import hashlib
import json
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import safetensors.torch
import torch
import torch.distributed
from safetensors import SafetensorError, safe_open
from torch import Tensor

from rightreasons.core import CorruptData
from rightreasons.core.tensors import weights_digest
from rightreasons.data.dataset import ImageDataset
from rightreasons.models import AdaptedClassifier
from rightreasons.models.checkpoints import write_whole
from rightreasons.training.evaluation import evaluate
from rightreasons.training.fit import FitResult, fit
from rightreasons.training.objective import Objective
from rightreasons.training.settings import FitSettings

Fit = Callable[..., FitResult]
_KEY = "made of"


@dataclass(frozen=True)
class RecipeResult(FitResult):
    """What a recipe leaves beside the trained weights; its history is that of all stages, one after the other.

    A line of the history has its ``stage``, from 1, too; ``epoch`` counts on over the stages. The seconds are those of
    the whole recipe.

    Attributes:
        report: One dictionary a stage, or a group: what the recipe did there.
    """

    report: list[dict[str, float]] = field(default_factory=list)


class Recipe(ABC):
    """How to train: ``recipe(model, data, objective, settings) -> RecipeResult``; the model is changed in place.

    A frozen dataclass, as every method: settings in the constructor, what is trained in the call. Nothing is ever
    selected on other images than those of ``data``. Each stage is a call of ``fit`` with a sub-folder of ``out`` of its
    own, so that a killed recipe goes on in the stage it was in, where ``fit`` resumes.
    """

    @abstractmethod
    def __call__(
        self,
        model: AdaptedClassifier,
        data: ImageDataset,
        objective: Objective,
        settings: FitSettings = FitSettings(),
        *,
        fit: Fit = fit,
        out: Path | None = None,
    ) -> RecipeResult:
        """Train.

        Args:
            model: Made by ``adapt``; its present weights are the initial ones of every stage.
            data: The training images.
            objective: What is minimized; what a recipe adds to it is told there.
            settings: How each stage is trained.
            fit: The loop; a ``functools.partial`` of it brings validation, resuming and the accelerator.
            out: Folder of the stages' checkpoints; ``None`` keeps nothing.

        Raises:
            MissingAnnotation: The data lack what the recipe stands on, such as groups.
            ValueError: The objective does not go with the recipe.
        """


class Stages:
    """The stages of one recipe as they are run, and what they come to.

    Args:
        model: What is trained.
        fit: The loop.
        out: Folder of the recipe; each stage has a sub-folder of its name.

    Attributes:
        results: Of the stages that are over.
        trained_with: The objective of the last one, with its modules as they came out.
    """

    def __init__(self, model: AdaptedClassifier, fit: Fit, out: Path | None) -> None:
        self.model, self.fit, self.out = model, fit, out
        self.initial = {name: value.clone() for name, value in model.state_dict().items()}
        self.results: list[FitResult] = []
        self.trained_with = Objective()
        self.started = time.perf_counter()

    def folder(self, name: str) -> Path | None:
        """Where a stage keeps its files; ``None`` where nothing is kept."""
        return None if self.out is None else Path(self.out) / name

    def train(self, name: str, data: ImageDataset, objective: Objective, settings: FitSettings) -> FitResult:
        """Train from the initial weights; those of the objective's own modules are fresh, too."""
        self.model.load_state_dict(self.initial)
        self.trained_with = copy.deepcopy(objective)
        result = self.fit(self.model, data, self.trained_with, settings, out=self.folder(name))
        self.results.append(result)
        return result

    def kept(self, name: str, file: str, made_of: Sequence[str], make: Callable[[], Tensor]) -> Tensor:
        """A tensor that follows from the model's present weights and ``made_of``: from the stage's file, else made.

        What one machine has computed so stays the same where another one takes up the run.
        """
        folder = self.folder(name)
        if folder is None:
            return make()
        key = _digest([*made_of, weights_digest(self.model)])
        path = folder / file
        found = _read(path, key) if path.is_file() else None
        if found is None:
            found = make().cpu()
            if _is_main_process():
                folder.mkdir(parents=True, exist_ok=True)
                write_whole(path, safetensors.torch.save({"value": found.contiguous()}, metadata={_KEY: key}))
        return found

    def ended(self, report: list[dict[str, float]]) -> RecipeResult:
        """All stages as one result."""
        history: list[dict[str, float]] = []
        best = None
        for stage, result in enumerate(self.results, start=1):
            before = len(history)
            best = None if result.best_epoch is None else before + result.best_epoch
            history += [{**line, "epoch": before + line["epoch"], "stage": float(stage)} for line in result.history]
        resumed = [result.resumed_from for result in self.results if result.resumed_from is not None]
        return RecipeResult(
            history=history,
            seconds=time.perf_counter() - self.started,
            steps=sum(result.steps for result in self.results),
            resumed_from=sum(resumed) if resumed else None,
            best_epoch=best,
            report=report,
        )


def figures(model: AdaptedClassifier, data: ImageDataset, result: FitResult) -> dict[str, float]:
    """A stage's accuracy on these images, and what was said about held-out ones after the epoch that was taken."""
    taken: Mapping[str, float] = result.history[(result.best_epoch or 0) - 1] if result.history else {}
    held_out = {name: value for name, value in taken.items() if name.startswith("validation")}
    return {"train_accuracy": evaluate(model, data).accuracy, **held_out}


def _digest(parts: Sequence[str]) -> str:
    return hashlib.sha256(json.dumps(list(parts)).encode()).hexdigest()


def _read(path: Path, key: str) -> Tensor | None:
    """What the file holds; ``None`` where it was made of something else."""
    try:
        with safe_open(path, framework="pt") as file:
            if (file.metadata() or {}).get(_KEY) != key:
                return None
            value: Tensor = file.get_tensor("value")
            return value
    except SafetensorError as error:
        raise CorruptData(f"{path} is damaged; remove it to have it made anew") from error


def _is_main_process() -> bool:
    joined = torch.distributed.is_available() and torch.distributed.is_initialized()
    return not joined or torch.distributed.get_rank() == 0
