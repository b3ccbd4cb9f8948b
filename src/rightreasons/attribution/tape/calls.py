"""What a written call computes: its Jacobian, and the settings of pooling, normalization and attention."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from rightreasons.attribution.attention import additive, causal, masked_scores
from rightreasons.attribution.tape.step import Step
from rightreasons.core import BadModel


def pulled(step: Step, values: Sequence[Tensor], slopes: Tensor, *, each: bool = False) -> list[Tensor]:
    """The operator's own backward at these inputs: ``slopes`` times its Jacobian, for each of them.

    With ``each`` the slopes are several, along a first dimension of their own.
    """
    graph = torch.is_grad_enabled()
    with torch.enable_grad():
        # An alias of a value on the graph keeps what the Jacobian owes to it.
        inputs = [v.view_as(v) if v.requires_grad else v.detach().requires_grad_() for v in values]
        output = step.again(*inputs)
    return list(torch.autograd.grad(output, inputs, slopes, create_graph=graph, is_grads_batched=each))


def unpooled(step: Step, slopes: Tensor, inputs: Tensor, indices: Tensor) -> Tensor:
    """The backward of a max-pooling whose maxima are at ``indices``; of ``inputs`` only the shape counts."""
    names = ("input", "kernel_size", "stride", "padding", "dilation", "ceil_mode")
    given = dict(zip(names, step.args, strict=False)) | step.kwargs
    size, padding, dilation = (pair(given.get(n, d)) for n, d in (("kernel_size", 1), ("padding", 0), ("dilation", 1)))
    stride = pair(given.get("stride") or size)
    back = torch.ops.aten.max_pool2d_with_indices_backward.default
    ceil = bool(given.get("ceil_mode", False))
    return back(slopes, inputs, size, stride, padding, dilation, ceil, indices)  # type: ignore[no-any-return]


def pair(setting: int | Sequence[int]) -> list[int]:
    """A setting of a pooling, for rows and for columns."""
    return [setting, setting] if isinstance(setting, int) else [*setting] * (1 if len(setting) == 2 else 2)


def normalized(step: Step, values: Tensor) -> tuple[tuple[int, ...], int | None, Tensor | None, float]:
    """Over which axes, in how many groups of channels, with which weight and which constant below the root."""
    names = "input over weight eps" if step.operator == "rms_norm" else "input over weight bias eps"
    given: dict[str, Any] = dict(zip(names.split(), step.args, strict=False)) | step.kwargs
    over = given.get("over") or given.get("normalized_shape") or given["num_groups"]
    weight, eps = given.get("weight"), given.get("eps")
    if step.operator == "group_norm":
        shaped = None if weight is None else weight.view(-1, *(1,) * (values.ndim - 2))
        return (2,), int(over), shaped, 1e-5 if eps is None else eps
    least = torch.finfo(values.dtype).eps if step.operator == "rms_norm" else 1e-5
    return tuple(range(-len(over), 0)), None, weight, least if eps is None else eps


def attention_scores(step: Step, query: Tensor, key: Tensor) -> tuple[Tensor, float, Tensor | None]:
    """What the softmax of an attention reads, masked, and the factor on the products in it.

    The third is True at queries whose keys are all masked, if there are any: they attend to nothing, so that nothing
    may go back through them.

    Raises:
        BadModel: Dropout in training mode, grouped queries or a query that does not hang on the image.
    """
    names = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
    given = dict(zip(names, step.args, strict=False)) | step.kwargs
    if given.get("dropout_p") or given.get("enable_gqa") or len(step.parents) != 3:
        raise BadModel(
            "the way back through scaled_dot_product_attention is not known with dropout in training mode, with "
            "grouped queries or with a query that does not hang on the image"
        )
    scale = given.get("scale")
    scale = 1 / math.sqrt(query.shape[-1]) if scale is None else float(scale)
    mask = additive(given.get("attn_mask"), query)
    if given.get("is_causal"):
        mask = causal(query.shape[-2], key.shape[-2], query)
    scores, nowhere = masked_scores(query, key, mask, scale)
    return scores, scale, nowhere
