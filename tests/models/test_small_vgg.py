"""The small VGG, against its pass written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rightreasons.attribution import GradCAM
from rightreasons.models import SmallVGG, adapt, build


def test_its_pass():
    torch.manual_seed(0)
    net = SmallVGG((1, 12, 12), 3, widths=(2, 4, 5), depth=2).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    inputs = torch.rand(2, 1, 12, 12)
    maps = net[2](F.max_pool2d(F.conv2d(inputs, net[0].weight, padding=2), 2)).relu()
    for place in (4, 7):
        maps = net[place + 1](F.conv2d(maps, net[place].weight, padding=1)).relu()
    assert maps.shape == (2, 4, 6, 6)
    maps = F.max_pool2d(maps, 2)
    for place in (11, 14):
        maps = net[place + 1](F.conv2d(maps, net[place].weight, padding=1)).relu()
    expected = maps.amax(dim=(2, 3)) @ net[-1].weight.T + net[-1].bias
    torch.testing.assert_close(net(inputs), expected)


def test_it_is_found_by_name_and_explained():
    net = build("small_vgg", (1, 28, 28), 10)
    assert isinstance(net, SmallVGG)
    assert sum(p.numel() for p in net.parameters()) == 464_106
    heatmap = GradCAM()(adapt(net).eval(), torch.rand(2, 1, 28, 28), torch.tensor([0, 1]))
    assert heatmap.shape == (2, 1, 28, 28)


@pytest.mark.parametrize("settings", [{"widths": (32,)}, {"depth": 0}])
def test_too_few_blocks_are_refused(settings):
    with pytest.raises(ValueError, match="expected two widths or more and a depth of at least 1"):
        SmallVGG(**settings)
