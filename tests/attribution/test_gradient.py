"""Formulas against plain versions, and the axioms."""

from __future__ import annotations

import weakref

import pytest
import torch
from torch import nn

from rightreasons.attribution import (
    ExpectedGradients,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    Smoothed,
    SmoothGrad,
)
from rightreasons.attribution.forward import ROWS_CPU
from rightreasons.core import BadModel
from rightreasons.models import adapt, record
from tests.networks import NETWORKS, SIDE, images, network


def plain_gradient(net, x, target):
    """d logit / d x, one image at a time."""
    rows = []
    for image, label in zip(x, target, strict=True):
        leaf = image[None].clone().requires_grad_()
        net(leaf)[0, label].backward()
        rows.append(leaf.grad)
    net.zero_grad()
    return torch.cat(rows)


def test_saliency_is_the_gradient_per_channel_and_its_sum():
    net, (inputs, target) = network("relu"), images()
    expected = plain_gradient(net, inputs, target)
    with torch.no_grad():
        torch.testing.assert_close(Saliency().per_channel(adapt(net), inputs, target), expected)
        torch.testing.assert_close(Saliency()(adapt(net), inputs, target), expected.sum(1, keepdim=True))


def test_scores_are_what_their_names_say():
    net, (inputs, target) = network("softplus"), images()
    for score, number in {
        "log_probability": lambda logits: logits.log_softmax(1)[range(3), target],
        "sum_log_probabilities": lambda logits: logits.log_softmax(1).sum(1),
    }.items():
        leaf = inputs.clone().requires_grad_()
        (expected,) = torch.autograd.grad(number(net(leaf)).sum(), leaf)
        found = Saliency(score).per_channel(adapt(net), inputs, target)
        torch.testing.assert_close(found.detach(), expected)


def test_on_a_linear_model_without_bias_all_say_weight_times_pixel():
    head = nn.Linear(2 * SIDE * SIDE, 3, bias=False).double()
    model, (inputs, target) = adapt(nn.Sequential(nn.Flatten(), head)), images()
    expected = (head.weight[target].view(3, 2, SIDE, SIDE) * inputs).sum(1, keepdim=True)
    black = torch.zeros(1, 2, SIDE, SIDE, dtype=torch.float64)
    for method in (InputXGradient(), IntegratedGradients(steps=3), ExpectedGradients(black, samples=4)):
        torch.testing.assert_close(method(model, inputs, target), expected)


@pytest.mark.parametrize("net", list(NETWORKS))
def test_integrated_gradients_are_complete(net):
    model, (inputs, target) = adapt(network(net)), images()
    baseline = 0.3
    values = IntegratedGradients(baseline=baseline, steps=400)(model, inputs, target).sum((1, 2, 3))
    change = (model(inputs) - model(torch.full_like(inputs, baseline)))[range(3), target]
    # A ReLU puts kinks on the line, where no quadrature is exact; smooth networks are exact to rounding.
    torch.testing.assert_close(values, change, rtol=0, atol=1e-9 if net in ("softplus", "transformer") else 5e-4)


def test_smooth_grad_is_the_mean_over_noisy_copies():
    net, (inputs, target) = network("relu"), images()
    draws = torch.randn(4, 2, SIDE, SIDE, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    spread = torch.stack([i.max() - i.min() for i in inputs]).view(-1, 1, 1, 1)
    expected = sum(plain_gradient(net, inputs + 0.2 * spread * d, target) for d in draws) / 4
    found = SmoothGrad(samples=4, noise=0.2, seed=3).per_channel(adapt(net), inputs, target)
    torch.testing.assert_close(found.detach(), expected)


def test_expected_gradients_sum_to_the_score_above_the_references_mean():
    model, (inputs, target) = adapt(network("softplus")), images()
    references = images(6, seed=4)[0]
    values = ExpectedGradients(references, samples=6000)(model, inputs, target).sum((1, 2, 3))
    with torch.no_grad():
        change = model(inputs)[range(3), target] - model(references).mean(0)[target]
    torch.testing.assert_close(values.detach(), change, rtol=0, atol=0.02)


@pytest.mark.parametrize("max_batch", [1, 2, 5, 1000])
def test_the_memory_bound_changes_no_value(max_batch):
    model, (inputs, target) = adapt(network("relu")), images()
    references = images(3, seed=8)[0]
    for make in (
        lambda m: SmoothGrad(samples=4, max_batch=m),
        lambda m: IntegratedGradients(steps=4, max_batch=m),
        lambda m: ExpectedGradients(references, samples=4, max_batch=m),
    ):
        expected = make(256)(model, inputs, target)
        torch.testing.assert_close(make(max_batch)(model, inputs, target), expected, rtol=1e-10, atol=1e-12)


class Watching(nn.Module):
    """Keeps how many images each pass holds, and refuses one that begins before the graph of the last is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.passes, self.last = nn.Linear(3 * 4, 3), [], None

    def forward(self, x):
        assert self.last is None or self.last() is None
        self.passes.append(len(x))
        hidden = x.flatten(1) * 1
        self.last = weakref.ref(hidden)
        return self.inner(hidden.relu())


@pytest.mark.parametrize("method", [SmoothGrad(20), IntegratedGradients(steps=20), Smoothed(samples=20)])
def test_memory_is_bounded_untold_and_holds_one_pass_at_a_time(method):
    net, target = Watching(), torch.zeros(16, dtype=torch.long)
    with torch.no_grad():
        method(adapt(net), torch.rand(16, 3, 2, 2), target)
    assert sum(net.passes) == 320
    assert max(net.passes) <= ROWS_CPU


def test_a_recorded_pass_can_be_asked_again():
    """The passes of this family let go of what they saved, but not of a pass that is not theirs."""
    net, (inputs, target) = adapt(network("relu")), images()
    recorded = record(net, inputs.requires_grad_())
    with torch.no_grad():
        first, second = (Saliency()(recorded, inputs, target) for _ in range(2))
    assert torch.equal(first, second)
    recorded.logits.sum().backward()


def test_fresh_noise_differs_from_call_to_call():
    model, (inputs, target) = adapt(network("softplus")), images()
    method = SmoothGrad(samples=2, seed=None)
    assert not torch.equal(method(model, inputs, target), method(model, inputs, target))


@pytest.mark.wrong_types
def test_wrong_settings_are_refused():
    for bad in (
        lambda: Saliency("prob"),
        lambda: SmoothGrad(samples=0),
        lambda: IntegratedGradients(steps=0),
        lambda: IntegratedGradients(max_batch=0),
        lambda: SmoothGrad(max_batch=0),
        lambda: ExpectedGradients(torch.zeros(0, 1, 2, 2)),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()
    with pytest.raises(ValueError, match="references of the images' shape"):
        ExpectedGradients(torch.zeros(2, 1, 4, 4))(adapt(network("relu")), *images())


def test_a_network_that_detaches_is_refused():
    class Detaching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network("relu")

        def forward(self, x):
            return self.inner(x.detach())

    model = adapt(Detaching())
    with pytest.raises(BadModel, match="does not depend"):
        Saliency()(model, *images())
    with pytest.raises(BadModel, match="no gradient reaches"):
        Saliency()(adapt(Detaching().requires_grad_(False)), *images())
