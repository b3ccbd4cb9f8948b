import math

import pytest
import torch

from rightreasons.core import Batch
from rightreasons.metrics import METRICS, EnergyInMask, IoU, MaskF1, MaskPrecision, MaskRecall, PointingGame
from tests.metrics.maps import NoModel, batch_of, random_case

MODEL = NoModel()
ALL = [IoU(), MaskPrecision(), MaskRecall(), MaskF1(), EnergyInMask(), PointingGame()]
OF_MASKS = [
    *("iou", "mask_precision", "mask_recall", "mask_f1", "energy_in_mask", "pointing_game"),
    *("wrong_reason_share", "artifact_relevance", "dead_map"),
]
OVERLAPS = [IoU, MaskPrecision, MaskRecall, MaskF1]


def square(side=8):
    mask = torch.zeros(1, 1, side, side)
    mask[..., 2:5, 2:5] = 1
    return mask


def pixels(tensor):
    return [(i, j) for i in range(tensor.shape[0]) for j in range(tensor.shape[1])]


def plain_overlap(heat, mask, threshold):
    """(IoU, precision, recall, F1) of one image by sets of pixels."""
    peak = max(0.0, max(float(heat[p]) for p in pixels(heat)))
    marked = {p for p in pixels(heat) if peak > 0 and float(heat[p]) / peak >= threshold}
    drawn = {p for p in pixels(mask) if mask[p] == 1}
    if not drawn:
        return (math.nan,) * 4
    both = len(marked & drawn)
    precision = both / len(marked) if marked else math.nan
    recall = both / len(drawn)
    f1 = 2 * precision * recall / (precision + recall) if both else 0.0
    return both / len(marked | drawn), precision, recall, f1


def plain_energy(heat, mask):
    positive = [max(0.0, float(heat[p])) for p in pixels(heat)]
    inside = [max(0.0, float(heat[p])) for p in pixels(heat) if mask[p] == 1]
    defined = sum(positive) > 0 and float(mask.sum()) > 0
    return sum(inside) / sum(positive) if defined else math.nan


def plain_pointing(heat, mask, tolerance):
    peak = max(float(heat[p]) for p in pixels(heat))
    drawn = [p for p in pixels(mask) if mask[p] == 1]
    if peak <= 0 or not drawn:
        return math.nan
    top = [p for p in pixels(heat) if float(heat[p]) == peak]
    return sum(min(math.dist(p, q) for q in drawn) <= tolerance for p in top) / len(top)


def relevant_rows(batch):
    """Each mask as a person meant it: none where the image is not annotated."""
    return [m[0] if a else torch.zeros_like(m[0]) for m, a in zip(batch.relevant, batch.annotated, strict=True)]


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_a_perfect_map_scores_one(metric):
    assert metric(MODEL, batch_of(square()), 7.0 * square()).tolist() == [1.0]


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_an_inverted_map_scores_zero(metric):
    assert metric(MODEL, batch_of(square()), 1 - square()).tolist() == [0.0]


@pytest.mark.parametrize("empty", [torch.zeros(1, 1, 8, 8), -square()], ids=["zeros", "only against the class"])
def test_a_map_without_evidence_finds_nothing(empty):
    scores = {type(m).__name__: m(MODEL, batch_of(square()), empty).item() for m in ALL}
    assert scores["IoU"] == scores["MaskRecall"] == scores["MaskF1"] == 0
    assert all(math.isnan(scores[name]) for name in ("MaskPrecision", "EnergyInMask", "PointingGame"))


@pytest.mark.parametrize("threshold", [0.2, 0.5, 1.0])
def test_overlap_against_sets_of_pixels(threshold):
    batch, heatmap = random_case()
    masks = relevant_rows(batch)
    expected = [plain_overlap(h[0], m, threshold) for h, m in zip(heatmap, masks, strict=True)]
    for column, metric in enumerate(OVERLAPS):
        score = metric(threshold=threshold)(MODEL, batch, heatmap)
        torch.testing.assert_close(score, torch.tensor([row[column] for row in expected]), equal_nan=True)
    assert math.isnan(expected[1][0])
    assert math.isnan(expected[2][0])
    assert expected[4][0] == 0


def test_the_threshold_itself_is_marked():
    heatmap = torch.tensor([[[[2.0, 1.0, 0.99, 0.0]]]])
    mask = torch.tensor([[[[1.0, 1.0, 0.0, 0.0]]]])
    assert IoU()(MODEL, batch_of(mask), heatmap).item() == 1


def test_energy_against_a_loop():
    batch, heatmap = random_case()
    expected = [plain_energy(h[0], m) for h, m in zip(heatmap, relevant_rows(batch), strict=True)]
    torch.testing.assert_close(EnergyInMask()(MODEL, batch, heatmap), torch.tensor(expected), equal_nan=True)


