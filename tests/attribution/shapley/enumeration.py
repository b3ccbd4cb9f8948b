"""Shapley values by their definition."""

from __future__ import annotations

from itertools import combinations
from math import factorial

import numpy as np


def shapley_values(function, example, baseline):
    """Over all coalitions; a feature in the coalition is the example's, any other the baseline's."""
    count = len(example)
    worth = {}
    for size in range(count + 1):
        for coalition in combinations(range(count), size):
            mixed = np.array(baseline, dtype=float)
            mixed[list(coalition)] = np.asarray(example)[list(coalition)]
            worth[coalition] = function(mixed)
    values = np.zeros(count)
    for feature in range(count):
        others = [f for f in range(count) if f != feature]
        for size in range(count):
            weight = factorial(size) * factorial(count - size - 1) / factorial(count)
            for coalition in combinations(others, size):
                joined = tuple(sorted((*coalition, feature)))
                values[feature] += weight * (worth[joined] - worth[coalition])
    return values
