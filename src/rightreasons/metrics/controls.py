"""Heatmaps that know nothing of the model: what a score of quality must tell apart from a real one."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from rightreasons.core import Attribution, Classifier


@dataclass(frozen=True)
class RandomHeatmap(Attribution):
    """Independent normal numbers, drawn anew for each image from its own pixels and the seed.

    The same image gets the same map, in any batch; one that differs in a single pixel gets another.

    Args:
        seed: Of the draws.
    """

    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = True
    seed: int = 0

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """Random numbers, (B, 1, H, W)."""
        maps = [self._drawn(image) for image in inputs.detach().cpu()]
        return torch.stack(maps).to(inputs.device, inputs.dtype)

    def _drawn(self, image: Float[Tensor, "channels height width"]) -> Float[Tensor, "1 height width"]:
        pixels = image.contiguous().view(torch.uint8).numpy().tobytes()
        digest = hashlib.blake2b(pixels, digest_size=7, salt=str(self.seed).encode()[:16]).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "big"))
        return torch.randn((1, *image.shape[1:]), generator=generator)


@dataclass(frozen=True)
class EdgeDetector(Attribution):
    """The edges of the image: the length of Sobel's gradient of the mean over channels.

    It looks much like a saliency map and does not depend on the model, the control of Adebayo et al.

    Source: Adebayo et al. 2018, arXiv:1810.03292, section 1 (edge detector).
    """

    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The length of the gradient, (B, 1, H, W)."""
        across = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
        kernels = torch.stack((across, across.T))[:, None].to(inputs.device, inputs.dtype)
        # The border is continued, or it would be the strongest edge.
        gray = F.pad(inputs.detach().mean(dim=1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        lengths: Tensor = torch.linalg.vector_norm(F.conv2d(gray, kernels), dim=1, keepdim=True)
        return lengths
