"""The attention maps of a pass, on its graph."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rightreasons.attribution.attention import FUSED, multi_head_attention, scaled_dot_product_attention
from rightreasons.attribution.operators import eagerly, operator_of, words
from rightreasons.core import BadModel, Classifier
from rightreasons.core.hooks import modes_kept

_HANDED_ON = words("dropout to float double half bfloat16 type type_as contiguous clone")
"""What may stand between a softmax and its product with the values."""

_INSTEAD = "take a method that needs no such map: LRP, IntegratedGradients or a class activation map"

_HEADS_FIRST = (
    "the network has its heads ahead of its images in its attention maps, (heads, batch, tokens, tokens) or these in "
    f"one axis, and they are read as (batch, heads, tokens, tokens); put the images first, or {_INSTEAD}"
)


@dataclass(frozen=True, eq=False)
class Attended:
    """One pass: the logits, and how much each token attended to each, layer by layer.

    Attributes:
        logits: Of the pass.
        raw: Attention probabilities in the order of the layers, in the very tensors that lead to the logits; so their
            gradients can be asked for.
    """

    logits: Float[Tensor, "batch classes"]
    raw: list[Tensor]

    def by_head(self, values: Sequence[Tensor]) -> list[Float[Tensor, "batch heads tokens tokens"]]:
        """The maps, or values like them, with an axis of their own for the heads."""
        return [_by_head(each, len(self.logits)) for each in values]

    @property
    def maps(self) -> list[Float[Tensor, "batch heads tokens tokens"]]:
        """The attention maps; each row sums to 1."""
        return self.by_head(self.raw)


def attended(model: Classifier, inputs: Tensor) -> Attended:
    """A pass of its own (a recorded one keeps no probabilities) with its attention maps.

    Attention is found by operator: torch's ``scaled_dot_product_attention``, ``nn.MultiheadAttention`` in all its forms
    and a softmax whose result is multiplied with values. The fused calls run by their plain formula.

    Raises:
        BadModel: The network has no attention, or none that leads from all tokens to all tokens in every layer; or it
            has images and heads in an order in which those of an image do not lie together.
    """
    found = _pass(model, inputs)
    _check_form(found.raw, len(inputs))
    _check_order(model, inputs, found.raw)
    return found


def _pass(model: Classifier, inputs: Tensor) -> Attended:
    mode = _Keeping()
    # Not the tensor that a recorded pass belongs to; and one that a gradient reaches though all weights are frozen.
    plain = inputs.requires_grad or not torch.is_grad_enabled()
    shown = inputs.view_as(inputs) if plain else inputs.detach().requires_grad_()
    with eagerly(model.network), mode:
        logits = model(shown)
    return Attended(logits, mode.found())


def _check_form(raw: Sequence[Tensor], batch: int) -> None:
    """Refuse maps that do not lead from all tokens to all tokens in every layer.

    Raises:
        BadModel: They do not, or heads come ahead of images.
    """
    maps = [_by_head(values, batch) for values in raw]
    if any(values.shape[0] != batch or values.shape[2:] != maps[0].shape[3:] * 2 for values in maps):
        shapes = ", ".join(dict.fromkeys(str(tuple(values.shape)) for values in maps))
        raise BadModel(
            "the network attends within windows, from few tokens to many or at several resolutions, or has its heads "
            f"ahead of its images (shapes {shapes} for {batch} inputs), so its layers' maps cannot be multiplied; "
            f"{_INSTEAD}"
        )


def _check_order(model: Classifier, inputs: Tensor, raw: Sequence[Tensor]) -> None:
    """Refuse maps whose shapes do not say to which image they belong, where the first image alone has others.

    Raises:
        BadModel: The first rows of two images are not those of the first one.
    """
    doubtful = [i for i, values in enumerate(raw) if _order_in_doubt(values, len(inputs))]
    if not doubtful or len(inputs) == 1:
        return
    first = torch.arange(2, device=inputs.device)
    with torch.no_grad(), modes_kept(model.network):
        model.network.eval()  # where an image does not depend on the others
        one, two = (_pass(model.rows(rows), inputs[rows]).raw for rows in (first[:1], first))
    if any(_heads_first(one[i], two[i]) for i in doubtful):
        raise BadModel(_HEADS_FIRST)


def _order_in_doubt(values: Tensor, batch: int) -> bool:
    """Images and heads in one axis, or as many of the ones as of the others."""
    return len(values) != batch if values.ndim == 3 else values.ndim == 4 and values.shape[1] == batch


def _heads_first(one: Tensor, two: Tensor) -> bool:
    """Whether the maps of two images, head by head, fit those of the first image better than image by image."""
    if one.ndim == 4:
        return len(one) != 1
    by_image, by_head = (float((values - one).abs().max()) for values in (two[: len(one)], two[::2]))
    return by_head < by_image / 2 and by_image > 64 * torch.finfo(one.dtype).eps


@dataclass(eq=False)
class _Softmax:
    """Probabilities of one call, and whether they met values."""

    values: Tensor
    used: bool = False
    aliases: list[Tensor] = field(default_factory=list)


class _Keeping(TorchFunctionMode):
    """Keeps attention probabilities while a network runs."""

    def __init__(self) -> None:
        super().__init__()
        self._found: list[_Softmax] = []
        self._known: dict[int, _Softmax] = {}

    def found(self) -> list[Tensor]:
        """All of them, in order.

        Raises:
            BadModel: There are none, or not all of them could be followed.
        """
        used = [softmax.values for softmax in self._found if softmax.used]
        unused = [softmax.values.shape for softmax in self._found if not softmax.used]
        if any(len(shape) == 4 and shape[-1] == shape[-2] for shape in unused):
            raise BadModel(f"between a softmax and its product with values an unknown operator runs; {_INSTEAD}")
        if not used:
            raise BadModel(f"the network runs no softmax attention that could be followed; {_INSTEAD}")
        return used

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a call; attention by its plain formula."""
        kwargs = kwargs or {}
        operator, in_place = operator_of(func, args, kwargs)
        if operator == "scaled_dot_product_attention":
            return scaled_dot_product_attention(*args, kept=self._attention, **kwargs)
        if operator == "multi_head_attention_forward":
            with self:  # the softmax inside is seen like any other
                return multi_head_attention(*args, **kwargs)
        if operator in FUSED:
            raise BadModel(f"the operator {operator!r} hides its attention map; {_INSTEAD}")
        if operator in ("matmul", "einsum"):
            self._meet(args, kwargs)
        output = func(*args, **kwargs)
        if operator == "softmax" and _over_keys(output, args, kwargs):
            self._keep(output)
        elif operator in _HANDED_ON and not in_place and args and id(args[0]) in self._known:
            self._hand_on(self._known[id(args[0])], output)
        return output

    def _attention(self, weights: Tensor) -> Tensor:
        self._keep(weights)
        self._found[-1].used = True
        return weights

    def _keep(self, weights: Tensor) -> None:
        self._found.append(_Softmax(weights))
        self._hand_on(self._found[-1], weights)

    def _hand_on(self, softmax: _Softmax, output: Tensor) -> None:
        softmax.aliases.append(output)  # held, so that its id stays its own
        self._known[id(output)] = softmax

    def _meet(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        for value in (*args, *kwargs.values()):
            for tensor in value if isinstance(value, tuple | list) else (value,):
                if isinstance(tensor, Tensor) and id(tensor) in self._known:
                    self._known[id(tensor)].used = True


def _over_keys(output: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """A softmax along the last axis of at least three."""
    axis = kwargs.get("dim", args[1] if len(args) > 1 else None)
    return isinstance(output, Tensor) and output.ndim >= 3 and axis in (-1, output.ndim - 1)


def _by_head(weights: Tensor, batch: int) -> Tensor:
    """With an axis for the heads; where batch and heads are one axis, as ``torch.bmm`` asks for, it is split."""
    if weights.ndim == 3:
        whole = len(weights) % batch == 0
        return weights.reshape(batch, -1, *weights.shape[1:]) if whole else weights[:, None]
    return weights if weights.ndim == 4 else weights.flatten(1, -3)
