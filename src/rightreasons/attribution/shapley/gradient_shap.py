"""GradientSHAP."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from rightreasons.attribution.gradient import ExpectedGradients, Place


@dataclass(frozen=True, eq=False)
class GradientSHAP(ExpectedGradients):
    """Expected gradients with Gaussian noise on the image: Shapley values, were the model linear between the samples.

    Each sample goes from a random reference to a noisy copy of the image, and its gradient is taken at a random point
    of that way; all images of a batch meet the same samples. The values sum to the mean score of the noisy copies minus
    that of the references, up to the sampling error.

    Source: Lundberg and Lee 2017, arXiv:1705.07874, as its package's GradientExplainer does it; Erion et al. 2021,
    arXiv:1906.10670, Eq. 3.

    Args:
        references: See :class:`ExpectedGradients`, as are ``samples``, ``seed``, ``score`` and ``max_batch``.
        noise: Standard deviation of the noise, in the images' units.
    """

    noise: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.noise >= 0:
            raise ValueError(f"expected noise of 0 or more, got {self.noise}")

    def shown(self, inputs: Tensor, generator: torch.Generator | None) -> Place:
        """The end of each sample's way: the image with noise."""
        draws = torch.randn((self.samples, *inputs.shape[1:]), generator=generator, dtype=inputs.dtype)
        noise = self.noise * draws.to(inputs.device)
        return lambda step, image: inputs[image] + noise[step]
