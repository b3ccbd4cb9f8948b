"""Classifiers whose nearest counterfactual is known."""

import torch
from torch import nn

from rightreasons.models import adapt


def linear(weight, bias=None, side=4, channels=1):
    """Logits that are sums over the pixels: (classes, pixels)."""
    layer = nn.Linear(channels * side * side, len(weight))
    layer.weight.data = weight.clone()
    layer.bias.data = torch.zeros(len(weight)).to(weight) if bias is None else bias.clone()
    return adapt(nn.Sequential(nn.Identity(), nn.Flatten(), layer).to(weight.dtype).eval())


def two_classes(seed=0, side=4, gap=1.0):
    """Class 1 leads by ``w . x - gap``; images of gray 0.5, of which class 0 is the prediction."""
    generator = torch.Generator().manual_seed(seed)
    direction = torch.randn(side * side, generator=generator, dtype=torch.float64)
    direction = direction - direction.mean()
    weight = torch.stack([torch.zeros_like(direction), direction])
    model = linear(weight, torch.tensor([0.0, -gap], dtype=torch.float64), side)
    inputs = torch.full((2, 1, side, side), 0.5, dtype=torch.float64)
    return model, inputs, torch.ones(2, dtype=torch.long), direction
