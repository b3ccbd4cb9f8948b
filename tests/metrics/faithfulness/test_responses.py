import pytest
import torch
from torch import nn

from rightreasons.attribution.baselines import ConstantBaseline, UniformBaseline
from rightreasons.core import Batch
from rightreasons.metrics import (
    ROAD,
    Deletion,
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    Infidelity,
    Insertion,
    Monotonicity,
    MonotonicityCorrelation,
    PixelFlipping,
    RegionPerturbation,
    Responses,
    SensitivityN,
)
from rightreasons.metrics.faithfulness.responses import READINGS
from rightreasons.models import adapt, condition, contrast
from tests.metrics.faithfulness.cases import curved_case, linear_case

EVERY = [
    *(PixelFlipping(steps=9), Deletion(steps=6), Insertion(steps=6), Monotonicity(steps=9), RegionPerturbation()),
    *(
        ROAD(shares=(0.3, 0.6), score="probability"),
        FaithfulnessCorrelation(samples=20),
        SensitivityN(samples=20, sizes=3),
    ),
    *(FaithfulnessEstimate(), MonotonicityCorrelation(samples=3), Infidelity(20), Infidelity(20, "gaussian")),
]
every_metric = pytest.mark.parametrize("metric", EVERY, ids=lambda m: type(m).__name__)


class Counting(nn.Module):
    """Writes down how many images each pass has."""

    def __init__(self, network):
        super().__init__()
        self.network = network
        self.rows = []

    def forward(self, inputs):
        self.rows.append(len(inputs))
        return self.network(inputs)


def counted_case():
    model, batch, heatmap = curved_case()
    counting = Counting(model.network).eval()
    return adapt(counting), batch, heatmap, counting


@every_metric
def test_shared_passes_give_the_scores_of_own_passes(metric):
    model, batch, heatmap = curved_case()
    other = heatmap.flip(-1)
    expected = [metric(model, batch, map_) for map_ in (heatmap, other)]
    responses = Responses(model, batch)
    for each in EVERY:  # whatever ran before
        each.with_responses(responses, other)
    found = [metric.with_responses(responses, map_) for map_ in (heatmap, other)]
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=1e-9, atol=1e-12)


@every_metric
def test_nothing_runs_twice(metric):
    model, batch, heatmap, counting = counted_case()
    responses = Responses(model, batch)
    metric.with_responses(responses, heatmap)
    assert sum(counting.rows) == responses.passes > 0
    counting.rows.clear()
    metric.with_responses(responses, heatmap.clone())
    assert counting.rows == []


@pytest.mark.parametrize(
    "metric", [m for m in EVERY if "steps" not in repr(m) and not isinstance(m, ROAD | RegionPerturbation)], ids=repr
)
def test_random_changes_run_once_for_all_heatmaps(metric):
    model, batch, heatmap, counting = counted_case()
    responses = Responses(model, batch)
    metric.with_responses(responses, heatmap)
    counting.rows.clear()
    metric.with_responses(responses, torch.randn_like(heatmap))
    assert counting.rows == []


def test_metrics_of_the_same_order_share_its_images():
    model, batch, heatmap, counting = counted_case()
    heatmap = torch.randn_like(heatmap)
    responses = Responses(model, batch)
    PixelFlipping(steps=12).with_responses(responses, heatmap)
    assert sum(counting.rows) == 13 * len(batch)
    for metric in (Deletion(steps=6), Deletion(steps=12, score="logit"), Monotonicity(steps=4)):
        metric.with_responses(responses, heatmap)
    Insertion(steps=12, baseline=ConstantBaseline(0.0)).with_responses(responses, -heatmap)
    assert sum(counting.rows) == 13 * len(batch)
    # Another heatmap starts and ends at the same images.
    Deletion(steps=12).with_responses(responses, heatmap.flip(-1))
    assert sum(counting.rows) == (13 + 11) * len(batch)


