import numpy as np
import pytest
import torch
from PIL import Image
from tests.pictures import image_folder

from rightreasons.core import CorruptData, DataUnavailable, NotWritten
from rightreasons.data import Annotations, ImageFolder, Marks, read_annotations, read_png, write_png


def test_an_image_folders_own_masks_are_read_as_it_reads_them(tmp_path):
    root = image_folder(tmp_path / "photos", each=2)
    annotations = read_png(root)
    data = ImageFolder(root)
    assert set(annotations) == {f"{name}/{i}.png" for name in ("left", "right") for i in range(2)}
    for i, entry in enumerate(data.entries):
        marks = annotations[f"{entry.image.parent.name}/{entry.image.name}"]
        assert torch.equal(marks.relevant, data[i].relevant[0])
        assert torch.equal(marks.irrelevant, data[i].irrelevant[0])


def test_brushes_of_any_color_and_folders_of_other_names(tmp_path):
    (tmp_path / "wrong").mkdir()
    red = np.zeros((4, 6, 3), np.uint8)
    red[1, 2] = (255, 0, 0)
    Image.fromarray(red).save(tmp_path / "wrong" / "a.png")
    marks = read_annotations(tmp_path, irrelevant=["wrong"])["a.png"]
    assert marks.relevant is None
    assert marks.irrelevant.nonzero().tolist() == [[0, 1, 2]]


def test_what_is_written_reads_back(tmp_path):
    generator = torch.Generator().manual_seed(0)
    shares = torch.randint(0, 256, (1, 5, 7), generator=generator) / 255
    annotations = Annotations({"cat/a.jpg": Marks(shares, (shares > 0.5).float()), "b.png": Marks(irrelevant=shares)})
    write_png(annotations, tmp_path / "out")
    again = read_png(tmp_path / "out")
    assert set(again) == {"cat/a.png", "b.png"}
    assert torch.equal(again["cat/a.png"].relevant, shares)
    assert torch.equal(again["cat/a.png"].irrelevant, (shares > 0.5).float())
    assert again["b.png"].relevant is None
    with pytest.raises(NotWritten, match="cannot write"):
        write_png(annotations, tmp_path / "out" / "irrelevant" / "b.png")


def test_bad_folders(tmp_path):
    with pytest.raises(DataUnavailable, match="found no folder"):
        read_png(tmp_path / "absent")
    with pytest.raises(CorruptData, match=r"no masks in .*: expected PNG files in folders named relevant or"):
        read_png(tmp_path)
    (tmp_path / "relevant").mkdir()
    (tmp_path / "relevant" / "a.jpg").write_bytes(b"")
    with pytest.raises(CorruptData, match=r"expected masks as PNG files, got .*a\.jpg"):
        read_png(tmp_path)
    (tmp_path / "relevant" / "a.jpg").rename(tmp_path / "relevant" / "a.png")
    with pytest.raises(CorruptData, match=r"cannot read the image .*a\.png"):
        read_png(tmp_path)
    mask = Marks(torch.ones(1, 2, 2))
    with pytest.raises(CorruptData, match=r"a\.jpg and a\.png have the same stem"):
        write_png(Annotations({"a.jpg": mask, "a.png": mask}), tmp_path)