@pytest.mark.parametrize("tolerance", [0, 1, 2, 3])
def test_pointing_against_a_loop(tolerance):
    batch, heatmap = random_case(count=40)
    batch = batch_of(batch.relevant * (torch.rand_like(batch.relevant) < 0.1), annotated=batch.annotated)
    heatmap[5:12] = heatmap[5:12].round()
    expected = [plain_pointing(h[0], m, tolerance) for h, m in zip(heatmap, relevant_rows(batch), strict=True)]
    score = PointingGame(tolerance=tolerance)(MODEL, batch, heatmap)
    torch.testing.assert_close(score, torch.tensor(expected), equal_nan=True)
    assert {0.0, 1.0} < set(expected)


def test_a_constant_map_points_by_chance():
    ones = torch.ones(1, 1, 8, 8)
    for metric in (PointingGame(), EnergyInMask()):
        assert metric(MODEL, batch_of(square()), ones).item() == pytest.approx(9 / 64)


def test_the_tolerance_is_a_disc():
    mask, heatmap = torch.zeros(2, 1, 9, 9), torch.zeros(2, 1, 9, 9)
    mask[:, :, 4, 4] = 1
    heatmap[0, :, 4, 7] = heatmap[1, :, 7, 7] = 1
    assert PointingGame(tolerance=3)(MODEL, batch_of(mask), heatmap).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("metric", ALL, ids=repr)
def test_only_irrelevant_known_is_not_defined(metric):
    assert metric(MODEL, batch_of(irrelevant=square()), square()).isnan().all()


@pytest.mark.parametrize("name", OF_MASKS)
def test_a_batch_equals_its_singles(name):
    metric = METRICS[name]()
    batch, heatmap = random_case()
    singles = [metric(MODEL, batch[i : i + 1], heatmap[i : i + 1]) for i in range(len(batch))]
    torch.testing.assert_close(metric(MODEL, batch, heatmap), torch.cat(singles), equal_nan=True)


@pytest.mark.parametrize("name", OF_MASKS)
@pytest.mark.parametrize("scale", [1e-30, 0.125, 5e37])
def test_the_scale_of_a_map_does_not_matter(name, scale):
    metric = METRICS[name]()
    batch, heatmap = random_case()
    expected = metric(MODEL, batch, heatmap)
    torch.testing.assert_close(metric(MODEL, batch, heatmap * scale), expected, equal_nan=True)


@pytest.mark.parametrize("name", OF_MASKS)
def test_scores_are_off_the_graph_and_one_an_image(name):
    batch, heatmap = random_case()
    score = METRICS[name]()(MODEL, batch, heatmap.clone().requires_grad_())
    assert score.shape == (len(batch),)
    assert not score.requires_grad
    half = METRICS[name]()(MODEL, batch, heatmap.bfloat16())
    assert half.dtype == torch.float32


@pytest.mark.parametrize("name", OF_MASKS)
@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_diverged_map_is_refused(name, wrong):
    batch, heatmap = random_case()
    heatmap[0, 0, 0, 0] = wrong
    with pytest.raises(ValueError, match="finite"):
        METRICS[name]()(MODEL, batch, heatmap)


@pytest.mark.wrong_types
@pytest.mark.parametrize("shape", [(12, 3, 9, 9), (11, 1, 9, 9), (12, 1, 9, 8), (12, 81)])
def test_a_heatmap_of_another_shape_is_refused(shape):
    batch, _ = random_case()
    with pytest.raises(ValueError, match=r"expected heatmaps of shape \(12, 1, 9, 9\)"):
        IoU()(MODEL, batch, torch.zeros(shape))


@pytest.mark.wrong_types
def test_a_mask_of_another_size_is_refused():
    batch = Batch(torch.zeros(1, 1, 4, 4), torch.zeros(1, dtype=torch.long), relevant=square())
    with pytest.raises(ValueError, match="expected a mask of the heatmap's shape"):
        IoU()(MODEL, batch, torch.zeros(1, 1, 4, 4))


@pytest.mark.parametrize("threshold", [0.0, -1.0, 1.5, math.nan])
@pytest.mark.parametrize("metric", OVERLAPS)
def test_a_threshold_out_of_range_is_refused(metric, threshold):
    with pytest.raises(ValueError, match="expected a threshold"):
        metric(threshold=threshold)


def test_a_negative_tolerance_is_refused():
    with pytest.raises(ValueError, match="expected a tolerance"):
        PointingGame(tolerance=-1)


def test_the_configuration_is_the_repr():
    assert repr(IoU()) == "IoU(threshold=0.5)"
    assert METRICS.name_of(MaskF1()) == "mask_f1"
