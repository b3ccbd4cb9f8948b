"""Any attribution under noise on the image."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

import torch
from torch import Tensor

from rightreasons.attribution.forward import check_max_batch, rows_at_once
from rightreasons.attribution.gradient import Saliency
from rightreasons.core import Attribution, Classifier

Kind = Literal["mean", "variance", "square"]
"""What is taken of the maps of an image's noisy copies: their mean, their variance, or the mean of their squares."""


@dataclass(frozen=True)
class Smoothed(Attribution):
    """A method's maps over noisy copies of the image, brought together pixel by pixel.

    ``mean`` is SmoothGrad, ``square`` SmoothGrad squared and ``variance`` VarGrad, of any method; values per channel
    are brought together before channels are summed. The variance is that of the copies as they are, with their number
    below it. All images of a batch meet the same noise, so that an image's map does not depend on its batch. The
    noise's width is read off the image and counts as a setting: it has no gradient.

    Source: Smilkov et al. 2017, arXiv:1706.03825, Eq. 1; Adebayo et al. 2018, arXiv:1810.03307 (VarGrad); Hooker et al.
    2019, arXiv:1806.10758 (squares).

    Args:
        method: What is smoothed.
        samples: Noisy copies an image.
        noise: Standard deviation of the noise as a share of the image's own range, largest minus smallest value.
        kind: What is taken of the maps.
        seed: Of the noise; ``None`` draws fresh noise at each call from torch's global generator.
        max_batch: Copies that run through the model at once; bounds the memory. ``None``: 64 on a CPU and 256
            elsewhere, and fewer if they are large (of 3x224x224, 3 and 55).
    """

    method: Attribution = field(default_factory=Saliency)
    samples: int = 25
    noise: float = 0.15
    kind: Kind = "mean"
    seed: int | None = 0
    max_batch: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.method, Attribution):
            raise ValueError(f"expected method to be an attribution, got {self.method!r}")
        if self.kind not in get_args(Kind):
            raise ValueError(f"expected kind to be one of {', '.join(get_args(Kind))}, got {self.kind!r}")
        check_max_batch(self.max_batch)
        for name in ("samples", "noise"):
            if not getattr(self, name) > 0:
                raise ValueError(f"expected {name} above 0, got {getattr(self, name)}")

    @property
    def differentiable(self) -> bool:  # type: ignore[override]
        """As the method is."""
        return self.method.differentiable

    @property
    def signed(self) -> bool:  # type: ignore[override]
        """As the method is; squares and variances have no sign."""
        return self.kind == "mean" and self.method.signed

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """What ``kind`` says of the maps at x + noise."""
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        draws = torch.randn((self.samples, *inputs.shape[1:]), generator=generator, dtype=inputs.dtype)
        noise = self.noise * draws.to(inputs.device)
        # All copies of an image are kept until they are brought together, those of a chunk of images at a time.
        images = torch.arange(len(inputs), device=inputs.device)
        chunks = torch.split(images, max(1, rows_at_once(self.max_batch, inputs) // self.samples))
        return torch.cat(
            [self._together(model.rows(rows), inputs[rows], target[rows], noise, graph) for rows in chunks]
        )

    def _together(self, model: Classifier, inputs: Tensor, target: Tensor, noise: Tensor, graph: bool) -> Tensor:
        spread = inputs.detach().amax((1, 2, 3), keepdim=True) - inputs.detach().amin((1, 2, 3), keepdim=True)
        parts = []
        at_once = rows_at_once(self.max_batch, inputs)
        for rows in torch.split(torch.arange(self.samples * len(inputs), device=inputs.device), at_once):
            step, image = rows // len(inputs), rows % len(inputs)
            copies = inputs[image] + spread[image] * noise[step]
            parts.append(self.method.attribute(model.rows(image), copies, target[image], graph=graph))
        with torch.set_grad_enabled(graph):
            maps = torch.cat(parts)
            maps = maps.view(self.samples, len(inputs), *maps.shape[1:])
            if self.kind == "variance":
                return maps.var(dim=0, correction=0)
            return maps.square().mean(dim=0) if self.kind == "square" else maps.mean(dim=0)
