"""Batches with masks for the tests of the metrics."""

from __future__ import annotations

import torch
from torch import Tensor

from rightreasons.core import Batch


class NoModel:
    """These metrics read the heatmap alone; any use of the model fails."""

    layer = None
    network = None

    def __call__(self, inputs):
        raise AssertionError("the metric ran the model")

    def trace(self, inputs, layers=()):
        raise AssertionError("the metric ran the model")

    def rows(self, index):
        return self


def batch_of(
    relevant: Tensor | None = None, irrelevant: Tensor | None = None, annotated: Tensor | None = None
) -> Batch:
    mask = relevant if relevant is not None else irrelevant
    assert mask is not None
    inputs = torch.zeros(len(mask), 1, *mask.shape[-2:])
    return Batch(inputs, torch.zeros(len(mask), dtype=torch.long), relevant, irrelevant, annotated)


def random_case(count: int = 12, side: int = 9) -> tuple[Batch, Tensor]:
    """Signed maps, a relevant and an irrelevant mask that do not meet, some rows without either, one map of zeros."""
    generator = torch.Generator().manual_seed(3)
    heatmap = torch.randn(count, 1, side, side, generator=generator)
    kind = torch.rand(count, 1, side, side, generator=generator)
    relevant, irrelevant = (kind < 0.3).float(), (kind > 0.7).float()
    annotated = torch.ones(count, dtype=torch.bool)
    annotated[1] = False
    relevant[2] = 0
    irrelevant[3] = 0
    heatmap[4] = 0
    return batch_of(relevant, irrelevant, annotated), heatmap
