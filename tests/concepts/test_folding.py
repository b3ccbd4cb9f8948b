"""A projection in the weights against the projected network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.concepts import Projection, fold
from rightreasons.core import BadModel
from rightreasons.core.hooks import substituted
from rightreasons.models import adapt
from rightreasons.models.simple import LeNet, SmallResNet


@pytest.fixture(autouse=True)
def seeded():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def some_projection(features, rank=2, *, shifted=True):
    reference = torch.randn(features, dtype=torch.float64) if shifted else torch.zeros(features, dtype=torch.float64)
    return Projection(torch.randn(rank, features, dtype=torch.float64), reference)


def resnet():
    network = SmallResNet((1, 16, 16), widths=(4, 6, 8))
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -1, 1)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return network


def linear_stack(padding=0, mode="zeros"):
    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(4, 5, 3, padding=padding, padding_mode=mode),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(5 * (14 + 2 * padding) ** 2, 3),
    )


CASES = {
    "a convolution that pads, with a bias": (lambda: LeNet((1, 16, 16), 3, kernel=3, padding=1), "conv2", 50),
    "a linear layer": (lambda: LeNet((1, 16, 16), 3, kernel=3, padding=1), "fc1", 256),
    "a convolution without a bias before a BatchNorm": (resnet, "5.conv2", 8),
    "pooled features before a linear layer": (resnet, "6", 8),
    "maps before a convolution without padding": (linear_stack, "1", 4),
    "maps before a flattening": (linear_stack, "3", 5),
    "maps before a convolution that pads with its border": (lambda: linear_stack(1, "replicate"), "1", 4),
}


@pytest.mark.parametrize("case", CASES)
def test_the_weights_alone_give_what_the_projected_network_gives(case):
    make, layer, features = CASES[case]
    model, projection = adapt(make().double()).eval(), some_projection(features)
    inputs, others = torch.randn(2, 6, 1, 16, 16, dtype=torch.float64)
    before = model(others)
    with torch.no_grad(), substituted(model.network, layer, projection):
        wanted = model(others)
    names = list(model.state_dict())
    fold(model, layer, projection, inputs)
    assert list(model.state_dict()) == names
    assert torch.allclose(model(others), wanted, rtol=0, atol=1e-6)
    assert not torch.allclose(before, wanted, atol=1e-3)


def test_a_projection_without_a_shift_goes_into_a_convolution_that_pads():
    model, inputs = adapt(linear_stack(1).double()).eval(), torch.randn(4, 1, 16, 16, dtype=torch.float64)
    projection = some_projection(4, shifted=False)
    with torch.no_grad(), substituted(model.network, "1", projection):
        wanted = model(inputs)
    fold(model, "1", projection, inputs)
    assert torch.allclose(model(inputs), wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("make", "layer", "features", "why"),
    [
        (lambda: linear_stack(1), "1", 4, "pads with zeros"),
        (resnet, "4", 6, "pads with zeros"),
        (lambda: LeNet((1, 16, 16), 3, kernel=3, padding=1), "relu", 50, "runs more than once"),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), nn.Flatten()), "0", 3, "no bias"),
        (
            lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
            "1",
            3,
            "neither",
        ),
        (lambda: nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten()), "0", 4, "4 features"),
    ],
)
def test_what_is_not_exact_is_refused_and_leaves_the_network_alone(make, layer, features, why):
    model, inputs = adapt(make().double()).eval(), torch.randn(4, 1, 16, 16, dtype=torch.float64)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(BadModel, match=why):
        fold(model, layer, some_projection(features), inputs)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())


class Skipping(nn.Module):
    """A shortcut past the linear map that reads the layer."""

    def __init__(self):
        super().__init__()
        self.first, self.act, self.second = nn.Linear(16, 3), nn.ReLU(), nn.Linear(3, 3)

    def forward(self, inputs):
        features = self.act(self.first(inputs.flatten(1)))
        return self.second(features) + features


def test_a_layer_that_something_else_reads_too_is_refused():
    model, inputs = adapt(Skipping().double()).eval(), torch.randn(8, 1, 4, 4, dtype=torch.float64)
    with pytest.raises(BadModel, match="something other than the linear maps"):
        fold(model, "act", some_projection(3, rank=1), inputs)
    fold(model, "first", some_projection(3, rank=1), inputs)


def test_the_mode_of_the_network_stays():
    model, inputs = adapt(resnet().double()).train(), torch.randn(4, 1, 16, 16, dtype=torch.float64)
    fold(model, "5.conv2", some_projection(8), inputs)
    assert all(module.training for module in model.modules())
