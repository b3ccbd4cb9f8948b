"""CAM, and what it takes for a pooled head."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import CAM, GradCAM
from rightreasons.core import BadModel
from rightreasons.models import adapt
from rightreasons.models.classifier import record
from tests.networks import SIDE, images, network


class Ending(nn.Module):
    """Maps as large as the image, then a head of the test's choice."""

    def __init__(self, head) -> None:
        super().__init__()
        self.features = nn.Conv2d(2, 4, 3, padding=1)
        self.weight = nn.Parameter(torch.randn(3, 4))
        self.bias = nn.Parameter(torch.randn(3))
        self.last = nn.Linear(4, 3)
        self.head = head
        self.double().eval()

    def forward(self, x):
        return self.head(self, F.relu(self.features(x)))


WRITTEN = {
    "functions": lambda net, x: F.linear(x.mean(dim=(2, 3)), net.weight, net.bias),
    "two means": lambda net, x: net.last(x.mean(-1).mean(-1)),
    "pool and view": lambda net, x: net.last(F.adaptive_avg_pool2d(x, 1).view(len(x), -1)),
    "whole pool": lambda net, x: net.last(F.avg_pool2d(x, SIDE)[:, :, 0, 0]),
    "flat mean and dropout": lambda net, x: net.last(F.dropout(x.flatten(2).mean(2), 0.5, net.training)),
    "keywords": lambda net, x: F.linear(torch.mean(x, dim=(2, 3)), weight=net.weight, bias=net.bias),
}


@pytest.mark.parametrize("written", list(WRITTEN))
def test_cam_is_the_maps_weighted_by_the_linear_layer_however_it_is_written(written):
    net, (inputs, target) = Ending(WRITTEN[written]), images()
    weight = net.weight if written in ("functions", "keywords") else net.last.weight
    maps = F.relu(net.features(inputs))
    expected = torch.zeros(3, 1, SIDE, SIDE, dtype=torch.float64)
    for b in range(3):
        for k in range(4):
            expected[b, 0] += weight[target[b], k] * maps[b, k]
    torch.testing.assert_close(CAM()(adapt(net), inputs, target), expected)
    torch.testing.assert_close(CAM(positive=True)(adapt(net), inputs, target), expected.clamp(min=0))


def test_the_mean_of_cam_and_the_bias_are_the_logit():
    net, (inputs, target) = Ending(WRITTEN["two means"]), images()
    means = CAM()(adapt(net), inputs, target).mean(dim=(1, 2, 3))
    torch.testing.assert_close(means + net.last.bias[target], net(inputs)[range(3), target])


def test_grad_cam_of_a_pooled_network_is_its_cam_over_the_number_of_places():
    net, (inputs, target) = network("pooled"), images()
    grad_cam = GradCAM("4")(adapt(net), inputs, target)
    torch.testing.assert_close(grad_cam * 9, CAM(positive=True)(adapt(net), inputs, target))


REFUSED = {
    "largest, not mean": lambda net, x: net.last(x.amax(dim=(2, 3))),
    "sum, not mean": lambda net, x: net.last(x.sum(dim=(2, 3))),
    "squared in between": lambda net, x: net.last(x.mean(dim=(2, 3)).square()),
    "changed behind": lambda net, x: net.last(x.mean(dim=(2, 3))).log_softmax(1),
    "two linear layers": lambda net, x: F.linear(net.last(x.mean(dim=(2, 3))), torch.ones(3, 3).double()),
    "part of the image": lambda net, x: net.last(x[..., 2:, 2:].mean(dim=(2, 3))),
}


@pytest.mark.parametrize("head", list(REFUSED))
def test_another_head_is_refused_in_one_sentence(head):
    net, (inputs, target) = Ending(REFUSED[head]), images()
    if head == "part of the image":  # what is averaged are the maps of that part
        heatmap = CAM()(adapt(net), inputs, target)
        expected = (net.last.weight[target][:, :, None, None] * F.relu(net.features(inputs))[..., 2:, 2:]).sum(1, True)
        return torch.testing.assert_close(heatmap, F.interpolate(expected, size=(SIDE, SIDE), mode="bilinear"))
    with pytest.raises(BadModel, match="one linear layer, and this one does not"):
        return CAM()(adapt(net), inputs, target)


def test_a_recorded_pass_and_a_class_that_does_not_exist():
    model, (inputs, target) = adapt(network("pooled")), images()
    expected = CAM()(model, inputs, target)
    recorded = record(model, inputs.requires_grad_(), ["3"])
    torch.testing.assert_close(CAM()(recorded, inputs, target), expected)
    for wrong in (-1, 3):
        with pytest.raises((IndexError, RuntimeError)):
            CAM()(model, inputs, torch.tensor([0, 1, wrong]))
