import pytest
import torch

from rightreasons.attribution.baselines import ConstantBaseline
from rightreasons.attribution.perturbation import MeanBaseline, ScaledBlur
from rightreasons.metrics import Deletion, Insertion, Monotonicity, PixelFlipping, RegionPerturbation, Responses
from rightreasons.metrics.faithfulness.base import counts_of
from tests.metrics.faithfulness.cases import curved_case, linear_case, pixels_in_order, score, without

BASELINES = {0.25: ConstantBaseline(0.25), "mean": MeanBaseline(), "blurred": ScaledBlur()}


def plain_curve(model, batch, heatmap, counts, baseline, kind):
    """The score of each image with so many of its first pixels hidden, one image and one count at a time."""
    stand_in = BASELINES[baseline].of(batch.inputs)[0]
    return torch.tensor(
        [
            [score(model, without(x, b, pixels_in_order(h[0])[:k]), int(t), kind) for k in counts]
            for x, b, h, t in zip(batch.inputs, stand_in, heatmap, batch.target, strict=True)
        ],
        dtype=torch.float64,
    )


def tied(heatmap):
    """Few different values, so that the order is the image's in many places."""
    return (heatmap * 4 / heatmap.abs().amax()).round()


@pytest.mark.parametrize("baseline", BASELINES)
@pytest.mark.parametrize("kind", ["probability", "logit"])
def test_curves_and_summaries_against_a_loop(baseline, kind):
    model, batch, heatmap = curved_case()
    heatmap, responses = tied(heatmap), Responses(model, batch)
    settings = {"steps": 7, "baseline": baseline, "score": kind}
    counts = counts_of(144, 7)
    assert counts == [0, 21, 41, 62, 82, 103, 123, 144]
    expected = plain_curve(model, batch, heatmap, counts, baseline, kind)
    torch.testing.assert_close(Deletion(**settings).curve(responses, heatmap), expected)
    fall = (expected[:, :1] - expected).mean(1)
    torch.testing.assert_close(PixelFlipping(**settings)(model, batch, heatmap), fall)
    area = (expected[:, 1:] + expected[:, :-1]).sum(1) / 2 / 7
    torch.testing.assert_close(Deletion(**settings)(model, batch, heatmap), area)
    share = (expected[:, :-1] >= expected[:, 1:]).double().mean(1)
    torch.testing.assert_close(Monotonicity(**settings)(model, batch, heatmap), share)


@pytest.mark.parametrize("baseline", BASELINES)
def test_insertion_against_a_loop(baseline):
    model, batch, heatmap = curved_case()
    heatmap = tied(heatmap)
    stand_in = BASELINES[baseline].of(batch.inputs)[0]
    rows = []
    for x, b, h, t in zip(batch.inputs, stand_in, heatmap, batch.target, strict=True):
        shown = [pixels_in_order(h[0])[:k] for k in counts_of(144, 6)]
        rows.append([score(model, without(b, x, places), int(t), "probability") for places in shown])
    expected = torch.tensor(rows, dtype=torch.float64)
    metric = Insertion(steps=6, baseline=baseline)
    torch.testing.assert_close(metric.curve(Responses(model, batch), heatmap), expected)
    area = (expected[:, 1:] + expected[:, :-1]).sum(1) / 2 / 6
    torch.testing.assert_close(metric(model, batch, heatmap), area)


@pytest.mark.parametrize("regions", [None, 4])
@pytest.mark.parametrize("patch", [4, 5, 12])
def test_regions_against_a_loop(patch, regions):
    model, batch, heatmap = curved_case()
    expected = []
    for x, h, t in zip(batch.inputs, heatmap, batch.target, strict=True):
        parts = [
            [(i, j) for i in range(a, min(a + patch, 12)) for j in range(b, min(b + patch, 12))]
            for a in range(0, 12, patch)
            for b in range(0, 12, patch)
        ]
        parts.sort(key=lambda part: -sum(float(h[0][p]) for p in part))
        hidden = [[p for part in parts[:k] for p in part] for k in range(min(regions or 99, len(parts)) + 1)]
        curve = [score(model, without(x, torch.zeros_like(x), places), int(t), "probability") for places in hidden]
        expected.append(sum(curve[0] - value for value in curve) / len(curve))
    metric = RegionPerturbation(patch, regions, baseline=0.0)
    found = metric(model, batch, heatmap)
    if patch == 12:  # one square has no order
        assert found.isnan().all()
    else:
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_the_curve_of_a_linear_model_is_known():
    model, batch, heatmap = linear_case(baseline=0.5)
    metric = Deletion(steps=36, baseline=0.5, score="logit")
    gone = heatmap.flatten(1).sort(dim=1, descending=True)[0].cumsum(1)
    curve = metric.curve(Responses(model, batch), heatmap)
    torch.testing.assert_close(curve[:, :1] - curve[:, 1:], gone)


def test_no_order_deletes_faster_than_the_exact_one_on_a_linear_model():
    model, batch, heatmap = linear_case()
    for metric in (Deletion(steps=36, score="logit"), PixelFlipping(steps=36, score="logit")):
        sign = 1 if metric.higher_is_better else -1
        best = sign * metric(model, batch, heatmap)
        for _ in range(20):
            assert (sign * metric(model, batch, torch.randn_like(heatmap)) < best).all()


def test_monotonicity_of_a_linear_model_is_the_share_of_pixels_that_speak_for_the_class():
    model, batch, heatmap = linear_case()
    found = Monotonicity(steps=36, score="logit")(model, batch, heatmap)
    torch.testing.assert_close(found, (heatmap >= 0).double().mean((1, 2, 3)))


def test_a_perfectly_monotonic_model():
    model, batch, heatmap = linear_case()
    with torch.no_grad():
        model.network[1].weight.abs_()
    assert Monotonicity(steps=36, score="logit")(model, batch, heatmap.abs()).tolist() == [1.0] * 4
