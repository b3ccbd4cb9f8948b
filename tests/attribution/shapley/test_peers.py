"""Our values beside those of shap and captum."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from sklearn.ensemble import RandomForestRegressor
from torch import nn

from rightreasons.attribution import DeepLIFT, DeepSHAP, GradientSHAP
from rightreasons.attribution.shapley import as_head
from rightreasons.models import adapt
from tests.attribution.shapley.test_deep_lift import Fixed

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]


def lenet(pool):
    return nn.Sequential(
        *(nn.Conv2d(1, 8, 5), nn.ReLU(), pool(2), nn.Conv2d(8, 12, 5), nn.ReLU(), pool(2)),
        *(nn.Flatten(), nn.Linear(192, 32), nn.ReLU(), nn.Linear(32, 10)),
    ).eval()


def close(found, expected):
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.abs().max()))


@pytest.mark.parametrize("count", [1, 6])
def test_shap_deep_explainer_with_max_pooling(count):
    shap = importlib.import_module("shap")
    net, inputs, references = lenet(nn.MaxPool2d), torch.rand(4, 1, 28, 28), torch.rand(count, 1, 28, 28)
    values = shap.DeepExplainer(net, references).shap_values(inputs, check_additivity=False)
    expected = torch.from_numpy(np.moveaxis(values, -1, 1)).float()
    close(DeepSHAP(references).all_classes(adapt(net), inputs), expected)
    target = torch.arange(4)
    if count == 1:
        with torch.no_grad():
            close(DeepLIFT(Fixed(references)).per_channel(adapt(net), inputs, target), expected[range(4), target])


def test_captum_deep_lift_with_mean_pooling():
    """Of maxima captum's values miss the sum, so the two are compared without."""
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet(nn.AvgPool2d), torch.rand(4, 1, 28, 28), torch.arange(4)
    expected = attr.DeepLift(net).attribute(inputs, torch.full_like(inputs, 0.3), target=target).detach()
    with torch.no_grad():
        close(DeepLIFT(0.3).per_channel(adapt(net), inputs, target), expected)


def test_captum_gradient_shap_in_the_mean():
    """Samples differ from library to library: the two agree as two of our own seeds do."""
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet(nn.MaxPool2d), torch.rand(4, 1, 28, 28), torch.arange(4)
    references = torch.rand(10, 1, 28, 28)
    theirs = attr.GradientShap(net).attribute(inputs, references, target=target, n_samples=600, stdevs=0.1)
    with torch.no_grad():
        ours, other = (
            GradientSHAP(references, samples=600, noise=0.1, seed=seed)(adapt(net), inputs, target) for seed in (0, 1)
        )
    assert (ours - theirs).norm() < 1.5 * (ours - other).norm()


def test_shap_tree_explainer_against_single_baselines():
    shap = importlib.import_module("shap")
    dice = np.random.default_rng(0)
    features = dice.normal(size=(200, 12)).astype(np.float32).astype(np.float64)
    forest = RandomForestRegressor(10, random_state=0).fit(features, features[:, 0] * features[:, 1] + features[:, 2])
    head = as_head(forest)
    for baseline in features[100:103]:
        explainer = shap.TreeExplainer(forest, baseline[None], feature_perturbation="interventional")
        expected = explainer.shap_values(features[:5])
        found = head.shapley(features[:5], np.tile(baseline, (5, 1)), np.zeros(5, dtype=np.int64))
        np.testing.assert_allclose(found, expected, atol=1e-6)
