import math

import pytest
import torch

from rightreasons.metrics import (
    EnergyInMask,
    ExplanationCoverage,
    GroundTruthCoverage,
    IoUCoverage,
    RelevanceMassAccuracy,
    RelevanceRankAccuracy,
    TopKIntersection,
)
from rightreasons.metrics.ranking import ascending, average_ranks
from tests.metrics.maps import NoModel, batch_of, random_case

MODEL = NoModel()
COVERAGES = [IoUCoverage, GroundTruthCoverage, ExplanationCoverage]
ALL = [RelevanceMassAccuracy(), RelevanceRankAccuracy(), TopKIntersection(), *(kind() for kind in COVERAGES)]


def square(side=8):
    mask = torch.zeros(1, 1, side, side)
    mask[..., 2:5, 2:5] = 1
    return mask


def sets(batch, row):
    """The marked pixels of an image as numbers; none where it is not annotated."""
    if not batch.annotated[row]:
        return set()
    return {int(k) for k in batch.relevant[row].flatten().nonzero()}


def plain_rank(values, marked, count):
    """Sorted by value; of those that tie for the last places each counts by its chance."""
    if not marked or max(values) <= 0:
        return math.nan
    last = sorted(values, reverse=True)[count - 1]
    above = {k for k, value in enumerate(values) if value > last}
    tied = {k for k, value in enumerate(values) if value == last}
    return (len(above & marked) + (count - len(above)) * len(tied & marked) / len(tied)) / count


def plain_coverages(values, marked):
    if not marked:
        return (math.nan,) * 3
    mean = sum(values) / len(values)
    spread = math.sqrt(sum((v - mean) ** 2 for v in values) / len(values))
    out = {k for k, value in enumerate(values) if max(values) > 0 and value >= mean + spread}
    both = len(out & marked)
    return both / len(out | marked), both / len(marked), both / len(out) if out else math.nan


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_the_mask_itself_scores_one_and_a_map_beside_it_zero(metric):
    batch = batch_of(square())
    assert metric(MODEL, batch, 3 * square()).tolist() == [1.0]
    assert metric(MODEL, batch, square().roll(3, dims=3)).tolist() == [0.0]


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_a_constant_map_scores_as_chance(metric):
    score = metric(MODEL, batch_of(square()), torch.full_like(square(), 0.3))
    assert score.item() == pytest.approx(1.0 if isinstance(metric, GroundTruthCoverage) else 9 / 64)


def test_ranks_by_hand():
    """The mask holds the 1st, 2nd and 4th of six pixels: two of the three largest."""
    mask = torch.tensor([[[[1.0, 1, 0, 1, 0, 0]]]])
    heatmap = torch.tensor([[[[9.0, 8, 7, 6, 5, -9]]]])
    batch = batch_of(mask)
    assert RelevanceRankAccuracy()(MODEL, batch, heatmap).item() == pytest.approx(2 / 3)
    assert RelevanceRankAccuracy("absolute")(MODEL, batch, heatmap).item() == pytest.approx(2 / 3)
    assert RelevanceMassAccuracy()(MODEL, batch, heatmap).item() == pytest.approx(23 / 44)
    assert RelevanceMassAccuracy("positive")(MODEL, batch, heatmap).item() == pytest.approx(23 / 35)
    assert TopKIntersection(share=0.6)(MODEL, batch, heatmap).item() == pytest.approx(3 / 4)


def test_a_share_of_the_pixels_is_not_rounded_up_for_what_floats_add_to_it():
    """0.07 * 100 is 7.000000000000001 in floats: seven pixels, not eight."""
    heatmap = torch.arange(100, 0, -1.0).view(1, 1, 10, 10)
    mask = (heatmap > 93).float()
    assert TopKIntersection(share=0.07)(MODEL, batch_of(mask), heatmap).item() == 1
    assert TopKIntersection(share=0.071)(MODEL, batch_of(mask), heatmap).item() == pytest.approx(7 / 8)


def test_a_plain_loop_says_the_same_of_ranks_and_coverages():
    batch, heatmap = random_case()
    heatmap = (3 * heatmap).round() / 3  # so that pixels tie
    positive = heatmap.clamp(min=0).flatten(1)
    for row, values in enumerate(positive.tolist()):
        marked = sets(batch, row)
        expected = plain_rank(values, marked, len(marked)), plain_rank(values, marked, 5)
        found = [m(MODEL, batch, heatmap)[row].item() for m in (RelevanceRankAccuracy(), TopKIntersection(0.06))]
        assert found == pytest.approx(expected, nan_ok=True)
        found = [kind()(MODEL, batch, heatmap)[row].item() for kind in COVERAGES]
        assert found == pytest.approx(plain_coverages(values, marked), nan_ok=True)


def test_the_positive_mass_is_the_energy_based_pointing_game():
    batch, heatmap = random_case()
    found = RelevanceMassAccuracy("positive")(MODEL, batch, heatmap)
    torch.testing.assert_close(found, EnergyInMask()(MODEL, batch, heatmap), equal_nan=True)


def test_equal_numbers_share_their_ranks():
    values = torch.tensor([[3.0, 1, 3, 2], [5, 5, 5, 5]])
    assert average_ranks(values).tolist() == [[2.5, 0, 2.5, 1], [1.5] * 4]
    drawn = torch.rand(3, 20)
    torch.testing.assert_close(average_ranks(drawn).long(), drawn.argsort(1).argsort(1))
    torch.testing.assert_close(ascending(drawn), drawn.sort(dim=1).values)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: RelevanceMassAccuracy("negative"), "expected part to be one of positive, absolute"),
        (lambda: TopKIntersection(0), "expected a share above 0"),
        (lambda: IoUCoverage(math.inf), "expected a finite number of deviations"),
    ],
)
def test_wrong_settings_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()
