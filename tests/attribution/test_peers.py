"""Our maps beside those of captum and grad-cam: the same to 1e-5 for the methods they have."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from unittest.mock import MagicMock

import pytest
import torch

from rightreasons.attribution import (
    AblationCAM,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    InputXGradient,
    IntegratedGradients,
    LayerCAM,
    Saliency,
    ScoreCAM,
    Smoothed,
    SmoothGrad,
    XGradCAM,
)
from rightreasons.core.tensors import resized
from rightreasons.models import BaselineCNN, LeNet, adapt

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]


@pytest.fixture
def lenet():
    inputs = torch.rand(6, 1, 28, 28)
    return LeNet().eval(), inputs, torch.arange(6)


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


def test_captum_saliency_and_input_x_gradient(lenet):
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet
    with torch.no_grad():
        close(Saliency()(adapt(net), inputs, target), attr.Saliency(net).attribute(inputs, target, abs=False))
        close(InputXGradient()(adapt(net), inputs, target), attr.InputXGradient(net).attribute(inputs, target))


def test_captum_integrated_gradients(lenet):
    attr = importlib.import_module("captum.attr")
    # In single precision another memory layout's rounding switches a maximum here and there.
    net, inputs, target = lenet[0].double(), lenet[1].double(), lenet[2]
    expected = attr.IntegratedGradients(net).attribute(inputs, target=target, n_steps=32, method="gausslegendre")
    with torch.no_grad():
        close(IntegratedGradients(steps=32)(adapt(net), inputs, target), expected)


def test_captum_smooth_grad_in_the_mean(lenet):
    """Noise differs from library to library: the two agree as two of our own seeds do."""
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet
    theirs = attr.NoiseTunnel(attr.Saliency(net)).attribute(
        inputs, nt_type="smoothgrad", nt_samples=400, stdevs=0.15, target=target, abs=False
    )
    with torch.no_grad():
        ours, other = (SmoothGrad(samples=400, noise=0.15, seed=s)(adapt(net), inputs, target) for s in (0, 1))
    assert (ours - theirs).norm() < 1.5 * (ours - other).norm()


def test_captum_grad_cam(lenet):
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet
    theirs = attr.LayerGradCam(net, net.conv2).attribute(inputs, target, relu_attributions=True)
    theirs = attr.LayerAttribution.interpolate(theirs, (28, 28), "bilinear")
    with torch.no_grad():
        close(GradCAM()(adapt(net), inputs, target), theirs.detach())


def test_captum_smoothed_squares_and_variance_in_the_mean(lenet):
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet
    for kind, theirs in (("square", "smoothgrad_sq"), ("variance", "vargrad")):
        expected = attr.NoiseTunnel(attr.Saliency(net)).attribute(
            inputs, nt_type=theirs, nt_samples=400, stdevs=0.15, target=target, abs=False
        )
        with torch.no_grad():
            ours, other = (
                Smoothed(Saliency(), 400, 0.15, kind=kind, seed=s)(adapt(net), inputs, target) for s in (0, 1)
            )
        assert (ours - expected).norm() < 1.5 * (ours - other).norm()


@pytest.mark.parametrize(
    "method", [GradCAM, GradCAMPlusPlus, XGradCAM, LayerCAM, HiResCAM, ScoreCAM, AblationCAM], ids=lambda m: m.__name__
)
def test_grad_cam_package(method, monkeypatch):
    """It scales each map to [0, 1], so ours is scaled likewise first."""
    stand_in_for_torchvision(monkeypatch)
    # Its Score-CAM enlarges masks with aligned corners and maps without; ours both without.
    monkeypatch.setattr(torch.nn, "UpsamplingBilinear2d", partial(torch.nn.Upsample, mode="bilinear"))
    peer = importlib.import_module("pytorch_grad_cam")
    targets = importlib.import_module("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    net, inputs = BaselineCNN().eval(), torch.rand(6, 3, 28, 28)
    # It adds small constants below its quotients; with large gradients they do not show.
    net[10].weight.data *= 1e4
    # Classes of positive score: its Ablation-CAM turns the map of a negative one round.
    target = net(inputs).argmax(dim=1)
    with getattr(peer, method.__name__)(model=net, target_layers=[net[4]]) as cam:
        theirs = torch.from_numpy(cam(input_tensor=inputs, targets=[targets(int(t)) for t in target]))
    ours = method("4").coarse(adapt(net), inputs, target, layer="4", graph=False).relu()
    ours = resized(ours, (28, 28)).detach()
    # It normalizes before it resizes and again after; both are affine in a map that is zero somewhere.
    ours = ours - ours.amin((1, 2, 3), keepdim=True)
    ours = ours / ours.amax((1, 2, 3), keepdim=True).clamp(min=1e-30)  # a map may be zero everywhere
    close(ours[:, 0], theirs)


def test_grad_cam_package_eigen_cam(monkeypatch):
    """It leaves the sign to chance."""
    stand_in_for_torchvision(monkeypatch)
    peer = importlib.import_module("pytorch_grad_cam.utils.svd_on_activations")
    net, inputs, target = BaselineCNN().eval(), torch.rand(6, 3, 28, 28), torch.arange(6)
    with torch.no_grad():
        theirs = torch.from_numpy(peer.get_2d_projection(torch.nn.Sequential(*list(net)[:5])(inputs).numpy()))
        ours = EigenCAM("4", centered=True).coarse(adapt(net), inputs, target, layer="4", graph=False)[:, 0]
    sign = (ours * theirs).sum(dim=(1, 2), keepdim=True).sign()
    close(ours * sign, theirs)


def stand_in_for_torchvision(monkeypatch):
    """grad-cam imports transforms that its maps do not need; torchvision cannot be imported beside a CPU torch."""
    for name in ("torchvision", "torchvision.transforms", "torchvision.transforms.functional"):
        monkeypatch.setitem(sys.modules, name, MagicMock())
