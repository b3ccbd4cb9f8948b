"""Multipliers, the change of the score over the change of a value, on their way back to the image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from torch import Tensor

from rightreasons.attribution.operators import ACTIVATIONS
from rightreasons.attribution.shapley import joint
from rightreasons.attribution.shapley.elementwise import change_ratio
from rightreasons.attribution.shapley.pair import ELEMENTWISE, Ends
from rightreasons.attribution.tape import Slot, Weighted
from rightreasons.attribution.tape.canonize import affine
from rightreasons.attribution.tape.names import MAXIMA, NORMALIZATIONS
from rightreasons.core import BadModel

Rule = Callable[[Ends, list[Ends], Tensor], list[Tensor]]
"""``rule(operator, its inputs, slopes) -> slopes of the inputs``; slopes are (classes, *the value's shape)."""

RESHAPED = frozenset({"flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze"})

_JOINT: Mapping[str, Rule] = {
    "div": joint.division,
    "__rdiv__": joint.division,
    "softmax": joint.softmax,
    "log_softmax": joint.softmax,
    "scaled_dot_product_attention": joint.attention,
} | dict.fromkeys(NORMALIZATIONS - {"batch_norm"}, joint.normalization)


def swept(ends: list[Ends], slopes: Tensor) -> Tensor:
    """The multipliers of the image, (classes, rows, C, H, W), from those of the logits; ``ends`` is used up.

    Raises:
        BadModel: An operator is used in a way that no rule is known for.
    """
    messages = {len(ends) - 1: slopes}
    readers = Counter(place for here in ends for place in here.step.parents)
    while len(ends) > 1:
        slopes_here = messages.pop(len(ends) - 1, None)
        here = ends.pop()  # what lies behind is needed no more
        if slopes_here is None:
            continue
        places, parents = here.step.parents, [ends[p] for p in here.step.parents]
        if readers[places[0]] == 1 and _pools_a_function(here, parents[0]):
            places = parents[0].step.parents
            parts = joint.max_pool2d(here, parents, slopes_here, function=ends[places[0]])
        else:
            parts = handed(here, parents, slopes_here)
        for place, part in zip(places, parts, strict=True):
            messages[place] = messages[place] + part if place in messages else part
    return messages[0]


def _pools_a_function(here: Ends, parent: Ends) -> bool:
    """A max-pooling of a function of one number, which then need not be followed where there is no maximum."""
    step = parent.step
    plain = step.operator in ACTIVATIONS and len(step.parents) == 1
    settings = (*step.args, *step.kwargs.values())
    return (
        here.step.operator == "max_pool2d"
        and here.step.value.ndim == 4
        and plain
        and not any(isinstance(setting, Tensor) for setting in settings)
    )


def handed(here: Ends, parents: list[Ends], slopes: Tensor) -> list[Tensor]:
    """The multipliers of an operator's inputs.

    Raises:
        BadModel: The operator is used in a way that no rule is known for.
    """
    step = here.step
    if step.linear is not None:
        return [_weighted(step.linear, parents[0], slopes)]
    if step.operator in ELEMENTWISE:
        parent = only(here, parents)
        return [slopes * change_ratio(step, here.image, here.baseline, parent.image, parent.baseline)]
    if step.operator == "max_pool2d" and step.value.ndim == 4:
        return joint.max_pool2d(here, parents, slopes)
    if step.operator in MAXIMA:
        return joint.maximum(here, parents, slopes)
    if step.operator == "batch_norm":
        scale, _ = affine(step)
        return [slopes * scale.view(-1, *(1,) * (step.value.ndim - 2))]
    if step.operator in _JOINT:
        if step.operator in NORMALIZATIONS:
            only(here, parents)
        return _JOINT[step.operator](here, parents, slopes)
    return _quadratic(here, parents, slopes)


def only(here: Ends, parents: list[Ends]) -> Ends:
    """The one input of an operator whose settings do not hang on the image.

    Raises:
        BadModel: There are several, or the image is in a setting.
    """
    step = here.step
    reads = step.args[0] if step.args else step.kwargs.get("input")
    if len(parents) > 1 or not isinstance(reads, Slot) or parents[0].step.value.shape != step.value.shape:
        raise BadModel(f"the way back through {step.operator!r} with a setting that hangs on the image is not known")
    return parents[0]


def _quadratic(here: Ends, parents: list[Ends], slopes: Tensor) -> list[Tensor]:
    """Sums, moves and products."""
    step = here.step
    if len(parents) == 1:
        if step.operator in RESHAPED:
            return [slopes.reshape(len(slopes), *parents[0].step.value.shape)]
        return joint.linear(here, parents, slopes)
    plain = step.operator == "add" and not step.kwargs and len(step.args) == 2
    if plain and all(p.step.value.shape == step.value.shape for p in parents):
        return [slopes for _ in parents]
    return joint.product(here, parents, slopes)


def _weighted(linear: Weighted, parent: Ends, slopes: Tensor) -> Tensor:
    """Back through a dense layer or a convolution."""
    return transposed(linear, linear.weight, parent.step.value, slopes)


def transposed(linear: Weighted, weight: Tensor, inputs: Tensor, slopes: Tensor) -> Tensor:
    """The transposed map with this weight; of ``inputs`` only the shape counts."""
    if linear.map.kind == "dense":
        return linear.map.back(slopes, weight, inputs)
    classes, rows = slopes.shape[:2]
    shaped = inputs if classes == 1 else inputs.new_empty((classes * rows, *inputs.shape[1:]))
    return linear.map.back(slopes.flatten(0, 1), weight, shaped).view(classes, *inputs.shape)
