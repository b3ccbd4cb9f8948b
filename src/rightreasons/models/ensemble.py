"""Several networks that vote."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn


class DeepEnsemble(nn.Module):
    """Networks of one task whose probabilities are averaged.

    It returns the logarithm of the members' mean probabilities, which stands for logits: its softmax is that mean.
    In training a batch is split evenly among the members, so that each learns by itself, from images of its own,
    which the next epoch's order gives to another. K members want K times the batch size and K times the epochs of one.
    Of a batch with less than two images a member, which normalizations need, members drawn at random take part.

    A layer inside a member shows what that member looks at; methods of the input explain the vote.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474; there every member sees every image in every epoch.

    Args:
        members: The networks, each with weights of its own.

    Raises:
        ValueError: No members.
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise ValueError("expected one member or more, got none")
        self.members = nn.ModuleList(members)

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """The vote; in training each member's own logits for its part of the batch."""
        if not self.training:
            votes = torch.stack([member(inputs).log_softmax(dim=1) for member in self.members])
            return votes.logsumexp(dim=0) - math.log(len(self.members))
        learning = list(self.members)
        if (most := max(1, len(inputs) // 2)) < len(learning):
            learning = [self.members[number] for number in torch.randperm(len(learning))[:most].tolist()]
        parts = inputs.tensor_split(len(learning))
        return torch.cat([member(part) for member, part in zip(learning, parts, strict=True)])
