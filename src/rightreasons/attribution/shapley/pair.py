"""A network run on images and on baselines, operator beside operator."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from rightreasons.attribution.operators import ACTIVATIONS, eagerly, words
from rightreasons.attribution.tape import Slot, Step, Tape, folded
from rightreasons.attribution.tape.names import RULED, SUMS
from rightreasons.core import BadModel, Classifier

ELEMENTWISE = ACTIVATIONS | words("abs cos erf exp log pow reciprocal rsqrt sin sqrt square")
"""Functions of one number each, of which the change of the output over that of the input is known."""

KNOWN = RULED | ELEMENTWISE | words("log_softmax __rdiv__")

Steps = Sequence[Step]


@dataclass(frozen=True, slots=True, eq=False)
class Ends:
    """One operator at both ends of the way from the baseline to the image.

    Attributes:
        step: The call, with as many rows as a multiplier has: the image's, or the baseline's where one image meets
            many of them.
        image: What came out for the image.
        baseline: What came out for the baseline; one row may stand for all.
        image_indices: Where the maxima of a max-pooling are.
        baseline_indices: Likewise.
    """

    step: Step
    image: Tensor
    baseline: Tensor
    image_indices: Tensor | None = None
    baseline_indices: Tensor | None = None

    @property
    def change(self) -> Tensor:
        """Image minus baseline."""
        return self.image - self.baseline

    @property
    def middle(self) -> Tensor:
        """The mean of both."""
        return (self.image + self.baseline) / 2

    def rows(self, value: Tensor) -> Tensor:
        """A value of one end with a row for each multiplier."""
        return value.expand_as(self.step.value)


def ran(model: Classifier, inputs: Tensor, *, graph: bool) -> list[Step]:
    """The operators of one pass; BatchNorm is folded into the layer ahead of it.

    Raises:
        BadModel: An operator is not known, or the logits do not hang on the image by operators that are.
    """
    # Without mixed precision, whose rounding a quotient of small differences does not bear.
    precise = torch.autocast(inputs.device.type, enabled=False)
    with torch.set_grad_enabled(graph), eagerly(model.network), precise:
        tape = Tape(inputs, graph=graph, known=KNOWN)
        with tape:
            logits = model(tape.start)
        place = tape.place(logits)
        if place is None:
            raise BadModel("the logits do not hang on the image by operators that could be followed")
        return folded(tape.finished(place))


@contextmanager
def same_noise(state: Sequence[Tensor], device: torch.device) -> Iterator[None]:
    """Let a pass draw the dropout masks that another one drew from this state of the generators."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.set_rng_state(state[0])
        if devices:
            torch.cuda.set_rng_state(state[1], device)
        yield


def noise_state(device: torch.device) -> list[Tensor]:
    """The state of the generators that a pass on this device draws from."""
    states = [torch.get_rng_state()]
    return [*states, torch.cuda.get_rng_state(device)] if device.type == "cuda" else states


def paired(many: Steps, alone: Callable[[int], Steps], *, alone_is_image: bool) -> list[Ends]:
    """The operators of two passes side by side.

    Args:
        many: A pass of several rows.
        alone: Runs the other end with so many rows. It is asked for one row first, which stands for all where the
            values go together, and for all rows where a network folds the batch into another dimension or drops
            other units for other rows.
        alone_is_image: The other end is the image.

    Raises:
        BadModel: The network does not take the same way for the image and for the baseline.
    """
    rows = len(many[0].value)
    for count in dict.fromkeys((1, rows)):
        other = alone(count)
        obstacle = _mismatch(many, other)
        if obstacle is None:
            return [_ends(step, beside, alone_is_image) for step, beside in zip(many, other, strict=True)]
    raise BadModel(
        f"the network compares values of the image and takes another way for it than for the baseline ({obstacle}), so "
        "that differences of the two are not defined; write the comparison as relu, clamp or maximum"
    )


def _ends(step: Step, beside: Step, swapped: bool) -> Ends:
    image, baseline = (beside, step) if swapped else (step, beside)
    return Ends(step, image.value, baseline.value, image.indices, baseline.indices)


def _mismatch(many: Steps, other: Steps) -> str | None:
    """In which operator two passes are not the same, but for the number of rows."""
    if len(many) != len(other):
        return f"{len(many)} operators and {len(other)}"
    for step, beside in zip(many, other, strict=True):
        same = step.operator == beside.operator and step.parents == beside.parents and step.pick == beside.pick
        if not (same and _broadcast(step.value, beside.value)):
            return step.operator
        if not (_alike(step, step.args, beside.args) and _alike(step, step.kwargs, beside.kwargs)):
            return step.operator
    return None


def _broadcast(value: Tensor, beside: Tensor) -> bool:
    if value.ndim != beside.ndim:
        return False
    return all(b in (a, 1) for a, b in zip(value.shape, beside.shape, strict=True))


def _alike(step: Step, one: Any, other: Any) -> bool:
    """Whether the constants of two calls are the same."""
    if isinstance(one, Tensor) and isinstance(other, Tensor):
        return _same_values(one, other)
    if isinstance(one, tuple | list) and isinstance(other, tuple | list):
        return len(one) == len(other) and all(_alike(step, a, b) for a, b in zip(one, other, strict=True))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(step, one[key], other[key]) for key in one)
    if isinstance(one, Slot) or isinstance(other, Slot):
        return bool(one == other)
    if isinstance(one, float) or (isinstance(one, int) and step.operator in SUMS | ELEMENTWISE):
        return bool(one == other)
    return True


def _same_values(one: Tensor, other: Tensor) -> bool:
    if one is other or (one.data_ptr() == other.data_ptr() and one.shape == other.shape):
        return True
    if not _broadcast(one, other):
        return False
    return bool((one == other).all())
