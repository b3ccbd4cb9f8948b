"""Where a path to the image begins: the images that stand for the absence of what is explained."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.references import check_references, reference_images
from rightreasons.core import Classifier
from rightreasons.models.contrast import Contrast


class Baseline(ABC):
    """A setting that makes baselines of images; each image has as many as every other, in the same way."""

    @abstractmethod
    def of(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "baselines batch _ _ _"]:
        """The baselines of each image; they depend on no other image of the batch."""

    def facing(
        self, model: Classifier, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "baselines batch _ _ _"]:
        """The baselines for this classifier: the same for every one, but where they are of a class."""
        return self.of(inputs)


@dataclass(frozen=True)
class ConstantBaseline(Baseline):
    """One value in every pixel.

    Args:
        value: In the images' range, black for example; or one value a channel.

    Raises:
        ValueError: A value is not finite.
    """

    value: float | tuple[float, ...] = 0.0

    def __post_init__(self) -> None:
        if not torch.as_tensor(self.value, dtype=torch.float64).isfinite().all():
            raise ValueError(f"expected a finite value, got {self.value}")

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


class TargetedBaseline(Baseline):
    """Baselines of the class that a classifier is contrasted with: ``method(contrast(model, other), inputs, target)``.

    The path from an image of the other class to the image itself changes what tells the two apart, and little else. The
    values of integrated gradients and DeepLIFT sum to the image's lead minus that of its baseline.

    Source: Shih et al. 2020 (GANMEX), arXiv:2011.06015, section 3.
    """

    @abstractmethod
    def of_class(
        self, inputs: Float[Tensor, "batch channels height width"], other: Int[Tensor, " batch"]
    ) -> Float[Tensor, "baselines batch _ _ _"]:
        """The baselines of each image, of the class that belongs to it."""

    def of(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "baselines batch _ _ _"]:
        """Without a class there are none.

        Raises:
            ValueError: Always.
        """
        raise ValueError(f"expected a class for {type(self).__name__}: explain contrast(model, other)")

    def facing(
        self, model: Classifier, inputs: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "baselines batch _ _ _"]:
        """Those of the class, or of each image's class, that the classifier is contrasted with.

        Raises:
            ValueError: It is not contrasted with any.
        """
        if not isinstance(model, Contrast):
            return self.of(inputs)
        other = model.other
        if isinstance(other, int):
            other = torch.full((len(inputs),), other)
        return self.of_class(inputs, other.to(inputs.device))


@dataclass(frozen=True, eq=False)
class ClassBaseline(TargetedBaseline):
    """The nearest real images of the other class (minimum-distance training samples, MDTS).

    Source: the plain form that Shih et al. 2020, arXiv:2011.06015, compare theirs with. Nearest by Euclidean distance.

    Args:
        references: Real images, such as the training images.
        labels: Class of each.
        count: How many, the nearest first; what is made of each is averaged.
    """

    references: Float[Tensor, "references channels height width"]
    labels: Int[Tensor, " references"]
    count: int = 1

    def __post_init__(self) -> None:
        check_references(self.references, None)
        if len(self.labels) != len(self.references):
            raise ValueError(f"expected one label a reference, {len(self.references)}, got {len(self.labels)}")
        if self.count < 1:
            raise ValueError(f"expected count above 0, got {self.count}")

    def of_class(
        self, inputs: Float[Tensor, "batch channels height width"], other: Int[Tensor, " batch"]
    ) -> Float[Tensor, "baselines batch _ _ _"]:
        """The nearest references of each image's class.

        Raises:
            ValueError: A class has too few.
        """
        found = inputs.new_empty((self.count, *inputs.shape))
        for label in sorted(set(other.tolist())):
            rows, bank = other == label, self.references[self.labels == label]
            if len(bank) < self.count:
                raise ValueError(f"expected references of class {label}, at least {self.count}, got {len(bank)}")
            bank = reference_images(bank, inputs)
            gaps = torch.cdist(inputs[rows].flatten(1), bank.flatten(1))
            found[:, rows] = bank[gaps.topk(self.count, largest=False).indices.T]
        return found


@dataclass(frozen=True, eq=False)
class GeneratedBaseline(TargetedBaseline):
    """An image of the other class that a generator makes of the image itself.

    What it is asked to make: an image that the classifier takes for the other class, realistic, and near the image.

    Source: Shih et al. 2020 (GANMEX), arXiv:2011.06015, section 3, whose generator is a StarGAN with the classifier in
    the place of its class head: the classifier's own loss, an adversarial one, and one of similarity. Deviation: the
    generator is the caller's. That of the library (``training.fit_generator``, which ``reveal --baseline generated``
    trains) has the same three terms without a discriminator: a hinge on the classifier's lead; the sum of absolute
    changes, weighted by ``GeneratorSettings.nearness``; and, for realism, how well a class-conditional variational
    autoencoder reproduces the image. It has no cycle back to the original.

    Args:
        generator: ``(images, classes) -> images``, of the same shape and in the same range.
    """

    generator: Callable[[Tensor, Tensor], Tensor]

    def __post_init__(self) -> None:
        if not callable(self.generator):
            raise ValueError(f"expected a generator that can be called, got {self.generator!r}")

    def of_class(
        self, inputs: Float[Tensor, "batch channels height width"], other: Int[Tensor, " batch"]
    ) -> Float[Tensor, "1 batch _ _ _"]:
        """What the generator makes, off the graph.

        Raises:
            ValueError: It makes something of another shape.
        """
        with torch.no_grad():
            made = self.generator(inputs.detach(), other)
        if made.shape != inputs.shape:
            raise ValueError(f"expected generated images of shape {tuple(inputs.shape)}, got {tuple(made.shape)}")
        return made.to(inputs)[None]


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
