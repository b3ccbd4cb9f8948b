"""The first convolution: torch's values and gradients of any order, and no work that nobody asked for."""

import pytest
import torch
from torch import nn

from rightreasons.models import BaselineCNN, LeNet
from rightreasons.models import image_convolution as module
from rightreasons.models.image_convolution import ImageConv2d


def pair(channels=2, padding=0, dtype=torch.float64):
    torch.manual_seed(0)
    ours = ImageConv2d(channels, 4, 3, padding=padding).to(dtype)
    plain = nn.Conv2d(channels, 4, 3, padding=padding).to(dtype)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def derivatives(layer, images):
    """The maps, their gradients, and the gradients of a penalty on the image's gradient and on the maps."""
    images = images.clone().requires_grad_()
    maps = layer(images)
    score = maps.tanh().square().sum()
    (slope,) = torch.autograd.grad(score, images, create_graph=True)
    weights = list(layer.parameters())
    return [maps, slope, *torch.autograd.grad(score + slope.pow(3).sum(), [images, *weights])]


@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_values_and_both_orders_are_those_of_torch(channels, padding, layout):
    ours, plain = (layer.to(memory_format=layout) for layer in pair(channels, padding))
    images = torch.rand(5, channels, 7, 6, dtype=torch.float64)
    for found, expected in zip(derivatives(ours, images), derivatives(plain, images), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("padding", [0, 1])
def test_finite_differences_agree(padding):
    ours, _ = pair(padding=padding)
    images = torch.rand(2, 2, 5, 4, dtype=torch.float64, requires_grad=True)
    weights = tuple(ours.parameters())

    def maps(images, weight, bias):
        return torch.func.functional_call(ours, {"weight": weight, "bias": bias}, (images,))

    def slope(images, weight, bias):
        score = maps(images, weight, bias).tanh().square().sum()
        return torch.autograd.grad(score, images, create_graph=True)[0]

    assert torch.autograd.gradcheck(maps, (images, *weights))
    assert torch.autograd.gradcheck(slope, (images, *weights))
    assert torch.autograd.gradgradcheck(maps, (images, *weights))


def test_the_weights_gradient_hangs_on_the_image():
    images = torch.rand(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    found = []
    for layer in pair():
        (slope,) = torch.autograd.grad(layer(images).tanh().sum(), layer.weight, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), images)[0])
    torch.testing.assert_close(*found)


def test_frozen_weights_still_give_the_images_gradient():
    ours, plain = (layer.requires_grad_(False) for layer in pair())
    images = torch.rand(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    slopes = [torch.autograd.grad(layer(images).square().sum(), images)[0] for layer in (ours, plain)]
    torch.testing.assert_close(slopes[0], slopes[1])


def test_a_pass_to_the_weights_alone_leaves_the_images_gradient_out(monkeypatch):
    calls = []
    real = module._ImageGradient.apply
    monkeypatch.setattr(module._ImageGradient, "apply", lambda *given: calls.append(1) or real(*given))
    ours, _ = pair()
    images = torch.rand(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    ours(images).sum().backward(inputs=list(ours.parameters()))
    assert not calls
    ours(images).sum().backward()
    assert calls


def test_a_weight_changed_in_place_between_the_passes_is_refused():
    ours, _ = pair()
    images = torch.rand(2, 2, 5, 5, dtype=torch.float64, requires_grad=True)
    total = ours(images).sum()
    with torch.no_grad():
        ours.weight.add_(1)
    with pytest.raises(RuntimeError, match="changed in place"):
        total.backward()


def test_maps_may_be_changed_in_place_behind_it():
    ours, plain = pair()
    images = torch.rand(2, 2, 5, 5, dtype=torch.float64)
    relu = nn.ReLU(inplace=True)
    found = [derivatives(nn.Sequential(layer, relu), images) for layer in (ours, plain)]
    for ours_, expected in zip(*found, strict=True):
        torch.testing.assert_close(ours_, expected)


def test_autocast_is_left_to_torch():
    ours, plain = pair(dtype=torch.float32)
    images = torch.rand(2, 2, 5, 5, requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(ours(images), plain(images))


def test_the_networks_of_the_protocols_begin_with_it():
    assert isinstance(LeNet().conv1, ImageConv2d)
    assert isinstance(BaselineCNN()[0], ImageConv2d)
    assert sum(p.numel() for p in BaselineCNN().parameters()) == 225_610
