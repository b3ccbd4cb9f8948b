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
from torch import nn

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
)
from rightreasons.training.evaluation import device_of

Network = TypeVar("Network", bound=nn.Module)

LEARNT = ("encoder", "autoencoder", "generator")
"""Settings without a default that are networks."""


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
        parts["encoder"] = kept.trained("encoder", Autoencoder, fit_autoencoder)
    if {"autoencoder", "generator"} & set(needed):
        judge = kept.trained("autoencoder", partial(VAE, classes=len(training.classes)), fit_autoencoder)
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
    """
    counts = torch.bincount(training.target, minlength=len(training.classes)).tolist()
    if 0 in counts:
        raise ValueError(f"no training image of class {training.classes[counts.index(0)]!r} for its autoencoder")

    def trained(images: ImageDataset) -> Autoencoder:
        return _Kept(images, device, keep or Keep()).trained("judge", Autoencoder, fit_autoencoder)

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
    ) -> Network:
        """The network from its file, or trained for ``least`` epochs or more and written."""
        epochs = max(least, math.ceil(self.keep.steps * AutoencodeSettings.batch_size / len(self.training)))
        key = hashlib.sha256(f"{what} {self.images} {epochs}".encode()).hexdigest()[:16]
        self.folder.mkdir(parents=True, exist_ok=True)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            made = network(self.training.shape)
        made.to(self.device)
        settings = AutoencodeSettings(epochs=epochs, progress=self.keep.progress)
        fit(made, self.training, settings, checkpoint=self.folder / f"{what.split()[0]}-{key}.safetensors")
        made.eval()
        return made
