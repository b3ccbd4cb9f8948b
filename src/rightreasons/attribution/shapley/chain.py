"""A network into a model that is not torch: Shapley values of the head, handed on through the network."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.forward import rows_at_once
from rightreasons.attribution.references import check_references, reference_images
from rightreasons.attribution.shapley.deep_lift import Rule, check_rule
from rightreasons.attribution.shapley.heads import Head, as_head
from rightreasons.attribution.shapley.meeting import Meetings, Seed
from rightreasons.core import Attribution, Classifier
from rightreasons.core.hooks import preserved


@dataclass(frozen=True, eq=False)
class ChainedSHAP(Attribution):
    """What each pixel adds to the output of a chain: a network makes features of an image, and a head reads them.

    The head's own Shapley values against each reference are exact; each is divided by the feature's change and handed
    on through the network as :class:`DeepLIFT` hands on a multiplier; the maps are averaged over references. They sum
    to head(features(x)) minus the mean of head(features(reference)). The model that is called with is the network
    (``adapt(network)``, whose "logits" are the features), the target the head's output.

    Source: Chen, Lundberg and Lee 2022 (G-DeepSHAP), doi:10.1038/s41467-022-31384-3, arXiv:2105.00108.

    Args:
        head: A fitted linear model, decision tree, random forest or gradient boosting of scikit-learn, or a
            :class:`Head`; see :func:`as_head` for what of it is explained.
        references: Images to start from, (R, C, H, W).
        rule: Of the network's nonlinear functions.
        check: Raise where the values do not sum to the change of the head's output.
        tolerance: How much may be missing, as a share of the sum of absolute values.
        max_batch: Pairs of image and reference at once; bounds the memory. ``None``: as for :class:`DeepSHAP`.
    """

    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = True

    head: Any
    references: Float[Tensor, "references channels height width"] = field(repr=False)
    rule: Rule = "rescale"
    check: bool = False
    tolerance: float = 1e-3
    max_batch: int | None = None

    def __post_init__(self) -> None:
        check_rule(self.rule, self.tolerance)
        check_references(self.references, self.max_batch)
        as_head(self.head)

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """Mean over references of multiplier times change, (B, C, H, W)."""
        references = reference_images(self.references, inputs)
        with torch.no_grad():
            meetings = Meetings(model, self.rule, head_shares(as_head(self.head), target), graph=False)
            shares = meetings.with_references(inputs, references, rows_at_once(self.max_batch, inputs))
        if self.check:
            shares.check(self.tolerance)
        return shares.values[0]

    def completeness_error(
        self,
        model: Classifier,
        inputs: Float[Tensor, "batch channels height width"],
        target: Int[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """By how much the values of each image miss the change of the head's output; all of it is rounding."""
        head = as_head(self.head)
        with torch.no_grad(), preserved(model.network):
            values = self.per_channel(model, inputs, target).sum(dim=(1, 2, 3))
            starts = (reference.expand_as(inputs) for reference in reference_images(self.references, inputs))
            before = [_output(head, model(start), target) for start in starts]
            return values - (_output(head, model(inputs), target) - torch.stack(before).mean(dim=0))


def head_shares(head: Head, target: Int[Tensor, " batch"]) -> Seed:
    """Multipliers of the features: the head's Shapley value over the feature's change; 0 where it does not change."""

    def seed(image: Tensor, features: Tensor, baseline: Tensor) -> Tensor:
        change = features - baseline
        here, there = (f.expand_as(change).double().cpu().numpy() for f in (features, baseline))
        values = torch.from_numpy(head.shapley(here, there, target[image].cpu().numpy())).to(change)
        still = change.abs() < torch.finfo(change.dtype).tiny
        return torch.where(still, 0.0, values / torch.where(still, 1.0, change))[None]

    return seed


def _output(head: Head, features: Tensor, target: Tensor) -> Tensor:
    scores = head.scores(features.double().cpu().numpy())
    return torch.from_numpy(scores[np.arange(len(scores)), target.cpu().numpy()]).to(features)
