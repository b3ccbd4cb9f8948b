"""More images instead of a term on the explanation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import get_args

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.core import Batch, Classifier, ExplanationLoss
from rightreasons.core.hooks import preserved
from rightreasons.data.randomize import Noise, meaningless
from rightreasons.supervision.annotation import connected_zero, marked_images, mask_of, nothing_annotated


@dataclass(frozen=True)
class Counterexamples(ExplanationLoss):
    """The cross-entropy on copies of the annotated images whose irrelevant pixels say nothing.

    Each copy keeps its label and every pixel outside ``irrelevant``; an annotated image without an irrelevant pixel is
    not copied. The copies run through the model in the mode it is in, as a batch of their own, but leave the running
    statistics of its normalization as they were. With weight 1 they count as much as the batch itself; the paper adds
    them to the data set, which is the same up to the scale of the total and to those statistics.

    Source: Teso & Kersting 2019 (AIES), "Explanatory interactive machine learning", their counterexamples.

    Args:
        copies: Copies of each image in a step.
        noise: What irrelevant pixels become: random values ("uniform"), or the pixels at the same place of another
            image of the batch, drawn at random ("swapped"; a batch of one image has no other and is left as it is).
        share: The part of these images that is copied in a step; the cost goes with copies * share.
        low: Smallest random value.
        high: Largest random value; the range should be that of the pixels.
        seed: Of the copies; ``None`` draws from torch's global generator. With a seed the copies of a batch follow
            from it and ``batch.index`` alone, so that the same batch always gets the same copies.
    """

    copies: int = 1
    noise: Noise = "uniform"
    share: float = 1.0
    low: float = 0.0
    high: float = 1.0
    seed: int | None = None

    def __post_init__(self) -> None:
        if self.copies < 1:
            raise ValueError(f"expected copies of at least 1, got {self.copies}")
        if self.noise not in get_args(Noise):
            raise ValueError(f"expected noise to be one of {', '.join(get_args(Noise))}, got {self.noise!r}")
        if not 0 < self.share <= 1:
            raise ValueError(f"expected share above 0 and at most 1, got {self.share}")
        if not self.low < self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over the copies, which leave no trace in running statistics."""
        if nothing_annotated(batch):
            return connected_zero(logits)
        inputs, rows = self.copied(batch)
        if not len(rows):
            return connected_zero(logits)
        with preserved(model.network):
            return F.cross_entropy(model.rows(rows)(inputs), batch.target[rows])

    def copied(self, batch: Batch) -> tuple[Float[Tensor, "copies channels height width"], Int[Tensor, " copies"]]:
        """The copies of a batch and the images they are of; none where no annotated image has an irrelevant pixel.

        Raises:
            MissingAnnotation: The batch carries no ``irrelevant`` masks.
        """
        mask = mask_of(batch, "irrelevant", type(self).__name__)
        generator = self._generator(batch)
        rows = self._chosen(batch.annotated_rows() & marked_images(mask), generator).repeat(self.copies)
        inputs, mask = batch.inputs.detach(), mask[rows]
        values = meaningless(inputs, self.noise, (self.low, self.high), generator, rows)
        return inputs[rows] * (1 - mask) + values * mask, rows

    def _chosen(self, counted: Bool[Tensor, " batch"], generator: torch.Generator | None) -> Int[Tensor, " rows"]:
        rows = counted.nonzero()[:, 0]
        count = max(1, round(self.share * len(rows)))
        if count == len(rows):
            return rows
        return rows[torch.randperm(len(rows), generator=generator, device=rows.device)[:count]]

    def _generator(self, batch: Batch) -> torch.Generator | None:
        if self.seed is None:
            return None
        index = () if batch.index is None else tuple(batch.index.tolist())
        # Integers hash to the same number in every process.
        return torch.Generator(batch.inputs.device).manual_seed(hash((self.seed, index)) % 2**63)
