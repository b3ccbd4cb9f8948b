"""What is missing for another class, and what is enough for its own: contrastive explanations (CEM)."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.core.hooks import evaluating
from rightreasons.core.settings import check_counts, check_not_negative, check_positive
from rightreasons.core.tensors import elastic_net
from rightreasons.counterfactuals.anytime import AnytimeCounterfactual, named_images
from rightreasons.counterfactuals.learnt import unit_range
from rightreasons.counterfactuals.search import Search


@dataclass(frozen=True)
class ContrastiveExplanation(AnytimeCounterfactual):
    """What pertinent negatives and positives share: an elastic net by FISTA, and a weight found by bisection.

    With ``e`` the change, in units of the pixels' range, the least is sought of ``weight * hinge + |e|^2 + sparsity *
    |e|_1 + plausibility * |x - autoencoder(x)|^2`` under the method's own rule of what may change. The weight starts at
    ``weight``, grows tenfold while nothing valid is found, and is bisected once something is. Steps shrink with the
    square root of what remains.

    Args:
        sparsity: Weight of the absolute values (the papers' beta).
        autoencoder: Images from 0 to 1 to such images; where it is given, those that it reproduces are preferred.
        plausibility: Weight of that (gamma).
        background: The value of a pixel that says nothing; ``None``: ``low``.
        weight: First weight of the hinge (c).
        rounds: Weights that are tried.
        steps: Steps of FISTA with each.
        step_size: Of the first step.
    """

    black_box: ClassVar[bool] = False
    last_counts: ClassVar[bool] = False
    """Whether a weight has found something by its last image alone; else by any."""

    sparsity: float = 0.1
    autoencoder: Callable[[Tensor], Tensor] | None = None
    plausibility: float = 0.0
    background: float | None = None
    weight: float = 10.0
    rounds: int = 4
    steps: int = 100
    step_size: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(rounds=self.rounds, steps=self.steps)
        check_positive(weight=self.weight, step_size=self.step_size)
        check_not_negative(sparsity=self.sparsity, plausibility=self.plausibility)
        if self.background is not None and not self.low <= self.background <= self.high:
            raise ValueError(f"expected a background from {self.low} to {self.high}, got {self.background}")
        if (self.plausibility > 0) != (self.autoencoder is not None):
            raise ValueError(
                f"expected an autoencoder and a plausibility above 0, or neither, got {self.plausibility} and "
                f"{self.autoencoder!r}"
            )

    @abstractmethod
    def anchor(self, inputs: Tensor) -> Tensor:
        """From where the change counts."""

    @abstractmethod
    def allowed(self, images: Tensor, inputs: Tensor) -> Tensor:
        """The nearest images under the method's rule."""

    def distance(
        self,
        inputs: Float[Tensor, "batch channels height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]:
        """The elastic net of the change, in units of the pixels' range."""
        change = (images - self.anchor(inputs)).flatten(1) / self.width
        return elastic_net(change, self.sparsity)

    def search(self, search: Search) -> Iterator[None]:
        """FISTA under one weight after another."""
        weights = _Weights.starting(torch.full_like(search.length, self.weight))
        for _ in range(self.rounds):
            if not len(search.affordable(search.all, 2)):
                return
            hit = torch.zeros_like(search.valid)
            yield from self._fista(search, weights.now, hit)
            weights.after(hit)

    @property
    def _background(self) -> float:
        return self.low if self.background is None else self.background

    def _fista(self, search: Search, weight: Tensor, hit: Tensor) -> Iterator[None]:
        """All steps with these weights; ``hit`` tells for which images one, or the last one, was valid."""
        images, ahead = search.inputs.clone(), search.inputs.clone()
        for step in range(self.steps):
            image = search.affordable(search.all, 2)
            if not len(image):
                return
            inputs, size = search.inputs[image], self.step_size * (1 - step / self.steps) ** 0.5
            slope = self._slope(search, ahead[image], image, weight[image].view(-1, 1, 1, 1))
            found = self._shrunk(ahead[image] - size * slope, inputs, size)
            # Nesterov's look ahead.
            ahead[image] = self.allowed(found + step / (step + 3) * (found - images[image]), inputs)
            images[image] = found
            valid = search.offer(found, image, search.logits(found, image))
            hit[image] = valid if self.last_counts else hit[image] | valid
            yield

    def _slope(self, search: Search, images: Tensor, image: Tensor, weight: Tensor) -> Tensor:
        """The gradient of all but the absolute values, times the square of the range: that of a unit range."""
        logits, slope = search.differentiate(images, image, search.hinge)
        search.offer(images, image, logits)
        total = self.width**2 * weight.to(slope.dtype) * slope + 2 * (images - self.anchor(search.inputs[image]))
        if self.autoencoder is None:
            return total
        slopes = [self._implausible(images[row], self.autoencoder) for row in search.chunks(len(images))]
        return total + self.width**2 * self.plausibility * torch.cat(slopes)

    def _implausible(self, images: Tensor, autoencoder: Callable[[Tensor], Tensor]) -> Tensor:
        """The gradient of what the autoencoder does not reproduce, of images from 0 to 1."""
        with torch.enable_grad(), evaluating(autoencoder):
            leaf = images.detach().requires_grad_()
            units = unit_range(leaf, (self.low, self.high), autoencoder)
            return torch.autograd.grad((units - autoencoder(units)).square().sum(), leaf)[0]

    def _shrunk(self, images: Tensor, inputs: Tensor, size: float) -> Tensor:
        """The proximal step of the absolute values, then the rule."""
        anchor = self.anchor(inputs)
        change = F.softshrink(images - anchor, size * self.sparsity * self.width)
        return self.allowed(anchor + change, inputs)


@dataclass(frozen=True)
class PertinentNegative(ContrastiveExplanation):
    """What is absent from the image and would make it the target: pixels may only move away from the background.

    With the target :data:`~rightreasons.core.ANY_OTHER` it is the published one.

    Source: Dhurandhar et al. 2018 (CEM), arXiv:1802.07623, Eqs. 1 and 2. Ours: a class to reach; a shrinkage that
    follows the step size; of valid images the one of the least elastic net counts, whichever weight found it.
    """

    def anchor(self, inputs: Tensor) -> Tensor:
        """The original."""
        return inputs

    def allowed(self, images: Tensor, inputs: Tensor) -> Tensor:
        """A pixel that came nearer to the background goes back."""
        images = images.clamp(self.low, self.high)
        nearer = (images - self._background).abs() < (inputs - self._background).abs()
        return torch.where(nearer, inputs, images)


@dataclass(frozen=True)
class PertinentPositive(ContrastiveExplanation):
    """The least of the image that is enough for its class: the rest fades into the background.

    The search starts from the whole image, which is valid: a weight is judged by the last image that it leads to.

    It answers another question than a counterfactual, so it is not in the catalogue: ``target`` is the *predicted*
    class, the images are what is kept of the originals, and ``valid`` says that the model still gives them that class.

    Source: Dhurandhar et al. 2018 (CEM), arXiv:1802.07623, Eqs. 3 and 4; ours as for :class:`PertinentNegative`.
    """

    last_counts: ClassVar[bool] = True

    weight: float = 1.0

    def anchor(self, inputs: Tensor) -> Tensor:
        """The background."""
        return torch.full_like(inputs, self._background)

    def allowed(self, images: Tensor, inputs: Tensor) -> Tensor:
        """Between the background and the original."""
        anchor = self.anchor(inputs)
        return images.clamp(torch.minimum(anchor, inputs), torch.maximum(anchor, inputs))

    def check_target(self, search: Search) -> None:
        """Refuse a target that is not the predicted class.

        Raises:
            ValueError: It is not; the message names the images.
        """
        if (other := search.target != search.predicted).any():
            raise ValueError(f"expected the predicted class as target, got another class for {named_images(other)}")


@dataclass(eq=False)
class _Weights:
    """A weight of each image: tenfold while nothing is found, then bisected."""

    now: Float[Tensor, " batch"]
    low: Float[Tensor, " batch"]
    high: Float[Tensor, " batch"]

    @classmethod
    def starting(cls, weight: Float[Tensor, " batch"]) -> _Weights:
        return cls(weight, torch.zeros_like(weight), torch.full_like(weight, torch.inf))

    def after(self, hit: Tensor) -> None:
        self.high = torch.where(hit, torch.minimum(self.high, self.now), self.high)
        self.low = torch.where(hit, self.low, torch.maximum(self.low, self.now))
        self.now = torch.where(self.high.isinf(), 10 * self.now, (self.low + self.high) / 2)
