"""Attributions from the gradient with respect to the pixels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.baselines import Baseline, as_baselines
from rightreasons.attribution.forward import Forward, check_max_batch, rows_at_once
from rightreasons.attribution.references import References, check_references, reference_images
from rightreasons.attribution.score import PixelGradient, Score, check_score, explained, gradient
from rightreasons.attribution.second_order import TwiceDifferentiated
from rightreasons.core import Attribution, Classifier
from rightreasons.core.hooks import preserved

Place = Callable[[Tensor, Tensor], Tensor]
"""``place(step, image) -> inputs``: the images of these numbers, moved as the step of these numbers asks."""


@dataclass(frozen=True)
class Saliency(PixelGradient):
    """The gradient of the score with respect to the pixels, d score / d x.

    Source: Simonyan et al. 2013, arXiv:1312.6034, section 3. They show the largest absolute value over channels; here
    values keep their sign and channels are summed.

    Args:
        score: The number that is explained.
    """

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """D score / d x, (B, C, H, W)."""
        trace = model.trace(inputs)
        # A pass over the caller's own leaf may be a recorded one, which others ask as well.
        last = not graph and trace.inputs is not inputs
        return gradient(explained(trace.logits, target, self.score), trace.inputs, graph=graph, last=last)


@dataclass(frozen=True)
class InputXGradient(PixelGradient):
    """The pixel times its gradient, x * d score / d x: the first-order share of each pixel in the score.

    Source: Shrikumar et al. 2016, arXiv:1605.01713.

    Args:
        score: The number that is explained.
    """

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """X * d score / d x, (B, C, H, W)."""
        return inputs * Saliency(self.score).attribute(model, inputs, target, graph=graph)


@dataclass(frozen=True)
class SmoothGrad(Attribution):
    """The mean gradient over noisy copies of the image.

    All images of a batch meet the same noise, so that an image's map does not depend on its batch.

    Source: Smilkov et al. 2017, arXiv:1706.03825, Eq. 1.

    Args:
        samples: Noisy copies an image.
        noise: Standard deviation of the noise as a share of the image's own range, largest minus smallest value.
        seed: Of the noise; ``None`` draws fresh noise at each call from torch's global generator.
        score: The number that is explained.
        max_batch: Copies that run through the model at once; bounds the memory. ``None``: 64 on a CPU and 256
            elsewhere, and fewer if they are large (of 3x224x224, 3 and 55).
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    samples: int = 25
    noise: float = 0.15
    seed: int | None = 0
    score: Score = "logit"
    max_batch: int | None = None

    def __post_init__(self) -> None:
        check_score(self.score)
        check_max_batch(self.max_batch)
        _check_positive(samples=self.samples, noise=self.noise)

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """Mean of d score / d x at x + noise, (B, C, H, W)."""
        shape = (self.samples, *inputs.shape[1:])
        draws = torch.randn(shape, generator=_generator(self.seed), dtype=inputs.dtype).to(inputs.device)
        dimensions = tuple(range(1, inputs.ndim))
        spread = inputs.detach().amax(dimensions, keepdim=True) - inputs.detach().amin(dimensions, keepdim=True)
        weights = inputs.new_full((self.samples,), 1 / self.samples)

        def place(step: Tensor, image: Tensor) -> Tensor:
            return inputs[image] + self.noise * spread[image] * draws[step]

        return _weighted_gradients(model, place, weights, target, settings=self, graph=graph)


