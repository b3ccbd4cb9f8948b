"""What a method must know of the data, where a user named it without settings."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.data.dataset import ImageDataset, stream

REFERENCES = 100


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
