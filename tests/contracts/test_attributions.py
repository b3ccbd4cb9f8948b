"""The rules of the spine, held against every attribution of the catalogue."""

from __future__ import annotations

import dataclasses
from contextlib import nullcontext

import pytest
import torch
from torch import nn

from rightreasons.attribution import ATTRIBUTIONS
from rightreasons.core import Attribution, BadModel
from rightreasons.models import adapt
from tests.networks import NETWORKS, SIDE, images, network

SETTINGS = {
    "smooth_grad": {"samples": 5},
    "integrated_gradients": {"steps": 8},
    "expected_gradients": {"references": images(4, seed=9)[0], "samples": 6},
    "gradient_shap": {"references": images(4, seed=9)[0], "samples": 6},
    "deep_shap": {"references": images(2, seed=9)[0]},
    "smoothed": {"samples": 3},
    "rise": {"masks": 8, "cells": 4},
    "lime": {"samples": 24, "cells": 3, "regularization": 1e-3},
    "kernel_shap": {"samples": 24, "cells": 3},
    "meaningful_perturbation": {"steps": 10},
}
# Methods that explain networks of one form only, by the network here that has it.
ASKS_FOR = {"cam": "pooled", "attention_rollout": "transformer", "chefer_relevance": "transformer"}
# Where planted pixels are looked for: a score that does not saturate; and a mask that is not held to be smooth.
PLANTED = {
    "rise": {"masks": 500, "score": "logit"},
    "meaningful_perturbation": {"score": "logit", "baseline": 0.0, "steps": 20, "sparsity": 0.05, "smoothness": 0.0},
}
# Maps of means over random masks: every pixel has a part of the mean score, and what matters has more.
OVER_A_MEAN = {"rise"}
# Methods that refuse BatchNorm in training mode, where images of a batch depend on each other.
REFUSES_TRAINING = {"lrp", "deep_taylor", "deep_lift", "deep_shap"}
METHODS = list(ATTRIBUTIONS)
NETS = list(NETWORKS)

every_method = pytest.mark.parametrize("method", METHODS)
every_net = pytest.mark.parametrize("net", NETS)
# What it would add to the others is little, and the rule is dear: the slow set holds it to it.
RARE = {"softplus"}
every_net_in_time = pytest.mark.parametrize(
    "net", [pytest.param(net, marks=[pytest.mark.slow] if net in RARE else []) for net in NETS]
)


def make(name: str, **settings) -> Attribution:
    return ATTRIBUTIONS[name](**{**SETTINGS.get(name, {}), **settings})


def network_for(method: str, net: str, **settings) -> nn.Module:
    """That network, or the one that the method asks for."""
    return network(ASKS_FOR.get(method, net), **settings)


def skip_unless_explained(method: str, net: str) -> None:
    if ASKS_FOR.get(method, net) != net:
        pytest.skip(f"explains a {ASKS_FOR[method]} network only")


@every_method
@every_net
def test_a_heatmap_has_one_channel_at_input_resolution(method, net):
    skip_unless_explained(method, net)
    inputs, target = images()
    heatmap = make(method)(adapt(network(net)), inputs, target)
    assert heatmap.shape == (3, 1, SIDE, SIDE)
    assert heatmap.dtype == inputs.dtype
    assert torch.isfinite(heatmap).all()
    assert heatmap.abs().sum() > 0


@every_method
@every_net_in_time
def test_gradient_with_respect_to_the_weights_agrees_with_central_differences(method, net):
    skip_unless_explained(method, net)
    attribution = make(method)
    if not attribution.differentiable:
        pytest.skip("makes no such claim")
    model = adapt(network(net))
    inputs, target = images()
    generator = torch.Generator().manual_seed(5)
    mix = torch.randn(3, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)

    def loss():
        heatmap = attribution(model, inputs, target)
        return (heatmap * mix).sum() + heatmap.square().sum()

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    for _ in range(2):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        found = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        # Where a ReLU or a maximum switches within one step, the other tells; a wrong gradient agrees with neither.
        expected = [central_difference(loss, parameters, direction, step) for step in (1e-6, 1e-7)]
        assert any(found == pytest.approx(difference, rel=1e-6) for difference in expected), (found, expected)


