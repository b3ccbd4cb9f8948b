import pytest
import torch

from rightreasons.core import Batch
from rightreasons.data import Augmentation, augment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def marked(number=64, height=20, width=24):
    """A bright marker at a random place; it is the irrelevant mask, and its left upper pixel the relevant one."""
    irrelevant, relevant = torch.zeros(number, 1, height, width), torch.zeros(number, 1, height, width)
    tops = torch.randint(4, height - 8, (number,), generator=generator(1))
    lefts = torch.randint(4, width - 8, (number,), generator=generator(2))
    for image, (top, left) in enumerate(zip(tops, lefts, strict=True)):
        irrelevant[image, 0, top : top + 3, left : left + 3] = 1
        relevant[image, 0, top, left] = 1
    inputs = torch.cat([irrelevant, irrelevant - relevant], dim=1)
    return Batch(inputs, torch.zeros(number).long(), relevant=relevant, irrelevant=irrelevant)


EVERYTHING = Augmentation(shift=3, rotation=25, scale=0.2, crop=0.8, flip=True)


@pytest.mark.parametrize(
    "settings",
    [
        EVERYTHING,
        Augmentation(shift=4),
        Augmentation(rotation=40),
        Augmentation(scale=0.3),
        Augmentation(crop=0.6),
        Augmentation(flip=True),
    ],
)
def test_a_marker_and_its_masks_move_together(settings):
    batch = marked()
    moved = augment(batch, settings, generator())
    assert not torch.allclose(moved.inputs, batch.inputs, atol=1e-3)
    assert torch.allclose(moved.inputs[:, :1], moved.irrelevant, atol=1e-6)
    assert torch.allclose(moved.inputs[:, 1:], moved.irrelevant - moved.relevant, atol=1e-6)
    assert moved.irrelevant.min() >= 0
    assert moved.irrelevant.max() <= 1


def test_nearest_keeps_masks_binary_and_on_the_marker():
    settings = Augmentation(shift=2, rotation=30, scale=0.2, flip=True, masks="nearest")
    moved = augment(marked(), settings, generator())
    assert set(moved.irrelevant.unique().tolist()) == {0, 1}
    assert (moved.inputs[:, :1][moved.irrelevant == 1] > 0.2).all()
    assert (moved.irrelevant[moved.inputs[:, :1] > 0.8] == 1).all()


def test_a_shift_is_whole_pixels_and_fills_from_outside():
    batch = marked()
    moved = augment(batch, Augmentation(shift=2, fill=0.5), generator())
    offsets = set()
    for image in range(len(batch)):
        (old,), (new,) = (m[image, 0].round().nonzero() for m in (batch.relevant, moved.relevant))
        down, right = (new - old).tolist()
        offsets.add((down, right))
        expected = batch.inputs[image].roll((down, right), dims=(1, 2))
        rows = slice(max(down, 0), 20 + min(down, 0))
        columns = slice(max(right, 0), 24 + min(right, 0))
        assert torch.allclose(moved.inputs[image, :, rows, columns], expected[:, rows, columns], atol=1e-4)
        if down > 0:
            assert torch.allclose(moved.inputs[image, :, :down], torch.tensor(0.5), atol=1e-4)
            assert moved.irrelevant[image, :, :down].abs().max() < 1e-4
    assert len(offsets) > 15
    assert max(abs(step) for offset in offsets for step in offset) == 2


def test_a_flip_is_exact_and_happens_half_of_the_time():
    batch = marked(400)
    moved = augment(batch, Augmentation(flip=True), generator())
    same, flipped = (
        (moved.inputs - wanted).abs().amax(dim=(1, 2, 3)) < 1e-4 for wanted in (batch.inputs, batch.inputs.flip(3))
    )
    assert (same | flipped).all()
    assert 150 < flipped.sum() < 250


def test_rotation_keeps_distances_on_oblong_images():
    inputs = torch.zeros(50, 1, 31, 61)
    inputs[:, :, 15, 30 + 10] = 1
    batch = Batch(inputs, torch.zeros(50).long())
    moved = augment(batch, Augmentation(rotation=90), generator()).inputs[:, 0]
    weight = moved.sum(dim=(1, 2))
    rows = (moved.sum(dim=2) * torch.arange(31)).sum(dim=1) / weight - 15
    columns = (moved.sum(dim=1) * torch.arange(61)).sum(dim=1) / weight - 30
    assert torch.allclose(rows.square() + columns.square(), torch.tensor(100.0), atol=12)
    assert (columns > -1).all()
    assert rows.min() < -7
    assert rows.max() > 7


def test_a_crop_stays_inside_the_image():
    batch = Batch(torch.ones(50, 1, 16, 16), torch.zeros(50).long())
    moved = augment(batch, Augmentation(crop=0.5, fill=9.0), generator())
    assert torch.allclose(moved.inputs, batch.inputs, atol=1e-3)


def test_nothing_asked_nothing_changed_and_a_seed_repeats():
    batch = marked()
    still = augment(batch, Augmentation(), generator())
    assert torch.allclose(still.inputs, batch.inputs, atol=1e-4)
    assert still.target is batch.target
    one, again, other = (augment(batch, EVERYTHING, generator(seed)).inputs for seed in (3, 3, 4))
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    bare = augment(Batch(batch.inputs, batch.target), EVERYTHING, generator(3))
    assert torch.equal(bare.inputs, one)
    assert bare.relevant is None


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "settings", [{"shift": -1}, {"rotation": -1}, {"scale": 1}, {"crop": 0}, {"crop": 1.5}, {"masks": "cubic"}]
)
def test_settings_out_of_range(settings):
    with pytest.raises(ValueError, match="expected"):
        Augmentation(**settings)


def test_an_augmentation_is_called_as_the_loop_calls_it():
    batch = marked(8)
    moved, expected = EVERYTHING(batch, generator()), augment(batch, EVERYTHING, generator())
    assert moved.inputs.equal(expected.inputs)
    assert moved.irrelevant.equal(expected.irrelevant)
    assert not moved.inputs.equal(batch.inputs)
