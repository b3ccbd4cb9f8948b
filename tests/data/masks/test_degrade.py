import math

import pytest
import torch

from rightreasons.data import Annotated, ArrayDataset, Degraded, Subset, WithMasks, degrade, measure

SIDE = 64


def disk(radius=16, center=(30, 34)):
    y, x = torch.meshgrid(torch.arange(SIDE), torch.arange(SIDE), indexing="ij")
    return ((y - center[0]) ** 2 + (x - center[1]) ** 2 <= radius**2).float()[None]


def mean_noise(mask, count=20, **noises):
    found = [measure(mask, degrade(mask, **noises, seed=seed)) for seed in range(count)]
    return [sum(values) / count for values in zip(*found, strict=True)]


def test_without_noise_a_mask_stays_as_it_is():
    soft = disk() * 0.7
    assert torch.equal(degrade(soft), soft)
    assert measure(disk(), degrade(disk())) == (0, 0, 0)


@pytest.mark.parametrize("amount", [0.05, 0.1, 0.2, 0.3])
def test_the_border_is_displaced_by_what_was_asked_for(amount):
    boundary, missing, wrong = mean_noise(disk(), boundary=amount)
    assert boundary == pytest.approx(amount, rel=0.2)
    # In and out: a ring of that width loses and gains the same order of pixels.
    assert missing == pytest.approx(amount, rel=0.4)
    assert wrong == pytest.approx(amount, rel=0.5)


@pytest.mark.parametrize("share", [0.1, 0.35, 0.8, 1.0])
def test_so_much_is_missing(share):
    worse = degrade(disk(), missing=share, seed=3)
    area = disk().sum()
    assert worse.sum() == area - round(share * area.item())
    assert torch.equal(worse * disk(), worse)


def test_whole_regions_go_missing_first():
    two = torch.maximum(disk(8, (15, 15)), disk(8, (45, 45)))
    worse = degrade(two, missing=0.5, seed=0)
    assert torch.equal(worse, disk(8, (15, 15))) or torch.equal(worse, disk(8, (45, 45)))
    assert {degrade(two, missing=0.5, seed=seed)[0, 15, 15].item() for seed in range(8)} == {0.0, 1.0}


@pytest.mark.parametrize("share", [0.1, 0.5, 2.0])
def test_so_much_is_marked_falsely(share):
    worse = degrade(disk(), wrong=share, seed=1)
    assert torch.equal(worse * disk(), disk())
    assert measure(disk(), worse).wrong == pytest.approx(share, abs=0.001)


def test_false_parts_are_blobs_and_not_dust():
    false = degrade(disk(), wrong=0.5, seed=1) - disk()
    neighbors = torch.nn.functional.avg_pool2d(false[None], 3, 1, 1)[0][false > 0]
    assert neighbors.mean() > 0.75


def test_a_soft_edge_leaves_what_is_marked():
    for softness in (0.1, 0.5, 3.0):
        soft = degrade(disk(), softness=softness)
        assert measure(disk(), soft) == (0, 0, 0)
        assert ((soft > 0) & (soft < 1)).any()
        row = soft[0, 30, 34:]
        assert (row[1:] <= row[:-1]).all()
    # The slope is twice softness * radius wide.
    row = degrade(disk(), softness=0.25)[0, 30]
    assert ((row > 0) & (row < 1)).sum() / 2 == pytest.approx(2 * 0.25 * 16, abs=1)


def test_noises_are_drawn_apart_and_under_a_seed():
    assert torch.equal(degrade(disk(), boundary=0.2, seed=4), degrade(disk(), boundary=0.2, seed=4))
    assert not torch.equal(degrade(disk(), boundary=0.2, seed=4), degrade(disk(), boundary=0.2, seed=5))
    alone, both = degrade(disk(), missing=0.3, seed=4), degrade(disk(), missing=0.3, wrong=0.4, seed=4)
    assert torch.equal(both * disk(), alone)
    assert torch.equal(both * (1 - disk()), degrade(disk(), wrong=0.4, seed=4) - disk())


@pytest.mark.parametrize("seed", range(4))
def test_what_is_missing_does_not_come_back_as_a_false_part(seed):
    worse = degrade(disk(), missing=0.8, wrong=2.0, seed=seed)
    assert measure(disk(), worse)[1:] == pytest.approx((0.8, 2.0), abs=0.001)


