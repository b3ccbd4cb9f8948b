"""Baselines of integrated gradients, and its completeness."""

from __future__ import annotations

import math

import pytest
import torch

from rightreasons.attribution import BlurredBaseline, ConstantBaseline, IntegratedGradients, UniformBaseline
from rightreasons.models import adapt
from tests.networks import images, network


def test_a_constant_may_differ_by_channel():
    inputs, _ = images()
    baseline = ConstantBaseline((0.25, 0.75)).of(inputs)
    assert baseline.shape == (1, *inputs.shape)
    assert (baseline[:, :, 0] == 0.25).all()
    assert (baseline[:, :, 1] == 0.75).all()
    with pytest.raises(ValueError, match="expected one value or 2"):
        ConstantBaseline((1.0, 2.0, 3.0)).of(inputs)
    for value in (math.nan, math.inf, (0.0, -math.inf)):
        with pytest.raises(ValueError, match="expected a finite value"):
            ConstantBaseline(value)


def test_blur_is_a_gaussian_mean_of_the_neighbours():
    inputs, _ = images(2)
    blurred = BlurredBaseline(0.7).of(inputs)
    assert blurred.shape == (1, *inputs.shape)
    total, weights = 0.0, 0.0
    for down in range(-3, 4):
        for right in range(-3, 4):
            weight = math.exp(-(down**2 + right**2) / (2 * 0.7**2))
            row, column = max(4 + down, 0), max(1 + right, 0)
            total, weights = total + weight * float(inputs[1, 1, row, column]), weights + weight
    assert float(blurred[0, 1, 1, 4, 1]) == pytest.approx(total / weights, rel=1e-12)
    torch.testing.assert_close(BlurredBaseline(4.0).of(torch.full_like(inputs, 0.3))[0], torch.full_like(inputs, 0.3))


def test_uniform_noise_is_the_same_for_all_images_and_under_a_seed():
    inputs, _ = images()
    noise = UniformBaseline(-1.0, 3.0, count=50).of(inputs)
    assert noise.shape == (50, *inputs.shape)
    assert torch.equal(noise[:, 0], noise[:, 2])
    assert torch.equal(noise, UniformBaseline(-1.0, 3.0, count=50).of(inputs))
    assert not torch.equal(noise, UniformBaseline(-1.0, 3.0, count=50, seed=1).of(inputs))
    assert noise.min() >= -1
    assert noise.max() <= 3
    assert float(noise.mean()) == pytest.approx(1, abs=0.1)
    fresh = UniformBaseline(seed=None)
    assert not torch.equal(fresh.of(inputs), fresh.of(inputs))


BASELINES = [
    0.3,
    ConstantBaseline((0.1, 0.9)),
    BlurredBaseline(2.0),
    UniformBaseline(count=3),
    [0.0, BlurredBaseline()],
]


@pytest.mark.parametrize("baseline", BASELINES)
def test_integrated_gradients_are_complete_from_every_baseline(baseline):
    model, (inputs, target) = adapt(network("transformer")), images()  # smooth everywhere
    method = IntegratedGradients(baseline, steps=200)
    error = method.completeness_error(model, inputs, target)
    assert error.shape == (3,)
    assert not error.requires_grad
    torch.testing.assert_close(error, torch.zeros_like(error), rtol=0, atol=1e-8)
    with torch.no_grad():
        change = model(inputs)[range(3), target]
        starts = baseline if isinstance(baseline, list) else [baseline]
        starts = [s if not isinstance(s, float) else ConstantBaseline(s) for s in starts]
        starts = torch.cat([s.of(inputs) for s in starts])
        change = change - sum(model(s)[range(3), target] for s in starts) / len(starts)
        torch.testing.assert_close(method(model, inputs, target).sum((1, 2, 3)), change)


def test_the_completeness_error_falls_with_the_steps_and_is_what_it_says():
    model, (inputs, target) = adapt(network("relu")), images()
    few, many = (IntegratedGradients(steps=n).completeness_error(model, inputs, target).abs() for n in (1, 200))
    assert many.max() < few.max() / 10
    with torch.no_grad():
        values = IntegratedGradients(steps=1)(model, inputs, target).sum((1, 2, 3))
        change = (model(inputs) - model(torch.zeros_like(inputs)))[range(3), target]
    torch.testing.assert_close(few, (values - change).abs())


def test_several_baselines_give_the_mean_of_their_maps():
    model, (inputs, target) = adapt(network("relu")), images()
    several = IntegratedGradients([0.0, 1.0, UniformBaseline(count=2)], steps=5)
    alone = [IntegratedGradients(b, steps=5)(model, inputs, target) for b in (0.0, 1.0, UniformBaseline(count=2))]
    expected = (alone[0] + alone[1] + 2 * alone[2]) / 4
    torch.testing.assert_close(several(model, inputs, target), expected)
    assert several == IntegratedGradients((0.0, 1.0, UniformBaseline(count=2)), steps=5)


@pytest.mark.parametrize("baseline", [BlurredBaseline(2.0), UniformBaseline(count=2)])
def test_the_gradient_with_respect_to_the_inputs_is_right_from_every_baseline(baseline):
    model, (inputs, target) = adapt(network("softplus")), images()
    method = IntegratedGradients(baseline, steps=8)
    inputs.requires_grad_()
    (slope,) = torch.autograd.grad(method(model, inputs, target).square().sum(), inputs)
    direction = torch.randn_like(slope)
    with torch.no_grad():
        above, below = (method(model, inputs + s * direction, target).square().sum() for s in (1e-6, -1e-6))
    assert float((slope * direction).sum()) == pytest.approx(float((above - below) / 2e-6), rel=1e-5)


@pytest.mark.wrong_types
def test_wrong_settings_are_refused():
    for bad in (
        lambda: IntegratedGradients("black"),
        lambda: IntegratedGradients([]),
        lambda: BlurredBaseline(0.0),
        lambda: UniformBaseline(1.0, 0.0),
        lambda: UniformBaseline(count=0),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()