OTHER = {
    "steps": 5,
    "baseline": 0.4,
    "score": "log_probability",
    "samples": 7,
    "seed": 1,
    "patch": 3,
    "regions": 2,
    "share": 0.5,
    "shares": (0.2,),
    "sizes": 2,
    "largest": 0.5,
    "side": 2,
    "noise": 0.3,
    "scaled": True,
}


@every_metric
def test_metrics_that_differ_in_a_setting_do_not_take_each_others_passes(metric):
    model, batch, heatmap = curved_case()
    responses = Responses(model, batch)
    metric.with_responses(responses, heatmap)
    for name in vars(metric).keys() & OTHER.keys():
        other = type(metric)(**{**vars(metric), name: OTHER[name]})
        found = other.with_responses(responses, heatmap)
        torch.testing.assert_close(found, other(model, batch, heatmap), rtol=1e-9, atol=1e-12, equal_nan=True)


@every_metric
@pytest.mark.parametrize("max_batch", [1, 5])
def test_memory_is_bounded_and_the_scores_are_the_same(metric, max_batch):
    model, batch, heatmap, counting = counted_case()
    bounded = type(metric)(**{**vars(metric), "max_batch": max_batch})
    found = bounded(model, batch, heatmap)
    assert max(counting.rows) <= max_batch
    torch.testing.assert_close(found, metric(model, batch, heatmap), rtol=1e-9, atol=1e-12, equal_nan=True)


@every_metric
def test_the_exact_heatmap_beats_random_ones(metric):
    """On a linear model, against the metric's own baseline; those that read slopes or sizes get these."""
    model, batch, _ = linear_case(3)
    with torch.no_grad():  # parts that matter more and less
        model.network[1].weight.mul_(torch.linspace(0, 3, 3).repeat_interleave(24))
    slopes = model.network[1].weight.detach()[batch.target].view_as(batch.inputs)
    settings = vars(metric) | ({"patch": 2} if hasattr(metric, "patch") else {})
    metric, responses = type(metric)(**settings), Responses(model, batch)
    heatmap = slopes * (batch.inputs - responses.baseline(getattr(metric, "baseline", "blurred")))
    if getattr(metric, "change", "") == "gaussian" or isinstance(metric, MonotonicityCorrelation):
        heatmap = slopes.abs() if isinstance(metric, MonotonicityCorrelation) else slopes
    heatmap, sign = heatmap.sum(dim=1, keepdim=True), 1 if metric.higher_is_better else -1
    drawn = [heatmap.flatten(1)[:, torch.randperm(36)].view_as(heatmap) for _ in range(20)]
    exact, *others = (sign * metric.with_responses(responses, map_).double().mean() for map_ in (heatmap, *drawn))
    assert exact >= torch.stack(others).quantile(0.9)
    assert exact > torch.stack(others).mean()


@pytest.mark.parametrize("score", READINGS)
def test_every_reading_comes_from_one_pass(score):
    model, batch, _ = curved_case()
    logits = model(batch.inputs).detach()
    row = torch.arange(len(batch))
    expected = {
        "logit": logits[row, batch.target],
        "log_probability": logits.log_softmax(1)[row, batch.target],
        "sum_log_probabilities": logits.log_softmax(1).sum(1),
        "probability": logits.softmax(1)[row, batch.target],
        "correct": (logits.argmax(1) == batch.target).double(),
    }[score]
    torch.testing.assert_close(Responses(model, batch).clean(score), expected)


@every_metric
def test_classifiers_made_for_one_batch(metric):
    """A contrast with another class for each image scores as one image at a time."""
    model, batch, heatmap = curved_case()
    other = (batch.target + torch.tensor([1, 2, 1])) % 3
    together = metric(contrast(model, other), batch, heatmap)
    rows = [slice(i, i + 1) for i in range(3)]
    apart = [metric(contrast(model, other[row]), batch[row], heatmap[row]) for row in rows]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-9, atol=1e-12, equal_nan=True)


def test_text_goes_with_its_image():
    class WithText(nn.Module):
        def __init__(self, network):
            super().__init__()
            self.network = network

        def forward(self, inputs, text):
            return self.network(inputs * text[:, None, None, None])

    model, batch, heatmap = curved_case()
    text = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
    spoken = condition(adapt(WithText(model.network)), text)
    expected = SensitivityN()(model, Batch(batch.inputs * text[:, None, None, None], batch.target), heatmap)
    torch.testing.assert_close(SensitivityN()(spoken, batch, heatmap), expected)


