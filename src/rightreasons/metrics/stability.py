"""How much a heatmap changes when its image hardly does.

These scores run the method itself on noisy copies, so they hold it: ``MaxSensitivity(attribution=Saliency())``;
``evaluate_attributions`` fills it in. The explained class stays ``batch.target``. All images of a batch meet the same
draws, scaled to each, so that an image's score does not depend on its batch.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.forward import rows_at_once
from rightreasons.attribution.perturbation.masking import generator_of
from rightreasons.core import Attribution, Batch, Classifier, Metric
from rightreasons.metrics.heatmaps import checked
from rightreasons.metrics.localization import where_defined


def method_of(metric: Metric, attribution: Attribution | None) -> Attribution:
    """The method that a metric explains with.

    Raises:
        ValueError: It has none.
    """
    if attribution is None:
        name = type(metric).__name__
        raise ValueError(
            f"{name} runs the method itself: expected attribution to be set, as in {name}(attribution=Saliency()), "
            "got None; evaluate_attributions fills it in"
        )
    return attribution


def check_method(attribution: Attribution | None) -> None:
    """Refuse what is no method.

    Raises:
        ValueError: It is neither an attribution nor ``None``.
    """
    if attribution is not None and not isinstance(attribution, Attribution):
        raise ValueError(f"expected attribution to be an Attribution or None, got {attribution!r}")


@dataclass(frozen=True, eq=False)
class Moves:
    """How far noise moves the images of a batch and their maps, in Euclidean lengths.

    Attributes:
        change: Of each map at each noisy copy.
        way: Of the copy from its image.
        size: Of the map itself.
    """

    change: Float[Tensor, "samples batch"]
    way: Float[Tensor, "samples batch"]
    size: Float[Tensor, " batch"]


@dataclass(frozen=True)
class UnderNoise(Metric):
    """The change of the heatmap at some noisy copies of each image, brought together.

    A copy is the image plus noise drawn evenly from the box of half-width ``radius`` times the image's own range. NaN
    for an image without a range, and with ``relative`` for a map of zeros.

    Attributes:
        attribution: The method.
        samples: Noisy copies an image; the method runs once for each.
        radius: Largest change of a pixel, as a share of the image's own range, largest minus smallest value.
        relative: Divide by the norm of the map itself, so that methods of different scales compare.
        seed: Of the noise; ``None`` draws fresh noise at each call from torch's global generator.
        max_batch: Copies that are explained at once; ``None``: 256, on a CPU 64, and fewer if images are large.
    """

    higher_is_better: ClassVar[bool] = False
    attribution: Attribution | None = None
    samples: int = 10
    radius: float = 0.1
    relative: bool = True
    seed: int | None = 0
    max_batch: int | None = None

    def __post_init__(self) -> None:
        check_method(self.attribution)
        for name in ("samples", "radius"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} above 0, got {getattr(self, name)}")
        if self.max_batch is not None and self.max_batch < 1:
            raise ValueError(f"expected max_batch of at least 1, or None, got {self.max_batch}")

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        return self.score(self.moves(model, batch, heatmap))

    @property
    def draws(self) -> tuple[float, ...] | None:
        """Metrics of one method with the same draws share their moves; ``None`` where each call draws its own."""
        return None if self.seed is None else (self.samples, self.radius, self.seed)

    def moves(self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]) -> Moves:
        """What the noise does to the maps: all passes of the metric."""
        method = method_of(self, self.attribution)
        maps = checked(heatmap, batch).flatten(1)
        inputs = batch.inputs.detach()
        reach = self.radius * (inputs.amax((1, 2, 3)) - inputs.amin((1, 2, 3)))
        noise = self._noise(inputs)
        rows = torch.arange(self.samples * len(batch), device=inputs.device)
        changes, ways = [], []
        for chunk in torch.split(rows, rows_at_once(self.max_batch, inputs)):
            step, image = chunk // len(batch), chunk % len(batch)
            moved = reach[image].view(-1, 1, 1, 1) * noise[step]
            with torch.no_grad():
                other = method(model.rows(image), inputs[image] + moved, batch.target[image])
            changes.append(_lengths(other.to(maps.dtype).flatten(1) - maps[image]))
            ways.append(_lengths(moved))
        change, way = (torch.cat(parts).view(self.samples, len(batch)) for parts in (changes, ways))
        return Moves(change, way, _lengths(maps))

    def score(self, moves: Moves) -> Float[Tensor, " batch"]:
        """One score an image."""
        changes = self.together(moves) / moves.size if self.relative else self.together(moves)
        return where_defined(changes, (moves.way.amax(dim=0) > 0) & ((moves.size > 0) | (not self.relative)))

    def _noise(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "samples _ height width"]:
        """Draws from -1 to 1, one a sample for all images."""
        shape = (self.samples, *inputs.shape[1:])
        draws = torch.rand(shape, generator=generator_of(self.seed), dtype=torch.double)
        return (2 * draws - 1).to(inputs.dtype).to(inputs.device)

    @abstractmethod
    def together(self, moves: Moves) -> Float[Tensor, " batch"]:
        """One number of the changes at all copies."""


def _lengths(values: Float[Tensor, "rows ..."]) -> Float[Tensor, " rows"]:
    lengths: Tensor = torch.linalg.vector_norm(values.flatten(1), dim=1)
    return lengths


@dataclass(frozen=True)
class MaxSensitivity(UnderNoise):
    """The largest change of the heatmap near the image: max over the copies y of |map(y) - map(x)|, Euclidean.

    Source: Yeh et al. 2019, arXiv:1901.09392 (max-sensitivity) and its Monte-Carlo estimate. Deviations: divided by
    |map(x)|, as they do for their tables (``relative=False`` leaves it), and the radius is a share of the image's
    range.
    """

    def together(self, moves: Moves) -> Float[Tensor, " batch"]:
        """The largest."""
        return moves.change.amax(dim=0)


@dataclass(frozen=True)
class AvgSensitivity(UnderNoise):
    """The mean change of the heatmap near the image, as ``MaxSensitivity`` but the mean over the copies.

    Source: Yeh et al. 2019, arXiv:1901.09392, and Bhatt et al. 2020, arXiv:2005.00631, Definition 2 (average
    sensitivity); deviations as for ``MaxSensitivity``.
    """

    def together(self, moves: Moves) -> Float[Tensor, " batch"]:
        """The mean."""
        return moves.change.mean(dim=0)


@dataclass(frozen=True)
class LocalLipschitz(UnderNoise):
    """The steepest change of the heatmap near the image: max over the copies y of |map(y) - map(x)| / |y - x|.

    Source: Alvarez-Melis and Jaakkola 2018, arXiv:1806.08049, Eq. 2 (and arXiv:1806.07538, Definition 3.1).
    Deviations: the largest of random copies, where the paper searches for the worst one, so this is a lower bound; and
    divided by |map(x)| unless ``relative=False``, because it grows with the scale of a map.
    """

    def together(self, moves: Moves) -> Float[Tensor, " batch"]:
        """The steepest."""
        return (moves.change / moves.way).amax(dim=0)
