"""One operator call of a pass, and what can be told of it by its arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from rightreasons.attribution.tape.linear_map import WEIGHTED, LinearMap, Weighted, weighted
from rightreasons.attribution.tape.names import AVERAGES, MAXIMA, MOVES, SUMS


@dataclass(frozen=True, slots=True)
class Slot:
    """The place of a tensor of the pass among the arguments of a call."""

    number: int


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One operator call: how to repeat it, and what came out.

    Attributes:
        operator: Its name.
        value: What came out.
        call, args, kwargs: The call, with a :class:`Slot` for each tensor that hangs on the image.
        parents: Numbers of the steps that made those tensors.
        pick: Which of several outputs this is.
        linear: The operator's weight, where it has one.
        indices: Where the maxima of a max-pooling are.
        layer: The innermost of the watched layers it runs in.
        raw: It is the image, or the image moved, averaged and scaled by constants, with none in places of their own.
        nonnegative: No value can be below zero.
        gate: It is a sigmoid, or a part of one.
    """

    operator: str
    value: Tensor
    call: Callable[..., Any] = torch.clone
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    parents: tuple[int, ...] = ()
    pick: int | None = None
    linear: Weighted | None = None
    indices: Tensor | None = None
    layer: str | None = None
    raw: bool = False
    nonnegative: bool = False
    gate: bool = False

    def again(self, *values: Tensor) -> Tensor:
        """The operator on other tensors."""
        output = self.whole(*values)
        return output if self.pick is None else output[self.pick]  # type: ignore[no-any-return]

    def whole(self, *values: Tensor) -> Any:
        """Whatever the call returns on other tensors."""
        return self.call(*filled(self.args, values), **filled(self.kwargs, values))


def linear_weight(step: Step) -> Weighted | None:
    """The step's weight, where it has one that does not hang on the image."""
    if len(step.parents) != 1:
        return None
    if step.operator in WEIGHTED and isinstance(step.args[0] if step.args else step.kwargs.get("input"), Slot):
        return weighted(step.operator, step.args, step.kwargs)
    if step.operator == "matmul" and len(step.args) == 2 and isinstance(step.args[1], Tensor):
        weight = step.args[1]
        return Weighted(LinearMap("dense"), weight.t(), None) if weight.ndim == 2 else None
    return None


def keeps_sign(step: Step) -> bool:
    """Nothing below zero comes of values that are not below zero."""
    if step.operator == "add":
        return len(step.parents) == 2 and not step.kwargs
    if step.operator not in MOVES | AVERAGES | MAXIMA or step.operator == "interpolate":
        return False
    return not has_constants(step)


def keeps_pixels(step: Step) -> bool:
    """What comes of the image is still pixels, each with the same constants as the others."""
    linear = step.operator in MOVES | AVERAGES | SUMS and misuse(step) is None
    return linear and len(step.parents) == 1 and not has_constants(step)


def misuse(step: Step) -> str | None:
    """How a ``div`` is not a multiple, or a ``dropout`` is not a move of values; ``None`` where it is."""
    if step.operator == "div" and step.kwargs.get("rounding_mode") is not None:
        return "that rounds"
    if step.operator == "div" and len(step.parents) == 1 and not isinstance(_first(step), Slot):
        return "by values of the image"
    if step.operator in ("alpha_dropout", "feature_alpha_dropout") and is_training(step):
        return "in training mode"
    return None


def _first(step: Step) -> Any:
    return step.args[0] if step.args else step.kwargs.get("input")


def has_constants(step: Step) -> bool:
    """Values from elsewhere may stand beside those of the pass."""
    if step.operator not in ("pad", "masked_fill", "where", "cat", "stack", "hstack", "vstack"):
        return False
    if step.operator == "pad":
        return bool(step.args[3] if len(step.args) > 3 else step.kwargs.get("value"))
    if step.operator in ("masked_fill", "where"):
        return True
    parts = step.args[0] if step.args else step.kwargs.get("tensors", ())
    return not all(isinstance(part, Slot) for part in parts)


def is_training(step: Step) -> bool:
    """A dropout that drops."""
    positional = step.args[2] if len(step.args) > 2 else True
    return bool(step.kwargs.get("training", step.kwargs.get("train", positional)))


def filled(value: Any, values: Sequence[Tensor]) -> Any:
    """Arguments with these tensors in their slots."""
    if isinstance(value, Slot):
        return values[value.number]
    if type(value) in (tuple, list):
        return type(value)(filled(v, values) for v in value)
    if type(value) is dict:
        return {k: filled(v, values) for k, v in value.items()}
    return value
