import pytest
import torch
from torch.utils.data import DataLoader

from rightreasons.data import ArrayDataset, Rescaled, Subset, split, whole


def images(number=6, classes=3):
    pixels = (torch.arange(number * 2 * 4 * 5) % 256).to(torch.uint8).view(number, 2, 4, 5)
    return ArrayDataset(pixels, torch.arange(number) % classes, classes=list("abc"), name="made")


def test_bytes_come_out_as_unit_floats():
    data = ArrayDataset(
        torch.tensor([[[[0, 51, 255]]]], dtype=torch.uint8), torch.tensor([0]), classes=["a"], name="made"
    )
    assert data[0].inputs.dtype == torch.float32
    assert data[0].inputs.flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert data.images.dtype == torch.uint8


def test_masks_annotation_and_group_travel():
    mask = torch.zeros(6, 1, 4, 5, dtype=torch.bool)
    mask[2, 0, 1, 1] = True
    data = images()
    data = ArrayDataset(
        data.images,
        data.target,
        classes=data.classes,
        name="made",
        relevant=mask,
        irrelevant=mask.float() / 2,
        annotated=torch.arange(6) == 2,
        group=torch.arange(6),
    )
    batch = data.batch(torch.tensor([2, 0]))
    assert batch.relevant.sum() == 1
    assert batch.relevant[0, 0, 1, 1] == 1
    assert batch.irrelevant[0, 0, 1, 1] == 0.5
    assert batch.annotated.tolist() == [True, False]
    assert batch.group.tolist() == batch.index.tolist() == [2, 0]


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(2, 1, 3, 3)}, "expected uint8 images"),
        ({"target": torch.tensor([0, 7])}, "label out of range: expected 0 to 1, got 7"),
        ({"target": torch.tensor([0, -1])}, "label out of range: expected 0 to 1, got -1"),
        ({"target": torch.tensor([0])}, "expected 2 class numbers"),
        ({"relevant": torch.zeros(2, 1, 3, 4)}, "expected relevant masks of shape"),
        ({"irrelevant": torch.full((2, 1, 3, 3), 2.0)}, r"expected irrelevant masks in \[0, 1\]"),
        ({"irrelevant": torch.ones(2, 1, 3, 3, dtype=torch.uint8)}, "boolean or in"),
        ({"group": torch.zeros(3, dtype=torch.int64)}, "expected group of shape"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    given = {"images": torch.zeros(2, 1, 3, 3, dtype=torch.uint8), "target": torch.tensor([0, 1])} | change
    with pytest.raises(ValueError, match=message):
        ArrayDataset(given.pop("images"), given.pop("target"), classes=["a", "b"], name="made", **given)


def test_a_subset_counts_its_own_positions():
    data = images()
    part = Subset(data, [4, 1])
    batch = part.batch(torch.tensor([1]))
    assert torch.equal(batch.inputs, data[1].inputs)
    assert batch.index.tolist() == [1]
    assert part.target.tolist() == [1, 1]
    assert len(part) == 2
    assert part.name == "made + 2 images"
    with pytest.raises(ValueError, match="positions from 0 to 5"):
        Subset(data, [6])


def test_rescaling_is_linear_and_tells_its_range():
    data = images()
    raw = Rescaled(data, 0, 255)
    assert torch.allclose(raw[3].inputs, data.images[3:4].float())
    signed = Rescaled(raw, -1, 1)
    assert torch.allclose(signed[3].inputs, data[3].inputs * 2 - 1, atol=1e-6)
    assert signed.pixel_range == (-1, 1)
    assert signed.name == "made + pixels in 0..255 + pixels in -1..1"
    with pytest.raises(ValueError, match="low < high"):
        Rescaled(data, 1, 1)


def test_a_loader_fetches_whole_batches():
    loader = DataLoader(images(), batch_size=4, collate_fn=whole)
    assert [len(batch) for batch in loader] == [4, 2]


def test_the_fingerprint_sees_a_single_pixel():
    one, other = images(), images()
    assert one.fingerprint() == other.fingerprint(chunk=6)
    other.images[5, 1, 3, 4] ^= 1
    assert one.fingerprint() != other.fingerprint()


def test_a_split_is_stratified_disjoint_and_seeded():
    pixels = torch.zeros(100, 1, 1, 1, dtype=torch.uint8)
    target = torch.tensor([0] * 70 + [1] * 30)
    data = ArrayDataset(pixels, target, classes=["a", "b"], name="made")
    rest, held = split(data, 0.1, seed=3)
    assert held.target.bincount().tolist() == [7, 3]
    assert sorted([*rest.index.tolist(), *held.index.tolist()]) == list(range(100))
    assert split(data, 0.1, seed=3)[1].index.tolist() == held.index.tolist()
    assert split(data, 0.1, seed=4)[1].index.tolist() != held.index.tolist()
    assert held.name == "made + held out of split 0.1, seed 3"


@pytest.mark.parametrize("share", [0, 1, 0.001])
def test_a_split_with_an_empty_part_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        split(images(), share)


def test_the_fingerprint_does_not_depend_on_the_chunks():
    masks = {"irrelevant": torch.rand(6, 1, 4, 5), "group": torch.arange(6)}
    data = ArrayDataset(images().images, torch.arange(6) % 3, classes=list("abc"), name="made", **masks)
    assert len({data.fingerprint(chunk=chunk) for chunk in (1, 2, 4, 6, 100)}) == 1


def test_the_fingerprint_sees_shapes_types_and_every_field():
    def of(*size, dtype=torch.uint8, **more):
        pixels = torch.zeros(4, 1, *size, dtype=dtype)
        return ArrayDataset(pixels, torch.zeros(4).long(), classes=["a"], name="made", **more).fingerprint()

    mask = torch.zeros(4, 1, 8, 8)
    found = [
        of(8, 8),
        of(4, 16),
        of(8, 8, group=torch.zeros(4).long()),
        of(8, 8, group=torch.arange(4)),
        of(8, 8, relevant=mask),
        of(8, 8, irrelevant=mask),
    ]
    assert len(set(found)) == len(found)


def test_the_sampled_fingerprint_sees_labels_and_first_and_last_images():
    def changed(change):
        data = images(100)
        change(data)
        return data.sampled_fingerprint(8)

    same = [changed(lambda data: None) for _ in range(2)]
    others = [
        changed(lambda data: data.images[0].bitwise_xor_(torch.tensor(1, dtype=torch.uint8))),
        changed(lambda data: data.images[99].bitwise_xor_(torch.tensor(1, dtype=torch.uint8))),
        changed(lambda data: data.target[50].add_(1)),
    ]
    assert len(set(same)) == 1
    assert len({*same, *others}) == 4
