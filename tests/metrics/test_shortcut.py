import math

import pytest
import torch

from rightreasons.core import Batch
from rightreasons.metrics import (
    METRICS,
    ArtifactRelevance,
    DeadMap,
    WrongReasonShare,
    mean_activation,
    prediction_change,
)
from tests.metrics.maps import NoModel, batch_of, random_case

MODEL = NoModel()


def corner(side=8):
    mask = torch.zeros(1, 1, side, side)
    mask[..., :2, :2] = 1
    return mask


def normalized(heat):
    """Positive part, shifted to 0, divided by the maximum, as a list of rows; None for a flat map."""
    rows = [[max(0.0, float(v)) for v in row] for row in heat]
    low = min(min(row) for row in rows)
    rows = [[v - low for v in row] for row in rows]
    high = max(max(row) for row in rows)
    return [[v / high for v in row] for row in rows] if high > 0 else None


def plain_wrong_reason(heat, mask, threshold):
    rows = normalized(heat)
    if rows is None or mask.sum() == 0:
        return math.nan
    flat = [v for row in rows for v in row]
    limit = sum(flat) / len(flat) if threshold is None else threshold
    inside = [v for v, m in zip(flat, mask.flatten().tolist(), strict=True) if m == 1]
    return sum(v > limit for v in inside) / len(inside)


def irrelevant_rows(batch):
    return [m[0] if a else torch.zeros_like(m[0]) for m, a in zip(batch.irrelevant, batch.annotated, strict=True)]


@pytest.mark.parametrize("metric", [WrongReasonShare(), WrongReasonShare(0.5), ArtifactRelevance()], ids=repr)
def test_the_extremes(metric):
    batch = batch_of(irrelevant=corner())
    assert metric(MODEL, batch, corner()).tolist() == [1.0]
    assert metric(MODEL, batch, 1 - corner()).tolist() == [0.0]
    assert metric(MODEL, batch, torch.zeros(1, 1, 8, 8)).isnan().all()


@pytest.mark.parametrize("threshold", [None, 0.0, 0.3])
def test_wrong_reason_share_against_a_loop(threshold):
    batch, heatmap = random_case()
    heatmap[6] = heatmap[6].abs() + 1
    heatmap[7] = 2
    masks = irrelevant_rows(batch)
    expected = [plain_wrong_reason(h[0], m, threshold) for h, m in zip(heatmap, masks, strict=True)]
    score = WrongReasonShare(threshold)(MODEL, batch, heatmap)
    torch.testing.assert_close(score, torch.tensor(expected), equal_nan=True)
    assert [i for i, v in enumerate(expected) if math.isnan(v)] == [1, 3, 4, 7]


def test_artifact_relevance_against_a_loop():
    batch, heatmap = random_case()
    expected = []
    for heat, mask in zip(heatmap, irrelevant_rows(batch), strict=True):
        size, inside = 0.0, 0.0
        for value, drawn in zip(heat.flatten().tolist(), mask.flatten().tolist(), strict=True):
            size += abs(value)
            inside += abs(value * drawn)
        expected.append(inside / size if size > 0 and inside > 0 else math.nan)
    score = ArtifactRelevance()(MODEL, batch, heatmap)
    torch.testing.assert_close(score, torch.tensor(expected), equal_nan=True)


def test_evidence_against_the_class_is_relevance_too():
    assert ArtifactRelevance()(MODEL, batch_of(irrelevant=corner()), -corner()).item() == 1


def test_a_soft_mask_weighs_the_pixels():
    heatmap = torch.tensor([[[[1.0, 0.0, 0.0, 0.0]]]])
    mask = torch.tensor([[[[0.5, 1.0, 0.0, 0.0]]]])
    batch = batch_of(irrelevant=mask)
    assert WrongReasonShare()(MODEL, batch, heatmap).item() == pytest.approx(0.5 / 1.5)
    assert ArtifactRelevance()(MODEL, batch, heatmap).item() == pytest.approx(0.5)


def test_mean_activation_is_the_mean_of_the_normalized_maps_that_are_alive():
    _, heatmap = random_case()
    values = [v for heat in heatmap for row in normalized(heat[0]) or [] for v in row]
    assert len(values) == 11 * 81
    assert mean_activation(heatmap) == pytest.approx(sum(values) / len(values))


def test_mean_activation_of_dead_maps_is_not_defined():
    assert math.isnan(mean_activation(torch.zeros(3, 1, 4, 4)))


def test_dead_maps_are_exactly_those_that_wrong_reason_share_leaves_out():
    heatmap = torch.cat([torch.zeros(1, 1, 8, 8), -corner(), torch.full((1, 1, 8, 8), 3.0), corner(), 1 - corner()])
    batch = batch_of(irrelevant=corner().expand(5, -1, -1, -1))
    dead = DeadMap()(MODEL, batch, heatmap)
    assert dead.tolist() == [1, 1, 1, 0, 0]
    assert WrongReasonShare()(MODEL, batch, heatmap).isnan().tolist() == dead.bool().tolist()
    for name in ("energy_in_mask", "mask_precision", "pointing_game", "artifact_relevance"):
        both = batch_of(batch.irrelevant, batch.irrelevant)
        assert not (METRICS[name]()(MODEL, both, heatmap).isnan() & ~dead.bool()).any()


def test_dead_map_needs_no_mask():
    batch = Batch(torch.zeros(1, 1, 8, 8), torch.zeros(1, dtype=torch.long))
    assert DeadMap()(MODEL, batch, corner()).item() == 0
    assert WrongReasonShare()(MODEL, batch, corner()).isnan().all()


@pytest.mark.parametrize("threshold", [-0.1, 1.0, math.nan])
def test_a_threshold_out_of_range_is_refused(threshold):
    with pytest.raises(ValueError, match="expected a threshold"):
        WrongReasonShare(threshold)


def test_directions():
    of_masks = list(METRICS)[: list(METRICS).index("dead_map") + 1]
    assert [name for name in of_masks if not METRICS[name].higher_is_better] == [
        "wrong_reason_share",
        "artifact_relevance",
        "dead_map",
    ]


def test_prediction_change():
    before, after = torch.tensor([0, 1, 2, 3]), torch.tensor([0, 2, 2, 0])
    assert prediction_change(before, after).tolist() == [0.0, 1.0, 0.0, 1.0]


@pytest.mark.wrong_types
def test_prediction_change_refuses_logits_and_other_images():
    with pytest.raises(ValueError, match="predicted classes"):
        prediction_change(torch.zeros(4, 10), torch.zeros(4, 10))
    with pytest.raises(ValueError, match="predicted classes"):
        prediction_change(torch.zeros(4).long(), torch.zeros(1).long())
