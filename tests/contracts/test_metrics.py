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

NEEDS_NO_MASK = {
    *("dead_map", "pixel_flipping", "deletion", "insertion", "region_perturbation", "road", "monotonicity"),
    *("monotonicity_correlation", "infidelity", "faithfulness_correlation", "faithfulness_estimate", "sensitivity_n"),
    *("max_sensitivity", "avg_sensitivity", "local_lipschitz", "parameter_randomization", "random_logit"),
    *("sparseness", "complexity", "effective_complexity"),
}
# Those that run the method itself.
NEEDS_METHOD = ("max_sensitivity", "avg_sensitivity", "local_lipschitz", "parameter_randomization", "random_logit")
SETTINGS = {name: {"attribution": Saliency()} for name in NEEDS_METHOD}
every_metric = pytest.mark.parametrize("name", list(METRICS))


def build(name):
    return METRICS[name](**SETTINGS.get(name, {}))


def case():
    model, batch = adapt(network("batch_norm")), batch_of(5)
    with torch.no_grad():
        return model, batch, Saliency()(model, batch.inputs, batch.target)


@every_metric
def test_one_score_an_image_and_the_model_as_it_was(name):
    model, batch, heatmap = case()
    before = snapshot(model)
    scores = build(name)(model, batch, heatmap)
    assert scores.shape == (5,)
    assert torch.isfinite(scores).all()
    assert not scores.requires_grad
    assert snapshot(model) == before
    assert isinstance(METRICS[name].higher_is_better, bool)


@every_metric
def test_a_batch_equals_its_singles(name):
    model, batch, heatmap = case()
    together = build(name)(model, batch, heatmap)
    rows = [slice(i, i + 1) for i in range(5)]
    apart = [build(name)(model, batch[row], heatmap[row]) for row in rows]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("name", NEEDS_METHOD)
def test_without_the_method_it_needs_it_says_so(name):
    with pytest.raises(ValueError, match=rf"{METRICS[name].__name__}\(attribution=Saliency\(\)\), got None"):
        METRICS[name]()(*case())


@every_metric
def test_without_the_mask_it_needs_a_score_is_not_defined(name):
    model, batch, heatmap = case()
    scores = build(name)(model, Batch(batch.inputs, batch.target), heatmap)
    if name in NEEDS_NO_MASK:
        torch.testing.assert_close(scores, build(name)(model, batch, heatmap), rtol=0, atol=0)
    else:
        assert torch.isnan(scores).all()
