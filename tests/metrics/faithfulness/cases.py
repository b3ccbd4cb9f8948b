"""A linear model, whose exact heatmap is known, and one that is not linear."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from rightreasons.attribution import InputXGradient
from rightreasons.core import Batch
from rightreasons.models import adapt
from tests.networks import images, network

SIDE = 6


def linear_case(count: int = 4, baseline: float = 0.0, dtype: torch.dtype = torch.float64):
    """A linear model, a batch, and the contribution of each pixel against a baseline, w (x - baseline)."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * SIDE * SIDE, 3)).to(dtype)
    inputs = torch.rand(count, 2, SIDE, SIDE, dtype=dtype)
    target = torch.arange(count) % 3
    weights = net[1].weight.detach()[target].view_as(inputs)
    return adapt(net), Batch(inputs, target), (weights * (inputs - baseline)).sum(dim=1, keepdim=True)


def curved_case(count: int = 3, dtype: torch.dtype = torch.float64):
    """A small convolutional network, a batch, and a heatmap of it."""
    model = adapt(network("relu", dtype=dtype))
    inputs, target = images(count, dtype=dtype)
    with torch.no_grad():
        return model, Batch(inputs, target), InputXGradient()(model, inputs, target)


def score(model, image: Tensor, target: int, kind: str) -> float:
    """The score of one image, for the plain versions."""
    with torch.no_grad():
        logits = model(image[None])[0]
    return float(logits[target] if kind == "logit" else logits.softmax(dim=0)[target])


def pixels_in_order(heat: Tensor) -> list[tuple[int, int]]:
    """Pixels of one map (H, W), the largest value first, of equal ones the first in the image."""
    places = [(i, j) for i in range(heat.shape[0]) for j in range(heat.shape[1])]
    return sorted(places, key=lambda p: (-float(heat[p]), p))


def without(image: Tensor, baseline: Tensor, places) -> Tensor:
    changed = image.clone()
    for i, j in places:
        changed[:, i, j] = baseline[:, i, j]
    return changed
