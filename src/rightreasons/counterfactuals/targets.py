"""Which class to ask for."""

from __future__ import annotations

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.forward import evaluated
from rightreasons.attribution.perturbation.masking import generator_of
from rightreasons.core import Batch, Classifier


def runner_up(model: Classifier, inputs: Float[Tensor, "batch channels height width"]) -> Int[Tensor, " batch"]:
    """The class of the second largest logit of each image."""
    return _ranked(model, inputs)[:, 1]


def random_other(
    model: Classifier, inputs: Float[Tensor, "batch channels height width"], *, seed: int | None = 0
) -> Int[Tensor, " batch"]:
    """A class of each image, drawn evenly from all but the predicted one."""
    ranked = _ranked(model, inputs)
    draws = torch.randint(1, ranked.shape[1], (len(ranked),), generator=generator_of(seed)).to(ranked.device)
    return (ranked[:, 0] + draws) % ranked.shape[1]


def misclassified(model: Classifier, batch: Batch) -> Batch:
    """The images that the model gets wrong.

    Their ``target`` is the true class: as the target of a counterfactual it asks what would have made the model right.
    """
    return batch[_ranked(model, batch.inputs)[:, 0] != batch.target.to(batch.inputs.device)]


def _ranked(model: Classifier, inputs: Tensor) -> Int[Tensor, "batch classes"]:
    """The classes of each image, the most probable first; in evaluation mode."""
    return evaluated(model, inputs).argsort(dim=1, descending=True, stable=True)
