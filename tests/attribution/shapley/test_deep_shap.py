"""DeepSHAP and GradientSHAP beside the methods they are means of."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.attribution import DeepLIFT, DeepSHAP, ExpectedGradients, GradientSHAP
from rightreasons.attribution.lrp import NotConserved
from rightreasons.attribution.shapley import meeting
from rightreasons.models import adapt, contrast
from tests.attribution.shapley.test_deep_lift import Fixed
from tests.networks import images, network

REFERENCES = images(5, seed=9)[0]


@pytest.mark.parametrize("net", ["relu", "residual"])
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
@pytest.mark.parametrize("count", [2, 5])
def test_it_is_the_mean_of_deep_lift_over_the_references(net, rule, count):
    """Whether images or references are the more numerous, and however many run at once."""
    model, (inputs, target) = adapt(network(net)), images()
    references = REFERENCES[:count]
    with torch.no_grad():
        each = [DeepLIFT(Fixed(r[None]), rule).per_channel(model, inputs, target) for r in references]
        expected = torch.stack(each).mean(dim=0)
        for max_batch in (256, 2):
            found = DeepSHAP(references, rule, max_batch=max_batch).per_channel(model, inputs, target)
            torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("net", ["relu", "residual"])
def test_values_sum_to_the_logit_minus_the_mean_logit_of_the_references(net):
    model, (inputs, target) = adapt(network(net)), images()
    for seen in (model, contrast(model, (target + 1) % 3)):
        error = DeepSHAP(REFERENCES, check=True, tolerance=1e-10).completeness_error(seen, inputs, target)
        assert error.abs().max() < 1e-12


@pytest.mark.parametrize("count", [2, 5])
def test_all_classes_are_the_classes_one_by_one(count):
    model, (inputs, _) = adapt(network("batch_norm")), images()
    method = DeepSHAP(REFERENCES[:count], max_batch=7)
    every = method.all_classes(model, inputs)
    assert every.shape == (3, 3, 2, 12, 12)
    assert not every.requires_grad
    for label in range(3):
        one = method.per_channel(model, inputs, torch.full((3,), label)).detach()
        torch.testing.assert_close(every[:, label], one, rtol=1e-10, atol=1e-13)


def test_references_and_images_run_once_where_they_fit():
    net, (inputs, target) = network("relu"), images()
    rows = []
    net[0].register_forward_hook(lambda module, args, output: rows.append(len(output)))
    DeepSHAP(REFERENCES)(adapt(net), inputs, target)
    assert sorted(rows) == [1, 1, 1, 5]
    rows.clear()
    DeepSHAP(REFERENCES[:2])(adapt(net), inputs, target)
    assert sorted(rows) == [1, 1, 3]


def test_wrong_sums_and_settings_are_refused(monkeypatch):
    model, (inputs, target) = adapt(network("relu")), images()
    sweep = meeting.swept
    monkeypatch.setitem(meeting.SWEEPS, "rescale", lambda ends, slopes: 0.9 * sweep(ends, slopes))
    with pytest.raises(NotConserved, match="do not sum"):
        DeepSHAP(REFERENCES, check=True)(model, inputs, target)
    with pytest.raises(ValueError, match="references of the images' shape"):
        DeepSHAP(REFERENCES[:, :1])(model, inputs, target)
    with pytest.raises(ValueError, match="at least one image"):
        DeepSHAP(REFERENCES[:0])
    with pytest.raises(ValueError, match="expected max_batch"):
        DeepSHAP(REFERENCES, max_batch=0)
    with pytest.raises(ValueError, match="expected noise"):
        GradientSHAP(REFERENCES, noise=-0.1)


def test_gradient_shap_without_noise_is_expected_gradients():
    model, (inputs, target) = adapt(network("softplus")), images()
    expected = ExpectedGradients(REFERENCES, samples=7, seed=2)(model, inputs, target)
    assert torch.equal(GradientSHAP(REFERENCES, samples=7, seed=2, noise=0.0)(model, inputs, target), expected)


def test_gradient_shap_of_a_linear_model_by_hand():
    """w * (x + noise - reference), mean over the samples that the seed draws."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2 * 12 * 12, 3)).double()
    inputs, target = images()
    found = GradientSHAP(REFERENCES, samples=6, seed=4, noise=0.3).per_channel(adapt(net), inputs, target)
    generator = torch.Generator().manual_seed(4)
    chosen = torch.randint(5, (6,), generator=generator)
    torch.rand(6, generator=generator, dtype=torch.float64)
    noise = 0.3 * torch.randn(6, 2, 12, 12, generator=generator, dtype=torch.float64)
    way = torch.stack([inputs + noise[s] - REFERENCES[chosen[s]] for s in range(6)]).mean(dim=0)
    torch.testing.assert_close(found, net[1].weight[target].view_as(inputs) * way)


def test_gradient_shap_sums_to_the_change_of_the_score_up_to_sampling():
    model, (inputs, target) = adapt(network("softplus")), images()
    with torch.no_grad():
        total = GradientSHAP(REFERENCES, samples=3000, noise=0.02)(model, inputs, target).sum((1, 2, 3))
        scores = model(inputs).gather(1, target[:, None])[:, 0]
        before = torch.stack([model(r[None])[0, target] for r in REFERENCES]).mean(dim=0)
    torch.testing.assert_close(total, scores - before, rtol=0.1, atol=0.01)
