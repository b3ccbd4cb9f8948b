import pytest
import torch

from rightreasons.data import (
    DECOYS,
    WITHOUT_SIGN,
    ArrayDataset,
    OfClasses,
    PastedDecoy,
    Subset,
    decoy,
    drawn,
    split,
    split_as_held,
    swapped,
)
from rightreasons.data.pasted import filled
from rightreasons.data.textures import FAMILIES, Textures

CANVAS = 20


def frames(number=120, classes=2):
    """Grey squares of 6x5 pixels with a hole, on black, in the middle of 10x8 pixels."""
    images = torch.zeros(number, 1, 10, 8, dtype=torch.uint8)
    images[:, :, 2:8, 1:6] = 200
    images[:, :, 4:6, 3] = 0
    target = torch.arange(number) % classes
    return ArrayDataset(images, target, classes=[str(k) for k in range(classes)], name="frames")


def pasted(part="train", seed=0, data=None, protocol="decoy/texture"):
    return decoy(data or frames(), protocol, split=part, seed=seed, size=CANVAS)


def whole_of(data):
    return data.batch(torch.arange(len(data)))


def test_the_object_lies_whole_and_unchanged_on_the_canvas_and_the_mask_is_the_object():
    batch = whole_of(pasted())
    assert batch.inputs.shape == (120, 1, CANVAS, CANVAS)
    for image, mask in zip(batch.inputs[:, 0], batch.relevant[:, 0], strict=True):
        rows, columns = mask.nonzero(as_tuple=True)
        assert len(rows) == 30
        top, left = int(rows.min()), int(columns.min())
        assert (int(rows.max()) - top, int(columns.max()) - left) == (5, 4)
        expected = torch.full((6, 5), 200 / 255)
        expected[2:4, 2] = 0
        torch.testing.assert_close(image[top : top + 6, left : left + 5], expected)


def test_objects_are_everywhere():
    rows = whole_of(pasted()).relevant.flatten(2).argmax(dim=2) // CANVAS
    assert set((rows - 2).flatten().tolist()) == set(range(CANVAS - 10 + 1))


@pytest.mark.parametrize("classes", [2, 3])
def test_in_training_the_background_is_the_own_classs_as_often_as_the_protocol_says(classes):
    data = pasted(data=frames(3000, classes))
    assert (data.shown == data.target).float().mean() == pytest.approx(DECOYS["decoy/texture"].agreement, abs=0.02)
    families = data.families(torch.arange(3000))
    assert torch.equal(families % classes, data.shown)
    assert set(families.tolist()) == set(range(len(FAMILIES)))


def test_in_the_test_the_background_says_nothing():
    data = pasted("test", data=frames(3000))
    assert (data.shown == data.target).float().mean() == pytest.approx(0.5, abs=0.03)


def test_the_clean_bound_has_backgrounds_that_say_nothing_in_training_either():
    free = pasted(protocol=WITHOUT_SIGN["decoy/texture"], data=frames(3000))
    assert (free.shown == free.target).float().mean() == pytest.approx(0.5, abs=0.03)
    assert whole_of(pasted()).relevant.equal(whole_of(pasted(protocol=WITHOUT_SIGN["decoy/texture"])).relevant)


def test_in_training_as_much_background_is_marked_as_the_object_is_large_and_in_the_test_all():
    batch = whole_of(pasted())
    assert (batch.relevant * batch.irrelevant).sum() == 0
    assert torch.equal(batch.irrelevant.sum(dim=(1, 2, 3)), batch.relevant.sum(dim=(1, 2, 3)))
    assert len({tuple(mask.flatten().tolist()) for mask in batch.irrelevant[:20]}) == 20
    test = whole_of(pasted("test"))
    assert torch.equal(test.irrelevant, 1 - test.relevant)


def test_masks_that_the_images_carry_are_the_objects():
    data = frames(8)
    own = torch.zeros(8, 1, 10, 8)
    own[:, :, 3, 2:4] = 1
    data.relevant = own
    assert whole_of(pasted(data=data)).relevant.sum(dim=(1, 2, 3)).tolist() == [2.0] * 8


def test_swapping_changes_the_background_alone():
    data = pasted()
    other = swapped(data, seed=3)
    before, after = whole_of(data), whole_of(other)
    assert torch.equal(other.shown, 1 - data.shown)
    assert torch.equal(before.relevant, after.relevant)
    assert torch.equal(before.inputs * before.relevant, after.inputs * after.relevant)
    changed = ((before.inputs != after.inputs) & (before.relevant == 0)).float().mean(dim=(1, 2, 3))
    assert changed.min() > 0.3


