"""Models behind a network that are not torch, and the exact Shapley values of what they read."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from rightreasons.attribution.shapley.trees import Tree, tree_of, tree_shapley

TAKEN = (
    "a fitted linear model (whose decision function or regressed number is linear, one row an output), decision tree, "
    "random forest or gradient boosting of scikit-learn, or a Head"
)


class Head(ABC):
    """A model that reads features, and what each feature adds to its change from a baseline to an example."""

    @abstractmethod
    def scores(self, features: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows outputs"]:
        """What the head says; margins where it is a classifier by margins, probabilities where by votes."""

    @abstractmethod
    def shapley(
        self,
        features: Float[np.ndarray, "rows features"],
        baseline: Float[np.ndarray, "rows features"],
        target: Int[np.ndarray, " rows"],
    ) -> Float[np.ndarray, "rows features"]:
        """The exact interventional Shapley values of each example against its own baseline."""


@dataclass(frozen=True, eq=False)
class LinearHead(Head):
    """A linear model: a feature adds its weight times its change.

    Args:
        weight: One row an output.
        bias: One number an output.
    """

    weight: Float[np.ndarray, "outputs features"] = field(repr=False)
    bias: Float[np.ndarray, " outputs"] = field(repr=False)

    def scores(self, features: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows outputs"]:
        """Weights times features plus bias."""
        return np.asarray(features @ self.weight.T + self.bias)

    def shapley(
        self,
        features: Float[np.ndarray, "rows features"],
        baseline: Float[np.ndarray, "rows features"],
        target: Int[np.ndarray, " rows"],
    ) -> Float[np.ndarray, "rows features"]:
        """Weight times change."""
        return np.asarray((features - baseline) * self.weight[target])


@dataclass(frozen=True, eq=False)
class TreeHead(Head):
    """A sum of trees.

    Args:
        trees: With the values of their leaves as they enter the sum, one an output.
        start: What the trees add to, one number an output.
    """

    trees: Sequence[Tree] = field(repr=False)
    start: Float[np.ndarray, " outputs"] = field(repr=False)

    def scores(self, features: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows outputs"]:
        """The sum of the leaves that an example falls into."""
        total = np.tile(np.asarray(self.start, dtype=np.float64), (len(features), 1))
        for tree in self.trees:
            total += tree.scores(features)
        return total

    def shapley(
        self,
        features: Float[np.ndarray, "rows features"],
        baseline: Float[np.ndarray, "rows features"],
        target: Int[np.ndarray, " rows"],
    ) -> Float[np.ndarray, "rows features"]:
        """The sum over trees."""
        total = np.zeros(features.shape)
        for tree in self.trees:
            total += tree_shapley(tree, features, baseline, target)
        return total


def as_head(model: Any) -> Head:
    """A head made of a fitted scikit-learn model, or one that is ready made.

    Linear models give their decision function; of two classes both have one, of opposite sign. Trees and forests give
    class probabilities or the regressed number; gradient boosting its raw margin.

    Raises:
        ValueError: There is no exact way for a model of this kind, or the head does not say what the model says.
    """
    if isinstance(model, Head):
        return model
    head = _made_of(model, type(model).__name__)
    _check_same(head, model)
    return head


def _made_of(model: Any, name: str) -> Head:
    if hasattr(model, "coef_") and hasattr(model, "intercept_"):
        return _linear(model)
    if name.startswith("GradientBoosting"):
        return _boosted(model)
    if hasattr(model, "estimators_") and name.startswith(("RandomForest", "ExtraTrees")):
        share = 1 / len(model.estimators_)
        trees = [tree_of(part, share) for part in model.estimators_]
        return TreeHead(trees, np.zeros(trees[0].values.shape[1]))
    if hasattr(model, "tree_"):
        tree = tree_of(model, 1.0)
        return TreeHead([tree], np.zeros(tree.values.shape[1]))
    raise ValueError(f"expected a head to be {TAKEN}, got {name}")


def _check_same(head: Head, model: Any) -> None:
    """Ask both about a few examples: weights alone do not say what is made of them."""
    name = type(model).__name__
    how = next((how for how in ("decision_function", "predict_proba", "predict") if hasattr(model, how)), None)
    if how is None or not hasattr(model, "n_features_in_"):
        raise ValueError(f"expected a head to be {TAKEN}, got {name}, which cannot be asked")
    examples = np.random.default_rng(0).normal(size=(8, model.n_features_in_))
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.filterwarnings("ignore", message="X does not have valid feature names")
        said, found = np.asarray(getattr(model, how)(examples), np.float64), head.scores(examples)
    if said.ndim == 1:
        said = said[:, None] if found.shape[1] == 1 else np.stack([-said, said], axis=1)
    # Weights may be in single precision.
    if said.shape != found.shape or not np.allclose(found, said, rtol=1e-4, atol=1e-4 * np.abs(said).max()):
        raise ValueError(
            f"expected a head to be {TAKEN}, got {name}, whose {how} is not its weights times features plus its bias, "
            "one row a class or output"
        )


def _linear(model: Any) -> LinearHead:
    weight, bias = np.atleast_2d(np.asarray(model.coef_, np.float64)), np.atleast_1d(model.intercept_)
    bias = np.broadcast_to(np.asarray(bias, np.float64), (len(weight),))
    if hasattr(model, "classes_") and len(weight) == 1:
        return LinearHead(np.concatenate([-weight, weight]), np.concatenate([-bias, bias]))
    return LinearHead(weight, bias)


def _boosted(model: Any) -> TreeHead:
    """The first guess plus the learning rate times each tree; of two classes both have a margin, of opposite sign."""
    first = type(model.init_).__name__
    if first not in ("str", "DummyRegressor", "DummyClassifier"):
        raise ValueError(f"expected gradient boosting that starts from a constant, got init={first}")
    outputs, trees = model.estimators_.shape[1], []
    for stage in model.estimators_:
        for output, part in enumerate(stage):
            tree = tree_of(part, model.learning_rate)
            values = np.zeros((len(tree.values), outputs))
            values[:, output] = tree.values[:, 0]
            trees.append(tree.of_values(values))
    anywhere = np.zeros((1, model.n_features_in_))
    margin = model.decision_function if hasattr(model, "classes_") else model.predict
    start = np.atleast_1d(margin(anywhere)[0]) - TreeHead(trees, np.zeros(outputs)).scores(anywhere)[0]
    if hasattr(model, "classes_") and outputs == 1:
        trees = [tree.of_values(np.concatenate([-tree.values, tree.values], axis=1)) for tree in trees]
        start = np.concatenate([-start, start])
    return TreeHead(trees, start)
