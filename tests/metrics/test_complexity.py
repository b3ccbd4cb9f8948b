import math

import pytest
import torch

from rightreasons.core import Batch
from rightreasons.metrics import Complexity, EffectiveComplexity, Sparseness
from tests.metrics.maps import NoModel, random_case

MODEL = NoModel()


def scored(metric, *maps):
    heatmap = torch.stack([torch.as_tensor(values, dtype=torch.float).view(1, 1, -1) for values in maps])
    inputs, target = torch.zeros(len(maps), 1, *heatmap.shape[2:]), torch.zeros(len(maps), dtype=torch.long)
    return metric(MODEL, Batch(inputs, target), heatmap).tolist()


def plain_gini(values):
    """Mean absolute difference of all pairs over twice the mean: another definition of the same index."""
    sizes = [abs(float(v)) for v in values]
    pairs = sum(abs(a - b) for a in sizes for b in sizes)
    return pairs / (2 * len(sizes) * sum(sizes)) if sum(sizes) else math.nan


def plain_entropy(values):
    sizes = [abs(float(v)) for v in values]
    shares = [size / sum(sizes) for size in sizes] if sum(sizes) else [math.nan]
    return -sum(share * math.log(share) if share else 0.0 for share in shares)


def test_extremes():
    one, flat = [0, 0, -3, 0, 0], [2, 2, 2, -2, 2]
    assert scored(Sparseness(), one, flat) == pytest.approx([1 - 1 / 5, 0], abs=1e-6)
    assert scored(Complexity(), one, flat) == pytest.approx([0, math.log(5)], abs=1e-6)
    assert scored(EffectiveComplexity(), one, flat) == pytest.approx([1 / 5, 1])


def test_effective_complexity_counts_what_is_above_the_threshold():
    assert scored(EffectiveComplexity(threshold=0.5), [1, 0.5, 0.51, -0.9]) == pytest.approx([3 / 4])


@pytest.mark.parametrize(("metric", "plain"), [(Sparseness(), plain_gini), (Complexity(), plain_entropy)])
def test_a_plain_loop_says_the_same(metric, plain):
    batch, heatmap = random_case()
    expected = [plain(values.flatten()) for values in heatmap]
    torch.testing.assert_close(metric(MODEL, batch, heatmap), torch.tensor(expected), equal_nan=True)


@pytest.mark.parametrize("metric", [Sparseness(), Complexity(), EffectiveComplexity()])
def test_a_map_of_zeros_has_no_score_and_the_scale_of_a_map_does_not_count(metric):
    batch, heatmap = random_case()
    scores = metric(MODEL, batch, heatmap)
    assert torch.isnan(scores).tolist() == [row == 4 for row in range(12)]
    torch.testing.assert_close(metric(MODEL, batch, 1e-12 * heatmap), scores, equal_nan=True)


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="expected a threshold from 0 to below 1"):
        EffectiveComplexity(threshold)
