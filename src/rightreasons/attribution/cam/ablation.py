"""Class activation maps from what the score loses without a map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.cam.base import ClassActivationMap, map_axis, on_grid, weighted_sum
from rightreasons.attribution.cam.pooled import PooledHead, run_to_head
from rightreasons.attribution.forward import check_max_batch, rows_at_once
from rightreasons.attribution.score import Score, check_score, explained
from rightreasons.core import BadModel, Classifier
from rightreasons.core.hooks import captured, substituted

Rerun = Literal["head", "network"]
"""What runs again for each map: what lies behind the layer, or the whole network."""


@dataclass(frozen=True)
class AblationCAM(ClassActivationMap):
    """Ablation-CAM: the weight of a map is the share of the score that is lost when the map is set to zero.

    weight = (y - y without the map) / |y|. The paper divides by y, which turns the map of an image round whose score is
    negative; with the absolute value, evidence for the class stays positive.

    Only what lies behind the layer runs again, for many maps at once; maps that are zero are left out; behind a layer
    whose maps are averaged into a linear layer nothing runs at all. In training mode, where images of a batch belong
    together, the whole network runs once a map.

    Source: Desai and Ramaswamy 2020, Ablation-CAM, WACV, Eqs. 3-5.

    Args:
        layer: The layer explained; ``None`` leaves it to the model.
        score: The number that is explained.
        max_batch: Ablated activations that run at once; bounds the memory. ``None``: 64 on a CPU and 256 elsewhere,
            and fewer if activations are large (of 64x56x56, 2 and 41).
        rerun: ``network`` for one whose rest cannot run under ``torch.vmap``, with data-dependent steps for example.
    """

    score: Score = "logit"
    max_batch: int | None = None
    rerun: Rerun = "head"

    def __post_init__(self) -> None:
        check_score(self.score)
        check_max_batch(self.max_batch)
        if self.rerun not in get_args(Rerun):
            raise ValueError(f"expected rerun to be one of {', '.join(get_args(Rerun))}, got {self.rerun!r}")

    def coarse(
        self, model: Classifier, inputs: Tensor, target: Tensor, *, layer: str, graph: bool
    ) -> Float[Tensor, "batch 1 rows columns"]:
        """The sum of the maps, each times its weight."""
        with torch.set_grad_enabled(graph):
            with captured(model.network, (layer,)) as activations:
                logits, head = run_to_head(model, inputs)
            if layer not in activations:
                raise BadModel(f"layer {layer!r} does not run in a pass, so it has nothing to explain; choose another")
            activation = activations[layer]
            maps = on_grid(activation, layer, inputs, model.network)
            whole = explained(logits, target, self.score)[:, None]
            if head is not None and head.maps is activation:
                ablated = self._from_weights(head, logits, target)
            else:
                part = _Part(
                    model, layer, self.score, inputs, target, map_axis(activation, layer, inputs, model.network)
                )
                ablated = self._from_passes(part, activation, whole.expand(-1, maps.shape[1]))
            lost = (whole - ablated) / torch.where(whole == 0, 1.0, whole.abs())
            return weighted_sum(lost[:, :, None, None], maps)

    def _from_weights(self, head: PooledHead, logits: Tensor, target: Tensor) -> Float[Tensor, "batch maps"]:
        """The scores without each map, where a map adds its mean times a weight to every logit."""
        rows = []
        for means, weight, row, label in zip(head.maps.mean(dim=(2, 3)), head.weight, logits, target, strict=True):
            without = row - (weight * means).T
            rows.append(explained(without, label.expand(len(without)), self.score))
        return torch.stack(rows)

    def _from_passes(
        self, part: _Part, activation: Tensor, whole: Float[Tensor, "batch maps"]
    ) -> Float[Tensor, "batch maps"]:
        """The scores without each map, from passes."""
        if self.rerun == "network" or any(module.training for module in part.model.network.modules()):
            every = [part.scores(partial(torch.mul, keep)) for keep in _all_but_one(activation, part.axis)]
            return torch.stack(every, dim=1)
        images = torch.arange(len(whole), device=whole.device)
        rows = torch.split(images, max(1, rows_at_once(self.max_batch, activation) // whole.shape[1]))
        return torch.cat([self._from_heads(part.of(r), activation[r], whole[r]) for r in rows])

    def _from_heads(
        self, part: _Part, activation: Tensor, whole: Float[Tensor, "batch maps"]
    ) -> Float[Tensor, "batch maps"]:
        """The same from what lies behind the layer; the trunk runs once for many maps.

        The maps that are left out are a dimension of their own, which vmap hides from the network: whatever stands
        beside the layer, a residual sum for example, meets the shapes that it knows.
        """
        keep = _all_but_one(activation, part.axis)
        used = (activation != 0).transpose(0, part.axis).flatten(1).any(dim=1)
        # On the graph a map of zeros counts, too: with other weights it may not stay one.
        index = torch.arange(len(keep), device=keep.device) if torch.is_grad_enabled() else used.nonzero()[:, 0]
        if len(index) == 0:
            return whole
        without = torch.vmap(lambda one: part.scores(activation * one))
        try:
            at_once = rows_at_once(self.max_batch, activation)
            scores = torch.cat([without(keep[some]) for some in torch.split(index, at_once)])
        except RuntimeError as error:
            if "vmap" not in str(error):
                raise
            raise BadModel(
                f"what lies behind layer {part.layer!r} cannot run under torch.vmap; take AblationCAM(rerun='network')"
            ) from error
        return whole.index_copy(1, index, scores.T)


@dataclass(frozen=True, eq=False)
class _Part:
    """Images whose scores are asked for with another activation at a layer."""

    model: Classifier
    layer: str
    score: Score
    inputs: Tensor
    target: Tensor
    axis: int
    """That counts the layer's maps."""

    def scores(self, activation: Tensor | Callable[[Tensor], Tensor]) -> Float[Tensor, " batch"]:
        """The scores of one pass with that activation."""
        with substituted(self.model.network, self.layer, activation):
            # A view, since a recorded pass over the very same tensor would not run again.
            logits = self.model(self.inputs.view_as(self.inputs))
        return explained(logits, self.target, self.score)

    def of(self, rows: Tensor) -> _Part:
        """The same for some of the images."""
        return replace(self, model=self.model.rows(rows), inputs=self.inputs[rows], target=self.target[rows])


def _all_but_one(activation: Tensor, axis: int) -> Float[Tensor, "maps ..."]:
    """For each map along the axis a factor that sets it to zero and leaves the others."""
    count = activation.shape[axis]
    keep = 1 - torch.eye(count, dtype=activation.dtype, device=activation.device)
    return keep.view(count, *(count if place == axis else 1 for place in range(activation.ndim)))
