"""The small residual network, against its pass written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rightreasons.attribution import GradCAM
from rightreasons.models import SmallResNet, adapt, build


def norm(layer, maps):
    shaped = [p.view(1, -1, 1, 1) for p in (layer.running_mean, layer.running_var, layer.weight, layer.bias)]
    return (maps - shaped[0]) / (shaped[1] + layer.eps).sqrt() * shaped[2] + shaped[3]


def test_a_block_adds_its_maps_to_its_inputs():
    torch.manual_seed(0)
    net = SmallResNet((1, 16, 16), 3, widths=(4, 6)).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
            module.bias.data.normal_()
    inputs = torch.rand(2, 1, 16, 16)
    stem = norm(net[1], F.conv2d(inputs, net[0].weight, stride=2, padding=1)).relu()
    maps = stem
    for block, stride in ((net[3], 1), (net[4], 2)):
        inside = norm(block.norm1, F.conv2d(maps, block.conv1.weight, stride=stride, padding=1)).relu()
        inside = norm(block.norm2, F.conv2d(inside, block.conv2.weight, padding=1))
        beside = maps if stride == 1 else norm(block.shortcut[1], F.conv2d(maps, block.shortcut[0].weight, stride=2))
        maps = (inside + beside).relu()
    expected = maps.mean(dim=(2, 3)) @ net[-1].weight.T + net[-1].bias
    torch.testing.assert_close(net(inputs), expected)


@pytest.mark.parametrize("shape", [(1, 64, 64), (3, 28, 28)])
def test_it_is_found_by_name_and_explained(shape):
    net = build("small_resnet", shape, 2)
    assert isinstance(net, SmallResNet)
    assert 76_000 < sum(p.numel() for p in build("small_resnet", (1, 64, 64), 2).parameters()) < 78_000
    model = adapt(net).eval()
    heatmap = GradCAM()(model, torch.rand(2, *shape), torch.tensor([0, 1]))
    assert heatmap.shape == (2, 1, *shape[1:])
