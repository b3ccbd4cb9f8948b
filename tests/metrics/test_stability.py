import math

import pytest
import torch
from torch import nn

from rightreasons.attribution import GradCAM, InputXGradient, Saliency
from rightreasons.core import Batch
from rightreasons.metrics import AvgSensitivity, LocalLipschitz, MaxSensitivity
from rightreasons.models import adapt
from tests.networks import images, network

KINDS = [MaxSensitivity, AvgSensitivity, LocalLipschitz]


def case(method, name="softplus"):
    model, batch = adapt(network(name)), Batch(*images(4))
    with torch.no_grad():
        return model, batch, method(model, batch.inputs, batch.target)


def plain(model, batch, heatmap, *, method, samples, radius, seed, relative):
    """(max, mean, steepest) of each image, one noisy copy after the other."""
    generator = torch.Generator().manual_seed(seed)
    draws = torch.rand(samples, *batch.inputs.shape[1:], generator=generator, dtype=torch.double)
    found = []
    for image, target, own in zip(batch.inputs, batch.target, heatmap, strict=True):
        changes, slopes = [], []
        for draw in draws:
            moved = radius * float(image.max() - image.min()) * (2 * draw - 1)
            other = method(model, (image + moved)[None], target[None])[0].detach()
            size = (float(own.norm()) or math.nan) if relative else 1.0
            changes.append(float((other - own).norm()) / size)
            slopes.append(changes[-1] / float(moved.norm()))
        found.append((max(changes), sum(changes) / samples, max(slopes)))
    return zip(*found, strict=True)


@pytest.mark.parametrize("relative", [True, False])
@pytest.mark.parametrize("method", [Saliency(), GradCAM()], ids=repr)
def test_a_plain_loop_says_the_same(method, relative):
    model, batch, heatmap = case(method)
    settings = {"samples": 5, "radius": 0.2, "seed": 3, "relative": relative}
    expected = plain(model, batch, heatmap, method=method, **settings)
    for kind, scores in zip(KINDS, expected, strict=True):
        found = kind(attribution=method, **settings)(model, batch, heatmap)
        torch.testing.assert_close(found, torch.tensor(scores, dtype=torch.double), equal_nan=True)


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_a_linear_model_never_changes(kind):
    linear = adapt(nn.Sequential(nn.Flatten(), nn.Linear(288, 3)).double())
    batch = Batch(*images(4))
    with torch.no_grad():
        heatmap = Saliency()(linear, batch.inputs, batch.target)
    assert kind(attribution=Saliency())(linear, batch, heatmap).tolist() == [0.0] * 4


def test_input_times_gradient_of_a_linear_model_changes_by_the_noise_times_the_weights():
    """Its map is w * x, so it moves by w * noise."""
    linear = adapt(nn.Sequential(nn.Flatten(), nn.Linear(144, 3)).double())
    inputs = torch.rand(2, 1, 12, 12, dtype=torch.double)
    batch, method = Batch(inputs, torch.tensor([0, 2])), InputXGradient()
    metric = MaxSensitivity(attribution=method, samples=1, relative=False, seed=1)
    with torch.no_grad():
        found = metric(linear, batch, method(linear, inputs, batch.target))
    draw = 2 * torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(1), dtype=torch.double) - 1
    spread = inputs.amax((1, 2, 3)) - inputs.amin((1, 2, 3))
    weights = linear.network[1].weight.detach()[batch.target].view(2, 1, 12, 12)
    torch.testing.assert_close(found, 0.1 * spread * (weights * draw).flatten(1).norm(dim=1))


@pytest.mark.parametrize("kind", KINDS)
def test_chunks_do_not_change_the_scores(kind):
    model, batch, heatmap = case(Saliency(), "batch_norm")
    whole, parts = (kind(attribution=Saliency(), max_batch=size)(model, batch, heatmap) for size in (256, 3))
    torch.testing.assert_close(whole, parts)


def test_without_a_seed_every_call_draws_its_own_noise():
    model, batch, heatmap = case(Saliency())
    metric = MaxSensitivity(attribution=Saliency(), seed=None)
    first, second = (metric(model, batch, heatmap) for _ in range(2))
    assert not torch.equal(first, second)


def test_an_image_without_a_range_and_a_map_of_zeros_have_no_score():
    model, batch, heatmap = case(Saliency())
    batch.inputs[1], heatmap[2] = 0.5, 0
    scores = MaxSensitivity(attribution=Saliency())(model, batch, heatmap)
    assert torch.isnan(scores).tolist() == [False, True, True, False]
    scores = MaxSensitivity(attribution=Saliency(), relative=False)(model, batch, heatmap)
    assert torch.isnan(scores).tolist() == [False, True, False, False]


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"samples": 0}, "expected samples above 0"),
        ({"radius": -1.0}, "expected radius above 0"),
        ({"max_batch": 0}, "expected max_batch of at least 1"),
    ],
)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        LocalLipschitz(**settings)


@pytest.mark.wrong_types
def test_what_is_no_method_is_refused():
    with pytest.raises(ValueError, match="expected attribution to be an Attribution or None"):
        MaxSensitivity(attribution="saliency")


def test_maps_that_are_not_finite_are_refused():
    model, batch, heatmap = case(Saliency())
    heatmap[0, 0, 0, 0] = math.nan
    with pytest.raises(ValueError, match="expected finite heatmaps"):
        MaxSensitivity(attribution=Saliency())(model, batch, heatmap)
