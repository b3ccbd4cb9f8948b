"""What a linear machine reads from features."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

_FLAT = 1e-6
"""A feature that spreads less than this is only centered."""

Probe = Callable[[Float[Tensor, "images features"]], Int[Tensor, " images"]]


def linear_probe(values: Float[Tensor, "images features"], target: Int[Tensor, " images"]) -> Probe:
    """A logistic regression on standardized features; returns what it predicts for other features.

    Source: linear classifier probes, Alain & Bengio 2016, arXiv:1610.01644.

    Raises:
        ValueError: All images are of one class.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    center, spread = values.double().mean(dim=0), values.double().std(dim=0)
    spread = torch.where(spread > _FLAT, spread, torch.ones_like(spread))

    def standardized(features: Tensor) -> Tensor:
        return (features.double() - center) / spread

    machine = LogisticRegression(max_iter=1000, random_state=0)
    with warnings.catch_warnings():
        # The last digits of a probe's weights are of no interest.
        warnings.simplefilter("ignore", ConvergenceWarning)
        machine.fit(standardized(values).numpy(), target.numpy())
    return lambda features: torch.as_tensor(machine.predict(standardized(features).numpy()))
