"""What a method must know of the data, where a user named it without settings."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.data.dataset import ImageDataset, stream

REFERENCES = 100
NUMBERS = 2**27
"""Numbers in the training images that a search may keep in memory; more images than that are drawn from."""


def settings_from(class_: type, data: ImageDataset) -> dict[str, Any]:
    """Settings of a method or metric that depend on the data: references, and the value of a pixel that is hidden."""
    known = inspect.signature(class_).parameters
    filled: dict[str, Any] = {}
    if "references" in known:
        filled["references"] = references(data)
    if "baseline" in known and isinstance(known["baseline"].default, float):
        filled["baseline"] = data.pixel_range[0]
    return filled


def references(data: ImageDataset) -> Float[Tensor, "references channels height width"]:
    """Some images of the data, evenly drawn, always the same."""
    order = torch.randperm(len(data), generator=stream(0, "references"))
    return data.batch(order[:REFERENCES]).inputs


def search_settings(class_: type, data: ImageDataset, bank: Mapping[str, Tensor] | None = None) -> dict[str, Any]:
    """Settings of a counterfactual method that depend on the data: the pixels' range, and real images to look among.

    Args:
        class_: The method.
        data: The images that are changed.
        bank: See :func:`labeled_references`; without it a method that looks among images has to be given its own.
    """
    known = inspect.signature(class_).parameters
    filled: dict[str, Any] = {}
    if {"low", "high"} <= set(known):
        filled = dict(zip(("low", "high"), data.pixel_range, strict=True))
    return filled | {name: values for name, values in (bank or {}).items() if name in known}


def labeled_references(training: ImageDataset) -> dict[str, Tensor]:
    """The training images as ``references`` and their classes as ``labels``.

    Of very many, as many as fit into memory, evenly drawn and always the same.
    """
    channels, height, width = training.shape
    most = max(1, NUMBERS // (channels * height * width))
    rows = torch.arange(len(training))
    if len(training) > most:
        rows = torch.randperm(len(training), generator=stream(0, "references"))[:most].sort().values
    batch = training.batch(rows)
    return {"references": batch.inputs, "labels": batch.target}
