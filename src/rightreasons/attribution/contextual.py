"""Contextual decomposition: the logits as what some pixels bring to them and the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.forward import Forward
from rightreasons.attribution.operators import ACTIVATIONS, eagerly
from rightreasons.attribution.tape import Step, Tape, watching
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
        with torch.autocast(mask.device.type, enabled=False):
            return self._part(mask.to(self.steps[0].value.dtype))

    def _part(self, mask: Tensor) -> Tensor:
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
    run = partial(_recorded, model, graph=graph)
    with torch.set_grad_enabled(graph), eagerly(model.network), torch.autocast(inputs.device.type, enabled=False):
        return Forward(model).in_layout(run, inputs)


def _recorded(model: Classifier, inputs: Tensor, *, graph: bool) -> list[Step]:
    tape = Tape(inputs, graph=graph, constant_masks=False)
    # Layers are watched for their names alone, which errors tell.
    layers = [name for name, module in model.network.named_modules() if name and not any(module.children())]
    with watching(model.network, tape, layers), tape:
        logits = model(tape.start)
    place = tape.place(logits)
    if place is None:
        raise BadModel("the logits do not hang on the image by operators that could be followed")
    return tape.finished(place)


_IN_CACHE = 2**16
"""Numbers of a tensor that a formula of several operations takes at a time: a quarter of a megabyte."""

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
    raise BadModel(
        f"contextual decomposition has no rule for the operator {named(step, how)}: it covers convolutions, dense "
        "layers, activations such as ReLU, pooling, BatchNorm and residual sums; take a loss on a gradient, such as "
        "RRR, for this network"
    )


def named(step: Step, how: str | None = None) -> str:
    """The operator, how it is used, and the layer it runs in, for an error."""
    parts = (repr(step.operator), how, None if step.layer is None else f"in layer {step.layer!r}")
    return " ".join(part for part in parts if part is not None)


def _share(step: Step, mask: Tensor) -> Tensor:
    """How much of each value of the image, moved, averaged and scaled, lies in the mask."""
    if not step.parents or step.operator in SUMS:
        return mask.expand_as(step.value)
    moved = step.again(mask)
    return moved / step.again(torch.ones_like(mask)) if step.operator in AVERAGES else moved


def _of_pixels(step: Step, given: Sequence[Tensor], share: Tensor) -> Tensor:
    """Ahead of every layer a pixel's value is its own, whatever constants standardize it."""
    if not given:
        # Its place in memory decides how fast all that follows is.
        return torch.empty_like(step.value).copy_(share * step.value)
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


class _BiasShared(torch.autograd.Function):
    """:func:`_with_bias`, a few images at a time on both ways: ten numbers of each place never leave the cache."""

    @staticmethod
    def forward(ctx: Any, part: Tensor, bias: Tensor, whole: Tensor) -> Tensor:
        ctx.save_for_backward(part, bias, whole)
        made = torch.empty_like(part)
        for p, w, out in zip(*_few_images(part, whole, made), strict=True):
            share = _shares(p, bias, w)[0]
            torch.addcmul(p, share, bias, out=out)
        return made

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        part, bias, whole = ctx.saved_tensors
        if torch.is_grad_enabled():  # for a derivative of the derivative
            given = (part, bias, whole)
            of_part, of_bias, of_whole = torch.autograd.grad(_with_bias(*given), given, slopes, create_graph=True)
            return of_part, of_bias, of_whole
        of_part, of_whole, of_bias = torch.empty_like(part), torch.empty_like(whole), torch.zeros_like(bias)
        for p, w, g, to_p, to_w in zip(*_few_images(part, whole, slopes[0], of_part, of_whole), strict=True):
            share, total, rest = _shares(p, bias, w)
            total.clamp_min_(torch.finfo(total.dtype).tiny)
            each = g * bias
            # Signs first: where part and rest are zero they are, too, and the quotient does not overflow.
            from_rest = rest.sgn_().mul_(share).div_(total).mul_(each)
            torch.neg(from_rest, out=to_w)
            of_bias += torch.addcmul(from_rest, g, share).sum_to_size(bias.shape)
            torch.add(g, from_rest.addcmul_(p.sgn().mul_(share.neg_().add_(1)).div_(total), each), out=to_p)
        return of_part, of_bias, of_whole


def _shares(part: Tensor, bias: Tensor, whole: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The part's share, the size of part and rest together, and the rest."""
    rest = (whole - bias).sub_(part)
    size = part.abs()
    total = rest.abs().add_(size)
    return size.div_(total).nan_to_num_(nan=0.5), total, rest


def _few_images(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    numbers = _IN_CACHE if tensors[0].device.type == "cpu" else tensors[0].numel()
    count = max(1, numbers // max(1, tensors[0][:1].numel()))
    return [torch.split(tensor, count) for tensor in tensors]


def _linear(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    linear = step.linear
    if linear is None:
        raise RuntimeError("an operator without a weight")
    part = linear.map(parts[0], linear.weight)
    if linear.bias is None:
        return part
    return _BiasShared.apply(part, linear.map.along_channels(linear.bias), step.value)  # type: ignore[no-any-return, no-untyped-call]


def _activation(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    """What the part alone makes of it, over what nothing makes of it; for ReLU the paper's rule."""
    nothing = step.again(torch.zeros_like(parts[0][:1]))
    return step.again(parts[0]) - nothing if bool((nothing != 0).any()) else step.again(parts[0])


def _max_pool2d(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    if step.indices is None:
        raise RuntimeError("a max-pooling that was not written down")
    part, places = parts[0].flatten(-2), step.indices.flatten(-2)
    if part.ndim == 3 and part.stride(1) == 1:  # channels last in memory, and so they stay
        return part.mT.gather(-2, places.mT).mT.view_as(step.value)
    return part.gather(-1, places).view_as(step.value)


def _batch_norm(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    """In training mode with the statistics of the batch, as the pass had them."""
    values = parents[0].value
    form = (-1, *(1,) * (values.ndim - 2))
    scale, shift = (part.view(form) for part in affine(step, values))
    return _BiasShared.apply(parts[0] * scale, shift, step.value)  # type: ignore[no-any-return, no-untyped-call]


def _affine(step: Step, parents: Sequence[Step], parts: Sequence[Tensor]) -> Tensor:
    """A sum or a move; what it makes of zeros is its bias."""
    bias = step.again(*map(torch.zeros_like, parts))
    part = step.again(*parts) - bias
    return _with_bias(part, bias, step.value) if bool((bias != 0).any()) else part


_RULES: Mapping[str, Rule] = dict.fromkeys(ACTIVATIONS, _activation) | {
    "max_pool2d": _max_pool2d,
    "batch_norm": _batch_norm,
}
