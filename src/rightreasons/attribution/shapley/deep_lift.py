"""DeepLIFT."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.baselines import Baseline, as_baselines
from rightreasons.attribution.score import explained
from rightreasons.attribution.shapley.meeting import Meetings, Seed, Shares, every_class, off_graph, one_class
from rightreasons.core import Attribution, Classifier
from rightreasons.core.hooks import preserved

Rule = Literal["rescale", "reveal_cancel"]
"""How a nonlinear function's change is shared: as a whole, or what pushes up apart from what pulls down."""


@dataclass(frozen=True)
class DeepLIFT(Attribution):
    """What each pixel adds to the change of the logit from a baseline to the image; the values sum to that change.

    It works by operator, not by module, and is exact for all of them: residual sums, modules used twice, max-pooling,
    products, attention and normalizations; an operator without a rule is refused, and so is BatchNorm in training
    mode. All is plain tensor algebra, so a loss on the map has its right gradient. A baseline that all images share
    runs once, beside the images. The method runs passes of its own, without mixed precision.

    Source: Shrikumar et al. 2017, arXiv:1704.02685, section 3. Maxima are shared as shap's DeepExplainer shares them;
    the rules of softmax, attention, products and normalizations, which the paper does not have, are ours.

    Args:
        baseline: Value of every pixel of the baseline image, a :class:`Baseline`, or a list of these to average over.
        rule: Of nonlinear functions.
        check: Raise where the values do not sum to the change of the logit.
        tolerance: How much may be missing, as a share of the sum of absolute values.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    baseline: float | Baseline | Sequence[float | Baseline] = 0.0
    rule: Rule = "rescale"
    check: bool = False
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        check_rule(self.rule, self.tolerance)
        as_baselines(self.baseline)
        if isinstance(self.baseline, list):
            object.__setattr__(self, "baseline", tuple(self.baseline))

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """Multiplier times change of each pixel and channel, (B, C, H, W)."""
        return self._shares(model, inputs, one_class(target), graph=graph).values[0]

    def completeness_error(
        self,
        model: Classifier,
        inputs: Float[Tensor, "batch channels height width"],
        target: Int[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """By how much the values of each image miss the change of its logit from the baseline (the mean over several).

        All of it is rounding.
        """
        with torch.no_grad(), preserved(model.network):
            values = self.per_channel(model, inputs, target).sum(dim=(1, 2, 3))
            before = [explained(model(start), target, "logit") for start in self._starts(model, inputs)]
            return values - (explained(model(inputs), target, "logit") - torch.stack(before).mean(dim=0))

    def all_classes(
        self, model: Classifier, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch classes channels height width"]:
        """The values of every class from one pass, off the graph."""
        with off_graph(model, inputs) as images:
            return self._shares(model, images, every_class, graph=False).values.transpose(0, 1)

    def _shares(self, model: Classifier, inputs: Tensor, seed: Seed, *, graph: bool) -> Shares:
        with torch.set_grad_enabled(graph):
            shares = Meetings(model, self.rule, seed, graph).with_baselines(inputs, self._starts(model, inputs))
        if self.check:
            shares.check(self.tolerance)
        return shares

    def _starts(self, model: Classifier, inputs: Tensor) -> Float[Tensor, "baselines batch channels height width"]:
        starts = [baseline.facing(model, inputs) for baseline in as_baselines(self.baseline)]
        return starts[0] if len(starts) == 1 else torch.cat(starts)


def check_rule(rule: str, tolerance: float) -> None:
    """Refuse an unknown rule or a tolerance of nothing.

    Raises:
        ValueError: It is none of :data:`Rule`, or not above zero.
    """
    if rule not in get_args(Rule):
        raise ValueError(f"expected rule to be one of {', '.join(get_args(Rule))}, got {rule!r}")
    if not tolerance > 0:
        raise ValueError(f"expected tolerance above 0, got {tolerance}")