def test_an_image_does_not_depend_on_when_or_with_which_others_it_is_asked_for():
    late, early = pasted(), pasted()
    late.batch(torch.tensor([7, 1]))
    index = torch.tensor([3, 7])
    assert torch.equal(late.batch(index).inputs, whole_of(early).inputs[index])
    assert torch.equal(late.batch(index).irrelevant, whole_of(early).irrelevant[index])
    assert not torch.equal(pasted(seed=1).batch(index).inputs, late.batch(index).inputs)


def test_a_canvas_that_is_too_small_or_classes_without_a_background_are_refused():
    with pytest.raises(ValueError, match="expected a canvas of at least 10 pixels, got 9"):
        decoy(frames(), "decoy/texture", split="train", size=9)
    with pytest.raises(ValueError, match="expected at most 6 classes for a background, got 7"):
        pasted(data=frames(14, 7))
    with pytest.raises(ValueError, match="three channels"):
        decoy(frames(), "decoy/wallpaper", split="train", size=CANVAS)


def test_holes_are_filled_and_bays_are_not():
    mask = torch.tensor([[1, 1, 1, 1], [1, 0, 1, 0], [1, 1, 1, 1]]).bool()
    assert filled(mask[None])[0].int().tolist() == [[1, 1, 1, 1], [1, 1, 1, 0], [1, 1, 1, 1]]


def test_families_look_different_and_images_of_a_family_too():
    textures = Textures(32, seed=0)
    every = textures.draw(torch.zeros(6, dtype=torch.int64), torch.arange(6))
    assert every.shape == (6, 1, 32, 32)
    assert (every >= 0).all()
    assert (every <= 1).all()
    assert len({tuple(image.flatten().tolist()) for image in every}) == 6
    one = textures.draw(torch.arange(5), torch.zeros(5, dtype=torch.int64))
    assert len({tuple(image.flatten().tolist()) for image in one}) == 5
    with pytest.raises(ValueError, match="expected families 0 to 5"):
        textures.draw(torch.tensor([0]), torch.tensor([6]))


def test_the_grey_of_a_texture_does_not_tell_its_family():
    positions = torch.arange(120)
    means = [
        Textures(24, 0).draw(positions, torch.full_like(positions, k)).mean(dim=(1, 2, 3)).mean()
        for k in range(len(FAMILIES))
    ]
    assert max(means) - min(means) < 0.15


def test_fewer_classes_are_numbered_anew_in_the_order_in_which_they_are_named():
    data = frames(12, 3)
    part = OfClasses(data, ["2", "0"])
    assert part.classes == ("2", "0")
    assert part.target.tolist() == [1, 0] * 4
    assert part.batch(torch.tensor([0, 1])).target.tolist() == [1, 0]
    assert part.index.tolist() == [0, 2, 3, 5, 6, 8, 9, 11]
    with pytest.raises(ValueError, match="has no class '7'"):
        OfClasses(data, ["0", "7"])
    with pytest.raises(ValueError, match="at least two different classes"):
        OfClasses(data, ["0"])


def test_some_images_evenly_from_all_classes():
    part = drawn(frames(90, 3), 11, seed=4)
    assert torch.bincount(part.target).tolist() == [4, 4, 3]
    assert torch.equal(part.index, drawn(frames(90, 3), 11, seed=4).index)
    assert not torch.equal(part.index, drawn(frames(90, 3), 11, seed=5).index)
    with pytest.raises(ValueError, match="expected 31 images of class '0'"):
        drawn(frames(90, 3), 91)


def test_images_that_the_data_set_holds_out_itself():
    data = frames(10)
    with pytest.raises(ValueError, match="holds out no images"):
        split_as_held(data)
    data.held = torch.arange(10) >= 6
    rest, held = split_as_held(pasted(data=Subset(data, [9, 0, 8, 1])))
    assert (rest.index.tolist(), held.index.tolist()) == ([1, 3], [0, 2])
    assert split(frames(10), 0.2)[0].held is None


def test_it_is_a_decoy_like_any_other():
    assert isinstance(pasted(), PastedDecoy)
    assert pasted().protocol == "decoy/texture"
    assert "decoy/texture (train, seed 0, 20x20)" in pasted().name
    assert torch.equal(pasted().patch(torch.tensor([2])), whole_of(pasted()).relevant[2:3] == 0)
