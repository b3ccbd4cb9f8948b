"""Every attribution on the classifiers that are made for one batch: contrasts, text beside images, tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.models import adapt, condition, contrast
from tests.contracts.test_attributions import every_method, make, network_for
from tests.networks import CLASSES, SIDE, images

# Scores that a shift of all logits changes; the probability of a class is the same with and without a contrast.
SETTINGS = {"meaningful_perturbation": {"score": "logit", "baseline": 0.0}, "rise": {"score": "logit"}}
# What they show is the same for every class.
NO_CLASS = {"eigen_cam", "attention_rollout"}
# Linear in the logits, so that the map of a lead is the lead of the maps.
LINEAR = {
    *("saliency", "input_x_gradient", "smooth_grad", "integrated_gradients", "expected_gradients", "smoothed", "cam"),
    *("gradient_shap", "deep_lift", "deep_shap"),
    *("occlusion", "feature_ablation", "rise", "lime", "kernel_shap"),
}


@every_method
def test_a_contrast_explains_the_lead_of_the_target_over_the_other_class(method):
    attribution = make(method, **SETTINGS.get(method, {}))
    model, (inputs, target) = adapt(network_for(method, "relu")), images(4)
    other = (target + 1) % CLASSES
    lead = attribution(contrast(model, other), inputs, target).detach()
    plain = attribution(model, inputs, target).detach()
    assert not torch.allclose(lead, plain, rtol=1e-3) or method in NO_CLASS
    if method in LINEAR:
        torch.testing.assert_close(lead, plain - attribution(model, inputs, other).detach(), rtol=1e-6, atol=1e-9)


@every_method
def test_a_class_an_image_equals_one_image_at_a_time(method):
    attribution = make(method, **SETTINGS.get(method, {}))
    model, (inputs, target) = adapt(network_for(method, "relu")), images(4)
    other = (target + torch.tensor([1, 2, 1, 2])) % CLASSES
    together = attribution(contrast(model, other), inputs, target)
    apart = [attribution(contrast(model, int(other[i])), inputs[i : i + 1], target[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-9, atol=1e-12)


class WithText(nn.Module):
    """A network of images and one number each, which weights the maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs, text):
        return self.network(inputs * (1 + text)[:, None, None, None])


@every_method
def test_text_beside_an_image_goes_where_the_image_goes(method):
    attribution = make(method)
    network, (inputs, target) = WithText(network_for(method, "relu")), images(4)
    text = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
    model = adapt(network)
    together = attribution(condition(model, text), inputs, target)
    assert together.shape == (4, 1, SIDE, SIDE)
    apart = [
        attribution(condition(model, {"text": text[i : i + 1]}), inputs[i : i + 1], target[i : i + 1]) for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-9, atol=1e-12)
    alone = attribution(adapt(network.network), inputs[:1], target[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-9, atol=1e-12)  # text 0 leaves the image as it is
    if method != "eigen_cam":
        assert not torch.allclose(together[1:], attribution(adapt(network.network), inputs[1:], target[1:]), rtol=1e-3)


def test_text_for_another_batch_is_refused():
    model, (inputs, _) = condition(adapt(WithText(nn.Identity())), torch.zeros(3)), images(4)
    with pytest.raises(ValueError, match="made for another batch"):
        model(inputs)
    with pytest.raises(ValueError, match="as many rows"):
        condition(model, [torch.zeros(3), torch.zeros(2)])


@pytest.mark.wrong_types
def test_a_contrast_that_cannot_be_is_refused():
    model, (inputs, target) = adapt(network_for("saliency", "relu")), images(4)
    saliency = make("saliency")
    with pytest.raises(ValueError, match="one other class an image"):
        saliency(contrast(model, target[:2]), inputs, target)
    with pytest.raises(ValueError, match="expected 0 to 2"):
        saliency(contrast(model, 3), inputs, target)
    with pytest.raises(ValueError, match="one class number an image"):
        contrast(model, torch.zeros(4))
