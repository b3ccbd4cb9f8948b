"""A tag that most images of half the classes bear."""

import pytest
import torch

from rightreasons.data import DECOYS, ArrayDataset, Subset, WithMasks, decoy, groups_of
from rightreasons.data.controls import patch_size
from rightreasons.data.dataset import whole
from rightreasons.data.decoys import unrelated
from rightreasons.data.groups import signs_of


def images(count=4000, classes=5, side=20, channels=1):
    pixels = torch.full((count, channels, side, side), 100, dtype=torch.uint8)
    target = torch.arange(count) % classes
    return ArrayDataset(pixels, target, classes=[str(c) for c in range(classes)], name="grey")


def tagged(split="train", data=None, **more):
    return decoy(data or images(), "decoy/tag", split=split, **more)


def whole_of(data):
    return data.batch(torch.arange(len(data)))


def bears(data):
    return (whole_of(data).irrelevant > 0).flatten(1).any(1)


@pytest.mark.parametrize(("split", "first"), [("train", 0.95), ("test", 0.05)])
def test_the_tag_tells_the_half_in_training_and_lies_in_the_test(split, first):
    data = tagged(split)
    half = data.target < 3
    assert bears(data)[half].float().mean() == pytest.approx(first, abs=0.02)
    assert bears(data)[~half].float().mean() == pytest.approx(1 - first, abs=0.02)


def test_a_ring_with_a_center_at_one_of_sixteen_places():
    batch = whole_of(tagged())
    marked = batch.irrelevant > 0
    assert (marked.flatten(1).sum(1)[marked.flatten(1).any(1)] == 25).all()
    assert batch.inputs[~marked].unique().tolist() == pytest.approx([100 / 255])
    for row in marked.flatten(1).any(1).nonzero().squeeze(1)[:20].tolist():
        tag = batch.inputs[row][marked[row]].view(5, 5)
        inner = tag[1:4, 1:4].clone()
        assert tag.sum() == 17
        assert inner[1, 1] == 1
        assert inner.sum() == 1
    top = marked.any(3).float().argmax(2)[marked.flatten(1).any(1)]
    assert sorted(top.unique().tolist()) == [10, 11, 12, 13]


def test_swapped_images_have_a_tag_where_they_had_none():
    data = tagged("test")
    assert bears(data.swapped()).equal(~bears(data))
    kept = data.swapped().swapped()
    assert whole_of(kept).inputs.equal(whole_of(data).inputs)


def test_signs_and_groups_are_what_can_be_seen():
    data = tagged("test")
    assert (data.signs, data.sign.bool().tolist()) == (2, bears(data).tolist())
    inside = Subset(data, torch.arange(100))
    assert groups_of(inside).equal(data.target[:100] * 2 + data.sign[:100])
    assert signs_of(inside) == 2


def test_an_unrelated_tag_says_nothing_of_the_class():
    data = unrelated(Subset(tagged(), torch.arange(3000)), seed=3)
    sign, half = groups_of(data) % 2, data.target < 3
    assert sign[half].float().mean() == pytest.approx(0.5, abs=0.05)
    assert sign[~half].float().mean() == pytest.approx(0.5, abs=0.05)
    assert bears(data).equal(sign.bool())


def test_another_seed_puts_it_elsewhere():
    one, other = tagged(seed=1), tagged(seed=2)
    assert not one.top.equal(other.top)
    assert not one.left.equal(other.left)
    assert not one.top.equal(one.left)


def test_a_wrong_mask_never_meets_the_tag():
    small = tagged(data=images(300, side=11), size=3)
    wrong = whole_of(WithMasks(small, "wrong")).irrelevant > 0
    assert not (wrong & (whole_of(small).irrelevant > 0)).any()


def test_the_seed_alone_decides_and_every_channel_bears_it():
    assert whole_of(tagged(seed=1)).inputs.equal(whole_of(tagged(seed=1)).inputs)
    assert not whole_of(tagged(seed=1)).inputs.equal(whole_of(tagged(seed=2)).inputs)
    colored = whole_of(tagged(data=images(40, channels=3)))
    assert colored.inputs.shape[1] == 3
    assert colored.inputs[:, :1].expand_as(colored.inputs).equal(colored.inputs)


def test_the_foreground_ends_at_the_tag():
    batch = whole_of(tagged(foreground=0.2))
    assert (batch.relevant + batch.irrelevant == 1).all()


def test_another_size_and_sizes_that_do_not_fit():
    small = tagged(size=3)
    assert "3x3" in small.name
    assert patch_size(small) == 3
    assert patch_size(tagged()) == DECOYS["decoy/tag"].size
    for size in (2, 8):
        with pytest.raises(ValueError, match="tag of 3 to 7 pixels"):
            tagged(size=size)
    with pytest.raises(ValueError, match="at least 11x11"):
        tagged(data=images(10, side=10), size=3)
    with pytest.raises(ValueError, match="two classes"):
        tagged(data=images(4, classes=1))


def test_the_images_stay_as_they_were():
    data = images(50)
    before = whole(whole_of(data)).inputs.clone()
    whole_of(tagged(data=data))
    assert whole_of(data).inputs.equal(before)
