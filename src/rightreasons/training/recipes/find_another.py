"""Find another explanation: train again and again, each time kept from the pixels that the last ones looked at."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

from rightreasons.attribution import Saliency
from rightreasons.core import Batch
from rightreasons.core.hooks import modes_kept
from rightreasons.data.dataset import ImageDataset, Wrapper
from rightreasons.models import AdaptedClassifier
from rightreasons.supervision import RRR
from rightreasons.training.evaluation import device_of
from rightreasons.training.fit import FitResult, fit
from rightreasons.training.objective import Objective, Term
from rightreasons.training.recipes.recipe import Fit, Recipe, RecipeResult, Stages, figures
from rightreasons.training.settings import FitSettings
from rightreasons.training.weights import weight_of

CHUNK = 256


@dataclass(frozen=True)
class FindAnotherExplanation(Recipe):
    """Train plainly, mark what the model looks at, train anew with these pixels forbidden by ``RRR``, and so on.

    After each training a pixel of an image is marked irrelevant if the gradient of the sum of the log-probabilities is
    there, in absolute value, above ``cutoff`` times its largest value in the image; marks of earlier rounds stay. The
    report tells of each round the accuracy and how much of the gradient lies in pixels marked before: where accuracy
    falls, the explanations that are left are worse ones. Which round to believe is for a person to say; the last one is
    returned. No human mask is needed, and masks that the images carry are replaced.

    Source: Ross et al. 2017, arXiv:1703.03717, section 3.3. There a component of the input is marked; here a pixel is,
    by the largest of its channels. There lambda is 1000 for pixels from 0 to 255; here the weight is balanced against
    the cross-entropy unless it is a number.

    Args:
        rounds: How often to train after the first, plain training.
        cutoff: Share of an image's largest gradient above which a pixel is marked.
        weight: Of ``RRR``: a number, or a rule as in a configuration, such as ``balance``.

    Raises:
        ValueError: No round, a cutoff not between 0 and 1, or a weight that is none.
    """

    rounds: int = 1
    cutoff: float = 0.67
    weight: float | str = "balance"

    def __post_init__(self) -> None:
        if self.rounds < 1:
            raise ValueError(f"expected rounds of at least 1, got {self.rounds}")
        if not 0 < self.cutoff < 1:
            raise ValueError(f"expected cutoff between 0 and 1, got {self.cutoff}")
        Term(RRR(), weight_of(self.weight))

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
        """Train ``rounds`` + 1 times; the objective may hold no explanation loss, as the recipe brings its own."""
        if objective.terms:
            name = next(iter(objective.terms))
            raise ValueError(f"FindAnotherExplanation makes its own masks: expected no explanation loss, got {name!r}")
        stages = Stages(model, fit, out)
        trained = stages.train("round-0", data, objective, settings)
        report = [self._told(stages, data, trained, None)]
        marked: Marked | None = None
        for number in range(1, self.rounds + 1):
            marked = Marked(data, self._marks(stages, data, marked, number - 1))
            revised = replace(objective, terms={"rrr": Term(RRR(), weight_of(self.weight))})
            trained = stages.train(f"round-{number}", marked, revised, settings)
            report.append(self._told(stages, data, trained, marked))
        return stages.ended(report)

    def _marks(
        self, stages: Stages, data: ImageDataset, before: Marked | None, number: int
    ) -> UInt8[Tensor, "images bytes"]:
        """The marks after a round, those of earlier ones included."""
        made_of = (f"cutoff {self.cutoff}", data.name, data.sampled_fingerprint())

        def make() -> Tensor:
            found = torch.cat([packed(marks_of(size, self.cutoff)) for _, size in _sizes(stages.model, data)])
            return found if before is None else found | before.marks

        return stages.kept(f"round-{number}", "marks.safetensors", made_of, make)

    def _told(self, stages: Stages, data: ImageDataset, trained: FitResult, before: Marked | None) -> dict[str, float]:
        found = {"round": float(len(stages.results) - 1), **figures(stages.model, data, trained)}
        if before is None:
            return found
        inside = [share_inside(size, before.of(index)) for index, size in _sizes(stages.model, data)]
        return {**found, "marked_share": before.area(), "gradient_share": float(torch.cat(inside).nanmean())}


class Marked(Wrapper):
    """The same images with marks as their ``irrelevant`` masks, one bit a pixel; other masks are dropped.

    Args:
        data: The images.
        marks: One row an image, its pixels packed into bytes: see :func:`packed`.

    Raises:
        ValueError: Not one row an image, or rows of another length.
    """

    def __init__(self, data: ImageDataset, marks: UInt8[Tensor, "images bytes"]) -> None:
        self.size = data.shape[1:]
        expected = (len(data), -(-self.size[0] * self.size[1] // 8))
        if tuple(marks.shape) != expected:
            raise ValueError(f"expected packed marks of shape {expected}, got {tuple(marks.shape)}")
        self.marks = marks
        super().__init__(data, "marks of earlier models")

    def batch(self, index: Int[Tensor, " batch"]) -> Batch:
        """The images of these positions with their marks."""
        batch = self.data.batch(index)
        irrelevant = self.of(index).to(batch.inputs.dtype)
        return replace(batch, irrelevant=irrelevant, relevant=None, annotated=None)

    def of(self, index: Int[Tensor, " batch"]) -> Bool[Tensor, "batch 1 height width"]:
        """The marks of these images."""
        height, width = self.size
        bits = np.unpackbits(self.marks[index].numpy(), axis=1, count=height * width)
        return torch.from_numpy(bits).bool().view(-1, 1, height, width)

    def area(self) -> float:
        """Share of all pixels that is marked."""
        height, width = self.size
        ones = np.unpackbits(self.marks.numpy(), axis=1, count=height * width).sum(dtype=np.int64)
        return float(ones) / (len(self.marks) * height * width)


def marks_of(size: Float[Tensor, "batch 1 height width"], cutoff: float) -> Bool[Tensor, "batch 1 height width"]:
    """Which pixels are above ``cutoff`` times their image's largest; none where all are zero."""
    return size > cutoff * size.amax(dim=(1, 2, 3), keepdim=True)


def packed(marks: Bool[Tensor, "batch 1 height width"]) -> UInt8[Tensor, "batch bytes"]:
    """Eight pixels a byte, row after row."""
    return torch.from_numpy(np.packbits(marks.flatten(1).cpu().numpy(), axis=1))


def share_inside(
    size: Float[Tensor, "batch 1 height width"], marks: Bool[Tensor, "batch 1 height width"]
) -> Float[Tensor, " batch"]:
    """How much of an image's gradient lies in marked pixels; NaN where there is no gradient."""
    return (size * marks).sum(dim=(1, 2, 3)) / size.sum(dim=(1, 2, 3))


def _sizes(
    model: AdaptedClassifier, data: ImageDataset
) -> Iterator[tuple[Int[Tensor, " batch"], Float[Tensor, "batch 1 height width"]]]:
    """The absolute gradient at each pixel, the largest over its channels, in chunks with their positions."""
    attribution = Saliency(score="sum_log_probabilities")
    device = device_of(model)
    with modes_kept(model), torch.no_grad():
        model.eval()
        for index in torch.split(torch.arange(len(data)), CHUNK):
            batch = data.batch(index).to(device)
            values = attribution.per_channel(model, batch.inputs, batch.target)
            yield index, values.abs().amax(dim=1, keepdim=True).float().cpu()
