"""A mask found by optimization."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from rightreasons.attribution.forward import Output, rows_at_once, score_of
from rightreasons.attribution.perturbation.baselines import Hidden
from rightreasons.attribution.perturbation.masking import Perturbation, generator_of, progress
from rightreasons.attribution.score import gradient
from rightreasons.core import Classifier
from rightreasons.core.settings import check_counts
from rightreasons.core.tensors import resized

Deleted = Float[Tensor, "batch 1 rows columns"]


@dataclass(frozen=True)
class MeaningfulPerturbation(Perturbation):
    """The smallest and smoothest part of each image whose deletion brings the score down, from 0 (kept) to 1 (deleted).

    Minimizes score(x with the part deleted) + sparsity * |part| + smoothness * |its gradient|^exponent by Adam over a
    coarse mask, while the image jitters so that the mask cannot follow single pixels.

    Source: Fong & Vedaldi 2017, arXiv:1704.03296, Eq. 4 and section 4.3. Here the search starts from a half deleted
    image instead of a disc fitted to each image, and the coarse mask is enlarged bilinearly without a further blur.

    Args:
        steps: Of Adam.
        rate: Its learning rate.
        cells: Sides of the coarse mask; at most the image's own.
        sparsity: Lambda 1, a cell.
        smoothness: Lambda 2, a cell.
        exponent: Beta, of the differences between neighboring cells.
        jitter: Largest shift in pixels; ``None`` is 4 pixels of 224. An image of one row, and tokens, stay in place.
        seed: Of the shifts; ``None`` draws fresh ones at each call from torch's global generator.
    """

    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    steps: int = 300
    rate: float = 0.1
    cells: int = 28
    sparsity: float = 1e-4
    smoothness: float = 1e-2
    exponent: float = 3.0
    jitter: int | None = None
    seed: int | None = 0
    baseline: Hidden = field(default="blurred", kw_only=True)
    score: Output = field(default="probability", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bfloat16:
            raise ValueError("expected bfloat16 to be off, since the mask is found by gradients, got True")
        check_counts(steps=self.steps, cells=self.cells)
        for name in ("rate", "exponent"):
            if getattr(self, name) <= 0:
                raise ValueError(f"expected {name} above 0, got {getattr(self, name)}")
        for name in ("sparsity", "smoothness", "jitter"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"expected {name} of 0 or more, got {getattr(self, name)}")

    def against(
        self, model: Classifier, inputs: Tensor, baseline: Tensor, target: Tensor, *, graph: bool
    ) -> Float[Tensor, "batch 1 height width"]:
        """How much of each pixel is deleted, (B, 1, H, W)."""
        at_once = rows_at_once(self.max_batch, inputs)
        height, width = inputs.shape[2:]
        shifts = self._shifts(height, width)
        tensors = (inputs.detach(), baseline.detach(), target)
        chunks = torch.split(torch.arange(len(inputs), device=inputs.device), at_once)
        with progress(self.steps * len(inputs), self) as bar:
            parts = [
                self._optimized(model.rows(rows), *(part[rows] for part in tensors), shifts=shifts, bar=bar)
                for rows in chunks
            ]
        return torch.cat([resized(part, (height, width)).to(inputs.dtype) for part in parts])

    def _optimized(
        self,
        model: Classifier,
        inputs: Float[Tensor, "batch channels height width"],
        baseline: Float[Tensor, "batch channels height width"],
        target: Int[Tensor, " batch"],
        *,
        shifts: list[tuple[int, int]],
        bar: tqdm,
    ) -> Deleted:
        """The coarse part of each image; images share a pass and nothing else, since Adam works number by number."""
        height, width = inputs.shape[2:]
        size = min(self.cells, height), min(self.cells, width)
        precise = torch.promote_types(inputs.dtype, torch.float32)
        deleted = inputs.new_full((len(inputs), 1, *size), 0.5, dtype=precise).requires_grad_()
        optimizer = torch.optim.Adam([deleted], lr=self.rate)
        for shift in shifts:
            hidden = resized(deleted, (height, width)).to(inputs.dtype)
            seen = (inputs + hidden * (baseline - inputs)).roll(shift, dims=(2, 3))
            scores = score_of(model(seen), target, self.score) + self._cost(deleted)
            deleted.grad = gradient(scores, deleted, graph=False)
            optimizer.step()
            with torch.no_grad():
                deleted.clamp_(0, 1)
            bar.update(len(inputs))
        return deleted.detach()

    def _cost(self, deleted: Deleted) -> Float[Tensor, " batch"]:
        """What each image's part costs."""
        down, across = deleted.diff(dim=2).abs(), deleted.diff(dim=3).abs()
        rough = sum(side.pow(self.exponent).sum(dim=(1, 2, 3)) for side in (down, across))
        return self.sparsity * deleted.sum(dim=(1, 2, 3)) + self.smoothness * rough

    def _shifts(self, height: int, width: int) -> list[tuple[int, int]]:
        """Down and across, one a step, the same for all images."""
        farthest = round(4 / 224 * max(height, width)) if self.jitter is None else self.jitter
        # A word at another place, the last one ahead of the first, is another text.
        farthest = 0 if height == 1 else farthest
        drawn = torch.randint(-farthest, farthest + 1, (self.steps, 2), generator=generator_of(self.seed))
        return [(int(down), int(across)) for down, across in drawn.tolist()]
