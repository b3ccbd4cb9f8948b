"""The rules of the spine, held against every metric of the catalogue."""

from __future__ import annotations

import pytest
import torch

from rightreasons.attribution import Saliency
from rightreasons.core import Batch
from rightreasons.metrics import METRICS
from rightreasons.models import adapt
from tests.contracts.test_attributions import snapshot
from tests.contracts.test_losses import batch_of
from tests.networks import network

every_metric = pytest.mark.parametrize("name", list(METRICS))


def case():
    model, batch = adapt(network("batch_norm")), batch_of(5)
    with torch.no_grad():
        return model, batch, Saliency()(model, batch.inputs, batch.target)


@every_metric
def test_one_score_an_image_and_the_model_as_it_was(name):
    model, batch, heatmap = case()
    before = snapshot(model)
    scores = METRICS[name]()(model, batch, heatmap)
    assert scores.shape == (5,)
    assert torch.isfinite(scores).all()
    assert not scores.requires_grad
    assert snapshot(model) == before
    assert isinstance(METRICS[name].higher_is_better, bool)


@every_metric
def test_a_batch_equals_its_singles(name):
    model, batch, heatmap = case()
    together = METRICS[name]()(model, batch, heatmap)
    rows = [slice(i, i + 1) for i in range(5)]
    apart = [METRICS[name]()(model, batch[row], heatmap[row]) for row in rows]
    torch.testing.assert_close(together, torch.cat(apart))


@every_metric
def test_without_the_mask_it_needs_a_score_is_not_defined(name):
    model, batch, heatmap = case()
    scores = METRICS[name]()(model, Batch(batch.inputs, batch.target), heatmap)
    assert torch.isnan(scores).all() or name == "dead_map"
