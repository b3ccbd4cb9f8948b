"""Exact Shapley values of one decision tree against one baseline, in time linear in its leaves."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from math import factorial
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int


@dataclass(frozen=True, eq=False)
class Tree:
    """A binary tree in arrays, one entry a node; an example goes left where feature <= threshold.

    Args:
        left: Number of the left child, -1 in a leaf.
        right: Number of the right child.
        feature: The feature that is asked for.
        threshold: What it is compared with.
        values: What a leaf says, one number an output.
    """

    left: Int[np.ndarray, " nodes"] = field(repr=False)
    right: Int[np.ndarray, " nodes"] = field(repr=False)
    feature: Int[np.ndarray, " nodes"] = field(repr=False)
    threshold: Float[np.ndarray, " nodes"] = field(repr=False)
    values: Float[np.ndarray, "nodes outputs"] = field(repr=False)

    def of_values(self, values: Float[np.ndarray, "nodes outputs"]) -> Tree:
        """The same questions with other answers."""
        return replace(self, values=values)

    def scores(self, features: Float[np.ndarray, "rows features"]) -> Float[np.ndarray, "rows outputs"]:
        """What the leaf of each example says."""
        node, rows = np.zeros(len(features), dtype=np.int64), np.arange(len(features))
        while (self.left[node] >= 0).any():
            goes_left = _lower(features[rows, self.feature[node]], self.threshold[node])
            child = np.where(goes_left, self.left[node], self.right[node])
            node = np.where(self.left[node] >= 0, child, node)
        return np.asarray(self.values[node])

    def leaves(self) -> Iterator[tuple[int, dict[int, tuple[float, float]]]]:
        """Each leaf, and for each feature asked for on the way to it, above what it lies and up to what."""
        pending: list[tuple[int, dict[int, tuple[float, float]]]] = [(0, {})]
        while pending:
            node, box = pending.pop()
            if self.left[node] < 0:
                yield node, box
                continue
            feature, threshold = int(self.feature[node]), float(self.threshold[node])
            low, high = box.get(feature, (-np.inf, np.inf))
            pending.append((int(self.left[node]), box | {feature: (low, min(high, threshold))}))
            pending.append((int(self.right[node]), box | {feature: (max(low, threshold), high)}))


def tree_of(estimator: Any, share: float) -> Tree:
    """A fitted tree of scikit-learn, its leaves times ``share``; of a classifier they are the classes' probabilities.

    Raises:
        ValueError: It has several outputs.
    """
    tree = estimator.tree_
    values = np.asarray(tree.value, dtype=np.float64)
    if values.shape[1] != 1:
        raise ValueError(f"expected a tree of one output, got {values.shape[1]}")
    values = values[:, 0]
    if hasattr(estimator, "classes_"):
        values = values / values.sum(axis=1, keepdims=True)
    left, right, feature = (
        # By lists, for scikit-learn's "long long" is numpy's int64 in all but name.
        np.array(part.tolist(), dtype=np.int64)
        for part in (tree.children_left, tree.children_right, tree.feature)
    )
    return Tree(left, right, feature, np.array(tree.threshold, dtype=np.float64), values * share)


def tree_shapley(
    tree: Tree,
    features: Float[np.ndarray, "rows features"],
    baseline: Float[np.ndarray, "rows features"],
    target: Int[np.ndarray, " rows"],
) -> Float[np.ndarray, "rows features"]:
    """What each feature adds to the tree's output, example by example, each against its own baseline.

    A feature in the coalition is the example's, any other the baseline's. A leaf is reached when all features that only
    the example answers as asked (m of them) are in and all that only the baseline answers so (n) are out; so to its
    value v each of the m adds v (m-1)! n! / (m+n)! and each of the n takes v m! (n-1)! / (m+n)!.

    Source: Chen, Lundberg and Lee 2022, doi:10.1038/s41467-022-31384-3, and Lundberg et al. 2020,
    doi:10.1038/s42256-019-0138-9 (interventional TreeSHAP); here by leaves.
    """
    total = np.zeros(features.shape)
    for leaf, box in tree.leaves():
        asked = np.array(list(box), dtype=np.int64)
        if not len(asked):
            continue
        bounds = np.array(list(box.values()))
        here, there = (_inside(values[:, asked], bounds) for values in (features, baseline))
        inside, outside = here & ~there, there & ~here
        reached = (here | there).all(axis=1)
        gains, losses = _weights(inside.sum(axis=1), outside.sum(axis=1))
        value = np.where(reached, tree.values[leaf, target], 0.0)
        total[:, asked] += value[:, None] * (inside * gains[:, None] - outside * losses[:, None])
    return total


def _inside(
    values: Float[np.ndarray, "rows asked"], bounds: Float[np.ndarray, "asked 2"]
) -> Bool[np.ndarray, "rows asked"]:
    return np.asarray(~_lower(values, bounds[:, 0]) & _lower(values, bounds[:, 1]))


def _lower(values: Float[np.ndarray, ...], threshold: Float[np.ndarray, ...]) -> Bool[np.ndarray, ...]:
    """As scikit-learn compares: the feature in single precision, the threshold in double."""
    return np.asarray(values.astype(np.float32) <= threshold)


def _weights(
    inside: Int[np.ndarray, " rows"], outside: Int[np.ndarray, " rows"]
) -> tuple[Float[np.ndarray, " rows"], Float[np.ndarray, " rows"]]:
    """(m-1)! n! / (m+n)! and m! (n-1)! / (m+n)!, zero where there is none of the kind."""
    pairs = np.stack([inside, outside], axis=1)
    kinds, place = np.unique(pairs, axis=0, return_inverse=True)
    table = np.array([_weight_pair(int(m), int(n)) for m, n in kinds]).reshape(-1, 2)
    found = table[place.reshape(-1)]
    return found[:, 0], found[:, 1]


def _weight_pair(m: int, n: int) -> tuple[float, float]:
    all_orders = factorial(m + n)
    gain = factorial(m - 1) * factorial(n) / all_orders if m else 0.0
    loss = factorial(m) * factorial(n - 1) / all_orders if n else 0.0
    return gain, loss
