"""Networks for the tests of the family."""

from __future__ import annotations

import torch
from torch import nn

from tests.networks import CLASSES, SIDE


class Counting(nn.Module):
    """A network that keeps how many images each of its passes held."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.inner = network
        self.passes: list[int] = []

    def forward(self, x):
        self.passes.append(len(x))
        return self.inner(x)


def linear() -> nn.Sequential:
    """Logits that are sums over weighted pixels."""
    generator = torch.Generator().manual_seed(3)
    layer = nn.Linear(2 * SIDE * SIDE, CLASSES).double()
    layer.weight.data = torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
    return nn.Sequential(nn.Flatten(), layer)


def shares(network: nn.Sequential, inputs, target, baseline=0.0):
    """Weight times pixel, summed over channels: what each pixel adds to the logit of a linear network."""
    weight = network[1].weight.detach()[target].view_as(inputs)
    return (weight * (inputs - baseline)).sum(dim=1, keepdim=True)


def quarters(inputs):
    """Four regions, the corners of the image."""
    row = torch.arange(inputs.shape[2]) * 2 // inputs.shape[2]
    column = torch.arange(inputs.shape[3]) * 2 // inputs.shape[3]
    return (row[:, None] * 2 + column).expand(len(inputs), -1, -1)


def stripes(inputs):
    """Two to four stripes, as many as the image's number asks; numbers with gaps."""
    count = 2 + (inputs[:, 0, 0, 0] * 1000).long() % 3
    row = torch.arange(inputs.shape[2])
    return ((row[None] * count[:, None] // inputs.shape[2]) * 5)[:, :, None].expand(-1, -1, inputs.shape[3])
