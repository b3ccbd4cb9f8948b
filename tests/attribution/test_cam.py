from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import GradCAM, GradCAMPlusPlus
from rightreasons.core import BadModel
from rightreasons.models import MLP, adapt
from tests.networks import SIDE, images, network


def pieces(inputs, target):
    """Activations of layer 3 of the ReLU network and the logit's gradient with respect to them."""
    net = network("relu")
    maps = net[:4](inputs).detach().requires_grad_()
    logits = net[4:](maps)
    (slopes,) = torch.autograd.grad(logits[range(len(target)), target].sum(), maps)
    return net, maps.detach(), slopes


def upsampled(heatmap):
    return F.interpolate(heatmap, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def test_grad_cam_is_its_formula():
    inputs, target = images()
    net, maps, slopes = pieces(inputs, target)
    heatmap = torch.zeros(3, 1, *maps.shape[2:], dtype=torch.float64)
    for b in range(3):
        for k in range(5):
            heatmap[b, 0] += slopes[b, k].mean() * maps[b, k]
    expected = upsampled(heatmap.clamp(min=0))
    torch.testing.assert_close(GradCAM("3")(adapt(net), inputs, target).detach(), expected)


def test_grad_cam_plus_plus_is_its_formula_with_the_exponential_carried_along():
    """Eqs. 12 and 19 with Y = exp(S): first, second and third derivative are exp(S) times g, g^2, g^3."""
    inputs, target = images()
    net, maps, slopes = pieces(inputs, target)
    maps = maps.relu()  # as in the paper, where the explained maps come from behind a ReLU
    score = net(inputs)[range(3), target].detach()
    heatmap = torch.zeros(3, 1, *maps.shape[2:], dtype=torch.float64)
    for b in range(3):
        e = score[b].exp()
        for k in range(5):
            weight = 0.0
            for i in range(maps.shape[2]):
                for j in range(maps.shape[3]):
                    g = slopes[b, k, i, j]
                    below = 2 * e * g**2 + maps[b, k].sum() * e * g**3
                    alpha = e * g**2 / below if below != 0 else 0.0
                    weight += alpha * max(e * g, 0.0)
            heatmap[b, 0] += weight / e * maps[b, k]
    weights = GradCAMPlusPlus().weights(maps, slopes)
    found = (weights * maps).sum(1, keepdim=True).relu()
    torch.testing.assert_close(found, heatmap.clamp(min=0))


def test_maps_from_before_a_relu_give_no_pole():
    maps = torch.tensor([[[[-3.0, 1.0]]]], dtype=torch.float64)  # sum -2
    slopes = torch.tensor([[[[1.0, 0.5]]]], dtype=torch.float64)  # 2 + g sum = 0 and 1
    weights = GradCAMPlusPlus().weights(maps, slopes)
    assert weights.flatten().tolist() == [0.5]


def test_tokens_are_laid_out_on_their_grid_without_the_class_token():
    model, (inputs, target) = adapt(network("transformer")), images()
    assert model.layer == "blocks.1.norm1"
    trace = model.trace(inputs, [model.layer])
    tokens = trace.activations[model.layer]
    (slopes,) = torch.autograd.grad(trace.logits[range(3), target].sum(), tokens)
    weight = slopes[:, 1:].mean(1, keepdim=True)
    heatmap = (weight * tokens[:, 1:]).sum(2).view(3, 1, 3, 3).relu()
    torch.testing.assert_close(GradCAM()(model, inputs, target), upsampled(heatmap))


def test_every_layer_with_places_can_be_explained():
    model, (inputs, target) = adapt(network("residual")), images()
    for layer in ("stem", "conv1", "conv2"):
        assert GradCAM(layer)(model, inputs, target).shape == (3, 1, SIDE, SIDE)


def test_what_has_no_map_is_refused_in_one_sentence():
    inputs, target = images()
    with pytest.raises(BadModel, match="name a layer"):
        GradCAM()(adapt(MLP((2, SIDE, SIDE), 3).double()), inputs, target)
    with pytest.raises(BadModel, match="There are: 0, 1, 2, 3"):
        GradCAM("conv9")(adapt(network("relu")), inputs, target)
    with pytest.raises(BadModel, match="expected maps"):
        GradCAM("6")(adapt(network("relu")), inputs, target)
    shared = nn.Conv2d(2, 2, 3, padding=1)
    twice = nn.Sequential(shared, nn.ReLU(), shared, nn.Flatten(), nn.Linear(2 * SIDE * SIDE, 3)).double()
    with pytest.raises(BadModel, match="more than once"):
        GradCAM("0")(adapt(twice), inputs, target)
