"""Irrelevant pixels that tell nothing."""

from dataclasses import replace

import pytest
import torch

from rightreasons.core import Batch, MissingAnnotation
from rightreasons.data import Augmentation
from rightreasons.data.randomize import Randomizing, meaningless, randomized


def marked(images=6):
    inputs = torch.arange(images, dtype=torch.float32).view(-1, 1, 1, 1).expand(images, 1, 4, 4) / images
    mask = torch.zeros(images, 1, 4, 4)
    mask[:, :, :2, :2] = 1
    return Batch(inputs.clone(), torch.zeros(images, dtype=torch.long), irrelevant=mask)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_only_irrelevant_pixels_change():
    batch = marked()
    found = randomized(batch, Randomizing("uniform", (2.0, 3.0)), generator())
    patch = batch.irrelevant.bool()
    assert ((found.inputs[patch] >= 2) & (found.inputs[patch] < 3)).all()
    assert len(found.inputs[patch].unique()) == patch.sum()
    assert found.inputs[~patch].equal(batch.inputs[~patch])


def test_swapped_pixels_are_those_of_another_image():
    batch = marked()
    found = randomized(batch, Randomizing("swapped", (0.0, 1.0)), generator())
    corner = found.inputs[:, 0, 0, 0]
    assert (corner != batch.inputs[:, 0, 0, 0]).all()
    assert torch.isin(corner, batch.inputs[:, 0, 0, 0]).all()
    assert found.inputs[:, 0, 0, 0].equal(found.inputs[:, 0, 1, 1])


def test_a_single_image_has_no_other_to_swap_with():
    batch = marked(1)
    assert randomized(batch, Randomizing("swapped", (0.0, 1.0)), generator()).inputs.equal(batch.inputs)


def test_images_without_annotation_stay():
    batch = replace(marked(), annotated=torch.tensor([True, False] * 3))
    found = randomized(batch, Randomizing("uniform", (2.0, 3.0)), generator())
    changed = (found.inputs != batch.inputs).flatten(1).any(1)
    assert changed.tolist() == [True, False] * 3


def test_a_soft_mask_mixes():
    batch = replace(marked(), irrelevant=torch.full((6, 1, 4, 4), 0.25))
    found = randomized(batch, Randomizing("uniform", (8.0, 8.0 + 1e-6)), generator())
    torch.testing.assert_close(found.inputs, 0.75 * batch.inputs + 2.0, atol=1e-5, rtol=0)


def test_without_masks_it_is_refused():
    with pytest.raises(MissingAnnotation, match="no irrelevant masks"):
        randomized(replace(marked(), irrelevant=None), Randomizing("uniform"), generator())


def test_the_generator_alone_decides():
    batch = marked()
    assert meaningless(batch.inputs, "uniform", (0.0, 1.0), generator(1)).equal(
        meaningless(batch.inputs, "uniform", (0.0, 1.0), generator(1))
    )


def test_an_augmentation_randomizes_before_it_moves():
    batch = marked()
    still = Augmentation(irrelevant="uniform", low=2.0, high=3.0)(batch, generator())
    assert still.inputs.equal(randomized(batch, Randomizing("uniform", (2.0, 3.0)), generator()).inputs)
    moved = Augmentation(irrelevant="uniform", low=2.0, high=3.0, shift=1)(batch, generator())
    assert not moved.inputs.equal(still.inputs)
    noise = (moved.inputs >= 2 - 1e-4) & (moved.inputs <= 3)
    assert noise.equal(moved.irrelevant > 0.99)
    assert Augmentation()(batch, generator()) is batch


def in_three_places():
    """Nine images, of which the first three have a mask, each one pixel of its own."""
    mask = torch.zeros(9, 1, 5, 5)
    for place in range(3):
        mask[place, 0, 0, 2 * place] = 1
    inputs = torch.rand(9, 1, 5, 5, generator=generator())
    annotated = torch.arange(9) < 4
    return Batch(inputs, torch.zeros(9, dtype=torch.long), irrelevant=mask, annotated=annotated)


def changed_in(batch, settings):
    return randomized(batch, settings, generator(3)).inputs != batch.inputs


def test_borrowed_masks_are_those_of_annotated_images_and_come_on_top_of_the_own():
    batch = in_three_places()
    changed = changed_in(batch, Randomizing("uniform", (2.0, 3.0), borrow=1))
    places = changed[:, 0, 0, [0, 2, 4]]
    assert changed.sum() == places.sum(), "pixels were changed that nobody marked"
    assert places[:3].diagonal().all(), "an image's own mask was left out"
    assert (places[3:].sum(1) == 1).all(), "one mask was to be borrowed"
    many = changed_in(batch, Randomizing("uniform", (2.0, 3.0), borrow=60))[:, 0, 0, [0, 2, 4]]
    assert many.all(), "of sixty borrowed masks none is of the third place"


def test_without_a_marked_image_nothing_can_be_borrowed():
    batch = in_three_places()
    empty = replace(batch, irrelevant=batch.irrelevant * 0)
    assert not changed_in(empty, Randomizing("uniform", (2.0, 3.0), borrow=2)).any()
    unannotated = replace(batch, annotated=torch.zeros(9, dtype=torch.bool))
    assert not changed_in(unannotated, Randomizing("uniform", (2.0, 3.0), borrow=2)).any()


def test_grown_masks_reach_further_on_all_sides():
    mask = torch.zeros(1, 1, 5, 5)
    mask[..., 2, 2] = 1
    batch = Batch(torch.zeros(1, 1, 5, 5), torch.zeros(1, dtype=torch.long), irrelevant=mask)
    for grow in (1, 2):
        changed = changed_in(batch, Randomizing("uniform", (2.0, 3.0), grow=grow))
        assert changed.sum() == (2 * grow + 1) ** 2


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "settings",
    [
        {"irrelevant": "black"},
        {"low": 1.0, "high": 1.0},
        {"irrelevant": "uniform", "borrow": -1},
        {"irrelevant": "uniform", "grow": -1},
    ],
)
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="expected"):
        Augmentation(**settings)


@pytest.mark.parametrize("settings", [{"borrow": 1}, {"grow": 1}])
def test_borrowing_without_replacing_is_refused(settings):
    with pytest.raises(ValueError, match="say by what"):
        Augmentation(**settings)
