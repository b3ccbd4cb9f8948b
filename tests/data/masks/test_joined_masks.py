import pytest
import torch
from PIL import Image
from tests.pictures import SIDE, image_folder

from rightreasons.core import CorruptData
from rightreasons.data import Annotations, ImageFolder, Marks, read_png, with_annotations


def corner(size=(SIDE, SIDE)):
    mask = torch.zeros(1, *size)
    mask[:, : size[0] // 3, : size[1] // 2] = 1
    return mask


def whole_of(data):
    return data.batch(torch.arange(len(data)))


def path_of(data, position):
    path = data.entries[position].image
    return f"{path.parent.name}/{path.name}"


@pytest.fixture
def data(tmp_path):
    return ImageFolder(image_folder(tmp_path / "photos", each=3, masks=False))


@pytest.mark.parametrize("size", [None, 5, (7, 9), (20, 13)])
def test_masks_from_elsewhere_are_those_of_the_folder(tmp_path, size):
    drawn = image_folder(tmp_path / "drawn", each=3)
    bare = image_folder(tmp_path / "bare", each=3, masks=False)
    expected = whole_of(ImageFolder(drawn, size=size))
    batch = whole_of(with_annotations(ImageFolder(bare, size=size), read_png(drawn)))
    for key in ("inputs", "relevant", "irrelevant", "annotated", "target"):
        assert torch.equal(getattr(batch, key), getattr(expected, key)), key


def test_some_images_are_annotated(data):
    joined = with_annotations(data, Annotations({"left/1.png": Marks(irrelevant=corner())}))
    batch = joined.batch(torch.tensor([4, 1]))
    assert batch.annotated.tolist() == [False, True]
    assert batch.relevant is None
    assert torch.equal(batch.irrelevant, torch.stack([torch.zeros_like(corner()), corner()]))
    assert joined.annotated.sum() == 1
    assert joined.name.endswith("+ 1 annotations")
    nothing = whole_of(with_annotations(data, Annotations()))
    assert nothing.annotated is None
    assert nothing.irrelevant is None


def test_the_folders_own_masks_stay(tmp_path):
    data = ImageFolder(image_folder(tmp_path / "photos", each=2))
    extra = torch.zeros(1, SIDE, SIDE)
    extra[:, 7, 7] = 1
    joined = whole_of(with_annotations(data, Annotations({"left/0.png": Marks(irrelevant=extra)})))
    own = whole_of(data)
    assert torch.equal(joined.irrelevant[0], torch.maximum(own.irrelevant[0], extra))
    assert torch.equal(joined.irrelevant[1:], own.irrelevant[1:])
    assert torch.equal(joined.relevant, own.relevant)
    assert joined.annotated.all()


@pytest.mark.parametrize(
    "name", ["left/2.png", "photos/left/2.png", "elsewhere/left/2.png", "left/2.jpg", "deep/photos/left/2"]
)
def test_names_match_by_their_ends(data, name):
    joined = with_annotations(data, Annotations({name: Marks(corner())}))
    assert {path_of(data, position) for position in joined.names} == {"left/2.png"}
    assert list(joined.named()) == ["left/2.png"]


def test_a_file_name_alone_is_enough_where_it_is_the_only_one(data):
    data.entries[0].image.rename(data.entries[0].image.with_name("only.png"))
    data = ImageFolder(data.entries[0].image.parents[1])
    joined = with_annotations(data, Annotations({"only.png": Marks(corner())}))
    assert [path_of(data, position) for position in joined.names] == ["left/only.png"]
    with pytest.raises(CorruptData, match=r"the annotation 1.png fits 2 images: .*left/1.png, .*right/1.png"):
        with_annotations(data, Annotations({"1.png": Marks(corner())}))


def test_names_that_fit_no_image(data):
    marks = Marks(corner())
    names = [f"left/{n}.png" for n in (1, 7, 8, 9, 10)]
    message = (
        r"^4 of 5 annotations fit no image in folder/photos: left/7.png, left/8.png, left/9.png, ...; "
        r"there are images such as left/0.png, left/1.png, left/2.png, ...$"
    )
    with pytest.raises(CorruptData, match=message):
        with_annotations(data, Annotations(dict.fromkeys(names, marks)))
    with pytest.raises(CorruptData, match="fit one image"):
        with_annotations(data, Annotations(dict.fromkeys(["left/1.png", "left/1.jpg"], marks)))


def test_one_file_may_annotate_two_folders(tmp_path):
    train, test = (ImageFolder(image_folder(tmp_path / part, each=2, masks=False)) for part in ("train", "test"))
    annotations = Annotations({"train/left/0.png": Marks(corner()), "test/left/0.png": Marks(1 - corner())})
    ours = with_annotations(train, annotations, others=[test])
    theirs = with_annotations(test, annotations, others=[train])
    assert torch.equal(ours[0].relevant[0], corner())
    assert torch.equal(theirs[0].relevant[0], 1 - corner())
    with pytest.raises(CorruptData, match="fits 2 images"):
        with_annotations(train, Annotations({"left/0.png": Marks(corner())}), others=[test])
    # What is annotated in the other folder only does not go to the image of the same name here.
    alone = with_annotations(train, Annotations({"test/left/0.png": Marks(corner())}), others=[test])
    assert not alone.annotated.any()


def test_masks_of_other_images(data):
    for size in ((SIDE, SIDE - 1), (2 * SIDE, SIDE), (100, 110)):
        message = rf"left/0.png is {size[0]}x{size[1]}, but its image .*left/0.png is {SIDE}x{SIDE} .* another image$"
        with pytest.raises(CorruptData, match=message):
            with_annotations(data, Annotations({"left/0.png": Marks(corner(size))}))


def test_a_mask_drawn_on_a_copy_of_another_size(data):
    joined = with_annotations(data, Annotations({"left/0.png": Marks(corner((2 * SIDE, 2 * SIDE)))}))
    mask = joined[0].relevant[0]
    assert mask.shape == (1, SIDE, SIDE)
    assert torch.equal((mask >= 0.5).float(), corner())


def test_a_smaller_copy_of_an_oblong_image(tmp_path):
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (16, 8)).save(tmp_path / "cat" / "a.png")
    small = torch.zeros(1, 4, 8)
    small[..., :4] = 1
    mask = with_annotations(ImageFolder(tmp_path), Annotations({"a.png": Marks(small)}))[0].relevant[0]
    assert mask.shape == (1, 8, 16)
    assert torch.equal((mask >= 0.5).float()[..., 0], torch.ones(1, 8))
    assert (mask >= 0.5).sum() == 64
    # As much as its own resizing says, and no step through the copy's size.
    assert (mask[..., :7].min(), mask[..., 9:].max()) == (1, 0)


def test_a_photograph_that_is_stored_turned(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "cat").mkdir()
    Image.new("RGB", (6, 4)).save(tmp_path / "cat" / "a.png", exif=exif)
    data = ImageFolder(tmp_path)
    upright = corner((6, 4))
    assert torch.equal(with_annotations(data, Annotations({"a.png": Marks(upright)}))[0].relevant[0], upright)
    with pytest.raises(CorruptData, match="it fits the image as stored, but masks are drawn on the image turned"):
        with_annotations(data, Annotations({"a.png": Marks(corner((4, 6)))}))


def test_masks_that_tell_nothing(data):
    empty, full = torch.zeros(1, SIDE, SIDE), torch.ones(1, SIDE, SIDE)
    with pytest.raises(CorruptData, match="no pixel is marked in any of 2 annotations"):
        with_annotations(data, Annotations(dict.fromkeys(["left/0.png", "left/1.png"], Marks(empty, empty))))
    with pytest.raises(CorruptData, match=r"every irrelevant mask \(1\) covers its whole image"):
        with_annotations(data, Annotations({"left/0.png": Marks(corner(), full)}))
