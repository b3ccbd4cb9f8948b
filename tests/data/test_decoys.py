import colorsys

import pytest
import torch

from rightreasons.core import MissingAnnotation
from rightreasons.data import (
    DECOYS,
    Annotated,
    ArrayDataset,
    Rescaled,
    Subset,
    WithMasks,
    decoy,
    load,
    swapped,
)

PATCHES = ["decoy/rrr", "decoy/typology", "decoy/cdep", "decoy/r4"]


def gray(number=400, side=28, value=101):
    pixels = torch.full((number, 1, side, side), value, dtype=torch.uint8)
    return ArrayDataset(pixels, torch.arange(number) % 10, classes=[str(d) for d in range(10)], name="gray")


def whole_of(data):
    return data.batch(torch.arange(len(data)))


def painted(data):
    """For each image: corner (bottom, right), side and grey of the square, found by looking at the pixels."""
    found = []
    for image in (whole_of(data).inputs[:, 0] * 255).round().int():
        rows, columns = (image != 101).nonzero(as_tuple=True)
        side = int(rows.max() - rows.min()) + 1
        assert int(columns.max() - columns.min()) + 1 == side
        assert len(rows) == side * side
        assert rows.min() in (0, image.shape[0] - side)
        assert columns.min() in (0, image.shape[1] - side)
        shade = image[rows, columns].unique().tolist()
        assert len(shade) == 1
        found.append((bool(rows.min()), bool(columns.min()), side, shade[0]))
    return found


@pytest.mark.parametrize(("protocol", "side"), [(p, 5 if p == "decoy/cdep" else 4) for p in PATCHES])
def test_in_training_the_square_tells_the_class(protocol, side):
    data = decoy(gray(), protocol, split="train", seed=2)
    found = painted(data)
    assert [shade for *_, shade in found] == [255 - 25 * int(y) for y in data.target]
    assert {s for _, _, s, _ in found} == {side}
    corners = [(bottom, right) for bottom, right, *_ in found]
    assert all(70 <= corners.count(corner) <= 130 for corner in set(corners))
    assert len(set(corners)) == 4


@pytest.mark.parametrize("protocol", ["decoy/rrr", "decoy/typology"])
def test_a_random_test_shade_is_a_classs_and_says_nothing(protocol):
    data = decoy(gray(4000), protocol, split="test")
    shades = torch.tensor([shade for *_, shade in painted(data)])
    classes = (255 - shades) // 25
    assert torch.equal(255 - 25 * classes, shades)
    assert torch.equal(classes, data.shown)
    assert 320 <= int((classes == data.target).sum()) <= 480
    assert classes.bincount(minlength=10).min() > 320


def test_cdep_inverts_the_shade_and_marks_all_corners():
    data = decoy(gray(), "decoy/cdep", split="test")
    assert [shade for *_, shade in painted(data)] == [25 * int(y) for y in data.target]
    corners = torch.zeros(28, 28)
    for rows in (slice(0, 5), slice(23, 28)):
        for columns in (slice(0, 5), slice(23, 28)):
            corners[rows, columns] = 1
    assert torch.equal(whole_of(data).irrelevant, corners.expand(400, 1, 28, 28))
    assert whole_of(decoy(gray(), "decoy/cdep", split="train")).irrelevant.sum() == 400 * 100


def test_r4_shows_another_class_and_recolors_its_shade_everywhere():
    clean = gray(200)
    clean.images[:, 0, 14, 14] = (255 - 25 * clean.target).to(torch.uint8)
    clean.images[:, 0, 15, 15] = 3
    data = decoy(clean, "decoy/r4", split="test")
    assert (data.shown != data.target).all()
    inputs = (whole_of(data).inputs * 255).round().int()
    expected = 255 - 25 * data.shown
    assert torch.equal(inputs[:, 0, 14, 14], expected.int())
    assert (inputs[:, 0, 15, 15] == 3).all()
    patch = whole_of(data).irrelevant.bool()
    assert torch.equal(inputs[patch].view(200, 16), expected.int().view(-1, 1).expand(200, 16))
    train = whole_of(decoy(clean, "decoy/r4", split="train")).inputs
    assert torch.equal((train[:, 0, 14, 14] * 255).round(), 255.0 - 25 * clean.target)


