"""The way back along the tape."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rightreasons.attribution.lrp.composites import Composite
from rightreasons.attribution.lrp.conservation import Ledger
from rightreasons.attribution.lrp.message import Message
from rightreasons.attribution.lrp.passing import passed
from rightreasons.attribution.lrp.rules import Layer, Rule, ZBox
from rightreasons.attribution.operators import ACTIVATIONS
from rightreasons.attribution.tape.canonize import folded
from rightreasons.attribution.tape.names import MAXIMA, MOVES, SUMS
from rightreasons.attribution.tape.step import Step
from rightreasons.core import BadModel

_BATCHLESS = SUMS | {"flatten", "to", "float", "double", "pad"}
"""Operators whose call names no number of images."""


@dataclass(frozen=True)
class Choice:
    """The rule of each operator: by layer name where one is given, else by the composite."""

    composite: Composite
    layers: Mapping[str, Rule]

    def of(self, step: Step, *, first: bool) -> Rule:
        """The rule of this use of an operator."""
        if step.linear is None:
            raise RuntimeError("no rule is about an operator without a weight")
        if step.layer is not None and step.layer in self.layers:
            return self.layers[step.layer]
        return self.composite.rule(step.linear.map.kind, first=first)


def swept(steps: list[Step], choice: Choice, target: Tensor, *, ledger: Ledger | None = None) -> Tensor:
    """The relevance of the image, from the logit of the target; ``steps`` is used up.

    Raises:
        BadModel: An operator has no rule as it is used, or a layer with a rule of its own has no weight.
    """
    steps = folded(steps)
    used = {step.layer for step in steps if step.linear is not None}
    unused = [name for name in choice.layers if name not in used]
    if unused:
        raise BadModel(f"layer {unused[0]!r} runs no operator with a weight, so no rule can be set for it")
    logits = steps[-1].value
    one = torch.zeros_like(logits).scatter(1, target[:, None], 1.0)
    messages: dict[int, Message] = {len(steps) - 1: Message(gradient=one)}
    while len(steps) > 1:
        message = messages.pop(len(steps) - 1, None)
        step = steps.pop()  # what lies behind is needed no more
        if message is None:
            continue
        handed = _handed(step, steps, message, choice, ledger=ledger)
        for place, part in zip(step.parents, handed, strict=True):
            messages[place] = messages[place].joined(part, steps[place].value) if place in messages else part
    if 0 not in messages:
        raise BadModel("the logits do not hang on the image by operators that could be followed")
    return messages[0].of(steps[0].value)


def _handed(
    step: Step, steps: Sequence[Step], message: Message, choice: Choice, *, ledger: Ledger | None
) -> list[Message]:
    """What one operator hands on to its parents."""
    parents = [steps[p] for p in step.parents]
    taken: list[Tensor] | None = [] if ledger is not None else None
    if step.linear is not None:
        rule = choice.of(step, first=parents[0].raw)
        handed = [rule(_layer(step, steps, rule), message, taken)]
    else:
        handed = passed(step, parents, message)
    if ledger is not None:
        promises = step.linear is not None or _conserves(step)
        total = torch.stack([t.double() for t in taken]).sum() if taken else torch.zeros(())
        values = [_amount(m, p.value) for m, p in zip(handed, parents, strict=True)]
        ledger.enter(step.operator, _amount(message, step.value), values, total if promises else None)
    return handed


def _amount(message: Message, value: Tensor) -> Tensor:
    """R for the account; a score that a mask has made minus infinity has none."""
    if message.gradient is None:
        return message.of(value)
    return message.of(value.masked_fill(value.isinf() & (message.gradient == 0), 0.0))


def _conserves(step: Step) -> bool:
    """Nothing is taken at an operator without a weight, a constant beside it or a softmax inside."""
    if step.operator in ACTIVATIONS | MAXIMA:
        return True
    return step.operator in MOVES - {"cat", "stack", "hstack", "vstack", "where", "masked_fill", "pad"}


def _layer(step: Step, steps: Sequence[Step], rule: Rule) -> Layer:
    if step.linear is None:
        raise RuntimeError("an operator without a weight")
    parent = steps[step.parents[0]]
    low = high = None
    if isinstance(rule, ZBox):
        if not parent.raw:
            raise BadModel(
                "the z_box rule is for a layer that reads the image, whose bounds it knows; choose another rule for "
                f"layer {step.layer!r}"
            )
        low, high = (_bound(steps, step.parents[0], value) for value in (rule.low, rule.high))
    return Layer(
        step.linear.map,
        parent.value,
        step.linear.weight,
        step.linear.bias,
        step.value,
        nonnegative=parent.nonnegative or (parent.raw and bool((parent.value >= 0).all())),
        low=low,
        high=high,
    )


def _bound(steps: Sequence[Step], place: int, value: float) -> Tensor:
    """What an image of this one value becomes on its way to the layer; one image stands for all where that is safe."""
    way = [place]
    while steps[way[-1]].parents:
        way.append(steps[way[-1]].parents[0])
    image = steps[way.pop()].value
    safe = all(steps[p].operator in _BATCHLESS for p in way)
    made = torch.full_like(image[:1] if safe else image, value)
    for number in reversed(way):
        made = steps[number].again(made)
    return made
