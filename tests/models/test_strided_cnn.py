"""The strided network, against its pass written out."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rightreasons.attribution import GradCAM
from rightreasons.core import BadModel
from rightreasons.models import StridedCNN, adapt, build


def test_its_pass():
    torch.manual_seed(0)
    net = StridedCNN((1, 13, 15), 3, widths=(2, 4), hidden=5).eval()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d | torch.nn.BatchNorm1d):
            module.running_mean.normal_()
            module.running_var.uniform_(0.5, 2)
    maps = inputs = torch.rand(2, 1, 13, 15)
    for place in (0, 10):
        for first in (place, place + 3):
            maps = net[first + 1](F.conv2d(maps, net[first].weight)).relu()
        maps = net[place + 7](F.conv2d(maps, net[place + 6].weight, stride=2, padding=2)).relu()
    assert maps.shape == (2, 4, 1, 1)
    dense = net[22](maps.flatten(1) @ net[21].weight.T).relu()
    torch.testing.assert_close(net(inputs), dense @ net[-1].weight.T + net[-1].bias)


def test_it_is_found_by_name_and_explained():
    net = build("strided_cnn", (1, 28, 28), 10)
    assert isinstance(net, StridedCNN)
    assert sum(p.numel() for p in net.parameters()) == 441_802
    heatmap = GradCAM()(adapt(net).eval(), torch.rand(2, 1, 28, 28), torch.tensor([0, 1]))
    assert heatmap.shape == (2, 1, 28, 28)


def test_what_it_cannot_be_is_refused():
    with pytest.raises(ValueError, match="expected one width or more"):
        StridedCNN(widths=())
    with pytest.raises(BadModel, match="images of 8x28 pixels are too small for 2 blocks"):
        StridedCNN((1, 8, 28))