def central_difference(loss, parameters, direction, step: float = 1e-6) -> float:
    values = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for p, d in zip(parameters, direction, strict=True):
                p += sign * step * d
            values.append(float(loss()))
    return (values[0] - values[1]) / (2 * step)


@every_method
def test_heatmap_is_on_the_graph_exactly_when_gradients_are_enabled_and_it_is_differentiable(method):
    attribution, model, (inputs, target) = make(method), adapt(network_for(method, "relu")), images()
    assert attribution(model, inputs, target).requires_grad == attribution.differentiable
    with torch.no_grad():
        assert not attribution(model, inputs, target).requires_grad
    with torch.inference_mode():
        assert not attribution(model, inputs.clone(), target).requires_grad


@every_method
def test_gradients_switched_off_change_no_value(method):
    attribution, model, (inputs, target) = make(method), adapt(network_for(method, "relu")), images()
    with torch.no_grad():
        off = attribution(model, inputs, target)
    with torch.inference_mode():
        inference = attribution(model, inputs.clone(), target)
    torch.testing.assert_close(attribution(model, inputs, target).detach(), off)
    torch.testing.assert_close(inference.clone(), off)


@every_method
def test_heatmap_is_on_the_graph_of_inputs_that_require_a_gradient(method):
    attribution, model, (inputs, target) = make(method), adapt(network_for(method, "softplus")), images()
    inputs.requires_grad_()
    if not attribution.differentiable:
        pytest.skip("makes no such claim")

    def loss(x):
        return attribution(model, x, target).square().sum()

    (found,) = torch.autograd.grad(loss(inputs), inputs)
    direction = torch.randn(inputs.shape, dtype=torch.float64)
    step = 1e-6 * direction
    with torch.no_grad():
        expected = (loss(inputs + step) - loss(inputs - step)) / 2e-6
    if method in (
        "smooth_grad",
        "smoothed",
    ):  # the width of the noise is a setting read off the image, not a function of it
        pytest.skip("its noise width is held constant")
    assert float((found * direction).sum()) == pytest.approx(float(expected), rel=1e-5)


@every_method
@pytest.mark.parametrize("training", [False, True])
def test_a_call_leaves_the_model_as_it_was(method, training):
    attribution, model, (inputs, target) = make(method), adapt(network_for(method, "batch_norm")), images()
    model.train(training)
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    buffers = {n: (id(b), b._version) for n, b in model.named_buffers()}
    with pytest.raises(BadModel, match="eval") if training and method in REFUSES_TRAINING else nullcontext():
        attribution(model, inputs, target)
    assert snapshot(model) == before
    assert {n: (id(b), b._version) for n, b in model.named_buffers()} == buffers
    assert not inputs.requires_grad
    assert inputs.grad is None


@every_method
def test_an_error_leaves_the_model_as_it_was(method):
    attribution, model = make(method), adapt(network_for(method, "batch_norm")).train()
    before = snapshot(model)
    with pytest.raises((RuntimeError, ValueError)):
        attribution(model, torch.rand(3, 2, 5, 5, dtype=torch.float64), torch.zeros(3, dtype=torch.long))
    assert snapshot(model) == before


def snapshot(model: nn.Module) -> list[object]:
    return [
        [(n, m.training, len(m._forward_hooks), len(m._backward_hooks)) for n, m in model.named_modules()],
        [(n, p.requires_grad, p.grad.tolist() if p.grad is not None else None) for n, p in model.named_parameters()],
        [(n, b.tolist()) for n, b in model.named_buffers()],
    ]


