"""The drawn data sets: what the class is, what goes with it, and what the masks mark."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from rightreasons.data import DATASETS, squares, toy_colors
from rightreasons.data import load as named
from rightreasons.data.toy_colors import COLORS, PIXELS

CORNERS, TOP = [(0, 0), (0, 4), (4, 0), (4, 4)], [(0, 1), (0, 2), (0, 3)]
load = cache(named)
DRAWN = ("toy_colors", "toy_colors_by_corners", "squares_symmetric", "squares_asymmetric")


def every(data):
    return data.batch(torch.arange(len(data)))


def colors_at(images, places):
    """Each pixel's color as a tuple, in a list an image."""
    return [[tuple(image[:, row, column].tolist()) for row, column in places] for image in images]


def rules(data, count):
    """Both rules written out for the first images."""
    images = data.images[:count]
    same = [len(set(found)) == 1 for found in colors_at(images, CORNERS)]
    different = [len(set(found)) == 3 for found in colors_at(images, TOP)]
    return torch.tensor(same), torch.tensor(different)


@pytest.mark.parametrize("split", ["train", "test"])
def test_both_rules_tell_the_class_of_a_toy_image(split):
    data = toy_colors(split)
    corners, top = rules(data, 400)
    assert torch.equal(corners, data.target[:400].bool())
    assert torch.equal(top, data.target[:400].bool())
    assert 0.45 < data.target.float().mean() < 0.55


@pytest.mark.parametrize("decides", ["corners", "top"])
def test_one_rule_can_decide_alone(decides):
    data = toy_colors("test", decides=decides)
    found = dict(zip(("corners", "top"), rules(data, 1000), strict=True))
    target = data.target[:1000].bool()
    assert torch.equal(found.pop(decides), target)
    (other,) = found.values()
    assert 0.4 < (other == target).float().mean() < 0.6


def test_what_a_rule_leaves_open_is_drawn_evenly():
    data = toy_colors()
    colors = (data.images.flatten(2).mT[:, :, None] == COLORS).all(dim=3).float()
    assert torch.equal(colors.sum(dim=2), torch.ones(len(data), 25))
    assert (colors.mean(dim=0) - 0.25).abs().max() < 0.03
    # Of 64 triples at the top 24 are all different, so 40 are left to class 0, and 252 of 256 corners.
    top = {tuple(t) for t in colors[data.target == 0][:, PIXELS["top"]].argmax(dim=2).tolist()}
    corners = {tuple(t) for t in colors[data.target == 0][:, PIXELS["corners"]].argmax(dim=2).tolist()}
    assert (len(top), len(corners)) == (40, 252)


def test_the_masks_mark_the_pixels_of_the_rules():
    batch = every(load("toy_colors", "train"))
    other = every(load("toy_colors_by_corners", "train"))
    assert batch.irrelevant[7].nonzero()[:, 1:].tolist() == [list(place) for place in CORNERS]
    assert batch.relevant[7].nonzero()[:, 1:].tolist() == [list(place) for place in TOP]
    assert torch.equal(other.inputs, batch.inputs)
    assert torch.equal(other.irrelevant, batch.relevant)
    assert torch.equal(other.relevant, batch.irrelevant)


@pytest.mark.parametrize(
    ("name", "shares"), [("squares_symmetric", [490, 10, 10, 490]), ("squares_asymmetric", [250, 250, 490, 10])]
)
def test_the_groups_of_the_squares_have_their_sizes(name, shares):
    train, test = load(name, "train"), load(name, "test")
    assert torch.bincount(train.group).tolist() == shares
    assert torch.bincount(test.group).tolist() == [400] * 4
    assert torch.equal(train.group // 2, train.target)


def test_the_shades_of_the_squares_are_class_and_confounder():
    batch = every(load("squares_symmetric", "test"))
    small, large = batch.relevant, batch.irrelevant
    for mask, side, bright in ((small, 10, batch.target), (large, 24, batch.group % 2)):
        assert (mask.sum(dim=(1, 2, 3)) == side**2).all()
        mean = (batch.inputs * mask).sum(dim=(1, 2, 3)) / side**2
        torch.testing.assert_close(mean, 0.5 + 0.15 * (2.0 * bright - 1), atol=0.06, rtol=0)
    ground = (1 - small) * (1 - large)
    assert not (small * large).any()
    torch.testing.assert_close(float((batch.inputs * ground).sum() / ground.sum()), 0.5, atol=0.005, rtol=0)


def test_the_squares_lie_everywhere():
    batch = every(load("squares_symmetric", "train"))
    for mask in (batch.relevant, batch.irrelevant):
        rows, columns = mask.any(dim=3).float().argmax(dim=2), mask.any(dim=2).float().argmax(dim=2)
        side = int(mask[0].any(dim=2).sum())
        for first in (rows, columns):
            assert first.min() <= 2
            assert first.max() >= 64 - side - 2


@pytest.mark.parametrize("name", DRAWN)
def test_the_same_images_every_time_and_others_to_test_on(name, tmp_path):
    once, again, test = load(name, "train"), named(name), load(name, "test")
    assert once.fingerprint() == again.fingerprint()
    assert not (once.images[:100, None] == test.images[None, :20]).flatten(2).all(dim=2).all()
    assert once.sampled_fingerprint() != test.sampled_fingerprint()
    assert name in DATASETS
    with pytest.raises(ValueError, match="expected no folder"):
        named(name, folder=tmp_path)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: toy_colors(irrelevant="middle"), "expected the rule corners or top, got 'middle'"),
        (lambda: toy_colors(decides="middle"), "expected the rule corners or top, got 'middle'"),
        (lambda: squares(shares=(0.5, 0.5)), "four shares"),
        (lambda: squares(shares=(0.5, 0.5, 0.5, -0.5)), "four shares"),
        (lambda: squares(shares=(0.3, 0.3, 0.3, 0.3)), "four shares"),
    ],
)
def test_wrong_settings_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()
