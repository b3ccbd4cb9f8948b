"""Our scores beside those of quantus: the same to 1e-5 where the two define the same."""

from __future__ import annotations

import importlib
import sys
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from rightreasons.attribution import Saliency
from rightreasons.core import Batch
from rightreasons.metrics import (
    AvgSensitivity,
    Complexity,
    EffectiveComplexity,
    LocalLipschitz,
    MaxSensitivity,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
    Sparseness,
    TopKIntersection,
)
from rightreasons.models import LeNet, adapt

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]


@pytest.fixture
def quantus(monkeypatch):
    """Its import wants torchvision by way of zennit, which cannot be imported beside a CPU torch."""
    models = [f"torchvision.models.{name}" for name in ("resnet", "vgg", "inception", "googlenet")]
    for name in ("torchvision", "torchvision.models", *models, "torchvision.transforms"):
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, MagicMock())
    return importlib.import_module("quantus")


@pytest.fixture
def case():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net, inputs = LeNet().eval(), torch.rand(6, 1, 28, 28)
    # The range of each image is exactly 1, so that our relative radius is their absolute one.
    inputs[:, 0, 0, 0], inputs[:, 0, 0, 1] = 0, 1
    mask = torch.zeros(6, 1, 28, 28)
    mask[:, :, 5:15, 8:20] = 1
    batch = Batch(inputs, torch.arange(6), relevant=mask)
    with torch.no_grad():
        return net, batch, Saliency()(adapt(net), inputs, batch.target)


def theirs(metric, net, batch, heatmap, **more):
    found = metric(
        model=net,
        x_batch=batch.inputs.numpy(),
        y_batch=batch.target.numpy(),
        a_batch=heatmap.numpy().copy(),
        device="cpu",
        **more,
    )
    return torch.tensor(np.array(found, dtype=np.float64))


@pytest.mark.parametrize(
    ("ours", "name", "settings"),
    [
        (Sparseness(), "Sparseness", {}),
        (Complexity(), "Complexity", {}),
        (RelevanceRankAccuracy("absolute"), "RelevanceRankAccuracy", {"abs": True}),
        (RelevanceMassAccuracy("absolute"), "RelevanceMassAccuracy", {"abs": True}),
        (TopKIntersection(share=100 / 784), "TopKIntersection", {"k": 100}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_scores_of_the_map_alone(quantus, case, ours, name, settings):
    net, batch, heatmap = case
    peer = getattr(quantus, name)(disable_warnings=True, **settings)
    expected = theirs(peer, net, batch, heatmap, s_batch=batch.relevant.numpy())
    torch.testing.assert_close(ours(adapt(net), batch, heatmap).double(), expected, rtol=1e-5, atol=1e-5)


def test_effective_complexity_is_theirs_over_the_number_of_pixels(quantus, case):
    """One image at a time: they divide the maps of a batch by the largest value of all."""
    net, batch, heatmap = case
    peer = quantus.EffectiveComplexity(eps=0.1, disable_warnings=True)
    rows = [slice(k, k + 1) for k in range(6)]
    expected = torch.cat([theirs(peer, net, batch[row], heatmap[row]) for row in rows]) / 784
    torch.testing.assert_close(EffectiveComplexity(0.1)(adapt(net), batch, heatmap).double(), expected)


@pytest.mark.parametrize(
    ("kind", "name", "settings"),
    [
        (MaxSensitivity, "MaxSensitivity", {}),
        (AvgSensitivity, "AvgSensitivity", {}),
        (LocalLipschitz, "LocalLipschitzEstimate", {"normalise": False}),
    ],
)
def test_stability_under_the_same_noise(quantus, case, kind, name, settings):
    """Their noise is replaced by our draws, one sample after the other."""
    net, batch, heatmap = case
    draws = 2 * torch.rand(4, 784, generator=torch.Generator().manual_seed(0), dtype=torch.double) - 1
    left = iter(draws.float().numpy())

    def noise(arr, indices, **_):
        return arr + 0.2 * next(left)

    def explain(model, inputs, targets, **_):
        with torch.no_grad():
            return Saliency()(adapt(net), torch.as_tensor(inputs), torch.as_tensor(targets)).numpy()

    peer = getattr(quantus, name)(nr_samples=4, perturb_func=noise, disable_warnings=True, **settings)
    expected = theirs(peer, net, batch, heatmap, explain_func=explain)
    ours = kind(attribution=Saliency(), samples=4, radius=0.2, relative=name != "LocalLipschitzEstimate")
    torch.testing.assert_close(ours(adapt(net), batch, heatmap).double(), expected, rtol=1e-4, atol=1e-5)
