"""Contextual decomposition: the logits as what some pixels bring to them and the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.operators import ACTIVATIONS, eagerly
from rightreasons.attribution.tape import Step, Tape
from rightreasons.attribution.tape.canonize import affine
from rightreasons.attribution.tape.names import AVERAGES, MOVES, SUMS
from rightreasons.attribution.tape.step import misuse
from rightreasons.core import BadModel, Classifier


@dataclass(frozen=True, eq=False)
class Decomposition:
    """One pass over some images, of which any pixels' part can be told.

    Attributes:
        steps: The operators that ran, the logits last.
    """

    steps: Sequence[Step]

    @property
    def logits(self) -> Float[Tensor, "batch classes"]:
        """The logits."""
        return self.steps[-1].value

    def part(self, mask: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch classes"]:
        """What the pixels of the mask bring to the logits; the rest of the logits is what all else brings.

        Linear operators pass a part on, and a bias is shared out in proportion to the size of part and rest; the part
        behind a ReLU is the ReLU of the part (behind another activation f it is f(part) - f(0), which the paper does
        not define); max-pooling takes the part from where the maxima of the whole are.

        Source: Singh et al. 2019, arXiv:1806.05337, section 3.1 (agglomerative contextual decomposition), as Rieger et
        al. 2020, arXiv:1909.13584, train through it.

        Raises:
            BadModel: An operator has no rule.
        """
        parts: list[Tensor] = []
        shares: dict[int, Tensor] = {}
        for number, step in enumerate(self.steps):
            given = [parts[p] for p in step.parents]
            if not step.raw:
                parts.append(_rule(step)(step, [self.steps[p] for p in step.parents], given))
                continue
            shares[number] = _share(step, shares[step.parents[0]] if step.parents else mask)
            parts.append(_of_pixels(step, given, shares[number]))
        return parts[-1]


def decompose(model: Classifier, inputs: Float[Tensor, "batch channels height width"], *, graph: bool) -> Decomposition:
    """Run the model once, operator by operator.

    Raises:
        BadModel: An operator cannot be followed.
    """
    return Decomposition(recorded_steps(model, inputs, graph=graph))


def recorded_steps(
    model: Classifier, inputs: Float[Tensor, "batch channels height width"], *, graph: bool
) -> list[Step]:
    """The operators of one pass in full precision, the logits last.

    Raises:
        BadModel: An operator cannot be followed, or the network compares values of the image.
    """
    with torch.set_grad_enabled(graph), eagerly(model.network), torch.autocast(inputs.device.type, enabled=False):
        tape = Tape(inputs, graph=graph, constant_masks=False)
        with tape:
            logits = model(tape.start)
        place = tape.place(logits)
        if place is None:
            raise BadModel("the logits do not hang on the image by operators that could be followed")
        return tape.finished(place)


Rule = Callable[[Step, Sequence[Step], Sequence[Tensor]], Tensor]


def _rule(step: Step) -> Rule:
    if step.linear is not None:
        return _linear
    if step.operator in _RULES:
        return _RULES[step.operator]
    sums_only = step.operator in SUMS and (step.operator not in ("mul", "div") or len(step.parents) == 1)
    how = misuse(step)
    if how is None and (sums_only or step.operator in MOVES | AVERAGES):
        return _affine
    used = repr(step.operator) if how is None else f"{step.operator!r} {how}"
    raise BadModel(
        f"contextual decomposition has no rule for the operator {used}: it covers convolutions, dense "
        "layers, activations such as ReLU, pooling, BatchNorm and residual sums; take a loss on a gradient, such as "
        "RRR, for this network"
    )


def _share(step: Step, mask: Tensor) -> Tensor:
    """How much of each value of the image, moved, averaged and scaled, lies in the mask."""
    if not step.parents or step.operator in SUMS:
        return mask.expand_as(step.value)
    moved = step.again(mask)
    return moved / step.again(torch.ones_like(mask)) if step.operator in AVERAGES else moved


def _of_pixels(step: Step, given: Sequence[Tensor], share: Tensor) -> Tensor:
    """Ahead of every layer a pixel's value is its own, whatever constants standardize it."""
    if not given:
        return share * step.value
    if step.operator not in SUMS:
        return step.again(*given)
    constant = step.again(torch.zeros_like(given[0]))
    return step.again(*given) - constant + share * constant


def _with_bias(part: Tensor, bias: Tensor, whole: Tensor) -> Tensor:
    """The part and its share of a bias, in proportion to the size of part and rest; half where both are zero."""
    size, rest = part.abs(), (whole - bias - part).abs()
    total = size + rest
    share = torch.where(total > 0, size / torch.where(total > 0, total, 1.0), 0.5)
    return part + share * bias


def _linear(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    linear = step.linear
    if linear is None:
        raise RuntimeError("an operator without a weight")
    part = linear.map(parts[0], linear.weight)
    return part if linear.bias is None else _with_bias(part, linear.map.along_channels(linear.bias), step.value)


def _activation(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    """What the part alone makes of it, over what nothing makes of it; for ReLU the paper's rule."""
    return step.again(parts[0]) - step.again(torch.zeros_like(parts[0]))


def _max_pool2d(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    if step.indices is None:
        raise RuntimeError("a max-pooling that was not written down")
    return parts[0].flatten(-2).gather(-1, step.indices.flatten(-2)).view_as(step.value)


def _batch_norm(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    """In training mode with the statistics of the batch, as the pass had them."""
    values = parents[0].value
    form = (-1, *(1,) * (values.ndim - 2))
    scale, shift = (part.view(form) for part in affine(step, values))
    return _with_bias(parts[0] * scale, shift, step.value)


def _affine(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    """A sum or a move; what it makes of zeros is its bias."""
    bias = step.again(*map(torch.zeros_like, parts))
    part = step.again(*parts) - bias
    return _with_bias(part, bias, step.value) if bool((bias != 0).any()) else part


_RULES: Mapping[str, Rule] = dict.fromkeys(ACTIVATIONS, _activation) | {
    "max_pool2d": _max_pool2d,
    "batch_norm": _batch_norm,
}
