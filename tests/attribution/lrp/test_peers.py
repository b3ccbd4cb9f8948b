"""Our relevance beside zennit's."""

from __future__ import annotations

import importlib
import sys
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from rightreasons.attribution.lrp import COMPOSITES, LRP
from rightreasons.attribution.modified_gradient import DeconvNet, GuidedBackprop
from rightreasons.models import adapt
from tests.attribution.lrp.networks import LeNet, drawn, network
from tests.attribution.test_peers import stand_in_for_torchvision
from tests.networks import images

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]

OURS = {
    "Epsilon": {"name": "epsilon"},
    "EpsilonPlus": "epsilon_plus",
    "EpsilonPlusFlat": "epsilon_plus_flat",
    "EpsilonAlpha2Beta1": "epsilon_alpha2_beta1",
    "EpsilonAlpha2Beta1Flat": "epsilon_alpha2_beta1_flat",
    "EpsilonGammaBox": {"name": "epsilon_gamma_box", "low": -0.5, "high": 1.5},
}


@pytest.fixture
def zennit(monkeypatch):
    stand_in_for_torchvision(monkeypatch)
    for name in ("torchvision.models", "torchvision.models.resnet", "torchvision.models.vgg"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
    return importlib.import_module("zennit.composites")


def theirs(zennit, name, net, inputs, target):
    """From the logit on, as ours."""
    if name == "Epsilon":
        rules, types = importlib.import_module("zennit.rules"), importlib.import_module("zennit.types")
        composite = zennit.LayerMapComposite([*zennit.layer_map_base(), (types.Linear, rules.Epsilon())])
    elif name == "EpsilonGammaBox":
        composite = zennit.EpsilonGammaBox(low=-0.5, high=1.5)
    else:
        composite = getattr(zennit, name)()
    leaf = inputs.clone().requires_grad_()
    with composite.context(net) as modified:
        logits = modified(leaf)
        one = torch.zeros_like(logits).scatter(1, target[:, None], 1.0)
        (relevance,) = torch.autograd.grad(logits, leaf, one * logits.detach())
    return relevance


def close(found, expected):
    assert (found - expected).abs().max() < 1e-10 * expected.abs().max()


@pytest.mark.parametrize("composite", list(OURS))
@pytest.mark.parametrize("signed", [False, True])
def test_composites_on_a_lenet(zennit, composite, signed):
    net, (inputs, target) = network("lenet"), images()
    inputs = inputs - 0.4 if signed else inputs
    with torch.no_grad():
        found = LRP(OURS[composite]).per_channel(adapt(net), inputs, target)
    close(found, theirs(zennit, composite, net, inputs, target))


@pytest.mark.parametrize("composite", list(OURS))
def test_composites_behind_smooth_activations(zennit, composite):
    """Signed inputs in every layer: all terms of all rules count."""
    net, (inputs, target) = drawn(LeNet(nn.GELU)), images()
    with torch.no_grad():
        found = LRP(OURS[composite]).per_channel(adapt(net), inputs, target)
    close(found, theirs(zennit, composite, net, inputs, target))


@pytest.mark.parametrize("composite", list(OURS))
def test_composites_with_batch_norm(zennit, composite):
    """Its canonizer leaves BatchNorm's eps in place, which changes the function; so it is folded into the variance."""
    net, (inputs, target) = network("batch_norm"), images()
    with torch.no_grad():
        found = LRP(OURS[composite]).per_channel(adapt(net), inputs, target)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
            module.running_var += module.eps
            module.eps = 0.0
    canonizers = importlib.import_module("zennit.canonizers")
    with canonizers_applied(canonizers.SequentialMergeBatchNorm(), net):
        close(found, theirs(zennit, composite, net, inputs, target))


class canonizers_applied:
    def __init__(self, canonizer, net) -> None:
        self.instances = canonizer.apply(net)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for instance in self.instances:
            instance.remove()


@pytest.mark.parametrize("name", ["EpsilonPlus", "EpsilonAlpha2Beta1", "EpsilonGammaBox"])
def test_composites_on_a_resnet(zennit, name):
    """Theirs on a twin whose sums are modules, whose ReLUs are used once and whose BatchNorm is folded by ours."""
    net, (inputs, target) = network("resnet"), images()
    with torch.no_grad():
        found = LRP(OURS[name]).per_channel(adapt(net), inputs, target)
    layer, rules, types = (importlib.import_module(f"zennit.{part}") for part in ("layer", "rules", "types"))
    twin = Twin(net, layer.Sum)
    torch.testing.assert_close(twin(inputs), net(inputs))
    # Without a stabilizer at sums and means, where ours need none.
    exact = [(layer.Sum, rules.Norm(stabilizer=1e-30)), (types.AvgPool, rules.Norm(stabilizer=1e-30))]
    settings = {"low": -0.5, "high": 1.5} if name == "EpsilonGammaBox" else {}
    composite = getattr(zennit, name)(layer_map=exact, **settings)
    leaf = inputs.clone().requires_grad_()
    with composite.context(twin) as modified:
        logits = modified(leaf)
        one = torch.zeros_like(logits).scatter(1, target[:, None], 1.0)
        (expected,) = torch.autograd.grad(logits, leaf, one * logits.detach())
    close(found, expected)


class Twin(nn.Module):
    def __init__(self, net, sum_module) -> None:
        super().__init__()
        self.stem = nn.Sequential(folded(net.conv1, net.bn1), nn.ReLU(), net.maxpool)
        self.blocks = nn.Sequential(*[TwinBlock(b, sum_module) for b in (net.layer1, net.layer2)])
        self.head = nn.Sequential(net.avgpool, nn.Flatten(), net.fc)

    def forward(self, x):
        return self.head(self.blocks(self.stem(x)))


class TwinBlock(nn.Module):
    def __init__(self, block, sum_module) -> None:
        super().__init__()
        self.way = nn.Sequential(folded(block.conv1, block.bn1), nn.ReLU(), folded(block.conv2, block.bn2))
        self.short = nn.Identity() if block.downsample is None else folded(*block.downsample)
        self.sum, self.relu = sum_module(), nn.ReLU()

    def forward(self, x):
        return self.relu(self.sum(torch.stack([self.short(x), self.way(x)], dim=-1)))


def folded(convolution, norm):
    scale = norm.weight.data / (norm.running_var + norm.eps).sqrt()
    settings = {n: getattr(convolution, n) for n in ("kernel_size", "stride", "padding")}
    made = nn.Conv2d(convolution.in_channels, convolution.out_channels, **settings).double()
    made.weight.data = convolution.weight.data * scale.view(-1, 1, 1, 1)
    made.bias.data = norm.bias.data - norm.running_mean * scale
    return made


@pytest.mark.parametrize(("method", "peer"), [(GuidedBackprop, "GuidedBackprop"), (DeconvNet, "DeconvNet")])
def test_modified_gradients(zennit, method, peer):
    net, (inputs, target) = network("lenet"), images()
    leaf = inputs.clone().requires_grad_()
    with getattr(zennit, peer)().context(net) as modified:
        (expected,) = torch.autograd.grad(modified(leaf).gather(1, target[:, None]).sum(), leaf)
    with torch.no_grad():
        close(method().per_channel(adapt(net), inputs, target), expected)


def test_every_composite_is_compared():
    names = {choice if isinstance(choice, str) else choice["name"] for choice in OURS.values()}
    assert names == set(COMPOSITES) - {"by_operator", "deep_taylor"}
