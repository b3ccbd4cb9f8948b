"""The RevealCancel rule beside Shapley values and a plain version."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from rightreasons.attribution import DeepLIFT
from rightreasons.models import adapt
from tests.attribution.shapley.enumeration import shapley_values


def minimum():
    """min(a, b) = a - relu(a - b) for a and b above zero, as in section 3.2 of the paper."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)).double()
    net[1].weight.data = torch.tensor([[1.0, 0.0], [1.0, -1.0]]).double()
    net[3].weight.data = torch.tensor([[1.0, -1.0]]).double()
    for layer in (net[1], net[3]):
        nn.init.zeros_(layer.bias)
    return net


@pytest.mark.parametrize("pair", [(3.0, 2.0), (2.0, 3.0), (1.0, 1.0), (5.0, 0.0)])
def test_of_a_minimum_it_gives_the_shapley_values_which_rescale_does_not(pair):
    inputs = torch.tensor(pair).double().view(1, 2, 1, 1)
    model, target = adapt(minimum()), torch.tensor([0])
    found = DeepLIFT(rule="reveal_cancel").per_channel(model, inputs, target).flatten()
    expected = shapley_values(min, pair, (0.0, 0.0))
    assert found.tolist() == pytest.approx(expected.tolist())
    rescaled = DeepLIFT().per_channel(model, inputs, target).flatten().tolist()
    assert rescaled == pytest.approx([min(pair), 0.0] if pair[0] <= pair[1] else [0.0, min(pair)])


def plain(net, x, b, target):
    """Two dense layers with a function between them, by the paper's formulas with loops over units."""
    first, function, second = net[1], net[2], net[3]
    (w, bias), v = (p.detach().numpy() for p in (first.weight, first.bias)), second.weight.detach().numpy()[target]

    def f(value):
        return function(torch.tensor(value)).item()

    change, values = x - b, np.zeros(len(x))
    for unit in range(len(w)):
        start = w[unit] @ b + bias[unit]
        up = sum(c for c in w[unit] * change if c > 0)
        down = sum(c for c in w[unit] * change if c < 0)
        gain = ((f(start + up) - f(start)) + (f(start + up + down) - f(start + down))) / 2
        loss = ((f(start + down) - f(start)) + (f(start + up + down) - f(start + up))) / 2
        for feature in range(len(x)):
            share = w[unit, feature] * change[feature]
            if share > 0:
                values[feature] += v[unit] * share * gain / up
            if share < 0:
                values[feature] += v[unit] * share * loss / down
    return values


@pytest.mark.parametrize("function", [nn.ReLU(), nn.GELU(), nn.Tanh()], ids=repr)
def test_it_is_the_plain_version_on_a_small_network(function):
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), function, nn.Linear(8, 3)).double()
    inputs, target = torch.randn(4, 6, 1, 1).double(), torch.tensor([0, 1, 2, 0])
    found = DeepLIFT(0.25, "reveal_cancel").per_channel(adapt(net), inputs, target).detach()
    for i in range(4):
        expected = plain(net, inputs[i].flatten().numpy(), np.full(6, 0.25), int(target[i]))
        assert found[i].flatten().tolist() == pytest.approx(expected.tolist())


def test_parts_go_through_what_moves_and_adds_values():
    """A layer's contributions keep their signs behind a reshape, a padding, a mean and a sum of two layers."""

    class Apart(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(6, 8).double(), nn.Linear(6, 8).double()
            self.head = nn.Linear(8, 3).double()

        def forward(self, x):
            x = x.flatten(1)
            moved = self.first(x).view(-1, 2, 4).transpose(1, 2) + self.second(x).view(-1, 2, 4).transpose(1, 2)
            return self.head(moved.relu().transpose(1, 2).flatten(1))

    apart = Apart()
    # Weights of one sign pattern: the contributions of both layers to a unit are then those of their sum.
    apart.second.weight.data = apart.first.weight.data * torch.rand(8, 6).double()
    whole = nn.Sequential(nn.Flatten(), nn.Linear(6, 8), nn.ReLU(), apart.head).double()
    whole[1].weight.data = apart.first.weight.data + apart.second.weight.data
    whole[1].bias.data = apart.first.bias.data + apart.second.bias.data
    inputs, target = torch.randn(4, 6, 1, 1).double(), torch.tensor([0, 1, 2, 0])
    found, expected, rescaled = (
        method.per_channel(adapt(net), inputs, target)
        for method, net in (
            (DeepLIFT(rule="reveal_cancel"), apart),
            (DeepLIFT(rule="reveal_cancel"), whole),
            (DeepLIFT(), whole),
        )
    )
    torch.testing.assert_close(found, expected)
    assert not torch.allclose(expected, rescaled, rtol=1e-2)


def test_a_change_that_cancels_has_the_mean_of_what_rising_and_falling_have():
    """relu(a + c - 5) where a = relu(x - y + 5) stays at 5 while x, y and c rise by 1.

    What lets the last sum rise has 1 (from 0 to 1), what lets it fall 1/2 (0 before c, 1 after it); a itself does not
    change, and hands on the mean of both, 3/4.
    """
    net = nn.Sequential(nn.Flatten(), nn.Linear(3, 2), nn.ReLU(), nn.Linear(2, 1), nn.ReLU()).double()
    net[1].weight.data = torch.tensor([[1.0, -1.0, 0.0], [0.0, 0.0, 1.0]]).double()
    net[1].bias.data = torch.tensor([5.0, 0.0]).double()
    net[3].weight.data, net[3].bias.data = torch.ones(1, 2).double(), torch.tensor([-5.0]).double()
    inputs = torch.ones(1, 3, 1, 1).double()
    found = DeepLIFT(rule="reveal_cancel").per_channel(adapt(net), inputs, torch.tensor([0])).flatten()
    assert found.tolist() == pytest.approx([0.75, -0.75, 1.0])
