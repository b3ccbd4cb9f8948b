"""Group distributionally robust optimization: the groups with the highest loss weigh most."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch
import torch.distributed
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import MissingAnnotation
from rightreasons.data.dataset import ImageDataset
from rightreasons.data.groups import Grouped, required_groups
from rightreasons.models import AdaptedClassifier
from rightreasons.training.fit import fit
from rightreasons.training.objective import GroupTask, Objective
from rightreasons.training.recipes.recipe import Fit, Recipe, RecipeResult, Stages
from rightreasons.training.settings import FitSettings


class GroupDROLoss(GroupTask):
    """The sum over groups of q_g times the group's mean cross-entropy, q moving to the groups with the highest.

    At each training step q_g is multiplied by exp(step_size * (loss_g + adjustment / sqrt(n_g))) for the groups in the
    batch, and q is normalized; a group that is not in the batch keeps its part relative to a loss of zero. n_g is the
    number of training images of the group; a group without any has no weight. Over several processes a group's mean is
    taken over all of them.

    Args:
        sizes: Number of training images of each group, by its number.
        step_size: How fast q moves.
        adjustment: What is added for small groups, whose training loss says less about their test loss.
    """

    name = "group_dro"
    weights: Tensor
    sizes: Tensor

    def __init__(self, sizes: Int[Tensor, " groups"], *, step_size: float = 0.01, adjustment: float = 0.0) -> None:
        super().__init__()
        self.step_size, self.adjustment = step_size, adjustment
        present = (sizes > 0).float()
        self.register_buffer("weights", present / present.sum())
        self.register_buffer("sizes", sizes.float())

    def forward(
        self, logits: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"], group: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """The weighted sum; moves the weights first, in training mode with gradients enabled."""
        losses = F.cross_entropy(logits, target, reduction="none")
        member = F.one_hot(group, len(self.sizes)).to(losses)
        sums, counts = losses @ member, member.sum(dim=0)
        joint, processes = _over_processes(torch.stack([sums.detach(), counts]))
        all_counts = joint[1].clamp(min=1)
        if self.training and torch.is_grad_enabled():
            self._move(joint[0] / all_counts, joint[1] > 0)
        # Gradients are averaged over processes: each process's part of the joint mean is scaled up by their number.
        return (self.weights.clone().to(sums) * sums / all_counts).sum() * processes

    def _move(self, losses: Tensor, in_batch: Tensor) -> None:
        gain = self.step_size * (losses + self.adjustment * self.sizes.clamp(min=1).rsqrt())
        moved = self.weights.log() + torch.where(in_batch, gain, 0.0).to(self.weights)
        self.weights.copy_(moved.softmax(dim=0))


@dataclass(frozen=True)
class GroupDRO(Recipe):
    """Train for the worst group: cross-entropy of each group, weighted by how high it has been.

    The groups of the training images must be known: see ``rightreasons.data.groups_of``. Where a group is a whole
    class, as under a decoy that tells every class, it is the worst class that is trained for.

    Source: Sagawa et al. 2020, arXiv:1911.08731, Algorithm 1 and section 3.3 (the adjustment). There each batch is
    drawn evenly from the groups; here images are drawn evenly, as for every other arm, and a batch may lack a group.
    The strong weight decay that the paper finds necessary is a setting of the training.

    Args:
        step_size: How fast the weights of the groups move.
        adjustment: C of the paper: adds C / sqrt(n) to the loss of a group of n images when the weights move.

    Raises:
        ValueError: A number that is negative or not finite.
    """

    step_size: float = 0.01
    adjustment: float = 0.0

    def __post_init__(self) -> None:
        for name in ("step_size", "adjustment"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0):
                raise ValueError(f"expected a finite {name} of at least 0, got {value}")

    def __call__(
        self,
        model: AdaptedClassifier,
        data: ImageDataset,
        objective: Objective,
        settings: FitSettings = FitSettings(),
        *,
        fit: Fit = fit,
        out: Path | None = None,
    ) -> RecipeResult:
        """Train under the robust loss in place of the cross-entropy; the report gives each group's final weight."""
        if objective.task is not F.cross_entropy:
            raise ValueError(f"GroupDRO: expected cross_entropy as the task, got {objective.task_name}")
        grouped = Grouped(data, required_groups(data, "GroupDRO"))
        sizes = torch.bincount(grouped.group)
        if int(sizes.count_nonzero()) < 2:
            raise MissingAnnotation(f"GroupDRO: expected groups to weigh, got one group in all of {data.name}")
        loss = GroupDROLoss(sizes, step_size=self.step_size, adjustment=self.adjustment)
        stages = Stages(model, fit, out)
        stages.train("robust", grouped, replace(objective, task=loss), settings)
        weights = cast(GroupDROLoss, stages.trained_with.task).weights.tolist()
        return stages.ended(
            [{"group": float(g), "images": float(n), "weight": weights[g]} for g, n in enumerate(sizes.tolist()) if n]
        )


def _over_processes(values: Tensor) -> tuple[Tensor, int]:
    """The sum over the processes, and how many there are."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        values = values.clone()
        torch.distributed.all_reduce(values)
        return values, torch.distributed.get_world_size()
    return values, 1