@pytest.mark.parametrize("protocol", ["decoy/rrr", "decoy/typology", "decoy/r4"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_the_mask_is_exactly_the_square(protocol, split):
    data = decoy(gray(100), protocol, split=split)
    batch = whole_of(data)
    assert torch.equal(batch.irrelevant.bool(), (batch.inputs * 255).round() != 101)
    assert torch.equal(batch.irrelevant.bool(), data.patch(torch.arange(100)))
    assert batch.relevant is None
    assert batch.annotated_rows().all()


def test_the_foreground_is_the_bright_part_of_the_clean_image_outside_the_mask():
    clean = gray(40, value=0)
    clean.images[:, 0, 10:12, 10:13] = 200
    clean.images[:, 0, 0, 0] = 200
    clean.images[:, 0, 20, 20] = 20
    batch = whole_of(decoy(clean, "decoy/rrr", split="train", foreground=0.5))
    assert (batch.relevant[:, 0, 10:12, 10:13] == 1).all()
    covered = batch.irrelevant[:, 0, 0, 0] == 1
    assert torch.equal(batch.relevant.sum(dim=(1, 2, 3)), torch.where(covered, 6.0, 7.0))
    assert 0 < covered.sum() < 40


def test_colors_follow_the_class_in_training_and_run_backwards_in_the_test():
    train, test = (decoy(gray(value=255), "decoy/color", split=s) for s in ("train", "test"))
    assert train.shape == (3, 28, 28)
    for position in range(10):
        lightness = 0.5 + (128 / 510 - 0.5) * position / 9
        color = torch.tensor(colorsys.hls_to_rgb(position / 9 * 300 / 360, lightness, 1.0))
        assert torch.allclose(train[position].inputs[0, :, 3, 3], color)
        assert torch.allclose(test[9 - position].inputs[0, :, 3, 3], color)
    assert train.colors[0].tolist() == [1, 0, 0]
    assert torch.allclose(train.colors[9] * 255, torch.tensor([128.0, 0, 128]))
    assert whole_of(train).irrelevant is None
    half = decoy(gray(value=51), "decoy/color", split="train")
    assert torch.allclose(half[7].inputs, train[7].inputs * 0.2)


def test_decoys_on_color_images_fill_all_channels():
    pixels = torch.zeros(4, 3, 28, 28, dtype=torch.uint8)
    data = decoy(ArrayDataset(pixels, torch.arange(4), classes=list("abcd"), name="rgb"), "decoy/rrr", split="train")
    batch = whole_of(data)
    assert torch.equal(batch.inputs > 0, batch.irrelevant.bool().expand(4, 3, 28, 28))


@pytest.mark.parametrize("protocol", [*PATCHES, "decoy/color"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_swapping_changes_the_decoy_to_another_class_and_nothing_else(protocol, split):
    clean = gray()
    clean.images[:, 0, 14, 14] = (255 - 25 * clean.target).to(torch.uint8)
    data = decoy(clean, protocol, split=split)
    other = data.swapped(seed=5)
    index = torch.arange(400)
    before, after = data.batch(index), other.batch(index)
    changed = (before.inputs != after.inputs).any(dim=1, keepdim=True)
    assert torch.equal(changed, data.patch(index))
    assert (other.shown != data.shown).all()
    assert (data.swapped(seed=6).shown != other.shown).any()
    assert other.shown.bincount(minlength=10).min() > 20
    assert other.name == data.name + ", swapped (seed 5)"
    assert torch.equal(data.batch(index).inputs, before.inputs)
    if protocol != "decoy/color":
        assert torch.equal(before.irrelevant, after.irrelevant)
        palette = {25 * k if protocol == "decoy/cdep" and split == "test" else 255 - 25 * k for k in range(10)}
        assert set((after.inputs[changed] * 255).round().int().tolist()) <= palette


def test_swapping_reaches_through_wrappers():
    data = decoy(gray(), "decoy/rrr", split="train")
    wrapped = Rescaled(Subset(Annotated(data, count=10), [3, 5]), 0, 255)
    other = swapped(wrapped, seed=1)
    expected = data.swapped(1).batch(torch.tensor([3, 5])).inputs * 255
    assert torch.allclose(whole_of(other).inputs, expected)
    assert "swapped (seed 1)" in other.name
    assert other.pixel_range == (0, 255)
    with pytest.raises(ValueError, match="expected data with a decoy, got gray"):
        swapped(gray())


def test_the_drawn_numbers_depend_on_the_seed_and_only_on_it():
    first, again, other = (decoy(gray(40), "decoy/rrr", split="test", seed=s) for s in (0, 0, 1))
    assert first.fingerprint() == again.fingerprint() != other.fingerprint()
    assert torch.equal(first[7].inputs, whole_of(first).inputs[7:8])


HASHES = {
    "decoy/rrr": (
        "d49d6012d101ceee",
        "4b5bd97c4143eb81",
    ),
    "decoy/typology": (
        "d49d6012d101ceee",
        "4b5bd97c4143eb81",
    ),
    "decoy/cdep": (
        "8a1182be931a145e",
        "8ccd12ee020080b2",
    ),
    "decoy/r4": (
        "d49d6012d101ceee",
        "5a90c076d48bd6fd",
    ),
}


@pytest.mark.parametrize("protocol", PATCHES)
def test_the_decoyed_digits_are_the_same_everywhere(protocol):
    found = tuple(
        decoy(load("digits", part), protocol, split=part, seed=0, size=2).fingerprint()[:16]
        for part in ("train", "test")
    )
    assert found == HASHES[protocol]


def test_the_name_tells_protocol_split_seed_and_size():
    data = decoy(load("digits", "test"), "decoy/typology", split="test", seed=3, size=2)
    assert data.name == "digits/test + decoy/typology (test, seed 3, 2x2)"
    assert data.protocol == "decoy/typology"
    assert "2203.03668" in data.source
    assert data.clean.name == "digits/test"
    assert DECOYS["decoy/typology"].size == 4


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"protocol": "decoy/none"}, "There are: decoy/rrr"),
        ({"split": "val"}, "expected split train or test"),
        ({"data": Rescaled(gray(10), 0, 255)}, "rescale afterwards"),
        ({"data": gray(10, side=8), "protocol": "decoy/cdep"}, "choose another with size="),
        ({"size": 0}, "expected a patch of 1 to 14"),
        ({"protocol": "decoy/color", "size": 2}, "no patch"),
        ({"protocol": "decoy/color", "data": decoy(gray(10), "decoy/color", split="train")}, "one channel"),
    ],
)
def test_what_does_not_fit_is_refused(settings, message):
    given = {"data": gray(10), "protocol": "decoy/rrr", "split": "train"} | settings
    with pytest.raises(ValueError, match=message):
        decoy(given.pop("data"), given.pop("protocol"), **given)


