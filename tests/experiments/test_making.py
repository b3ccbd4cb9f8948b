"""Settings of the wrong kind are told by name, with the kind that is expected and the value."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Literal

import pytest
import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution import ATTRIBUTIONS, IntegratedGradients
from rightreasons.counterfactuals import COUNTERFACTUALS, NearestNeighbor, Wachter
from rightreasons.experiments.making import called, misfit
from rightreasons.metrics import METRICS
from rightreasons.models import MLP, MODELS
from rightreasons.supervision import LOSSES
from rightreasons.training import RECIPES

Images = Float[Tensor, "images channels height width"]


@pytest.mark.parametrize(
    ("hint", "fitting", "wrong", "expected"),
    [
        (int, [3, -1], ["many", 2.5, 3.0, True, [3], {}], "a whole number"),
        (float, [3, 0.5, float("inf")], ["1,5", True, [1.0]], "a number"),
        (bool, [True], [1, "yes"], "true or false"),
        (str, ["l2"], [2, True, ["l2"]], "a text"),
        (int | None, [3], ["none"], "a whole number"),
        (Literal["l2", "l1"], ["l1"], ["l3", 1, ["l1"]], "one of l2, l1"),
        (Literal["logit"] | Literal["sum"] | None, ["sum"], ["other"], "one of logit, sum"),
        (
            int | tuple[int, int],
            [3, [3, 4], (3, 4)],
            ["3x4", [3], [3, 4, 5], [3.5, 4]],
            "a whole number or a list of 2",
        ),
        (tuple[float, ...], [[], [1, 0.5]], [1.0, ["a"]], "a list of numbers"),
        (Sequence[str] | None, [["a"]], ["a", [1]], "a list of texts"),
        (Mapping[str, Any], [{"a": 1}], ["a", [1]], "a table"),
        (Images, [], ["a", 1.0, [1.0]], "images or labels"),
        (Literal["grid"] | Callable[[Tensor], Tensor], ["grid"], ["hex", 3], "one of grid"),
        (Callable[[Tensor], Tensor], ["only the class itself knows"], [], ""),
        (int | Literal["mean"] | None, [3, "mean"], ["median", 2.5], "a whole number or one of mean"),
        (tuple[int, int], [[3, 4]], [[3], 3], "a list of 2 whole numbers"),
        (Any, ["anything", 3], [], ""),
    ],
)
def test_a_plain_value_fits_a_kind_or_is_told_what_it_should_have_been(hint, fitting, wrong, expected):
    assert [misfit(value, hint) for value in fitting] == [""] * len(fitting)
    for value in wrong:
        assert misfit(value, hint).startswith(expected), value
    assert misfit(torch.zeros(1), hint) == "", "what is no plain value is the class's own business"


@pytest.mark.parametrize(
    ("class_", "settings", "told"),
    [
        (Wachter, {"steps": "many"}, "a thing: expected steps to be a whole number, got 'many'"),
        (Wachter, {"lead": "far"}, "a thing: expected lead to be a number, got 'far'"),
        (Wachter, {"norm": 2}, "a thing: expected norm to be one of l2, l1, elastic, got 2"),
        (partial(Wachter, low=0.0), {"max_queries": 2.5}, "expected max_queries to be a whole number, got 2.5"),
        (
            NearestNeighbor,
            {"references": "mine.pt"},
            "expected references to be images or labels, which come from data",
        ),
        (IntegratedGradients, {"steps": [8]}, r"expected steps to be a whole number, got \[8\]"),
        (MLP, {"hidden": "wide"}, "expected hidden to be a list of whole numbers, got 'wide'"),
        (Wachter, {"stepz": 3}, "a thing has no setting 'stepz'"),
    ],
)
def test_a_setting_of_the_wrong_kind_is_named_with_the_kind_and_the_value(class_, settings, told):
    with pytest.raises(ValueError, match=told):
        called(class_, settings, "a thing")


def test_what_fits_is_made():
    assert called(partial(Wachter, low=-1.0), {"steps": 3, "lead": 1, "norm": "l1"}, "it") == Wachter(
        low=-1.0, steps=3, lead=1, norm="l1"
    )


@pytest.mark.parametrize("catalogue", [ATTRIBUTIONS, COUNTERFACTUALS, LOSSES, METRICS, MODELS, RECIPES])
def test_the_defaults_of_every_setting_of_every_method_fit(catalogue):
    from rightreasons.experiments.making import _hints

    for name, class_ in catalogue.items():
        hints = _hints(class_)
        for setting, parameter in inspect.signature(class_).parameters.items():
            assert setting in hints, f"{name}: {setting}"
            if parameter.default not in (parameter.empty, None):
                assert misfit(parameter.default, hints[setting]) == "", f"{name}: {setting}"
