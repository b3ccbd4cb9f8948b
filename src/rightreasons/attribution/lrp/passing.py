"""How relevance passes an operator that has no weight, or whose weight no rule is about."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from rightreasons.attribution.lrp.message import Message
from rightreasons.attribution.operators import ACTIVATIONS
from rightreasons.attribution.tape.calls import attention_scores, normalized, pulled, unpooled
from rightreasons.attribution.tape.names import AVERAGES, MAXIMA, MOVES, NORMALIZATIONS, PRODUCTS, SUMS
from rightreasons.attribution.tape.step import Step
from rightreasons.core import BadModel

STABILIZER = 1e-6
"""Where relevance in its second form has to be divided: see :class:`Message`."""


def passed(step: Step, parents: Sequence[Step], message: Message) -> list[Message]:
    """The relevance of the operator's inputs, one message a parent.

    Raises:
        BadModel: The operator is used in a way that no rule is known for.
    """
    operator = step.operator
    if operator in ACTIVATIONS:
        return [_activation(step, message)]
    if operator == "max_pool2d" and message.gradient is not None:
        return [_max_pool2d(step, parents[0], message)]
    if operator in MOVES or operator in MAXIMA:
        return _moved(step, parents, message)
    if operator in ("mul", "div") and len(parents) > 1:
        return _product(step, parents, message)
    if operator in SUMS or operator in AVERAGES:
        return _mixed(step, parents, message)
    if operator in PRODUCTS or step.linear is not None or operator not in _OTHERS:
        return _product(step, parents, message)
    return _OTHERS[operator](step, parents, message)


def _activation(step: Step, message: Message) -> Message:
    """Relevance passes a function of one number unchanged; for a ReLU that is its plain gradient.

    Source: Bach et al. 2015, section 2.5.
    """
    if step.operator == "relu" and message.gradient is not None:
        back = torch.ops.aten.threshold_backward.default
        return Message(gradient=back(message.gradient, step.value, 0), positive=True)
    return Message(relevance=message.of(step.value))


def _max_pool2d(step: Step, parent: Step, message: Message) -> Message:
    """The largest value takes all; where it was is known from the pass."""
    if step.indices is None or message.gradient is None:
        raise RuntimeError("a max-pooling that was not written down")
    gradient = unpooled(step, message.gradient, parent.value, step.indices)
    return Message(gradient=gradient, positive=message.positive)


def _moved(step: Step, parents: Sequence[Step], message: Message) -> list[Message]:
    """Values keep their relevance wherever they go."""
    if message.gradient is not None:
        gradients = pulled(step, [p.value for p in parents], message.gradient)
        return [Message(gradient=g, positive=message.positive) for g in gradients]
    return [Message(relevance=r) for r in pulled(step, [p.value for p in parents], message.of(step.value))]


def _mixed(step: Step, parents: Sequence[Step], message: Message) -> list[Message]:
    """A sum is split in proportion to what was added; a constant keeps its own part, as a bias does.

    Ahead of every layer, where images are standardized, a constant has no part: pixels keep their relevance whole.
    """
    if step.raw and step.operator in SUMS:
        relevance = message.of(step.value)
        return [Message(relevance=relevance if relevance.shape == parents[0].value.shape else _shrunk(step, relevance))]
    plain = step.operator == "add" and not step.kwargs and len(step.args) == 2
    slopes = message.over(step.value, STABILIZER)
    if plain and all(p.value.shape == step.value.shape for p in parents):
        return [Message(gradient=slopes) for _ in parents]
    return [Message(gradient=g) for g in pulled(step, [p.value for p in parents], slopes)]


def _shrunk(step: Step, relevance: Tensor) -> Tensor:
    raise BadModel(
        f"the operator {step.operator!r} gives an image another shape ahead of every layer, from "
        f"{tuple(relevance.shape)}; expand the image itself first"
    )


def _product(step: Step, parents: Sequence[Step], message: Message) -> list[Message]:
    """Factors share alike; a gate, which only says how much of the other passes, gets nothing.

    Source: for factors Achtibat et al. 2024 (AttnLRP), arXiv:2402.05602, Eqs. 13 and 14; for gates Arras et al. 2017,
    arXiv:1706.07206, section 3.2.
    """
    if (step.operator == "div" and len(parents) > 1) or (step.operator == "einsum" and len(parents) > 2):
        raise BadModel(f"relevance cannot be propagated through {step.operator!r} of what all hangs on the image")
    gates = [p.gate for p in parents]
    slopes = pulled(step, [p.value for p in parents], message.over(step.value, STABILIZER))
    if any(gates) and not all(gates):
        share = [0.0 if gate else 1.0 / (len(gates) - sum(gates)) for gate in gates]
    else:
        share = [1.0 / len(parents)] * len(parents)
    return [Message(gradient=part * g) for part, g in zip(share, slopes, strict=True)]


def _batch_norm(step: Step, parents: Sequence[Step], message: Message) -> list[Message]:
    """BatchNorm that stands behind no layer scales each number by itself: its relevance passes."""
    return [Message(relevance=message.of(step.value))]


def _softmax(step: Step, parents: Sequence[Step], message: Message) -> list[Message]:
    """R_in = x (R - p sum R).

    Source: Achtibat et al. 2024 (AttnLRP), arXiv:2402.05602, Proposition 3.1.
    """
    axis = step.kwargs.get("dim", step.args[1] if len(step.args) > 1 else None)
    if not isinstance(axis, int):
        raise BadModel("relevance cannot be propagated through a softmax without a dimension; name its dim")
    relevance = message.of(step.value)
    return [Message(gradient=relevance - step.value * relevance.sum(axis, keepdim=True))]


def _normalization(step: Step, parents: Sequence[Step], message: Message) -> list[Message]:
    """A normalization is linear once its spread is taken for a constant; a bias keeps its own part.

    Source: Achtibat et al. 2024 (AttnLRP), arXiv:2402.05602, Proposition 3.4.
    """
    values = parents[0].value
    slopes = message.over(step.value, STABILIZER)
    centers = step.operator != "rms_norm"
    axes, groups, weight, eps = normalized(step, values)
    grouped = values if groups is None else values.reshape(len(values), groups, -1)
    slopes = slopes if weight is None else slopes * weight
    slopes = slopes.reshape_as(grouped)
    middle = grouped.mean(axes, keepdim=True) if centers else grouped.new_zeros(())
    spread = ((grouped - middle).square().mean(axes, keepdim=True) + eps).sqrt()
    slopes = slopes / spread
    if centers:
        slopes = slopes - slopes.mean(axes, keepdim=True)
    return [Message(gradient=slopes.reshape_as(values))]


def _attention(step: Step, parents: Sequence[Step], message: Message) -> list[Message]:
    """Both products share alike, the softmax in between by its own rule.

    Source: Achtibat et al. 2024 (AttnLRP), arXiv:2402.05602, section 3.3.
    """
    query, key, value = (p.value for p in parents)
    scores, scale, nowhere = attention_scores(step, query, key)
    weights = scores.softmax(-1)
    slopes = message.over(step.value, STABILIZER) / 2
    slopes = slopes if nowhere is None else slopes.masked_fill(nowhere, 0.0)
    relevance = weights * (slopes @ value.mT)
    inner = (relevance - weights * relevance.sum(-1, keepdim=True)) * (scale / 2)
    return [Message(gradient=g) for g in (inner @ key, inner.mT @ query, weights.mT @ slopes)]


_OTHERS = {
    "batch_norm": _batch_norm,
    "softmax": _softmax,
    "scaled_dot_product_attention": _attention,
} | dict.fromkeys(NORMALIZATIONS - {"batch_norm"}, _normalization)
