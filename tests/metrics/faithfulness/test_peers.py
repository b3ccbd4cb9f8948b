"""Our scores beside those of quantus, where both mean the same."""

from __future__ import annotations

import importlib
import sys
from itertools import cycle
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch

from rightreasons.attribution import InputXGradient
from rightreasons.core import Batch
from rightreasons.metrics import (
    ROAD,
    Deletion,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Infidelity,
    RegionPerturbation,
    Responses,
)
from rightreasons.metrics.faithfulness import imputed
from rightreasons.metrics.faithfulness.subsets import draw
from rightreasons.models import LeNet, adapt

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("ignore")]


@pytest.fixture(autouse=True)
def _stand_in_for_torchvision(monkeypatch):
    """Quantus imports zennit, which imports torchvision; none of these scores needs it."""
    for part in ("", ".models", ".models.resnet", ".models.vgg", ".transforms"):
        monkeypatch.setitem(sys.modules, f"torchvision{part}", MagicMock())


@pytest.fixture
def case():
    net = LeNet().eval()
    inputs, target = torch.rand(4, 1, 28, 28), torch.arange(4)
    with torch.no_grad():
        heatmap = InputXGradient()(adapt(net), inputs, target)
    return net, Batch(inputs, target), heatmap


def theirs(name, case, **settings):
    quantus = importlib.import_module("quantus")
    net, batch, heatmap = case
    softmax = settings.pop("softmax", True)
    metric = getattr(quantus, name)(
        **{"abs": False, "normalise": False, "disable_warnings": True, "display_progressbar": False} | settings
    )
    arrays = {"x_batch": batch.inputs.numpy(), "y_batch": batch.target.numpy(), "a_batch": heatmap.numpy()}
    return metric(model=net, **arrays, softmax=softmax, device="cpu", channel_first=True)


def close(found, expected):
    expected = torch.as_tensor(np.asarray(expected, dtype=np.float64))
    torch.testing.assert_close(found.double(), expected, rtol=5e-4, atol=5e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("softmax", [True, False])
def test_pixel_flipping_curve(case, softmax):
    net, batch, heatmap = case
    metric = Deletion(steps=28, score="probability" if softmax else "logit")
    ours = metric.curve(Responses(adapt(net), batch), heatmap)
    # Theirs begins after the first step.
    close(ours[:, 1:], theirs("PixelFlipping", case, features_in_step=28, perturb_baseline=0.0, softmax=softmax))


def test_region_perturbation_curve(case):
    net, batch, heatmap = case
    ours = RegionPerturbation(4, 20, baseline=0.0).curve(Responses(adapt(net), batch), heatmap)
    expected = theirs("RegionPerturbation", case, patch_size=4, regions_evaluation=20, perturb_baseline=0.0)
    close(ours[:, :1] - ours[:, 1:], expected)


def test_faithfulness_estimate_of_single_pixels(case):
    net, batch, heatmap = case
    some = (net, batch[:2], heatmap[:2])
    expected = theirs("FaithfulnessEstimate", some, features_in_step=1, perturb_baseline=0.0)
    close(FaithfulnessEstimate(1)(adapt(net), batch[:2], heatmap[:2]), expected)


def test_faithfulness_correlation_on_the_same_sets(case, monkeypatch):
    net, batch, heatmap = case
    sets = draw(20, 784, 0)[:, :224].numpy()
    draws = cycle(np.repeat(sets, len(batch), axis=0))
    monkeypatch.setattr(np.random, "choice", lambda *args, **settings: next(draws))
    expected = theirs(
        "FaithfulnessCorrelation", case, nr_runs=20, subset_size=224, perturb_baseline=0.0, return_aggregate=False
    )
    close(FaithfulnessCorrelation(20, share=224 / 784)(adapt(net), batch, heatmap), expected)


def test_infidelity_of_one_square_over_the_whole_image(case):
    """Their squares pile up, and their heatmaps are slopes; with one square neither matters."""
    net, batch, heatmap = case
    expected = theirs(
        "Infidelity", case, perturb_patch_sizes=[28], n_perturb_samples=1, perturb_baseline=0.0, softmax=False
    )
    close(Infidelity(1, side=28)(adapt(net), batch, heatmap * batch.inputs), expected)


def test_road_and_its_imputation(case):
    net, batch, heatmap = case
    with torch.no_grad():
        batch = Batch(batch.inputs, net(batch.inputs).argmax(1))
    percentages = list(range(5, 100, 10))
    expected = theirs("ROAD", (net, batch, heatmap), percentages=percentages, noise=0.0)
    ours = ROAD(tuple(p / 100 for p in percentages), noise=0.0).curve(Responses(adapt(net), batch), heatmap)
    close(ours.mean(0), [expected[p] for p in percentages])
    perturb = importlib.import_module("quantus.functions.perturb_func").noisy_linear_imputation
    hidden = Responses(adapt(net), batch).ranks(heatmap).view_as(heatmap) < 600
    filled = [
        perturb(image.numpy().astype(np.float64), np.flatnonzero(mask.numpy()), noise=0.0)
        for image, mask in zip(batch.inputs, hidden, strict=True)
    ]
    torch.testing.assert_close(imputed(batch.inputs, hidden), torch.tensor(np.stack(filled)).float(), rtol=0, atol=5e-4)
