"""Attention written out: torch's fused calls as projections, a softmax and products of matrices."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import BadModel

FUSED = frozenset({"_native_multi_head_attention", "_transformer_encoder_layer_fwd", "flex_attention"})
"""Kernels of a whole attention or encoder layer, of which nothing inside can be seen."""

_SDPA = ("query", "key", "value", "attn_mask", "dropout_p", "is_causal")
_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


def scaled_dot_product_attention(
    *args: Any, kept: Callable[[Tensor], Tensor] | None = None, **kwargs: Any
) -> Float[Tensor, "... queries features"]:
    """What torch's function of this name computes, softmax(Q K^T * scale + mask) V, by plain operators.

    Args:
        *args: As torch's.
        kept: Is handed the probabilities, (..., queries, keys), and returns those that meet the values.
        **kwargs: As torch's.
    """
    given = dict(zip(_SDPA, args, strict=False)) | kwargs
    query, key, value = given["query"], given["key"], given["value"]
    if given.get("enable_gqa"):
        key, value = (t.repeat_interleave(query.shape[-3] // t.shape[-3], dim=-3) for t in (key, value))
    mask = additive(given.get("attn_mask"), query)
    if given.get("is_causal"):
        mask = causal(query.shape[-2], key.shape[-2], query)
    weights = probabilities(query, key, mask, given.get("scale"))
    weights = weights if kept is None else kept(weights)
    mixed: Tensor = F.dropout(weights, given.get("dropout_p") or 0.0) @ value
    return mixed


def probabilities(
    query: Float[Tensor, "... queries features"],
    key: Float[Tensor, "... keys features"],
    mask: Tensor | None = None,
    scale: float | None = None,
) -> Float[Tensor, "... queries keys"]:
    """Softmax(Q K^T * scale + mask); a query whose keys are all masked attends to nothing, as in torch."""
    scores, nowhere = masked_scores(query, key, mask, scale)
    return scores.softmax(-1) if nowhere is None else scores.softmax(-1).masked_fill(nowhere, 0.0)


def masked_scores(
    query: Float[Tensor, "... queries features"],
    key: Float[Tensor, "... keys features"],
    mask: Tensor | None = None,
    scale: float | None = None,
) -> tuple[Float[Tensor, "... queries keys"], Tensor | None]:
    """Q K^T * scale + mask, and which queries, (..., queries, 1), have all keys masked: their scores are not.

    A softmax of nothing but -inf is NaN, so whoever reads the scores takes such queries out; ``None``: there are none.
    """
    scores = query @ key.mT * (1 / math.sqrt(query.shape[-1]) if scale is None else scale)
    if mask is None:
        return scores, None
    nowhere = (mask == -math.inf).all(-1, keepdim=True)
    if not bool(nowhere.any()):
        return scores + mask, None
    return scores + mask.masked_fill(nowhere, 0.0), nowhere


def causal(queries: int, keys: int, like: Tensor) -> Float[Tensor, "queries keys"]:
    """The mask that hides the keys behind each query, as numbers to add to scores."""
    future = torch.ones(queries, keys, dtype=torch.bool, device=like.device).tril().logical_not()
    return torch.zeros_like(future, dtype=like.dtype).masked_fill(future, -math.inf)


def additive(mask: Tensor | None, like: Tensor, *, shown: bool = True) -> Tensor | None:
    """A mask as numbers to add to scores; ``shown`` is the truth value of a key that may be attended to."""
    if mask is None or mask.is_floating_point():
        return mask
    hidden = mask.logical_not() if shown else mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(hidden, -math.inf)


def multi_head_attention(*args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
    """What torch's ``multi_head_attention_forward`` computes, by plain operators; its arguments are the same.

    Raises:
        BadModel: It is used with static keys or values.
    """
    bound = _MULTI_HEAD.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    if given.get("static_k") is not None or given.get("static_v") is not None:
        raise BadModel("an attention with static keys or values cannot be written out; compute them inside")
    batched = given["query"].ndim == 3
    if not batched:
        for name in ("query", "key", "value"):
            given[name] = given[name].unsqueeze(1)
        if given["key_padding_mask"] is not None:
            given["key_padding_mask"] = given["key_padding_mask"].unsqueeze(0)
    query, key, value = (_heads(part, given["num_heads"]) for part in _with_extra(given, *_projected(given)))
    weights = probabilities(query, key, _merged_mask(given, query, key))
    dropped = F.dropout(weights, given["dropout_p"]) if given["training"] and given["dropout_p"] else weights
    mixed = (dropped @ value).permute(2, 0, 1, 3).flatten(2)
    output = F.linear(mixed, given["out_proj_weight"], given["out_proj_bias"])
    shown = None
    if given["need_weights"]:
        shown = weights.mean(dim=1) if given["average_attn_weights"] else weights
    if batched:
        return output, shown
    return output.squeeze(1), None if shown is None else shown.squeeze(0)


def _projected(given: dict[str, Any]) -> list[Tensor]:
    """Queries, keys and values, (tokens, batch, width) each."""
    if given["use_separate_proj_weight"]:
        weights = [given[f"{name}_proj_weight"] for name in "qkv"]
    else:
        weights = given["in_proj_weight"].chunk(3)
    bias = given["in_proj_bias"]
    biases = (None, None, None) if bias is None else bias.chunk(3)
    parts = (given["query"], given["key"], given["value"])
    return [F.linear(part, weight, b) for part, weight, b in zip(parts, weights, biases, strict=True)]


def _with_extra(given: dict[str, Any], query: Tensor, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Keys and values with the learned one and the one of zeros behind, where the module has them."""
    batch = query.shape[1]
    if given["bias_k"] is not None:
        key = torch.cat([key, given["bias_k"].expand(-1, batch, -1)])
        value = torch.cat([value, given["bias_v"].expand(-1, batch, -1)])
    if given["add_zero_attn"]:
        none = torch.zeros(1, batch, query.shape[2], dtype=query.dtype, device=query.device)
        key, value = torch.cat([key, none]), torch.cat([value, none])
    return query, key, value


def _heads(part: Tensor, heads: int) -> Float[Tensor, "batch heads tokens features"]:
    tokens, batch, width = part.shape
    return part.reshape(tokens, batch, heads, width // heads).permute(1, 2, 0, 3)


def _merged_mask(given: dict[str, Any], query: Tensor, key: Tensor) -> Tensor | None:
    """Both masks as one, to add to (batch, heads, queries, keys)."""
    mask = additive(given["attn_mask"], query, shown=False)
    padding = additive(given["key_padding_mask"], query, shown=False)
    if mask is not None and mask.ndim == 3:
        mask = mask.reshape(-1, query.shape[1], *mask.shape[1:]) if len(mask) > 1 else mask[None]
    padding = None if padding is None else padding[:, None, None, :]
    behind = key.shape[2] - given["key"].shape[0]  # the learned key and that of zeros are never masked
    present = [F.pad(m, (0, behind)) if behind else m for m in (mask, padding) if m is not None]
    return None if not present else present[0] if len(present) == 1 else present[0] + present[1]
