import pytest
import torch
from scipy.stats import pearsonr, spearmanr

from rightreasons.metrics import (
    FaithfulnessCorrelation,
    FaithfulnessEstimate,
    MonotonicityCorrelation,
    Responses,
    SensitivityN,
)
from rightreasons.metrics.faithfulness.base import correlation, rank_correlation
from rightreasons.metrics.faithfulness.subsets import draw
from tests.metrics.faithfulness.cases import curved_case, linear_case, score, without


def rows_of(batch, heatmap):
    return zip(batch.inputs, heatmap[:, 0], batch.target.tolist(), strict=True)


def plain_subsets(model, batch, heatmap, sets, kind):
    expected = []
    for x, h, t in rows_of(batch, heatmap):
        groups = [[divmod(int(p), 12) for p in members] for members in sets]
        sums = [sum(float(h[p]) for p in group) for group in groups]
        falls = [score(model, x, t, kind) - score(model, without(x, x * 0, group), t, kind) for group in groups]
        expected.append(pearsonr(sums, falls)[0])
    return torch.tensor(expected, dtype=torch.float64)


def test_faithfulness_correlation_against_a_loop():
    model, batch, heatmap = curved_case()
    expected = plain_subsets(model, batch, heatmap, draw(15, 144, 3)[:, :36], "probability")
    found = FaithfulnessCorrelation(15, share=0.25, seed=3)(model, batch, heatmap)
    torch.testing.assert_close(found, expected)


def test_sensitivity_n_against_a_loop():
    model, batch, heatmap = curved_case()
    metric = SensitivityN(10, sizes=3, seed=1)
    assert metric.counts(144) == [1, 11, 115]
    columns = [plain_subsets(model, batch, heatmap, draw(10, 144, 1)[:, :n], "logit") for n in (1, 11, 115)]
    torch.testing.assert_close(metric.curve(Responses(model, batch), heatmap), torch.stack(columns, 1))
    torch.testing.assert_close(metric(model, batch, heatmap), torch.stack(columns, 1).mean(1))


def test_the_sets_are_of_their_size_and_spread_over_the_image():
    sets = draw(2000, 20, 0)[:, :5]
    assert all(len(set(row.tolist())) == 5 for row in sets)
    times = torch.bincount(sets.flatten(), minlength=20)
    assert ((times - 500).abs() < 5 * (2000 * 0.25 * 0.75) ** 0.5).all()


def squares_of(patch):
    starts = range(0, 12, patch)
    inside = [range(a, min(a + patch, 12)) for a in starts]
    return [[(i, j) for i in down for j in across] for down in inside for across in inside]


@pytest.mark.parametrize("patch", [3, 5])
def test_faithfulness_estimate_against_a_loop(patch):
    model, batch, heatmap = curved_case()
    expected = []
    for x, h, t in rows_of(batch, heatmap):
        sums = [sum(float(h[p]) for p in places) for places in squares_of(patch)]
        kept = [score(model, without(x, x * 0, places), t, "probability") for places in squares_of(patch)]
        expected.append(-pearsonr(sums, kept)[0])
    found = FaithfulnessEstimate(patch)(model, batch, heatmap)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("patch", [3, 5])
def test_monotonicity_correlation_against_a_loop(patch):
    model, batch, heatmap = curved_case()
    noise = torch.rand(4, 2, 12, 12, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    expected = []
    for x, h, t in rows_of(batch, heatmap):
        values = x.min() + (x.max() - x.min()) * noise
        clean = score(model, x, t, "probability")
        sizes, owed = [], []
        for places in squares_of(patch):
            sizes.append(abs(sum(float(h[p]) for p in places)))
            changed = [score(model, without(x, v, places), t, "probability") for v in values]
            owed.append(sum((value - clean) ** 2 for value in changed) / 4)
        expected.append(spearmanr(sizes, owed)[0])
    found = MonotonicityCorrelation(patch, 4, seed=2)(model, batch, heatmap)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize(
    "metric",
    [
        SensitivityN(30, sizes=4, baseline=0.3),
        FaithfulnessCorrelation(30, baseline=0.3, score="logit"),
        FaithfulnessEstimate(1, baseline=0.3, score="logit"),
        FaithfulnessEstimate(4, baseline=0.3, score="logit"),
    ],
    ids=repr,
)
def test_the_exact_map_of_a_linear_model_scores_one(metric):
    model, batch, heatmap = linear_case(baseline=0.3)
    torch.testing.assert_close(metric(model, batch, heatmap), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close(metric(model, batch, -7 * heatmap), -torch.ones(4, dtype=torch.float64))


def test_correlations_against_scipy():
    x, y = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 3, dtype=torch.float64)
    x[:, 1] = (x[:, 1] * 2).round()  # many equal values
    for ours, theirs in ((correlation, pearsonr), (rank_correlation, spearmanr)):
        expected = [theirs(x[:, i], y[:, i])[0] for i in range(3)]
        torch.testing.assert_close(ours(x, y), torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_only_rounding_tells_apart_correlates_with_nothing(dtype):
    x = torch.randn(50, 2, dtype=dtype)
    flat = torch.full_like(x, 0.7) * (1 + torch.finfo(dtype).eps * torch.randn_like(x))
    assert correlation(x, flat).isnan().all()
    assert correlation(flat, x).isnan().all()
    assert correlation(x, flat * (1 + 1e-3 * x)).isfinite().all()


def test_a_model_that_does_not_respond_has_no_correlation():
    model, batch, heatmap = linear_case()
    with torch.no_grad():
        model.network[1].weight.zero_()
    for metric in (SensitivityN(10), FaithfulnessCorrelation(10), FaithfulnessEstimate(2), MonotonicityCorrelation(2)):
        assert metric(model, batch, heatmap).isnan().all()
