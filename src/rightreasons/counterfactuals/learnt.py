"""What methods with a trained network of their own share: its range of values, and the class it is told."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Int
from torch import Tensor

from rightreasons.core import ANY_OTHER
from rightreasons.core.hooks import for_weights
from rightreasons.counterfactuals.search import Search


@runtime_checkable
class Encoder(Protocol):
    """Images from 0 to 1 to encodings, (B, D)."""

    def encode(self, images: Tensor, /) -> Tensor:
        """The encoding of each image."""


@runtime_checkable
class LatentModel(Encoder, Protocol):
    """An encoder with the way back; where it is conditional, under a class."""

    def decode(self, latent: Tensor, target: Tensor, /) -> Tensor:
        """The image of each encoding, from 0 to 1."""


def unit_range(images: Tensor, pixel_range: tuple[float, float], network: object) -> Tensor:
    """The images from 0 to 1, where and as exact as the network's weights are."""
    low, high = pixel_range
    return for_weights((images - low) / (high - low), network)


def pixel_values(images: Tensor, pixel_range: tuple[float, float], like: Tensor) -> Tensor:
    """Images from 0 to 1 in the range of the pixels."""
    low, high = pixel_range
    return (low + (high - low) * images.to(like)).clamp(low, high)


def told_class(search: Search, network: object) -> Int[Tensor, " batch"]:
    """The class that a conditional network is told: the target, or the runner-up where any other is asked for.

    Raises:
        ValueError: The network knows fewer classes than the model.
    """
    known, classes = getattr(network, "classes", None), search.start.shape[1]
    if known is not None and known < classes:
        raise ValueError(f"expected a network that knows the model's {classes} classes, got one of {known}")
    runner_up = search.start.scatter(1, search.predicted[:, None], -torch.inf).argmax(dim=1)
    return torch.where(search.target == ANY_OTHER, runner_up, search.target)
