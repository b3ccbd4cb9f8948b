"""Masks of which a half is missing, and relevant ones in the wrong place; the other controls are in test_decoys."""

from __future__ import annotations

import pytest
import torch

from rightreasons.core import MissingAnnotation
from rightreasons.data import ArrayDataset, WithMasks, decoy


def images(count=6, side=10, **masks):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(256, (count, 1, side, side), generator=generator, dtype=torch.uint8)
    return ArrayDataset(pixels, torch.arange(count) % 3, classes="abc", name="images", **masks)


def every(data):
    return data.batch(torch.arange(len(data)))


def test_of_a_patch_the_upper_half_stays():
    data = decoy(images(), "decoy/typology", split="train", foreground=0.5)
    true, half = every(data), every(WithMasks(data, "incomplete"))
    for before, after in zip(true.irrelevant, half.irrelevant, strict=True):
        place = before[0].nonzero().tolist()
        assert after[0].nonzero().tolist() == place[:8]
    assert torch.equal(half.inputs, true.inputs)
    assert torch.equal(half.relevant, true.relevant)
    assert WithMasks(data, "incomplete").name.endswith("+ incomplete masks")


def test_of_an_odd_number_one_more_stays_and_values_are_kept():
    mask = torch.zeros(6, 1, 10, 10)
    mask[0, 0, 2, 3], mask[0, 0, 4, 4], mask[0, 0, 7, 1] = 0.25, 0.5, 1.0
    mask[1, 0, 9, 9] = 0.75
    found = every(WithMasks(images(irrelevant=mask), "incomplete")).irrelevant
    expected = mask.clone()
    expected[0, 0, 7, 1] = 0
    assert torch.equal(found, expected)


def test_without_irrelevant_masks_there_is_nothing_to_halve():
    with pytest.raises(MissingAnnotation, match="to halve"):
        every(WithMasks(images(relevant=torch.ones(6, 1, 10, 10)), "incomplete"))


def test_wrong_relevant_masks_are_the_own_ones_moved_by_half_the_width():
    drawn = torch.zeros(6, 1, 10, 10)
    drawn[:, 0, 3:6, 2:4] = 1
    drawn[5, 0, 0, 9] = 0.5
    data = images(relevant=drawn, irrelevant=torch.ones(6, 1, 10, 10))
    wrong = every(WithMasks(data, "wrong", size=2))
    assert wrong.relevant[0, 0].nonzero().tolist() == [[r, c] for r in (3, 4, 5) for c in (7, 8)]
    assert wrong.relevant[5, 0, 0].tolist() == [0, 0, 0, 0, 0.5, 0, 0, 0, 0, 0]
    assert (wrong.relevant * drawn).sum() == 0
    # The irrelevant block is what it was before there were wrong relevant masks.
    assert wrong.irrelevant[0, 0].nonzero().tolist() == [[0, 4], [0, 5], [1, 4], [1, 5]]
    assert torch.equal(wrong.irrelevant, wrong.irrelevant[:1].expand_as(wrong.irrelevant))
    assert every(WithMasks(images(), "wrong", size=2)).relevant is None
    assert every(WithMasks(data, "zero")).relevant.sum() == 0
