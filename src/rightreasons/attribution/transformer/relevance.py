"""Attention maps multiplied through the layers: rollout, and Chefer's relevance."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.layout import at_pixels
from rightreasons.attribution.score import Score, check_score, explained
from rightreasons.attribution.transformer.maps import Attended, attended
from rightreasons.core import Attribution, BadModel, Classifier

Heads = Literal["mean", "max", "min"]


@dataclass(frozen=True, kw_only=True)
class AttentionMethod(Attribution):
    """What methods of attention maps share: which token's view is shown, and where the tokens lie.

    Of an image the patches are laid out on their grid, whatever its sides, and enlarged bilinearly; tokens ahead of
    them (of the class, registers) are left out. A token that no other attends to, such as padding, has exactly zero.

    Args:
        token: Whose view of the others is shown: the number of a token, such as that of the class; ``"mean"`` over all
            that are attended to; ``None`` takes those that the logits read in the last layer, found by their gradient:
            the class token of a ViT or BERT, the last one of a decoder, all that a mean runs over.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = False

    token: int | Literal["mean"] | None = None

    def __post_init__(self) -> None:
        if self.token not in (None, "mean") and (isinstance(self.token, bool) or not isinstance(self.token, int)):
            raise ValueError(f"expected token to be a number, 'mean' or None, got {self.token!r}")

    @abstractmethod
    def relations(self, found: Attended, target: Tensor, *, graph: bool) -> Float[Tensor, "batch tokens tokens"]:
        """What each token (row) has of each token of the input (column)."""

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The map, (B, 1, H, W)."""
        with torch.set_grad_enabled(graph or self._needs_gradient()):
            found = attended(model, inputs)
            readers = self._readers(found)
        with torch.set_grad_enabled(graph):
            relations = self.relations(found, target, graph=graph)
            values = (readers[:, None] @ relations)[:, 0]
            return at_pixels(values, (inputs.shape[2], inputs.shape[3])).to(inputs.dtype)

    def _needs_gradient(self) -> bool:
        return self.token is None

    def _readers(self, found: Attended) -> Float[Tensor, "batch tokens"]:
        """How much each token's view counts; sums to 1."""
        last = found.maps[-1].detach()
        tokens = last.shape[-1]
        if isinstance(self.token, int):
            if not -tokens <= self.token < tokens:
                raise BadModel(f"expected a token below {tokens}, as many as the network has, got {self.token}")
            return torch.zeros_like(last[:, 0, 0]).index_fill(1, torch.tensor(self.token % tokens).to(last.device), 1)
        if self.token == "mean":
            read = torch.stack([values.detach().sum(dim=(1, 2)) for values in found.maps]).sum(dim=0) != 0
        else:
            read = _read(found)
        return read.to(last.dtype) / read.sum(dim=1, keepdim=True).clamp(min=1)


def _read(found: Attended) -> Tensor:
    """The tokens whose view in the last layer the logits hang on, (B, T)."""
    # Different weights, so that the logits of a network that ends in a softmax do not cancel.
    classes = torch.arange(1, found.logits.shape[1] + 1).to(found.logits)
    slopes = slopes_of((found.logits * classes).sum(dim=1), found.raw[-1:], graph=False)
    return found.by_head(slopes)[0].abs().amax(dim=(1, 3)) > 0


def slopes_of(scores: Float[Tensor, " batch"], maps: list[Tensor], *, graph: bool) -> list[Tensor]:
    """The gradient of each input's score with respect to its attention maps.

    Raises:
        BadModel: The score does not hang on them.
    """
    if not scores.requires_grad:
        raise BadModel("no gradient reaches the attention maps: the network runs under torch.no_grad")
    # Summed up by its gradient, which is one for each, so that this works while gradients are off, too.
    ones = torch.ones_like(scores)
    found = torch.autograd.grad(scores, maps, ones, create_graph=graph, retain_graph=True, allow_unused=True)
    if any(slopes is None for slopes in found):
        raise BadModel("the score does not depend on the attention of every layer, so its relevance is not defined")
    return list(found)


