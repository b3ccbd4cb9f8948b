import numpy as np
import pytest
import torch
from PIL import Image

from rightreasons.core import CorruptData, DataUnavailable
from rightreasons.data import ImageFolder
from rightreasons.data.folder import Proportions


def draw(path, size=(6, 4), value=0, mode="RGB", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, value).save(path, **options)
    return path


@pytest.fixture
def root(tmp_path):
    draw(tmp_path / "cat" / "a.png", value=(255, 0, 51))
    draw(tmp_path / "cat" / "b.jpg", value=(0, 0, 0))
    draw(tmp_path / "dog" / "c.PNG", value=(102, 102, 102))
    return tmp_path


def whole_of(data):
    return data.batch(torch.arange(len(data)))


def test_images_and_classes(root):
    (root / ".hidden").mkdir()
    data = ImageFolder(root)
    assert data.classes == ("cat", "dog")
    assert data.target.tolist() == [0, 0, 1]
    assert data.shape == (3, 4, 6)
    assert data[0].inputs[0, :, 0, 0].tolist() == pytest.approx([1, 0, 0.2])
    assert whole_of(data).annotated is None
    assert whole_of(data).irrelevant is None
    gray = ImageFolder(root, channels=1)
    assert gray.shape == (1, 4, 6)
    assert gray[2].inputs.unique().tolist() == pytest.approx([0.4])


def test_the_order_of_the_classes_can_be_given(root):
    data = ImageFolder(root, classes=["dog", "bird", "cat"])
    assert data.target.tolist() == [0, 2, 2]
    with pytest.raises(CorruptData, match=r"unknown class 'dog': .*/dog is none of cat"):
        ImageFolder(root, classes=["cat"])


def test_masks_are_read_beside_the_images(root):
    mask = np.zeros((4, 6), np.uint8)
    mask[1, 2] = 255
    mask[3, 3] = 51
    folder = root / "cat" / "irrelevant"
    folder.mkdir()
    Image.fromarray(mask).save(folder / "b.png")
    batch = whole_of(ImageFolder(root))
    assert batch.relevant is None
    assert batch.annotated.tolist() == [False, True, False]
    expected = torch.zeros(3, 1, 4, 6)
    expected[1, 0, 1, 2], expected[1, 0, 3, 3] = 1, 0.2
    assert torch.allclose(batch.irrelevant, expected)
    unannotated = ImageFolder(root).batch(torch.tensor([0]))
    assert unannotated.irrelevant.sum() == 0
    assert unannotated.annotated.tolist() == [False]


@pytest.mark.parametrize("kind", ["ones", "palette", "bilevel", "color", "red", "layer", "black layer"])
def test_every_usual_form_of_a_mask_is_understood(root, kind):
    on = np.zeros((4, 6), np.uint8)
    on[:, 3:] = 1
    image = Image.fromarray(on)
    if kind == "palette":
        image = Image.frombytes("P", (6, 4), (on * 2).tobytes())
        image.putpalette([0, 0, 0, 9, 9, 9, 128, 0, 0])
    elif kind == "bilevel":
        image = Image.fromarray(on * 255).convert("1")
    elif kind == "color":
        image = Image.fromarray(on * 255).convert("RGB")
    elif kind == "red":
        image = Image.fromarray(np.stack([on * 255, on * 0, on * 0], axis=2))
    elif kind.endswith("layer"):
        brush = 0 if kind == "black layer" else 255
        image = Image.fromarray(np.stack([on * 0 + brush] * 3 + [on * 255], axis=2), "RGBA")
    (root / "dog" / "relevant").mkdir()
    image.save(root / "dog" / "relevant" / "c.png")
    assert torch.equal(ImageFolder(root)[2].relevant[0, 0], torch.from_numpy(on).float())


def test_resizing_takes_masks_along(root):
    draw(root / "dog" / "d.png", size=(12, 8), value=(255, 255, 255))
    mask = np.zeros((8, 12), np.uint8)
    mask[:, 6:] = 255
    (root / "dog" / "irrelevant").mkdir()
    Image.fromarray(mask).save(root / "dog" / "irrelevant" / "d.png")
    data = ImageFolder(root, size=(4, 4))
    assert data.shape == (3, 4, 4)
    last = data[3]
    assert torch.equal(last.inputs, torch.ones(1, 3, 4, 4))
    assert last.irrelevant[..., 0].max() == 0
    assert last.irrelevant[..., 3].min() == 1
    assert 0 <= last.irrelevant.min() <= last.irrelevant.max() <= 1
    assert ImageFolder(root, size=5).shape == (3, 5, 5)


def turned_photograph(root):
    """Stored 4 high and 6 wide with a bright upper left; shown turned, 6 high and 4 wide, bright upper right."""
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2, :3] = 255
    exif = Image.Exif()
    exif[0x0112] = 6
    (root / "cat").mkdir()
    Image.fromarray(pixels).save(root / "cat" / "a.png", exif=exif)
    upright = np.zeros((6, 4), np.uint8)
    upright[:3, 2:] = 255
    return pixels[..., 0], upright


