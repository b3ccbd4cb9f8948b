"""Predictions and heatmaps of a batch, off the graph and on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import Attribution, Batch, Classifier
from rightreasons.data import ImageDataset
from rightreasons.models import AdaptedClassifier, contrast
from rightreasons.training import device_of, modes_kept

Target = Literal["predicted", "true"]
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Explained:
    """What a model says about images, and why.

    Attributes:
        probabilities: Of all classes.
        target: The class that was explained.
        heatmaps: Raw maps by the explainer's name.
    """

    probabilities: Float[Tensor, "images classes"]
    target: Int[Tensor, " images"]
    heatmaps: Mapping[str, Float[Tensor, "images 1 height width"]]


def explain(
    model: AdaptedClassifier,
    data: ImageDataset,
    explainers: Mapping[str, Attribution],
    *,
    target: Target = "predicted",
    against: int | None = None,
) -> Explained:
    """Explain every image of a data set: the class that the model predicts, or the true one.

    Args:
        model: The classifier.
        data: The images.
        explainers: By name.
        target: Whose class.
        against: The class that it is contrasted with; ``None`` explains the class by itself.
    """
    rows: list[Tensor] = [torch.arange(i, min(i + CHUNK, len(data))) for i in range(0, len(data), CHUNK)]
    with modes_kept(model), torch.no_grad():
        model.eval()
        parts = [_explain_batch(model, data.batch(index), explainers, target, against) for index in rows]
    return Explained(
        torch.cat([part.probabilities for part in parts]),
        torch.cat([part.target for part in parts]),
        {name: torch.cat([part.heatmaps[name] for part in parts]) for name in explainers},
    )


def _explain_batch(
    model: AdaptedClassifier,
    batch: Batch,
    explainers: Mapping[str, Attribution],
    target: Target,
    against: int | None,
) -> Explained:
    batch = batch.to(device_of(model))
    probabilities = model(batch.inputs).softmax(dim=1)
    chosen = explained_class(probabilities, batch, target)
    asked = contrasted(model, against)
    maps = {name: method(asked, batch.inputs, chosen).float().cpu() for name, method in explainers.items()}
    return Explained(probabilities.float().cpu(), chosen.cpu(), maps)


def explained_class(
    probabilities: Float[Tensor, "batch classes"], batch: Batch, target: Target
) -> Int[Tensor, " batch"]:
    """The class that is explained."""
    return probabilities.argmax(dim=1) if target == "predicted" else batch.target


def contrasted(model: AdaptedClassifier, against: int | None) -> Classifier:
    """The classifier that methods are shown: the model itself, or against a class."""
    return model if against is None else contrast(model, against)
