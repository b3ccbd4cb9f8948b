"""Just train twice: what a short plain training gets wrong counts more in the second one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Int
from torch import Tensor

from rightreasons.data.arrays import Subset
from rightreasons.data.dataset import ImageDataset
from rightreasons.models import AdaptedClassifier
from rightreasons.training.evaluation import evaluate
from rightreasons.training.fit import fit
from rightreasons.training.objective import Objective
from rightreasons.training.recipes.recipe import Fit, Recipe, RecipeResult, Stages, figures
from rightreasons.training.settings import FitSettings


@dataclass(frozen=True)
class JTT(Recipe):
    """Just train twice: train shortly, then anew with every image that was misclassified shown several times an epoch.

    A network that follows a shortcut errs first where the shortcut misleads, so no groups and no masks are needed; but
    where no training image contradicts the shortcut, there is nothing to find.

    Source: Liu et al. 2021, arXiv:2107.09044, Algorithm 1 (T = ``first_epochs``, lambda_up = ``upweight``). The paper
    chooses T and lambda_up by the worst group of a validation set with known groups, and stops both trainings early by
    it; here they are settings, and nothing is selected. Both stages have the same optimizer, where the paper's code
    gives the first one settings of its own.

    Args:
        first_epochs: Epochs of the first training.
        upweight: How often a misclassified image is shown in each epoch of the second training.

    Raises:
        ValueError: Either is below 1.
    """

    first_epochs: int = 1
    upweight: int = 20

    def __post_init__(self) -> None:
        for name in ("first_epochs", "upweight"):
            if getattr(self, name) < 1:
                raise ValueError(f"expected {name} of at least 1, got {getattr(self, name)}")

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
        """Train twice; the report says how many images of ``data`` the first training got wrong."""
        stages = Stages(model, fit, out)
        first = stages.train("first", data, objective, replace(settings, epochs=self.first_epochs))
        found = figures(model, data, first)
        made_of = (data.name, data.sampled_fingerprint())
        wrong = stages.kept("first", "misclassified.safetensors", made_of, lambda: misclassified(model, data))
        shown = Subset(data, upweighted(len(data), wrong, self.upweight), change=f"{len(wrong)} shown x{self.upweight}")
        second = stages.train("second", shown, objective, settings)
        return stages.ended([{"misclassified": float(len(wrong)), **found}, figures(model, data, second)])


def misclassified(model: AdaptedClassifier, data: ImageDataset) -> Int[Tensor, " wrong"]:
    """Positions of the images whose predicted class is not the true one."""
    found = evaluate(model, data)
    return (found.predictions != found.target).nonzero().squeeze(1)


def upweighted(images: int, wrong: Int[Tensor, " wrong"], times: int) -> Int[Tensor, " shown"]:
    """All positions once, those in ``wrong`` as often as ``times`` in all."""
    return torch.cat([torch.arange(images), wrong.repeat(times - 1)])