def test_orientation_is_the_same_for_image_and_mask(tmp_path):
    stored, upright = turned_photograph(tmp_path)
    folder = tmp_path / "cat" / "irrelevant"
    folder.mkdir()
    Image.fromarray(upright).save(folder / "a.png")
    batch = whole_of(ImageFolder(tmp_path))
    assert batch.inputs.shape == (1, 3, 6, 4)
    assert torch.equal(batch.inputs[:, :1], torch.from_numpy(upright / 255).float()[None, None])
    assert torch.equal(batch.irrelevant, batch.inputs[:, :1])
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(stored).save(folder / "a.png", exif=exif)
    batch = whole_of(ImageFolder(tmp_path))
    assert torch.equal(batch.irrelevant, batch.inputs[:, :1])


def test_a_mask_drawn_before_turning_is_refused_with_the_reason(tmp_path):
    stored, _ = turned_photograph(tmp_path)
    (tmp_path / "cat" / "relevant").mkdir()
    Image.fromarray(stored).save(tmp_path / "cat" / "relevant" / "a.png")
    with pytest.raises(CorruptData, match="it fits the image as stored"):
        ImageFolder(tmp_path)


def test_sixteen_bits_are_reduced_not_clipped(tmp_path):
    (tmp_path / "x").mkdir()
    Image.fromarray(np.array([[0, 0x3300, 0xFFFF]], np.uint16)).save(tmp_path / "x" / "a.png")
    assert ImageFolder(tmp_path, channels=1)[0].inputs.flatten().tolist() == pytest.approx([0, 0.2, 1])


def remove_all(root):
    for path in root.rglob("*.*"):
        path.unlink()


def truncate(root):
    path = draw(root / "dog" / "noise.png", mode="RGB")
    Image.effect_noise((6, 4), 90).convert("RGB").save(path)
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda r: draw(r / "dog" / "d.png", size=(6, 5)), r"dog/d\.png is 5x6 .*cat/a\.png is 4x6 .*size="),
        (lambda r: (r / "dog" / "d.png").write_bytes(b"no image"), r"cannot read the image .*dog/d\.png"),
        (lambda r: (r / "dog" / "d.png").write_bytes(b""), r"cannot read the image .*dog/d\.png"),
        (truncate, r"cannot read the image .*dog/noise\.png"),
        (remove_all, "no images in .*/cat"),
        (lambda r: (r / "empty").mkdir(), "no images in .*/empty"),
        (lambda r: draw(r / "cat" / "relevant" / "z.png", mode="L"), r"mask without image: .*cat/relevant/z\.png"),
        (
            lambda r: draw(r / "cat" / "irrelevant" / "a.png", size=(4, 4), mode="L"),
            r"mask .*cat/irrelevant/a\.png is 4x4 .*, but its image .*cat/a\.png is 4x6",
        ),
        (lambda r: draw(r / "cat" / "relevant" / "a.jpg", mode="L"), r"masks as PNG files, got .*a\.jpg"),
        (lambda r: draw(r / "cat" / "more" / "a.png"), "unexpected folder .*cat/more"),
        (lambda r: draw(r / "cat" / "a.bmp"), r"a\.png and .*a\.bmp have the same stem"),
        (lambda r: draw(r / "relevant" / "a.png", mode="L"), "relevant is not a class: masks go into"),
        (lambda r: draw(r / "dog" / "d.tif", mode="F"), r"d\.tif holds numbers of 32 bits"),
    ],
)
def test_each_fault_is_one_line_that_names_the_file(root, harm, message):
    harm(root)
    with pytest.raises(CorruptData, match=message) as caught:
        whole_of(ImageFolder(root))
    assert "\n" not in str(caught.value)


def test_a_file_that_changed_its_size_later_is_noticed(root):
    data = ImageFolder(root)
    draw(root / "dog" / "c.PNG", size=(3, 3))
    with pytest.raises(CorruptData, match=r"c\.PNG is 3x3 .* now"):
        whole_of(data)


def test_an_empty_or_missing_root(tmp_path):
    with pytest.raises(CorruptData, match="no classes in"):
        ImageFolder(tmp_path)
    with pytest.raises(DataUnavailable, match="found no folder"):
        ImageFolder(tmp_path / "absent")


def test_files_that_are_no_images_are_left_out_and_said(root, caplog):
    (root / "cat" / "notes.txt").write_text("notes")
    assert len(ImageFolder(root)) == 3
    assert "notes.txt" in caplog.text


@pytest.mark.wrong_types
@pytest.mark.parametrize("settings", [{"channels": 2}, {"size": 0}, {"size": (4, 0)}])
def test_wrong_settings(root, settings):
    with pytest.raises(ValueError, match="expected"):
        ImageFolder(root, **settings)


def test_images_that_a_resizing_squashes_are_told_once(tmp_path, caplog):
    for name, size in (("a", (30, 10)), ("b", (20, 20)), ("c", (10, 20)), ("d", (201, 200))):
        (tmp_path / "class").mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / "class" / f"{name}.png")
    for _ in range(2):
        ImageFolder(tmp_path, size=8)
    (told,) = caplog.messages
    assert told.startswith("2 of 4 images are squashed to 8x8, out of proportion; most of all ")
    assert told.endswith("a.png, 10x30 (height x width), by a factor of 3")
    wide = Proportions((10, 30))
    wide.add(tmp_path / "class" / "a.png", (30, 10))
    assert wide.words == ""
