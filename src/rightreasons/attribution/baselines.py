"""Where a path to the image begins: the images that stand for the absence of what is explained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


class Baseline(ABC):
    """A setting that makes baselines of images; each image has as many as every other, in the same way."""

    @abstractmethod
    def of(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "baselines batch _ _ _"]:
        """The baselines of each image; they depend on no other image of the batch."""


@dataclass(frozen=True)
class ConstantBaseline(Baseline):
    """One value in every pixel.

    Args:
        value: In the images' range, black for example; or one value a channel.
    """

    value: float | tuple[float, ...] = 0.0

    def of(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "1 batch _ _ _"]:
        """The constant image."""
        values = torch.as_tensor(self.value, dtype=inputs.dtype, device=inputs.device).reshape(-1, 1, 1)
        if len(values) not in (1, inputs.shape[1]):
            raise ValueError(f"expected one value or {inputs.shape[1]}, one a channel, got {len(values)}")
        return values.expand(inputs.shape)[None]


@dataclass(frozen=True)
class BlurredBaseline(Baseline):
    """The image itself without its details: Gaussian blur, with the border pixels repeated outside.

    Source: Fong and Vedaldi 2017, arXiv:1704.03296, section 3.2; Sturmfels et al. 2020,
    doi:10.23915/distill.00022, section "Blurred".

    Args:
        sigma: Standard deviation of the Gaussian in pixels; it is cut off beyond three of them.
    """

    sigma: float = 5.0

    def __post_init__(self) -> None:
        if not self.sigma > 0:
            raise ValueError(f"expected sigma above 0, got {self.sigma}")

    def of(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "1 batch _ _ _"]:
        """The blurred images."""
        reach = math.ceil(3 * self.sigma)
        offsets = torch.arange(-reach, reach + 1, dtype=torch.float64)
        kernel = (-0.5 * (offsets / self.sigma) ** 2).exp()
        kernel = (kernel / kernel.sum()).to(inputs)
        planes = F.pad(inputs.flatten(0, 1)[:, None], (reach, reach, reach, reach), mode="replicate")
        blurred = F.conv2d(F.conv2d(planes, kernel.view(1, 1, -1, 1)), kernel.view(1, 1, 1, -1))
        return blurred.view(inputs.shape)[None]


@dataclass(frozen=True)
class UniformBaseline(Baseline):
    """Images of uniform noise, the same for all images of a batch.

    Source: Sturmfels et al. 2020, doi:10.23915/distill.00022, section "Uniform".

    Args:
        low: Smallest value of a pixel.
        high: Largest value of a pixel.
        count: Noise images; what is made of each is averaged.
        seed: Of the noise; ``None`` draws fresh noise at each call from torch's global generator.
    """

    low: float = 0.0
    high: float = 1.0
    count: int = 1
    seed: int | None = 0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"expected low below high, got {self.low} and {self.high}")
        if self.count < 1:
            raise ValueError(f"expected count above 0, got {self.count}")

    def of(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "baselines batch _ _ _"]:
        """The noise images."""
        generator = None if self.seed is None else torch.Generator().manual_seed(self.seed)
        draws = torch.rand((self.count, 1, *inputs.shape[1:]), generator=generator, dtype=torch.float64)
        return (self.low + (self.high - self.low) * draws).to(inputs).expand(-1, len(inputs), -1, -1, -1)


def as_baselines(setting: float | Baseline | Sequence[float | Baseline]) -> tuple[Baseline, ...]:
    """A setting in one form: a number is a constant image, a list is several to average over.

    Raises:
        ValueError: It is none of these.
    """
    several = setting if isinstance(setting, Sequence) and not isinstance(setting, str) else (setting,)
    if not several:
        raise ValueError("expected at least one baseline, got none")
    return tuple(_as_baseline(one) for one in several)


def _as_baseline(setting: object) -> Baseline:
    if isinstance(setting, Baseline):
        return setting
    if isinstance(setting, int | float):
        return ConstantBaseline(float(setting))
    raise ValueError(f"expected a baseline to be a number or a Baseline, got {setting!r}")
