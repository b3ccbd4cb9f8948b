"""DeepSHAP."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.forward import rows_at_once
from rightreasons.attribution.references import References, check_references, reference_images
from rightreasons.attribution.score import explained
from rightreasons.attribution.shapley.deep_lift import Rule, check_rule
from rightreasons.attribution.shapley.meeting import Meetings, Seed, Shares, every_class, off_graph, one_class
from rightreasons.core import Attribution, Classifier
from rightreasons.core.hooks import preserved
from rightreasons.core.protocols import Inputs


@dataclass(frozen=True, eq=False)
class DeepSHAP(Attribution):
    """The mean of :class:`DeepLIFT` over a background set: an estimate of the Shapley values of the pixels.

    The values sum to the logit minus the mean logit of the references. Each reference runs once for a batch of images,
    or each image once for a batch of references where these are more.

    Source: Lundberg and Lee 2017, arXiv:1705.07874, section 4.2.

    Args:
        references: Images to start from, usually some ten to a hundred from the training data, (R, C, H, W);
            of token embeddings (R, T, D).
        rule: Of nonlinear functions, see :class:`DeepLIFT`.
        check: Raise where the values do not sum to the change of the logit.
        tolerance: How much may be missing, as a share of the sum of absolute values.
        max_batch: Pairs of image and reference (and class, for :meth:`all_classes`) at once; bounds the memory.
            ``None``: 64 on a CPU and 256 elsewhere, and fewer if images are large (of 3x224x224, 3 and 55).
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    references: References = field(repr=False)
    rule: Rule = "rescale"
    check: bool = False
    tolerance: float = 1e-3
    max_batch: int | None = None

    def __post_init__(self) -> None:
        check_rule(self.rule, self.tolerance)
        check_references(self.references, self.max_batch)

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """Mean over references of multiplier times change, (B, C, H, W)."""
        return self._shares(model, inputs, one_class(target), classes=1, graph=graph).values[0]

    def all_classes(
        self, model: Classifier, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes channels height width"]:
        """The values of every class, off the graph; classes share passes and all that is elementwise."""
        with off_graph(model, inputs) as images:
            classes = model(images).shape[1]
            shares = self._shares(model, images, every_class, classes=classes, graph=False)
        return shares.values.transpose(0, 1)

    def completeness_error(
        self,
        model: Classifier,
        inputs: Inputs,
        target: Int[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """By how much the values of each image miss its logit minus the mean logit of the references.

        All of it is rounding.
        """
        with torch.no_grad(), preserved(model.network):
            values = self.per_channel(model, inputs, target).flatten(1).sum(dim=1)
            starts = (reference.expand_as(inputs) for reference in reference_images(self.references, inputs))
            before = [explained(model(start), target, "logit") for start in starts]
            return values - (explained(model(inputs), target, "logit") - torch.stack(before).mean(dim=0))

    def _shares(self, model: Classifier, inputs: Tensor, seed: Seed, *, classes: int, graph: bool) -> Shares:
        references = reference_images(self.references, inputs)
        with torch.set_grad_enabled(graph):
            meetings = Meetings(model, self.rule, seed, graph)
            shares = meetings.with_references(
                inputs, references, max(1, rows_at_once(self.max_batch, inputs) // classes)
            )
        if self.check:
            shares.check(self.tolerance)
        return shares
