"""Weights of explanation losses that nobody has to sweep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.distributed
from torch import Tensor, nn

from rightreasons.core import Batch, Classifier, ExplanationLoss, MissingAnnotation
from rightreasons.core.tensors import unit_maximum

_MEMORY = 0.9
"""Of the running mean of measured ratios: some ten measurements."""

_LOWEST = math.log(1e-3)
"""How far a satisfied target lowers the balanced weight: not so far that it could not come back in time."""


@dataclass(frozen=True)
class Balance:
    """A weight at which the term pulls at the network's weights as hard as the task does, less so once it is solved.

    weight = share * (term / its largest value so far) ** relief * |gradient of the task| / |gradient of the term|, both
    norms over all weights of the network, as a running geometric mean. What it costs is two backward passes each
    ``every`` steps.

    Without relief the gradient of a solved term, which vanishes with it, would drive its weight up without end: RRR on
    Decoy-MNIST went to 1e7 and took the task with it. At a relief of 0.5 the weight of a squared term does
    not rise at all as the term is solved, and the shortcut came back there: 90.2 % against 96.9 % on the same seed.

    Source: the gradient norms and, in another form, the training rates of Chen et al. 2018 (GradNorm),
    arXiv:1711.02257; the rule is ours.

    Args:
        share: How hard the term pulls, as a share of the task's pull.
        every: Steps between two measurements.
        relief: How much a solved term lets go; 0 is not at all.
    """

    share: float = 1.0
    every: int = 10
    relief: float = 0.25

    def __post_init__(self) -> None:
        if not (math.isfinite(self.share) and self.share > 0):
            raise ValueError(f"expected share above 0, got {self.share}")
        if self.every < 1:
            raise ValueError(f"expected every of at least 1, got {self.every}")
        if not 0 <= self.relief < 1:
            raise ValueError(f"expected relief from 0 to below 1, got {self.relief}")


@dataclass(frozen=True)
class Target:
    """A weight that brings the attribution inside the irrelevant pixels down to a share of chance, and no further.

    Chance is what a map would put there that marks all pixels alike: the share of the image that is irrelevant. "At
    most ``share`` of chance lies in irrelevant pixels" is a constraint, and the weight its multiplier: it starts
    balanced (see :class:`Balance`), is raised by a factor while the constraint is violated, up to the balanced weight
    again, and lowered while it is not, by dual ascent on its logarithm. Without that bound a share that cannot be
    reached would drive the weight until nothing else is learned. Where a batch has relevant masks only, all other
    pixels count as irrelevant.

    A share of the whole attribution would say little: 2 % of it is what chance puts into a patch of 4 x 4 pixels on
    digits of 28 x 28.

    Source: the method of multipliers (Hestenes 1969) with a bounded, multiplicative update; the rule is ours.

    Args:
        share: Largest share of chance allowed.
        rate: How fast the weight moves: its logarithm changes by ``rate`` times that of share over target, which is
            cut off at 1.
        every: Steps between two measurements.
    """

    share: float = 0.02
    rate: float = 0.2
    every: int = 10

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"expected share between 0 and 1, got {self.share}")
        if not self.rate > 0:
            raise ValueError(f"expected rate above 0, got {self.rate}")
        if self.every < 1:
            raise ValueError(f"expected every of at least 1, got {self.every}")


Weight = float | Balance | Target


def weight_of(told: float | str) -> Weight:
    """The weight that a configuration names: a number, ``balance`` or ``target``, the last two with ``:share``.

    Raises:
        ValueError: It is none of these.
    """
    if isinstance(told, int | float):
        return float(told)
    name, _, share = told.partition(":")
    rules: dict[str, type[Balance] | type[Target]] = {"balance": Balance, "target": Target}
    try:
        if name not in rules:
            return float(told)
        return rules[name](share=float(share)) if share else rules[name]()
    except ValueError as error:
        if name in rules and "expected" in str(error):
            raise
        raise ValueError(
            f"expected a weight as a number, balance, target, or either with a share (target:0.02), got {told!r}"
        ) from error


class Weighing(nn.Module):
    """The present weight of a term, and how it moves; its state is saved with the run.

    Args:
        rule: How it moves.
    """

    log_weight: Tensor
    log_largest: Tensor
    log_multiplier: Tensor
    share: Tensor
    steps: Tensor

    def __init__(self, rule: Balance | Target) -> None:
        super().__init__()
        self.rule = rule
        self.register_buffer("log_weight", torch.tensor(-math.inf, dtype=torch.float64))
        self.register_buffer("log_largest", torch.tensor(-math.inf, dtype=torch.float64))
        # Below 0: how far a target has lowered the balanced weight.
        self.register_buffer("log_multiplier", torch.tensor(0.0, dtype=torch.float64))
        self.register_buffer("share", torch.tensor(math.nan, dtype=torch.float64))
        self.register_buffer("steps", torch.tensor(0))

    @property
    def started(self) -> bool:
        """Whether anything has been measured yet."""
        return bool(torch.isfinite(self.log_weight))

    def weight(self, like: Tensor) -> Tensor:
        """The weight; zero before the first measurement."""
        return (self.log_weight + self.log_multiplier).exp().to(like)

    def balance(self, task: Tensor, term: Tensor, weights: Sequence[Tensor], rule: Balance) -> None:
        """Move to where the term pulls as hard as the rule says; nothing happens where one of the two does not pull."""
        if not (task.requires_grad and term.requires_grad):
            return
        sizes = [_norm(part, weights) for part in (task, term)]
        ratio = _mean_over_processes((sizes[0].log() - sizes[1].log()).double() + math.log(rule.share))
        level = _mean_over_processes(term.detach().double().log())
        if not bool(torch.isfinite(ratio) & torch.isfinite(level)):
            return
        self.log_largest.copy_(torch.maximum(self.log_largest, level))
        ratio = ratio + rule.relief * (level - self.log_largest)
        self.log_weight.copy_(_MEMORY * self.log_weight + (1 - _MEMORY) * ratio if self.started else ratio)

    def ascend(self, share: Tensor, rule: Target) -> None:
        """Raise or lower the weight by how far the share is from its target; never beyond the balanced one."""
        excess = _mean_over_processes((share.double() / rule.share).clamp(min=math.exp(-1), max=math.e).log())
        if bool(torch.isfinite(excess)):
            self.share.copy_(share)
            self.log_multiplier.add_(rule.rate * excess).clamp_(min=_LOWEST, max=0.0)

    def due(self) -> bool:
        """Whether this step measures; counts the step."""
        measures = int(self.steps) % self.rule.every == 0
        self.steps.add_(1)
        return measures or not self.started


def _norm(part: Tensor, weights: Sequence[Tensor]) -> Tensor:
    gradients = torch.autograd.grad(part, weights, retain_graph=True, allow_unused=True)
    squares = [g.detach().float().square().sum() for g in gradients if g is not None]
    return torch.stack(squares).sum().sqrt() if squares else part.new_zeros(())


def _mean_over_processes(value: Tensor) -> Tensor:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.all_reduce(value)
        value = value / torch.distributed.get_world_size()
    return value


def share_at_irrelevant(loss: ExplanationLoss, model: Classifier, batch: Batch) -> Tensor:
    """How much of the absolute attribution lies in irrelevant pixels, over the share of the image that they are.

    1 is what chance puts there. The mean over annotated images with any; NaN where there is none.

    Raises:
        MissingAnnotation: The batch carries no masks.
        ValueError: The loss is not about a heatmap.
    """
    if loss.attribution is None:
        raise ValueError(
            f"{type(loss).__name__} is not about a heatmap, so there is no share to bring to a target; "
            "give it a number, or Balance()"
        )
    if batch.irrelevant is None and batch.relevant is None:
        raise MissingAnnotation("a target share needs masks of irrelevant or relevant pixels and the batch has neither")
    with torch.no_grad():
        values = loss.attribution.per_channel(model, batch.inputs, batch.target).abs().sum(dim=1, keepdim=True)
        mask = batch.irrelevant if batch.irrelevant is not None else 1 - _relevant(batch)
        values = unit_maximum(values.float())
        inside, whole = (v.sum(dim=(1, 2, 3)) for v in (values * mask, values))
        area = mask.flatten(1).mean(dim=1)
        counted = batch.annotated_rows() & (area > 0) & (whole > 0)
        return (inside / (whole * area))[counted].mean()


def _relevant(batch: Batch) -> Tensor:
    if batch.relevant is None:
        raise RuntimeError("a batch without masks")
    return batch.relevant