def test_more_than_ten_classes_are_refused():
    data = ArrayDataset(
        torch.zeros(1, 1, 8, 8, dtype=torch.uint8), torch.zeros(1).long(), classes=list("abcdefghijk"), name="many"
    )
    with pytest.raises(ValueError, match="at most 10 classes"):
        decoy(data, "decoy/rrr", split="train")


def test_zero_masks_mark_nothing_but_count():
    batch = whole_of(WithMasks(decoy(gray(20), "decoy/rrr", split="train", foreground=0.1), "zero"))
    assert batch.irrelevant.sum() == batch.relevant.sum() == 0
    assert batch.annotated_rows().all()


def test_random_masks_keep_the_area_and_forget_the_place():
    data = decoy(gray(2000, value=200), "decoy/rrr", split="train", foreground=0.5)
    control = WithMasks(data, "random", seed=1)
    true, random = whole_of(data), whole_of(control)
    assert (random.irrelevant.sum(dim=(1, 2, 3)) == 16).all()
    assert torch.equal(random.relevant, 1 - random.irrelevant)
    assert torch.equal(random.inputs, true.inputs)
    overlap = (random.irrelevant * true.irrelevant).sum() / 16 / 2000
    assert 0.01 < overlap < 0.03  # 16 / 784 by chance
    assert random.irrelevant.mean(dim=0).max() < 0.05
    position = torch.tensor([4, 9])
    assert torch.equal(control.batch(position).irrelevant, random.irrelevant[position])
    with pytest.raises(MissingAnnotation, match="gray"):
        whole_of(WithMasks(gray(3), "random"))


def test_a_random_mask_is_the_true_one_moved():
    oblong = ArrayDataset(
        torch.zeros(50, 1, 10, 40, dtype=torch.uint8), torch.zeros(50).long(), classes=["a"], name="oblong"
    )
    data = decoy(oblong, "decoy/rrr", split="train")
    control = WithMasks(data, "random", seed=2)
    true, moved = whole_of(data).irrelevant, whole_of(control).irrelevant
    for position in range(50):
        offsets = (int(control.down[position]), int(control.right[position]))
        assert torch.equal(moved[position], true[position].roll(offsets, dims=(1, 2)))
    assert control.down.max() < 10 <= 30 < control.right.max()
    assert not torch.equal(control.down, WithMasks(data, "random", seed=3).down)


@pytest.mark.parametrize("protocol", PATCHES)
def test_wrong_masks_never_touch_the_decoy(protocol):
    data = Subset(decoy(gray(200), protocol, split="train"), range(100))
    true, wrong = whole_of(data), whole_of(WithMasks(data, "wrong"))
    side = DECOYS[protocol].size
    assert (wrong.irrelevant.sum(dim=(1, 2, 3)) == side * side).all()
    assert (wrong.irrelevant * true.irrelevant).sum() == 0
    assert (wrong.irrelevant[:, 0, 0, 13] == 1).all()


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WithMasks(gray(3), "upside"), "expected kind zero, random, wrong"),
        (lambda: WithMasks(gray(3), "wrong"), "expected size="),
        (lambda: WithMasks(gray(3, side=8), "wrong", size=3), "leaves the corners"),
        (lambda: Annotated(gray(3)), "either count or share"),
        (lambda: Annotated(gray(3), count=1, share=0.5), "either count or share"),
        (lambda: Annotated(gray(3), count=4), "expected 0 to 3"),
    ],
)
def test_impossible_controls_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_only_the_chosen_images_stay_annotated():
    data = decoy(gray(), "decoy/rrr", split="train", foreground=0.1)
    batch = whole_of(Annotated(data, count=25, seed=1))
    assert batch.annotated.sum() == 25
    assert torch.equal(batch.irrelevant.sum(dim=(1, 2, 3)) > 0, batch.annotated)
    assert torch.equal(batch.relevant.sum(dim=(1, 2, 3)) > 0, batch.annotated)
    share = whole_of(Annotated(data, share=0.1, seed=2)).annotated
    assert share.sum() == 40
    again = whole_of(Annotated(Annotated(data, share=0.1, seed=2), count=400)).annotated
    assert torch.equal(again, share)