@every_metric
def test_the_same_under_a_seed_and_off_the_graph(metric):
    model, batch, heatmap = curved_case(dtype=torch.float32)
    torch.manual_seed(1)
    first = metric(model, batch, heatmap.clone().requires_grad_())
    torch.manual_seed(2)
    assert torch.equal(first, metric(model, batch, heatmap))
    assert first.shape == (3,)
    assert not first.requires_grad
    half = metric(model, batch, heatmap.bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("metric", [m for m in EVERY if hasattr(m, "seed")], ids=lambda m: type(m).__name__)
def test_the_seed_matters_and_none_is_fresh(metric):
    model, batch, heatmap = curved_case()
    first, other, fresh = (type(metric)(**{**vars(metric), "seed": seed}) for seed in (0, 1, None))
    assert not torch.equal(first(model, batch, heatmap), other(model, batch, heatmap))
    responses = Responses(model, batch)
    assert not torch.equal(fresh.with_responses(responses, heatmap), fresh.with_responses(responses, heatmap))


@every_metric
def test_a_constant_heatmap(metric):
    """It has no order and correlates with nothing; what it foretells is defined all the same."""
    model, batch, heatmap = curved_case()
    found = metric(model, batch, torch.full_like(heatmap, 0.1))
    assert found.isfinite().all() if isinstance(metric, Infidelity) else found.isnan().all()


@every_metric
@pytest.mark.wrong_types
def test_heatmaps_that_do_not_fit_are_refused(metric):
    model, batch, heatmap = curved_case()
    with pytest.raises(ValueError, match=r"expected heatmaps of shape \(3, 1, 12, 12\)"):
        metric(model, batch, heatmap[..., :6])
    heatmap[0, 0, 0, 0] = torch.nan
    with pytest.raises(ValueError, match="finite"):
        metric(model, batch, heatmap)


@pytest.mark.wrong_types
def test_wrong_settings_are_refused():
    for metric in (PixelFlipping, ROAD, SensitivityN, Infidelity, FaithfulnessEstimate):
        with pytest.raises(ValueError, match="expected score to be one of"):
            metric(score="loudness")
        with pytest.raises(ValueError, match="expected max_batch to be a whole number of at least 1"):
            metric(max_batch=0)
    with pytest.raises(ValueError, match="expected steps to be a whole number"):
        PixelFlipping(steps=0)
    with pytest.raises(ValueError, match="expected baseline to be"):
        Deletion(baseline="grey")
    with pytest.raises(ValueError, match="expected one baseline, got 2"):
        Deletion(baseline=[0.0, 1.0])
    with pytest.raises(ValueError, match="above 0 and below 1"):
        FaithfulnessCorrelation(share=1.0)
    with pytest.raises(ValueError, match="at least 2 samples"):
        SensitivityN(samples=1)
    with pytest.raises(ValueError, match="expected shares above 0 and below 1"):
        ROAD(shares=(0.0, 0.5))
    with pytest.raises(ValueError, match="expected change to be one of"):
        Infidelity(change="shift")


def test_what_does_not_fit_the_images_is_refused():
    model, batch, heatmap = curved_case()
    with pytest.raises(ValueError, match="at most as many steps as pixels, 144, got 145"):
        Deletion(steps=145)(model, batch, heatmap)
    with pytest.raises(ValueError, match="at most that of images of 12x12, got 13"):
        Infidelity(side=13)(model, batch, heatmap)
    with pytest.raises(ValueError, match="one image of each, got 2"):
        Deletion(baseline=UniformBaseline(count=2))(model, batch, heatmap)
    with pytest.raises(ValueError, match="label out of range"):
        Deletion()(model, Batch(batch.inputs, batch.target + 3), heatmap)
    with pytest.raises(ValueError, match="empty batch"):
        Responses(model, batch[:0])
