"""Where maps begin, by name: at a value, at the image without its details, or at an image of the other class."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from rightreasons.attribution import ATTRIBUTIONS, Baseline, ClassBaseline, GeneratedBaseline, TargetedBaseline
from rightreasons.attribution.from_data import labeled_references
from rightreasons.attribution.perturbation.baselines import NAMES
from rightreasons.core.hooks import evaluating
from rightreasons.core.tensors import weights_digest
from rightreasons.counterfactuals import Amortized
from rightreasons.counterfactuals.learnt import pixel_values, unit_range
from rightreasons.data import DATASETS, ImageDataset
from rightreasons.experiments.parts import Keep, learnt_parts
from rightreasons.experiments.subject import Subject

NEAREST, GENERATED = "nearest", "generated"
TARGETED: dict[str, str] = {
    NEAREST: "the nearest training image of that class",
    GENERATED: "an image of that class generated from the image itself",
}
"""Baselines of the class that a model is contrasted with, in words."""


NEARNESS = 50.0
"""What the mean absolute change of a pixel costs the generator, beside a lead of the class by 6 logits.

Of four tried on digits held out of the training images, the largest with which the model took all generated images for
the class; they were nearer than the nearest training image then. The generator of counterfactuals stays less near.
"""


@dataclass(frozen=True, eq=False, repr=False)
class InRange:
    """A generator of images from 0 to 1, for images in another range of pixels.

    Attributes:
        network: The generator.
        pixel_range: Of the images.
    """

    network: nn.Module
    pixel_range: tuple[float, float]

    def __call__(self, images: Tensor, classes: Tensor) -> Tensor:
        """What the network makes of the images under these classes."""
        with evaluating(self.network):
            shown = unit_range(images, self.pixel_range, self.network)
            made: Tensor = self.network(shown, classes.to(shown.device))
        return pixel_values(made, self.pixel_range, images)

    def __repr__(self) -> str:
        """Its kind and weights: what a record needs to tell two of them apart."""
        return f"{type(self.network).__name__} {weights_digest(self.network)[:16]}"


class NamedBaselines:
    """The baselines that settings name; those of a class are made once, when they are first asked for.

    Attributes:
        targeted: Those of a class that were made, by name.
    """

    def __init__(self, subject: Subject, other: int | None) -> None:
        self.subject, self.other = subject, other
        self.targeted: dict[str, TargetedBaseline] = {}
        self._training: ImageDataset | None = None

    def settings(self, name: str, given: Mapping[str, Any], default: float | Baseline | None) -> dict[str, Any]:
        """The settings of a method, with what its baseline names.

        Args:
            name: Of the method.
            given: Its settings; a baseline among them counts.
            default: The baseline of a method that has one and is given none; ``None`` leaves it its own.

        Raises:
            ValueError: See :meth:`of`.
        """
        if not has_baseline(name):
            return dict(given)
        found = ({} if default is None else {"baseline": default}) | dict(given)
        return {key: self.of(value) if key == "baseline" else value for key, value in found.items()}

    def of(self, setting: Any) -> Any:
        """What a setting names: a number, a :class:`Baseline`, or a list of these.

        Raises:
            ValueError: No such name; one of a class without a class; or there are no training images of it.
        """
        if isinstance(setting, list | tuple):
            return tuple(self.of(one) for one in setting)
        if not isinstance(setting, str):
            return setting
        if setting in TARGETED:
            return self._of_class(setting)
        return NAMES[setting] if setting in NAMES else _number(setting, self.subject.data.pixel_range)

    def _of_class(self, name: str) -> Baseline:
        if name not in self.targeted:
            training = self._images(name)
            made = self._nearest(training) if name == NEAREST else self._generated(training)
            self.targeted[name] = made
        return self.targeted[name]

    def _images(self, name: str) -> ImageDataset:
        """The training images, of which some must be of the class."""
        if self.other is None:
            raise ValueError(f"baseline {name!r} is of the class that is explained against; name that class: --against")
        if self._training is None:
            self._training = self.subject.training()
        if self._training is None:
            raise ValueError(
                f"baseline {name!r} needs training images, and none are known: name the folder of a run, or data that "
                f"have a training part: {', '.join(DATASETS)}"
            )
        if not (self._training.target == self.other).any():
            raise ValueError(f"no training image of class {self._training.classes[self.other]!r} for baseline {name!r}")
        return self._training

    def _nearest(self, training: ImageDataset) -> ClassBaseline:
        bank = labeled_references(training)
        return ClassBaseline(bank["references"], bank["labels"])

    def _generated(self, training: ImageDataset) -> GeneratedBaseline:
        nearness = NEARNESS / math.prod(training.shape)
        keep = Keep(progress=self.subject.progress)
        network = learnt_parts(Amortized, self.subject.model, training, keep, nearness=nearness)["generator"]
        return GeneratedBaseline(InRange(network, training.pixel_range))


def has_baseline(name: str) -> bool:
    """Whether the method of that name begins at a baseline."""
    return "baseline" in inspect.signature(ATTRIBUTIONS[name]).parameters


def _number(text: str, pixels: tuple[float, float]) -> float:
    try:
        value = float(text)
    except ValueError as error:
        names = ", ".join([*NAMES, *TARGETED])
        raise ValueError(f"expected a baseline to be a number or one of {names}, got {text!r}") from error
    if not math.isfinite(value):
        raise ValueError(f"expected a baseline to be a finite number, got {text!r}")
    if not pixels[0] <= value <= pixels[1]:
        raise ValueError(f"expected a baseline among the pixels' values, {pixels[0]:g} to {pixels[1]:g}, got {text}")
    return value