@dataclass(frozen=True, kw_only=True)
class AttentionRollout(AttentionMethod):
    """How much of each token of the input has come together in the token that is read, by attention alone.

    The product over layers of A / 2 + I / 2 with rows that sum to 1, where I stands for the residual connection. It
    knows no class: each target has the same map.

    Source: Abnar & Zuidema 2020, arXiv:2005.00928, section 3, Eq. 1. The paper takes the mean over heads; ``heads`` and
    ``discard`` are common variants that are not in it.

    Args:
        heads: How the heads of a layer become one map.
        discard: Share of each layer's smallest attention values that is set to zero.
        token: Whose view is shown, see :class:`AttentionMethod`.
    """

    heads: Heads = "mean"
    discard: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.heads not in get_args(Heads):
            raise ValueError(f"expected heads to be one of {', '.join(get_args(Heads))}, got {self.heads!r}")
        if not 0 <= self.discard < 1:
            raise ValueError(f"expected discard from 0 to below 1, got {self.discard}")

    def relations(self, found: Attended, target: Tensor, *, graph: bool) -> Float[Tensor, "batch tokens tokens"]:
        """The rollout of all tokens."""
        maps = [self._fused(values) for values in found.maps]
        same = _identity(maps[0])
        rollout = same.expand_as(maps[0])
        for values in maps:
            mixed = 0.5 * values + 0.5 * same
            rollout = mixed / mixed.sum(dim=-1, keepdim=True) @ rollout
        return rollout

    def _fused(self, values: Float[Tensor, "batch heads tokens tokens"]) -> Float[Tensor, "batch tokens tokens"]:
        fused = values.mean(dim=1) if self.heads == "mean" else getattr(values, f"a{self.heads}")(dim=1)
        count = int(self.discard * fused[0].numel())
        if not count:
            return fused
        # kthvalue knows no half precision on every device.
        sizes = fused.detach().to(torch.promote_types(fused.dtype, torch.float32))
        least = sizes.flatten(1).kthvalue(count, dim=1).values
        return torch.where(sizes > least[:, None, None], fused, 0.0)


@dataclass(frozen=True, kw_only=True)
class CheferRelevance(AttentionMethod):
    """Attention that speaks for the target, multiplied through the layers.

    Each layer's map is A times its gradient of the score, positive parts only, averaged over heads; the relevance of
    the tokens grows by it, R <- R + A R, from R = I. What a token starts with is taken off again, R - I, so that a
    token without influence has zero (the paper's code sets the class token's own value to zero).

    Source: Chefer, Gur & Wolf 2021 (ICCV), arXiv:2103.15679, Eqs. 5 and 6 (self-attention).

    Args:
        score: The number that is explained.
        token: Whose view is shown, see :class:`AttentionMethod`.
    """

    score: Score = "logit"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_score(self.score)

    def _needs_gradient(self) -> bool:
        return True

    def relations(self, found: Attended, target: Tensor, *, graph: bool) -> Float[Tensor, "batch tokens tokens"]:
        """R - I for all tokens."""
        with torch.enable_grad():
            scores = explained(found.logits, target, self.score)
        slopes = slopes_of(scores, found.raw, graph=graph)
        grown: Tensor | None = None
        for values, slope in zip(found.maps, found.by_head(slopes), strict=True):
            layer = (values * slope).relu().mean(dim=1)
            grown = layer if grown is None else grown + layer + layer @ grown
        if grown is None:
            raise RuntimeError("a pass without attention")
        return grown


def _identity(like: Float[Tensor, "batch tokens tokens"]) -> Float[Tensor, "tokens tokens"]:
    return torch.eye(like.shape[-1], dtype=like.dtype, device=like.device)