@dataclass(frozen=True)
class IntegratedGradients(Attribution):
    """The gradient along the straight line from a baseline, times the way: the values sum to the change of the score.

    The integral is taken by Gauss-Legendre quadrature, whose error falls faster than that of the paper's Riemann sum.
    Of several baselines the maps are averaged.

    Source: Sundararajan et al. 2017, arXiv:1703.01365, Eq. 1 and Prop. 1 (completeness).

    Args:
        baseline: Value of every pixel of the baseline image, a :class:`Baseline`, or a list of these to average over.
        steps: Points on the line.
        score: The number that is explained.
        max_batch: Images that run through the model at once; bounds the memory. ``None``: 64 on a CPU and 256
            elsewhere, and fewer if they are large (of 3x224x224, 3 and 55).
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    baseline: float | Baseline | Sequence[float | Baseline] = 0.0
    steps: int = 32
    score: Score = "logit"
    max_batch: int | None = None

    def __post_init__(self) -> None:
        check_score(self.score)
        check_max_batch(self.max_batch)
        _check_positive(steps=self.steps)
        as_baselines(self.baseline)
        if isinstance(self.baseline, list):
            object.__setattr__(self, "baseline", tuple(self.baseline))

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """(x - baseline) * the integral of d score / d x over the line, (B, C, H, W)."""
        starts = self._starts(model, inputs)
        parts = [self._from_start(model, start, inputs - start, target, graph=graph) for start in starts]
        return parts[0] if len(parts) == 1 else torch.stack(parts).mean(dim=0)

    def _starts(self, model: Classifier, inputs: Tensor) -> Float[Tensor, "baselines batch channels height width"]:
        return torch.cat([baseline.facing(model, inputs) for baseline in as_baselines(self.baseline)])

    def _from_start(self, model: Classifier, start: Tensor, way: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        nodes, node_weights = np.polynomial.legendre.leggauss(self.steps)
        along = torch.as_tensor((nodes + 1) / 2).to(way).view(-1, *(1,) * (way.ndim - 1))
        weights = torch.as_tensor(node_weights / 2).to(way)

        def place(step: Tensor, image: Tensor) -> Tensor:
            return start[image] + along[step] * way[image]

        return way * _weighted_gradients(model, place, weights, target, settings=self, graph=graph)

    def completeness_error(
        self,
        model: Classifier,
        inputs: Float[Tensor, "batch channels height width"],
        target: Int[Tensor, " batch"],
    ) -> Float[Tensor, " batch"]:
        """By how much the values of each image miss the change of its score from the baseline (the mean over several).

        It is zero for the exact integral: what is left is the quadrature's error, which more steps make smaller.
        """
        with torch.no_grad(), preserved(model.network):
            values = self.per_channel(model, inputs, target).sum(dim=(1, 2, 3))
            before = [explained(model(start), target, self.score) for start in self._starts(model, inputs)]
            return values - (explained(model(inputs), target, self.score) - torch.stack(before).mean(dim=0))


@dataclass(frozen=True, eq=False)
class ExpectedGradients(Attribution):
    """Integrated gradients averaged over a distribution of baselines: no single one has to be chosen.

    Each sample is a random reference at a random point of the line to it; all images of a batch meet the same samples,
    so that an image's map does not depend on its batch. The values sum to the score minus the mean score of the
    references, up to the sampling error.

    Source: Erion et al. 2021, arXiv:1906.10670, Eq. 3.

    Args:
        references: Images to start from, usually some hundred from the training data, (R, C, H, W); of token
            embeddings (R, T, D).
        samples: Pairs of reference and point an image.
        seed: Of the pairs; ``None`` draws fresh ones at each call from torch's global generator.
        score: The number that is explained.
        max_batch: Images that run through the model at once; bounds the memory. ``None``: 64 on a CPU and 256
            elsewhere, and fewer if they are large (of 3x224x224, 3 and 55).
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    references: References = field(repr=False)
    samples: int = 64
    seed: int | None = 0
    score: Score = "logit"
    max_batch: int | None = None

    def __post_init__(self) -> None:
        check_score(self.score)
        _check_positive(samples=self.samples)
        check_references(self.references, self.max_batch)

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """Mean of (x - reference) * d score / d x at random points between them, (B, C, H, W)."""
        generator = _generator(self.seed)
        chosen = torch.randint(len(self.references), (self.samples,), generator=generator)
        references = reference_images(self.references[chosen], inputs)
        along = torch.rand(self.samples, generator=generator, dtype=inputs.dtype).to(inputs.device)
        along = along.view(-1, *(1,) * (inputs.ndim - 1))
        weights = inputs.new_full((self.samples,), 1 / self.samples)
        shown = self.shown(inputs, generator)

        def place(step: Tensor, image: Tensor) -> Tensor:
            return references[step] + along[step] * (shown(step, image) - references[step])

        def way(step: Tensor, image: Tensor) -> Tensor:
            return shown(step, image) - references[step]

        return _weighted_gradients(model, place, weights, target, settings=self, graph=graph, factor=way)

    def shown(self, inputs: Tensor, generator: torch.Generator | None) -> Place:
        """The end of each sample's way: the image itself."""
        return lambda step, image: inputs[image]


def _weighted_gradients(
    model: Classifier,
    place: Place,
    weights: Float[Tensor, " steps"],
    target: Int[Tensor, " batch"],
    *,
    settings: SmoothGrad | IntegratedGradients | ExpectedGradients,
    graph: bool,
    factor: Place | None = None,
) -> Tensor:
    """Sum over steps of weight * (factor *) d score / d x at ``place``, ``max_batch`` rows at a time."""
    batch = len(target)
    if not batch:
        raise ValueError("expected at least one image, got an empty batch")
    start = torch.zeros(1, dtype=torch.long, device=target.device)
    first = place(start, start).detach()
    run, total = Forward(model), first.new_zeros(batch, *first.shape[1:])
    at_once = rows_at_once(settings.max_batch, first)

    # A function of its own, so that a pass is gone before the next begins.
    def values_at(step: Tensor, image: Tensor) -> Tensor:
        with TwiceDifferentiated() if graph else nullcontext():
            trace = run.trace(place(step, image), image)
            scores = explained(trace.logits, target[image], settings.score)
            values = gradient(scores, trace.inputs, graph=graph, last=not graph)
        if factor is not None:
            values = values * factor(step, image)
        return values * weights[step].view(-1, *(1,) * (values.ndim - 1))

    # Rows count through the images first, so that one chunk may hold several steps or a part of one.
    for rows in torch.split(torch.arange(len(weights) * batch, device=target.device), at_once):
        total = total.index_add(0, rows % batch, values_at(rows // batch, rows % batch))
    return total


def _generator(seed: int | None) -> torch.Generator | None:
    return None if seed is None else torch.Generator().manual_seed(seed)


def _check_positive(**settings: float) -> None:
    for name, value in settings.items():
        if value <= 0:
            raise ValueError(f"expected {name} above 0, got {value}")
