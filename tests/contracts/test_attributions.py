"""The rules of the spine, held against every attribution of the catalogue."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from rightreasons.attribution import ATTRIBUTIONS
from rightreasons.core import Attribution
from rightreasons.models import adapt
from tests.networks import NETWORKS, SIDE, images, network

SETTINGS = {
    "smooth_grad": {"samples": 5},
    "integrated_gradients": {"steps": 8},
    "expected_gradients": {"references": images(4, seed=9)[0], "samples": 6},
}
METHODS = list(ATTRIBUTIONS)
NETS = list(NETWORKS)

every_method = pytest.mark.parametrize("method", METHODS)
every_net = pytest.mark.parametrize("net", NETS)


def make(name: str, **settings) -> Attribution:
    return ATTRIBUTIONS[name](**{**SETTINGS.get(name, {}), **settings})


@every_method
@every_net
def test_a_heatmap_has_one_channel_at_input_resolution(method, net):
    inputs, target = images()
    heatmap = make(method)(adapt(network(net)), inputs, target)
    assert heatmap.shape == (3, 1, SIDE, SIDE)
    assert heatmap.dtype == inputs.dtype
    assert torch.isfinite(heatmap).all()
    assert heatmap.abs().sum() > 0


@every_method
@every_net
def test_gradient_with_respect_to_the_weights_agrees_with_central_differences(method, net):
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
    for _ in range(3):
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]
        expected = central_difference(loss, parameters, direction)
        found = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
        assert found == pytest.approx(expected, rel=1e-6)


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
    attribution, model, (inputs, target) = make(method), adapt(network("relu")), images()
    assert attribution(model, inputs, target).requires_grad == attribution.differentiable
    with torch.no_grad():
        assert not attribution(model, inputs, target).requires_grad
    with torch.inference_mode():
        assert not attribution(model, inputs.clone(), target).requires_grad


@every_method
def test_gradients_switched_off_change_no_value(method):
    attribution, model, (inputs, target) = make(method), adapt(network("relu")), images()
    with torch.no_grad():
        off = attribution(model, inputs, target)
    with torch.inference_mode():
        inference = attribution(model, inputs.clone(), target)
    torch.testing.assert_close(attribution(model, inputs, target).detach(), off)
    torch.testing.assert_close(inference.clone(), off)


@every_method
def test_heatmap_is_on_the_graph_of_inputs_that_require_a_gradient(method):
    attribution, model, (inputs, target) = make(method), adapt(network("softplus")), images()
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
    if method == "smooth_grad":  # the width of the noise is a setting read off the image, not a function of it
        pytest.skip("its noise width is held constant")
    assert float((found * direction).sum()) == pytest.approx(float(expected), rel=1e-5)


@every_method
@pytest.mark.parametrize("training", [False, True])
def test_a_call_leaves_the_model_as_it_was(method, training):
    attribution, model, (inputs, target) = make(method), adapt(network("batch_norm")), images()
    model.train(training)
    for p in model.parameters():
        p.grad = torch.full_like(p, 7.0)
    next(model.parameters()).requires_grad_(False)
    before = snapshot(model)
    buffers = {n: (id(b), b._version) for n, b in model.named_buffers()}
    attribution(model, inputs, target)
    assert snapshot(model) == before
    assert {n: (id(b), b._version) for n, b in model.named_buffers()} == buffers
    assert not inputs.requires_grad
    assert inputs.grad is None


@every_method
def test_an_error_leaves_the_model_as_it_was(method):
    attribution, model = make(method), adapt(network("batch_norm")).train()
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
@every_net
def test_a_batch_equals_its_singles(method, net):
    attribution, model, (inputs, target) = make(method), adapt(network(net)), images(4)
    together = attribution(model, inputs, target)
    apart = torch.cat([attribution(model, inputs[i : i + 1], target[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(together, apart, rtol=1e-9, atol=1e-12)


@every_method
def test_the_same_seed_gives_the_same_map(method):
    attribution, model, (inputs, target) = make(method), adapt(network("relu")), images()
    first = attribution(model, inputs, target)
    torch.rand(3)
    assert torch.equal(first, attribution(model, inputs, target))


@every_method
def test_it_finds_planted_pixels(method):
    """Only pixels in rows and columns 8 to 11 reach the logits; the map must say so."""
    inputs = torch.rand(3, 1, SIDE, SIDE, dtype=torch.float64) + 0.5
    convolution = nn.Conv2d(1, 2, 1, bias=False)
    head = nn.Linear(2 * SIDE * SIDE, 2, bias=False)
    nn.init.ones_(convolution.weight)
    weight = torch.zeros(2, 2, SIDE, SIDE)
    weight[:, :, 8:, 8:] = torch.tensor([1.0, 2.0]).view(2, 1, 1, 1)
    head.weight.data = weight.flatten(1)
    model = adapt(nn.Sequential(Window(), convolution, nn.ReLU(), nn.Flatten(), head).double())
    settings = {"references": torch.zeros(1, 1, SIDE, SIDE)} if method == "expected_gradients" else {}
    heatmap = make(method, **settings)(model, inputs, torch.ones(3, dtype=torch.long)).abs()
    assert (heatmap[..., 8:, 8:].sum(dim=(1, 2, 3)) / heatmap.sum(dim=(1, 2, 3)) > 0.99).all()


class Window(nn.Module):
    def forward(self, x):
        shown = torch.zeros_like(x)
        shown[..., 8:, 8:] = 1
        return x * shown


@every_method
def test_frozen_weights_an_in_place_relu_and_half_precision_are_no_obstacle(method):
    inputs, target = images(dtype=torch.float32)
    settings = {"references": SETTINGS[method]["references"].float()} if method == "expected_gradients" else {}
    plain = network("relu", dtype=torch.float32).requires_grad_(False)
    expected = make(method, **settings)(adapt(plain, "3"), inputs, target)
    hasty = network("relu", dtype=torch.float32)
    for name in ("1", "4", "7"):
        hasty[int(name)] = nn.ReLU(inplace=True)
    torch.testing.assert_close(make(method, **settings)(adapt(hasty, "3"), inputs, target).detach(), expected)
    half = adapt(network("relu", dtype=torch.bfloat16), "3")
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
    attribution, model, (inputs, target) = make(method), adapt(network("relu")), images()
    with pytest.raises(ValueError, match="one target an input"):
        attribution(model, inputs, target[:2])
    with pytest.raises(ValueError, match="class numbers"):
        attribution(model, inputs, target.double())
