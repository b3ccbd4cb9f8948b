"""The RevealCancel rule: what pushes a value up and what pulls it down go through a function apart from each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rightreasons.attribution.operators import ACTIVATIONS
from rightreasons.attribution.shapley.elementwise import quotient
from rightreasons.attribution.shapley.pair import Ends
from rightreasons.attribution.shapley.rescale import handed, only, transposed
from rightreasons.attribution.tape import Step, Weighted
from rightreasons.attribution.tape.names import AVERAGES, MOVES

KEEPING = MOVES | AVERAGES
"""Operators whose inputs all push in the direction in which they change."""


@dataclass(frozen=True, slots=True, eq=False)
class Parts:
    """A value for what pushes up and one for what pulls down."""

    up: Tensor
    down: Tensor

    def __add__(self, other: Parts) -> Parts:
        return Parts(self.up + other.up, self.down + other.down)


def swept_in_parts(ends: list[Ends], slopes: Tensor) -> Tensor:
    """The multipliers of the image, (classes, rows, C, H, W), from those of the logits; ``ends`` is used up.

    A layer's change is parted into its positive and its negative contributions, and each part is handed through the
    activation behind it on its own. Sums, means and moves keep the parts; behind any other operator (a maximum, a
    product, a root) the whole change counts as up or as down by its sign, and the operator has the rule of ``rescale``.

    Source: Shrikumar et al. 2017, arXiv:1704.02685, sections 3.4, 3.5.1 and 3.5.3.

    Raises:
        BadModel: An operator is used in a way that no rule is known for.
    """
    changes = _changes(ends)
    messages = {len(ends) - 1: Parts(slopes, slopes)}
    while len(ends) > 1:
        message = messages.pop(len(ends) - 1, None)
        here, change = ends.pop(), changes.pop()
        if message is None:
            continue
        places = here.step.parents
        backs = _handed(here, [ends[p] for p in places], message, change, [changes[p] for p in places])
        for place, part in zip(places, backs, strict=True):
            messages[place] = messages[place] + part if place in messages else part
    return _whole(messages[0], changes[0].up + changes[0].down)


def _changes(ends: list[Ends]) -> list[Parts]:
    """The parts of each value's change."""
    changes: list[Parts] = []
    for here in ends:
        parents = [ends[p] for p in here.step.parents]
        before = [changes[p] for p in here.step.parents]
        if here.step.linear is not None:
            changes.append(_contributions(here.step.linear, parents[0]))
        elif here.step.operator in ACTIVATIONS:
            changes.append(_through_function(here.step, only(here, parents), before[0]))
        elif _keeps(here):
            zeros = [torch.zeros_like(b.up) for b in before]
            constant = here.step.again(*zeros)
            up, down = (
                here.step.again(*part) - constant for part in ([b.up for b in before], [b.down for b in before])
            )
            changes.append(Parts(up, down))
        else:
            changes.append(_by_sign(here.rows(here.change)))
    return changes


def _keeps(here: Ends) -> bool:
    plain = here.step.operator == "add" and not here.step.kwargs
    return here.step.operator in KEEPING or plain


def _by_sign(change: Tensor) -> Parts:
    return Parts(change.clamp(min=0), change.clamp(max=0))


def _contributions(linear: Weighted, parent: Ends) -> Parts:
    """The sums of the positive and of the negative contributions to a layer's output."""
    rising = _by_sign(parent.rows(parent.change))
    weight = _by_sign(linear.weight)
    return Parts(
        linear.map(rising.up, weight.up) + linear.map(rising.down, weight.down),
        linear.map(rising.up, weight.down) + linear.map(rising.down, weight.up),
    )


def _through_function(step: Step, parent: Ends, change: Parts) -> Parts:
    """The mean effect of one part alone and after the other: the Shapley values of the two."""
    start = parent.rows(parent.baseline)
    low, up, down, both = (
        step.again(start + way) for way in (torch.zeros_like(start), change.up, change.down, change.up + change.down)
    )
    return Parts(((up - low) + (both - down)) / 2, ((down - low) + (both - up)) / 2)


def _handed(here: Ends, parents: list[Ends], message: Parts, change: Parts, before: list[Parts]) -> list[Parts]:
    step = here.step
    if step.linear is not None:
        return [_through_layer(step.linear, parents[0], message)]
    if step.operator in ACTIVATIONS:
        return [_function_ratios(step, parents[0], message, before[0])]
    if _keeps(here):
        ups, downs = (handed(here, parents, part) for part in (message.up, message.down))
        return [Parts(up, down) for up, down in zip(ups, downs, strict=True)]
    slopes = handed(here, parents, _whole(message, change.up + change.down))
    return [Parts(slope, slope) for slope in slopes]


def _whole(message: Parts, change: Tensor) -> Tensor:
    """The multiplier of a change that is all up or all down; the mean of both where nothing changes."""
    mean = (message.up + message.down) / 2
    return torch.where(change > 0, message.up, torch.where(change < 0, message.down, mean))


def _through_layer(linear: Weighted, parent: Ends, message: Parts) -> Parts:
    """A positive contribution has the multiplier of the output's upper part, a negative one that of its lower part."""
    weight, inputs = _by_sign(linear.weight), parent.step.value
    rising = transposed(linear, weight.up, inputs, message.up) + transposed(linear, weight.down, inputs, message.down)
    falling = transposed(linear, weight.up, inputs, message.down) + transposed(linear, weight.down, inputs, message.up)
    slopes = _whole(Parts(rising, falling), parent.change)
    return Parts(slopes, slopes)


def _function_ratios(step: Step, parent: Ends, message: Parts, change: Parts) -> Parts:
    """Each part's effect over that part."""
    start = parent.rows(parent.baseline)
    return Parts(
        message.up * _ratio(step, start, change.up, change.down),
        message.down * _ratio(step, start, change.down, change.up),
    )


def _ratio(step: Step, start: Tensor, part: Tensor, other: Tensor) -> Tensor:
    quotients = []
    for low in (start, start + other):
        quotients.append(quotient(step, step.again(low + part), step.again(low), low + part, low))
    return (quotients[0] + quotients[1]) / 2