@every_method
@every_net_in_time
def test_a_batch_equals_its_singles(method, net):
    skip_unless_explained(method, net)
    attribution, model, (inputs, target) = make(method), adapt(network(net)), images(4)
    together = attribution(model, inputs, target)
    apart = torch.cat([attribution(model, inputs[i : i + 1], target[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-12)


@every_method
def test_the_same_seed_gives_the_same_map(method):
    attribution, model, (inputs, target) = make(method), adapt(network_for(method, "relu")), images()
    first = attribution(model, inputs, target)
    torch.rand(3)
    assert torch.equal(first, attribution(model, inputs, target))


@every_method
def test_it_finds_planted_pixels(method):
    """Only pixels in rows and columns 8 to 11 reach the logits; the map must say so."""
    inputs = torch.rand(3, 1, SIDE, SIDE, dtype=torch.float64) + 0.5
    convolution = nn.Conv2d(1, 2, 1, bias=False)
    nn.init.ones_(convolution.weight)
    weight = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1).expand(2, 2, SIDE, SIDE).clone()
    if ASKS_FOR.get(method) == "pooled":
        head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 2, bias=False))
        weight = weight[..., 0, 0]
    else:
        head = nn.Sequential(nn.Flatten(), nn.Linear(2 * SIDE * SIDE, 2, bias=False))
        weight[:, :, :8], weight[:, :, :, :8] = 0, 0
    head[-1].weight.data = weight.flatten(1)
    model = adapt(nn.Sequential(Window(), convolution, nn.ReLU(), head).double())
    if ASKS_FOR.get(method) == "transformer":
        model = adapt(nn.Sequential(Window(), AttendsToBright()).double())
    settings = {"references": torch.zeros(1, 1, SIDE, SIDE)} if "references" in SETTINGS.get(method, {}) else {}
    settings |= PLANTED.get(method, {})
    heatmap = make(method, **settings)(model, inputs, torch.ones(3, dtype=torch.long)).abs()
    if method in OVER_A_MEAN:
        peaks = heatmap.flatten(1).argmax(dim=1)
        assert (torch.stack([peaks // SIDE, peaks % SIDE]) >= 8).all()
        assert (heatmap[..., 8:, 8:].mean(dim=(1, 2, 3)) > 1.1 * heatmap[..., :6, :6].mean(dim=(1, 2, 3))).all()
        return
    assert (heatmap[..., 8:, 8:].sum(dim=(1, 2, 3)) / heatmap.sum(dim=(1, 2, 3)) > 0.99).all()


class Window(nn.Module):
    def forward(self, x):
        shown = torch.zeros_like(x)
        shown[..., 8:, 8:] = 1
        return x * shown


class AttendsToBright(nn.Module):
    """A class token that attends to bright pixels, each pixel a token."""

    def forward(self, x):
        tokens = nn.functional.pad(x.flatten(2).mT, (0, 0, 1, 0))
        attended = nn.functional.scaled_dot_product_attention(torch.full_like(tokens, 20.0), tokens, tokens)
        return attended[:, 0] * torch.tensor([1.0, 2.0])


@every_method
def test_frozen_weights_an_in_place_relu_and_half_precision_are_no_obstacle(method):
    inputs, target = images(dtype=torch.float32)
    references = SETTINGS.get(method, {}).get("references")
    settings = {} if references is None else {"references": references.float()}
    plain = network_for(method, "relu", dtype=torch.float32).requires_grad_(False)
    layer = None if ASKS_FOR.get(method) == "transformer" else "3"
    expected = make(method, **settings)(adapt(plain, layer), inputs, target)
    hasty = network_for(method, "relu", dtype=torch.float32)
    for module in hasty.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = True
    torch.testing.assert_close(make(method, **settings)(adapt(hasty, layer), inputs, target).detach(), expected)
    half = adapt(network_for(method, "relu", dtype=torch.bfloat16), layer)
    heatmap = make(method, **settings)(half, inputs.bfloat16(), target)
    assert heatmap.dtype == torch.bfloat16
    assert torch.isfinite(heatmap).all()


@every_method
def test_a_method_is_its_settings_and_cannot_be_changed(method):
    attribution = make(method)
    assert type(attribution).__name__ in repr(attribution)
    field = dataclasses.fields(attribution)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(attribution, field, None)
    assert not any(isinstance(v, nn.Module) for v in vars(attribution).values())


@pytest.mark.wrong_types
@every_method
def test_inputs_and_target_must_go_together(method):
    attribution, model, (inputs, target) = make(method), adapt(network_for(method, "relu")), images()
    with pytest.raises(ValueError, match="one target an input"):
        attribution(model, inputs, target[:2])
    with pytest.raises(ValueError, match="class numbers"):
        attribution(model, inputs, target.double())
