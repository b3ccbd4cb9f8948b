"""Trained networks that some methods cannot do without: trained once, and kept."""

from __future__ import annotations

import hashlib
import inspect
import math
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, nn

from rightreasons.core import BadModel
from rightreasons.core.tensors import weights_digest
from rightreasons.data import ImageDataset
from rightreasons.data.arrays import Subset
from rightreasons.data.download import default_cache
from rightreasons.models import AdaptedClassifier
from rightreasons.models.autoencoder import VAE, Autoencoder
from rightreasons.training.autoencode import (
    AutoencodeSettings,
    GeneratorSettings,
    fit_autoencoder,
    fit_generator,
    reproduced,
)
from rightreasons.training.evaluation import device_of

Network = TypeVar("Network", bound=nn.Module)
Reproducing = TypeVar("Reproducing", Autoencoder, VAE)

LEARNT = ("encoder", "autoencoder", "generator")
"""Settings without a default that are networks."""

SEEDS = 5
"""From which an autoencoder is trained anew where it died."""

CHECKED = 200
"""Images at most by which this is found out."""


@dataclass(frozen=True)
class Keep:
    """How networks are trained and where they are kept.

    Attributes:
        folder: Where; the library's cache unless given.
        steps: Of training at least, for each of them: of few images more epochs are needed for them.
        progress: Show bars.
    """

    folder: Path | None = None
    steps: int = 1000
    progress: bool = False


def needed_parts(class_: type) -> tuple[str, ...]:
    """Which networks the method has to be given."""
    known = inspect.signature(class_).parameters
    empty = inspect.Parameter.empty
    return tuple(name for name in LEARNT if name in known and known[name].default is empty)


def learnt_parts(
    class_: type,
    model: AdaptedClassifier,
    training: ImageDataset,
    keep: Keep | None = None,
    *,
    nearness: float = GeneratorSettings.nearness,
) -> dict[str, nn.Module]:
    """Those networks, trained on the training images with the default settings.

    An ``encoder`` is a plain autoencoder, an ``autoencoder`` a variational one that is told the class, a ``generator``
    starts as the latter, which makes images of any class already, and is trained on against the classifier.

    Args:
        class_: The method.
        model: The classifier.
        training: The images it was trained on.
        keep: How they are trained and where they are kept.
        nearness: How near to the original a generator stays, see ``GeneratorSettings``.
    """
    needed = needed_parts(class_)
    kept = _Kept(training, device_of(model), keep or Keep())
    parts: dict[str, nn.Module] = {}
    if "encoder" in needed:
        parts["encoder"] = kept.autoencoder("encoder", Autoencoder)
    if {"autoencoder", "generator"} & set(needed):
        judge = kept.autoencoder("autoencoder", partial(VAE, classes=len(training.classes)))
        parts["autoencoder"] = judge
    if "generator" in needed:
        against = f"generator {weights_digest(model.network)[:16]} {weights_digest(judge)[:16]}"
        against += "" if nearness == GeneratorSettings.nearness else f" nearness {nearness:g}"

        def fit(generator: VAE, data: ImageDataset, settings: AutoencodeSettings, *, checkpoint: Path) -> object:
            told = GeneratorSettings(epochs=settings.epochs, progress=settings.progress, nearness=nearness)
            return fit_generator(generator, model, judge, data, told, checkpoint=checkpoint)

        parts["generator"] = kept.trained(against, lambda _: deepcopy(judge), fit, least=GeneratorSettings.epochs)
    return {name: parts[name] for name in needed}


def class_autoencoders(
    training: ImageDataset, device: torch.device, keep: Keep | None = None
) -> tuple[list[Autoencoder], Autoencoder]:
    """An autoencoder of each class alone, and one of all images: what IM1 and IM2 are made of.

    Args:
        training: The images; each autoencoder sees only those of its class.
        device: Where they are.
        keep: How they are trained and where they are kept.

    Raises:
        ValueError: A class has no image.
        BadModel: An autoencoder died from every seed.
    """
    counts = torch.bincount(training.target, minlength=len(training.classes)).tolist()
    if 0 in counts:
        raise ValueError(f"no training image of class {training.classes[counts.index(0)]!r} for its autoencoder")

    def trained(images: ImageDataset) -> Autoencoder:
        return _Kept(images, device, keep or Keep()).autoencoder("judge", Autoencoder)

    of_class = [(training.target == label).nonzero()[:, 0] for label in range(len(training.classes))]
    return [trained(Subset(training, rows)) for rows in of_class], trained(training)


class _Kept:
    """Networks in a folder, by what they are and the images that they were trained on."""

    def __init__(self, training: ImageDataset, device: torch.device, keep: Keep) -> None:
        self.training, self.device, self.keep = training, device, keep
        self.folder = keep.folder or default_cache() / "counterfactuals"
        self.images = f"{training.name} {len(training)} {training.sampled_fingerprint()}"

    def trained(
        self,
        what: str,
        network: Callable[..., Network],
        fit: Callable[..., object],
        *,
        least: int = AutoencodeSettings.epochs,
        seed: int = 0,
    ) -> Network:
        """The network from its file, or trained for ``least`` epochs or more and written."""
        epochs = max(least, math.ceil(self.keep.steps * AutoencodeSettings.batch_size / len(self.training)))
        settings = AutoencodeSettings(epochs=epochs, seed=seed, progress=self.keep.progress)
        told = f"{what} {self.images} {epochs}" + (f" seed {seed}" if seed else "")
        key = hashlib.sha256(told.encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            made = network(self.training.shape)
        made.to(self.device)
        fit(made, self.training, settings, checkpoint=self.folder / f"{what.split()[0]}-{key}.safetensors")
        made.eval()
        return made

    def autoencoder(self, what: str, network: Callable[..., Reproducing]) -> Reproducing:
        """An autoencoder, from the first seed of which it is one.

        A few die: they make the same of every image, as on the sneakers of Fashion-MNIST from seed 0, and what is
        measured by such a one says nothing.

        Raises:
            BadModel: All of them died.
        """
        for seed in range(SEEDS):
            made = self.trained(what, network, fit_autoencoder, seed=seed)
            if self._sees(made):
                return made
        classes = sorted({self.training.classes[label] for label in self.training.target.tolist()})
        raise BadModel(
            f"{SEEDS} autoencoders trained on {self.training.name} ({len(self.training)} images of "
            f"{', '.join(classes[:5])}) all make the same of every image"
        )

    def _sees(self, network: Autoencoder | VAE) -> bool:
        """Whether what it makes differs between images, as they do."""
        rows = torch.arange(0, len(self.training), math.ceil(len(self.training) / CHECKED))
        batch = self.training.batch(rows).to(self.device)
        low, high = self.training.pixel_range
        images = (batch.inputs - low) / (high - low)
        with torch.no_grad():
            # Under one class for all: an autoencoder that is told the class could live by that alone.
            made = reproduced(network, images, batch.target[:1].expand(len(images)))
        return _differ(made) or not _differ(images)


def _differ(images: Tensor) -> bool:
    return bool((images - images[:1]).abs().amax() > 1e-6)
