"""Any method under noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch

from rightreasons.attribution import GradCAM, IntegratedGradients, Saliency, Smoothed, SmoothGrad
from rightreasons.core import Attribution, NotDifferentiable
from rightreasons.models import adapt
from rightreasons.supervision import RRR
from tests.networks import SIDE, images, network


@dataclass(frozen=True)
class Opaque(Attribution):
    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = True

    def attribute(self, model, inputs, target, *, graph):
        return Saliency().attribute(model, inputs, target, graph=graph)


def maps_of_copies(method, model, inputs, target, samples, noise):
    """(samples, B, C, H, W), one copy of one image at a time."""
    draws = torch.randn(samples, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = [
        [method.per_channel(model, (x + noise * (x.max() - x.min()) * draw)[None], y[None])[0].detach()]
        for draw in draws
        for x, y in zip(inputs, target, strict=True)
    ]
    return torch.stack([row[0] for row in rows]).unflatten(0, (samples, len(inputs)))


@pytest.mark.parametrize("max_batch", [2, 7, 256])
@pytest.mark.parametrize("method", [Saliency(), GradCAM("3"), IntegratedGradients(steps=3)])
def test_each_kind_is_what_its_name_says(method, max_batch):
    model, (inputs, target) = adapt(network("softplus")), images()
    maps = maps_of_copies(method, model, inputs, target, 4, 0.2)
    mean = sum(maps) / 4
    kinds = {"mean": mean, "square": sum(maps**2) / 4, "variance": sum((m - mean) ** 2 for m in maps) / 4}
    for kind, expected in kinds.items():
        smoothed = Smoothed(method, 4, 0.2, kind=kind, max_batch=max_batch)
        torch.testing.assert_close(smoothed.per_channel(model, inputs, target).detach(), expected)


def test_of_saliency_it_is_smooth_grad():
    model, (inputs, target) = adapt(network("relu")), images()
    expected = SmoothGrad(samples=5, noise=0.3, seed=4)(model, inputs, target)
    torch.testing.assert_close(Smoothed(samples=5, noise=0.3, seed=4)(model, inputs, target), expected)


def test_it_is_differentiable_and_signed_as_its_method_is():
    assert Smoothed(Saliency()).differentiable
    assert Smoothed(Saliency()).signed
    assert not Smoothed(Saliency(), kind="variance").signed
    assert not Smoothed(GradCAM()).signed
    opaque = Smoothed(Opaque())
    assert not opaque.differentiable
    assert not opaque(adapt(network("relu")), *images()).requires_grad
    RRR(Smoothed(Saliency()))
    with pytest.raises(NotDifferentiable, match="Smoothed"):
        RRR(opaque)


@pytest.mark.parametrize("kind", ["square", "variance"])
def test_the_gradient_of_squares_and_variances_is_right(kind):
    net, (inputs, target) = network("softplus"), images()
    method, model = Smoothed(GradCAM("3"), 3, kind=kind), adapt(net)

    def loss():
        return method(model, inputs, target).square().sum() * 1e3

    (slope,) = torch.autograd.grad(loss(), net[0].weight)
    direction = torch.randn_like(slope)
    with torch.no_grad():
        net[0].weight += 1e-6 * direction
        above = loss()
        net[0].weight -= 2e-6 * direction
        below = loss()
    assert float((slope * direction).sum()) == pytest.approx(float((above - below) / 2e-6), rel=1e-5)


@pytest.mark.wrong_types
def test_wrong_settings_are_refused():
    for bad in ({"method": "saliency"}, {"samples": 0}, {"noise": 0.0}, {"kind": "median"}, {"max_batch": 0}):
        with pytest.raises(ValueError, match="expected"):
            Smoothed(**bad)
