"""Irrelevant pixels that tell nothing."""

from dataclasses import replace

import pytest
import torch

from rightreasons.core import Batch, MissingAnnotation
from rightreasons.data import Augmentation
from rightreasons.data.randomize import meaningless, randomized


def marked(images=6):
    inputs = torch.arange(images, dtype=torch.float32).view(-1, 1, 1, 1).expand(images, 1, 4, 4) / images
    mask = torch.zeros(images, 1, 4, 4)
    mask[:, :, :2, :2] = 1
    return Batch(inputs.clone(), torch.zeros(images, dtype=torch.long), irrelevant=mask)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_only_irrelevant_pixels_change():
    batch = marked()
    found = randomized(batch, "uniform", (2.0, 3.0), generator())
    patch = batch.irrelevant.bool()
    assert ((found.inputs[patch] >= 2) & (found.inputs[patch] < 3)).all()
    assert len(found.inputs[patch].unique()) == patch.sum()
    assert found.inputs[~patch].equal(batch.inputs[~patch])


def test_swapped_pixels_are_those_of_another_image():
    batch = marked()
    found = randomized(batch, "swapped", (0.0, 1.0), generator())
    corner = found.inputs[:, 0, 0, 0]
    assert (corner != batch.inputs[:, 0, 0, 0]).all()
    assert torch.isin(corner, batch.inputs[:, 0, 0, 0]).all()
    assert found.inputs[:, 0, 0, 0].equal(found.inputs[:, 0, 1, 1])


def test_a_single_image_has_no_other_to_swap_with():
    batch = marked(1)
    assert randomized(batch, "swapped", (0.0, 1.0), generator()).inputs.equal(batch.inputs)


def test_images_without_annotation_stay():
    batch = replace(marked(), annotated=torch.tensor([True, False] * 3))
    found = randomized(batch, "uniform", (2.0, 3.0), generator())
    changed = (found.inputs != batch.inputs).flatten(1).any(1)
    assert changed.tolist() == [True, False] * 3


def test_a_soft_mask_mixes():
    batch = replace(marked(), irrelevant=torch.full((6, 1, 4, 4), 0.25))
    found = randomized(batch, "uniform", (8.0, 8.0 + 1e-6), generator())
    torch.testing.assert_close(found.inputs, 0.75 * batch.inputs + 2.0, atol=1e-5, rtol=0)


def test_without_masks_it_is_refused():
    with pytest.raises(MissingAnnotation, match="no irrelevant masks"):
        randomized(replace(marked(), irrelevant=None), "uniform", (0.0, 1.0), generator())


def test_the_generator_alone_decides():
    batch = marked()
    assert meaningless(batch.inputs, "uniform", (0.0, 1.0), generator(1)).equal(
        meaningless(batch.inputs, "uniform", (0.0, 1.0), generator(1))
    )


def test_an_augmentation_randomizes_before_it_moves():
    batch = marked()
    still = Augmentation(irrelevant="uniform", low=2.0, high=3.0)(batch, generator())
    assert still.inputs.equal(randomized(batch, "uniform", (2.0, 3.0), generator()).inputs)
    moved = Augmentation(irrelevant="uniform", low=2.0, high=3.0, shift=1)(batch, generator())
    assert not moved.inputs.equal(still.inputs)
    noise = (moved.inputs >= 2 - 1e-4) & (moved.inputs <= 3)
    assert noise.equal(moved.irrelevant > 0.99)
    assert Augmentation()(batch, generator()) is batch


@pytest.mark.wrong_types
@pytest.mark.parametrize("settings", [{"irrelevant": "black"}, {"low": 1.0, "high": 1.0}])
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="expected"):
        Augmentation(**settings)
