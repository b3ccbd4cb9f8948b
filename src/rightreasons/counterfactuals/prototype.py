"""Towards what is typical of the target: counterfactuals guided by prototypes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.forward import rows_at_once
from rightreasons.attribution.references import check_references
from rightreasons.core import ANY_OTHER
from rightreasons.core.hooks import evaluating
from rightreasons.core.settings import check_counts, check_not_negative, check_positive
from rightreasons.core.tensors import elastic_net
from rightreasons.counterfactuals.anytime import AnytimeCounterfactual
from rightreasons.counterfactuals.learnt import Encoder, unit_range
from rightreasons.counterfactuals.search import Search


@dataclass(frozen=True, eq=False)
class PrototypeGuided(AnytimeCounterfactual):
    """The nearest flip on the way to the target's prototype in an encoder's space.

    With ``e`` the change, in units of the pixels' range, FISTA makes ``weight * hinge + |e|^2 + sparsity * |e|_1 +
    guidance * |enc(x') - proto|^2 / |enc(x) - proto|^2`` small. The prototype is the mean of those ``neighbors``
    encodings of the target's class that are nearest to that of the original, or of all of them. For any other class it
    is the nearest prototype of those that are not predicted. The weight starts at ``weight``, grows tenfold while
    nothing valid is found and falls to a tenth once something is, one round each. Of valid images the one of the least
    elastic net counts, whichever round found it.

    Source: Van Looveren and Klaise 2021, arXiv:1907.02584, Eqs. 3 to 6. Ours: the guidance in units of the original's
    own distance from its prototype, so that it does not depend on the encoder's scale; the model is asked at the
    looked-ahead images alone, one row a step in place of two.

    Args:
        encoder: Has ``encode(images)`` for images from 0 to 1, such as an ``Autoencoder`` or ``VAE``.
        references: Real images, such as some training images; encoded once.
        labels: Class of each. A target without any is not guided, and not valid for want of an example.
        neighbors: Encodings that make a prototype (the paper's K); ``None``: all of the class.
        guidance: Weight of the prototype (theta).
        sparsity: Weight of the absolute values (beta).
        weight: First weight of the hinge (c).
        rounds: Weights that are tried.
        steps: Steps of FISTA with each, the first at the original, so that one changed image less is tried.
        step_size: Of the first step; it shrinks with the square root of what remains.
    """

    black_box: ClassVar[bool] = False

    encoder: Encoder
    references: Float[Tensor, "references channels height width"]
    labels: Int[Tensor, " references"]
    neighbors: int | None = 15
    guidance: float = 20.0
    sparsity: float = 0.1
    weight: float = 10.0
    rounds: int = 2
    steps: int = 50
    step_size: float = 0.03

    def __post_init__(self) -> None:
        super().__post_init__()
        check_references(self.references, self.max_batch)
        check_counts(rounds=self.rounds, steps=self.steps)
        check_positive(guidance=self.guidance, weight=self.weight, step_size=self.step_size)
        check_not_negative(sparsity=self.sparsity)
        self.check_range(self.references, "references")
        if len(self.labels) != len(self.references):
            raise ValueError(f"expected one label a reference, {len(self.references)}, got {len(self.labels)}")
        if self.neighbors is not None:
            check_counts(neighbors=self.neighbors)
        if not isinstance(self.encoder, Encoder):
            raise ValueError(f"expected an encoder with encode, got {type(self.encoder).__name__}")

    def distance(
        self,
        inputs: Float[Tensor, "batch channels height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]:
        """The elastic net of the change, in units of the pixels' range."""
        change = (images - inputs).flatten(1) / self.width
        return elastic_net(change, self.sparsity)

    def search(self, search: Search) -> Iterator[None]:
        """Prototypes, then FISTA under one weight after another."""
        guide = self._guide(search)
        weight = torch.full_like(search.inputs[:, :1, :1, :1], self.weight)
        for _ in range(self.rounds):
            hit = torch.zeros_like(search.valid)
            yield from self._fista(search, guide, weight, hit)
            weight *= torch.where(hit, 0.1, 10.0).view(-1, 1, 1, 1)

    def _fista(self, search: Search, guide: _Guide, weight: Tensor, hit: Tensor) -> Iterator[None]:
        """All steps with these weights; ``hit`` tells for which images one was valid."""
        images, ahead = search.inputs.clone(), search.inputs.clone()
        for step in range(self.steps):
            image = search.affordable(search.all[guide.exists])
            if not len(image):
                return
            inputs, size = search.inputs[image], self.step_size * (1 - step / self.steps) ** 0.5
            slope = self._slope(search, ahead[image], image, weight[image], hit)
            slope += self.guidance * self._towards(ahead[image], guide, image)
            moved = (ahead[image] - inputs - size * slope * self.width) / self.width
            found = (inputs + self.width * F.softshrink(moved, size * self.sparsity)).clamp(self.low, self.high)
            # Nesterov's look ahead.
            further = found + step / (step + 3) * (found - images[image])
            ahead[image], images[image] = further.clamp(self.low, self.high), found
            yield

    def _slope(self, search: Search, images: Tensor, image: Tensor, weight: Tensor, hit: Tensor) -> Tensor:
        """The gradient of the hinge and the squares with respect to the change; offers the images."""
        logits, slope = search.differentiate(images, image, search.hinge)
        hit[image] |= search.offer(images, image, logits)
        return weight * slope * self.width + 2 * (images - search.inputs[image]) / self.width

    def _towards(self, images: Tensor, guide: _Guide, image: Tensor) -> Tensor:
        """The gradient of the guidance with respect to the change."""
        slopes = []
        with torch.enable_grad(), evaluating(self.encoder):
            for row in torch.split(torch.arange(len(images), device=images.device), rows_at_once(None, images)):
                leaf = images[row].detach().requires_grad_()
                gaps = (self._encode(leaf) - guide.prototypes[image[row]]).square().sum(dim=1)
                slopes.append(torch.autograd.grad((gaps / guide.start[image[row]]).sum(), leaf)[0])
        return torch.cat(slopes).to(images) * self.width

    def _encode(self, images: Tensor) -> Float[Tensor, "rows code"]:
        code = self.encoder.encode(unit_range(images, (self.low, self.high), self.encoder)).flatten(1)
        return code.to(torch.promote_types(code.dtype, torch.float32))

    @cached_property
    def _encodings(self) -> Float[Tensor, "references code"]:
        """Those of the references, once for all calls."""
        with torch.inference_mode(False), torch.no_grad(), evaluating(self.encoder):
            return torch.cat(
                [self._encode(part) for part in torch.split(self.references, rows_at_once(None, self.references))]
            )

    def _guide(self, search: Search) -> _Guide:
        """Of each original."""
        if search.inputs.shape[1:] != self.references.shape[1:]:
            raise ValueError(
                f"expected references of the images' shape {tuple(search.inputs.shape[1:])}, "
                f"got {tuple(self.references.shape[1:])}"
            )
        with evaluating(self.encoder):
            own = torch.cat([self._encode(search.inputs[row]) for row in search.chunks(len(search.inputs))])
        gaps, prototypes = self._nearest(own, search.start.shape[1])
        wanted = search.target[:, None].to(gaps.device)
        other = gaps.scatter(1, search.predicted[:, None].to(gaps.device), torch.inf).argmin(dim=1, keepdim=True)
        chosen = torch.where(wanted == ANY_OTHER, other, wanted)
        start = gaps.gather(1, chosen)[:, 0]
        towards = prototypes[torch.arange(len(own), device=own.device), chosen[:, 0]]
        exists = start.isfinite().to(search.inputs.device)
        # What lies at its prototype already is not drawn there.
        return _Guide(towards, start.masked_fill(start == 0, torch.inf), exists)

    def _nearest(
        self, own: Float[Tensor, "batch code"], classes: int
    ) -> tuple[Float[Tensor, "batch classes"], Float[Tensor, "batch classes code"]]:
        """The prototype of each class for each original, and how far it is, squared; infinitely where there is none."""
        prototypes = torch.full((len(own), classes, own.shape[1]), torch.inf, dtype=own.dtype, device=own.device)
        for label in sorted(set(self.labels.tolist()) & set(range(classes))):
            of_class = self._encodings[self.labels.to(self._encodings.device) == label].to(own)
            if self.neighbors is None:
                prototypes[:, label] = of_class.mean(dim=0)
            else:
                near = torch.cdist(own, of_class).topk(min(self.neighbors, len(of_class)), dim=1, largest=False)
                prototypes[:, label] = of_class[near.indices].mean(dim=1)
        return (prototypes - own[:, None]).square().sum(dim=2), prototypes


@dataclass(frozen=True, eq=False)
class _Guide:
    """Where each original is drawn: the prototype, its squared distance at the start, and whether there is one."""

    prototypes: Float[Tensor, "batch code"]
    start: Float[Tensor, " batch"]
    exists: Tensor
