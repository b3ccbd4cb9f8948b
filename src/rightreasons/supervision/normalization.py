"""Normalizations as plain algebra, for losses that differentiate three times."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rightreasons.attribution.operators import operator_of


class PlainNormalizations(TorchFunctionMode):
    """Lets the normalizations of a pass run as sums and products.

    Torch's own layer, group and batch normalization take their statistics for constants in the second derivative of
    their backward pass, so that every third derivative through them is wrong, without an error.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a call, a normalization as plain algebra."""
        kwargs = kwargs or {}
        plain = _PLAIN.get(operator_of(func, args, kwargs)[0])
        if plain is None:
            return func(*args, **kwargs)
        names, normalize = plain
        given = {"weight": None, "bias": None, "eps": 1e-5} | dict(zip(names, args, strict=False)) | kwargs
        values: Tensor = normalize(given)
        per_channel = "normalized_shape" not in given
        for name, combine in (("weight", torch.mul), ("bias", torch.add)):
            part = given[name]
            if part is not None:
                shaped = part.view(-1, *(1,) * (values.ndim - 2)) if per_channel else part
                values = combine(values, shaped)
        return values


Given = Mapping[str, Any]


def _layer_norm(given: Given) -> Tensor:
    return _standardized(given["input"], tuple(range(-len(given["normalized_shape"]), 0)), given["eps"])


def _group_norm(given: Given) -> Tensor:
    inputs = given["input"]
    grouped = inputs.reshape(len(inputs), given["num_groups"], -1)
    return _standardized(grouped, (2,), given["eps"]).reshape_as(inputs)


def _batch_norm(given: Given) -> Tensor:
    inputs, mean, variance = given["input"], given.get("running_mean"), given.get("running_var")
    if given.get("training") or mean is None or variance is None:
        return _standardized(inputs, tuple(i for i in range(inputs.ndim) if i != 1), given["eps"])
    mean, variance = (part.view(-1, *(1,) * (inputs.ndim - 2)) for part in (mean, variance))
    values: Tensor = (inputs - mean) * (variance + given["eps"]).rsqrt()
    return values


def _instance_norm(given: Given) -> Tensor:
    if given.get("use_input_stats", True):
        return _standardized(given["input"], tuple(range(2, given["input"].ndim)), given["eps"])
    return _batch_norm(given)


def _standardized(values: Tensor, axes: tuple[int, ...], eps: float) -> Tensor:
    centered = values - values.mean(axes, keepdim=True)
    return centered * (centered.square().mean(axes, keepdim=True) + eps).rsqrt()


_PLAIN: dict[str, tuple[tuple[str, ...], Callable[[Given], Tensor]]] = {
    "layer_norm": (("input", "normalized_shape", "weight", "bias", "eps"), _layer_norm),
    "group_norm": (("input", "num_groups", "weight", "bias", "eps"), _group_norm),
    "batch_norm": (
        ("input", "running_mean", "running_var", "weight", "bias", "training", "momentum", "eps"),
        _batch_norm,
    ),
    "instance_norm": (
        ("input", "running_mean", "running_var", "weight", "bias", "use_input_stats", "momentum", "eps"),
        _instance_norm,
    ),
}