def test_measures_of_known_masks():
    square = torch.zeros(1, SIDE, SIDE)
    square[:, 20:40, 20:40] = 1
    moved = torch.zeros(1, SIDE, SIDE)
    moved[:, 18:42, 18:42] = 1
    size = 20 / math.sqrt(math.pi)
    found = measure(square, moved)
    # Two pixels out along the sides, a bit more in the corners.
    assert 2 / size < found.boundary < 2.15 / size
    assert found[1:] == (0, (24**2 - 20**2) / 400)
    half = square.clone()
    half[:, 30:] = 0
    assert measure(square, half)[1:] == (0.5, 0)
    assert math.isnan(measure(square, 0 * square).boundary)
    assert measure(square, 0 * square).missing == 1
    assert all(map(math.isnan, measure(0 * square, square)))


def test_masks_of_nothing_and_of_everything():
    empty, full = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
    everything = {"boundary": 0.3, "missing": 0.3, "wrong": 0.3, "softness": 0.3}
    assert torch.equal(degrade(empty, **everything), empty)
    assert torch.equal(degrade(full, boundary=0.3, softness=0.4), full)
    assert degrade(full, missing=0.5).sum() == 32
    with pytest.raises(ValueError, match="expected room for 19 pixels of false parts, got 0 pixels outside"):
        degrade(full, wrong=0.3)


@pytest.mark.parametrize(
    "noises", [{"boundary": -0.1}, {"boundary": 1.1}, {"missing": 2.0}, {"wrong": -1.0}, {"softness": math.inf}]
)
def test_noises_that_cannot_be(noises):
    with pytest.raises(ValueError, match="expected"):
        degrade(disk(), **noises)
    with pytest.raises(ValueError, match="expected"):
        Degraded(masked(), **noises)


def masked(count=6):
    images = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.uint8)
    irrelevant = torch.stack([disk(10 + i, (30, 20 + 4 * i)) for i in range(count)])
    target = torch.arange(count) % 2
    return ArrayDataset(images, target, classes=["a", "b"], name="disks", irrelevant=irrelevant, relevant=irrelevant)


def whole_of(data):
    return data.batch(torch.arange(len(data)))


def test_a_data_set_with_worse_masks():
    data = masked()
    worse = Degraded(data, boundary=0.2, missing=0.2, seed=1)
    batch = whole_of(worse)
    assert batch.irrelevant.shape == (6, 1, SIDE, SIDE)
    assert not torch.equal(batch.irrelevant, batch.relevant)
    assert torch.equal(batch.inputs, whole_of(data).inputs)
    assert torch.equal(worse.batch(torch.tensor([3, 1])).irrelevant, batch.irrelevant[[3, 1]])
    assert torch.equal(whole_of(Degraded(data, boundary=0.2, missing=0.2, seed=1)).relevant, batch.relevant)
    assert not torch.equal(whole_of(Degraded(data, boundary=0.2, missing=0.2, seed=2)).relevant, batch.relevant)
    assert worse.name == "disks + degraded masks (boundary 0.2, missing 0.2, seed 1)"
    plain = ArrayDataset(data.images, data.target, classes=["a", "b"], name="plain")
    assert whole_of(Degraded(plain, missing=0.5)).irrelevant is None


def test_it_goes_with_the_other_wrappers():
    data = masked()
    some = Annotated(data, count=2, seed=0)
    batch = whole_of(Degraded(some, missing=0.5))
    assert batch.annotated.sum() == 2
    assert batch.irrelevant[~batch.annotated].sum() == 0
    moved = whole_of(WithMasks(Degraded(data, missing=0.5), "random")).irrelevant
    assert torch.equal(moved.sum(dim=(1, 2, 3)), whole_of(Degraded(data, missing=0.5)).irrelevant.sum(dim=(1, 2, 3)))


def test_over_other_images_nothing_of_the_old_is_left():
    data = masked()
    worse = Degraded(data, missing=0.5)
    whole_of(worse)
    turned = Subset(data, [5, 4, 3, 2, 1, 0])
    assert torch.equal(whole_of(worse.over(turned)).irrelevant, whole_of(Degraded(turned, missing=0.5)).irrelevant)


def test_an_image_without_room_is_named():
    full = torch.ones(1, 1, 8, 8)
    images = torch.zeros(1, 1, 8, 8, dtype=torch.uint8)
    data = ArrayDataset(images, torch.zeros(1, dtype=torch.int64), classes=["a"], name="full", irrelevant=full)
    with pytest.raises(ValueError, match="irrelevant mask of image 0 of full: expected room"):
        whole_of(Degraded(data, wrong=0.5))
