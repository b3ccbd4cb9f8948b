"""Which operator a torch call is: the same name for a function, a method, a module and an in-place form."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rightreasons.core import BadModel


def words(text: str) -> frozenset[str]:
    """The words of a text."""
    return frozenset(text.split())


RECTIFIERS = words("relu relu6 leaky_relu prelu rrelu elu selu celu gelu silu mish softplus hardswish threshold")
"""ReLU and its relatives."""

ACTIVATIONS = RECTIFIERS | words(
    """softsign tanh tanhshrink sigmoid logsigmoid hardtanh hardsigmoid hardshrink softshrink clamp clamp_min
    clamp_max"""
)
"""Functions of one number each."""

_SAME = {
    "__getitem__": "getitem",
    "__rsub__": "rsub",
    "subtract": "sub",
    "multiply": "mul",
    "divide": "div",
    "true_divide": "div",
    "negative": "neg",
    "clip": "clamp",
    "concat": "cat",
    "concatenate": "cat",
    "mm": "matmul",
    "bmm": "matmul",
    "_softmax": "softmax",
}


_CLAMPS: dict[str, tuple[tuple[str, float | None], ...]] = {
    "clamp": (("min", None), ("max", None)),
    "clamp_min": (("min", None), ("max", None)),
    "hardtanh": (("min_val", -1.0), ("max_val", 1.0)),
}
"""Where their lower and upper bounds stand among the arguments."""


def operator_of(function: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[str, bool]:
    """The operator's name, and whether the call changes its first argument in place.

    A clamp at zero from below alone is a ReLU; one from zero to a number is a ReLU6, as ``nn.ReLU6`` itself, which
    torch runs as a hard tanh.
    """
    name, in_place = _named(function, kwargs)
    if name not in _CLAMPS:
        return name, in_place
    low, high = (
        kwargs.get(key, args[at] if len(args) > at else default)
        for at, (key, default) in enumerate(_CLAMPS[name], start=1)
    )
    if not isinstance(low, int | float) or low != 0:
        return name, in_place
    return "relu" if high is None else "relu6" if isinstance(high, int | float) else name, in_place


def _named(function: Callable[..., Any], kwargs: Mapping[str, Any]) -> tuple[str, bool]:
    name = getattr(function, "__name__", repr(function))
    if name in ("__get__", "__set__"):
        owner = getattr(function, "__self__", function)
        attribute = getattr(owner, "__name__", repr(owner))
        return (attribute, False) if name == "__get__" else (f"{attribute}_", True)
    if name.startswith("__i") and name.endswith("__") and hasattr(Tensor, name[3:-2]):
        return _SAME.get(name[3:-2], name[3:-2]), True
    in_place = bool(kwargs.get("inplace")) or name == "__setitem__"
    if name.endswith("_") and not name.endswith("__"):
        name, in_place = name[:-1], True
    return _SAME.get(name, name), in_place


def out_of_place(
    function: Callable[..., Any], kwargs: Mapping[str, Any]
) -> tuple[Callable[..., Any], dict[str, Any]] | None:
    """The same call without its effect on its argument, or ``None`` where torch has no such form."""
    kwargs = dict(kwargs)
    if kwargs.get("inplace"):
        return function, {**kwargs, "inplace": False}
    name = getattr(function, "__name__", "")
    name = name[3:-2] if name.startswith("__i") and name.endswith("__") else name.removesuffix("_")
    for home in (Tensor, torch, F):
        if callable(getattr(home, name, None)) and name != getattr(function, "__name__", ""):
            return getattr(home, name), kwargs
    return None


@contextmanager
def eagerly(network: nn.Module) -> Iterator[None]:
    """Let compiled parts run as they were written, so that their operators can be seen.

    Raises:
        BadModel: A part is TorchScript, whose operators cannot be seen.
    """
    modules = list(network.modules())
    if any(isinstance(m, torch.jit.ScriptModule) for m in modules):
        raise BadModel("the operators of a TorchScript module cannot be seen; take the network it was made from")
    compiled = any(hasattr(m, "_orig_mod") or m._compiled_call_impl is not None for m in modules)
    with torch.compiler.set_stance("force_eager") if compiled else nullcontext():
        yield
