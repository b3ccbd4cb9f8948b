import copy
import json

import numpy as np
import pytest
import torch

from rightreasons.core import CorruptData, DataUnavailable, NotWritten
from rightreasons.data import Annotations, Marks, read_annotations, read_coco, write_coco

HEIGHT, WIDTH = 6, 8
FILE = {
    "images": [
        {"id": 7, "file_name": "cat/a.png", "height": HEIGHT, "width": WIDTH},
        {"id": 9, "file_name": "dog/b.jpg", "height": HEIGHT, "width": WIDTH},
        {"id": 10, "file_name": "c.png", "height": HEIGHT, "width": WIDTH},
    ],
    "categories": [{"id": 1, "name": "Relevant"}, {"id": 4, "name": "artifact"}, {"id": 5, "name": "unused"}],
    "annotations": [
        # Two polygons, which overlap in one pixel.
        {"id": 1, "image_id": 7, "category_id": 1,
         "segmentation": [[0, 0, 3, 0, 3, 2, 0, 2], [2, 1, 4, 1, 4, 3, 2, 3]]},
        # Column by column: 2 out, 3 in, the rest out.
        {"id": 2, "image_id": 7, "category_id": 4, "iscrowd": 1,
         "segmentation": {"size": [HEIGHT, WIDTH], "counts": [2, 3, 43]}},
        {"id": 3, "image_id": 9, "category_id": 4, "bbox": [5, 1, 2, 3], "segmentation": []},
        # The same as [2, 3, 43] in COCO's text: 43 = 11 + 32 * 1 -> chr(11 + 32 + 48), chr(1 + 48).
        {"id": 4, "image_id": 9, "category_id": 4, "segmentation": {"size": [HEIGHT, WIDTH], "counts": "23[1"}},
    ],
}  # fmt: skip


@pytest.fixture
def write(tmp_path):
    def written(held):
        path = tmp_path / "instances.json"
        path.write_text(held if isinstance(held, str) else json.dumps(held))
        return path

    return written


def drawn(*places):
    mask = torch.zeros(1, HEIGHT, WIDTH)
    for rows, columns in places:
        mask[0, rows, columns] = 1
    return mask


def test_every_form_of_region(write):
    annotations = read_coco(write(FILE))
    assert list(annotations) == ["cat/a.png", "dog/b.jpg"]
    first, second = annotations.values()
    assert torch.equal(first.relevant, drawn((slice(0, 2), slice(0, 3)), (slice(1, 3), slice(2, 4))))
    assert torch.equal(first.irrelevant, drawn((slice(2, 5), 0)))
    assert second.relevant is None
    assert torch.equal(second.irrelevant, drawn((slice(1, 4), slice(5, 7)), (slice(2, 5), 0)))


def test_overlaps_may_be_holes(write):
    first = read_coco(write(FILE), overlap="even-odd")["cat/a.png"].relevant
    expected = drawn((slice(0, 2), slice(0, 3)), (slice(1, 3), slice(2, 4)))
    expected[0, 1, 2] = 0
    assert torch.equal(first, expected)


def test_labels_are_mapped_by_the_user(write):
    held = copy.deepcopy(FILE)
    held["categories"][0]["name"], held["categories"][1]["name"] = "bird", "sky"
    path = write(held)
    message = (
        r"labels that are neither relevant nor irrelevant: bird, sky; say which they are: rightreasons masks FILE "
        r"--relevant LABEL --irrelevant LABEL --ignore LABEL --out sorted\.json .*\. There are: bird, sky, unused$"
    )
    with pytest.raises(CorruptData, match=message):
        read_coco(path)
    turned = read_coco(path, relevant=["SKY"], irrelevant=["bird"])
    assert torch.equal(turned["cat/a.png"].relevant, drawn((slice(2, 5), 0)))
    assert list(read_coco(path, relevant=["bird"], ignore=["*"])) == ["cat/a.png"]
    assert read_annotations(path, relevant=["bird"], ignore=["sky"])["cat/a.png"].irrelevant is None
    with pytest.raises(CorruptData, match=r"has no label 'fish'\. There are: bird, sky, unused"):
        read_coco(path, relevant=["fish"], ignore=["*"])
    with pytest.raises(ValueError, match="got 'sky' twice"):
        read_coco(path, relevant=["sky"], irrelevant=["Sky "])


@pytest.mark.wrong_types
def test_wrong_settings(write):
    with pytest.raises(ValueError, match="expected a list of labels for relevant, got the text 'bird'"):
        read_coco(write(FILE), relevant="bird")
    with pytest.raises(ValueError, match="expected overlap union or even-odd, got 'xor'"):
        read_coco(write(FILE), overlap="xor")
    with pytest.raises(ValueError, match="expected form rle or polygon, got 'png'"):
        write_coco(Annotations(), "x.json", form="png")
    with pytest.raises(ValueError, match="expected a threshold above 0"):
        write_coco(Annotations(), "x.json", threshold=0)


def test_a_conflict_can_be_refused(write):
    held = copy.deepcopy(FILE)
    held["annotations"][1]["segmentation"]["counts"] = [0, 3, 45]
    assert read_coco(write(held))["cat/a.png"].both == 2
    with pytest.raises(CorruptData, match=r"cat/a\.png has 2 pixels that are marked as relevant and as irrelevant"):
        read_coco(write(held), conflict="error")


def random_annotations(seed):
    rng = np.random.default_rng(seed)
    marks = {}
    for number in range(6):
        size = tuple(rng.integers(1, 40, 2))
        masks = [torch.from_numpy(rng.random((1, *size)) < rng.random()).float() for _ in range(2)]
        masks[number % 3 : number % 3 + 1] = [None] * (number % 3 < 2)
        marks[f"class/{number}.png"] = Marks(*masks[:2])
    marks["empty.png"] = Marks(torch.zeros(1, 3, 3), torch.ones(1, 3, 3))
    return Annotations(marks)


@pytest.mark.parametrize("form", ["rle", "polygon"])
@pytest.mark.parametrize("seed", range(10))
def test_what_is_written_reads_back_bit_for_bit(tmp_path, form, seed):
    annotations = random_annotations(seed)
    write_coco(annotations, tmp_path / "out.json", form=form)
    again = read_coco(tmp_path / "out.json")
    assert list(again) == list(annotations)
    for name, marks in annotations.items():
        for kind in ("relevant", "irrelevant"):
            before, after = marks.of(kind), again[name].of(kind)
            assert (before is None and after is None) or torch.equal(before, after)


def test_shares_are_cut_at_the_threshold(tmp_path):
    mask = torch.tensor([[[0.2, 0.5, 0.9]]])
    for threshold, expected in ((0.5, [0.0, 1.0, 1.0]), (0.8, [0.0, 0.0, 1.0])):
        write_coco(Annotations({"a.png": Marks(mask)}), tmp_path / "out.json", threshold=threshold)
        assert read_coco(tmp_path / "out.json")["a.png"].relevant.flatten().tolist() == expected


def test_the_box_and_the_area_that_are_written(tmp_path):
    write_coco(Annotations({"a.png": Marks(drawn((slice(1, 3), slice(2, 7))))}), tmp_path / "out.json")
    (written,) = json.loads((tmp_path / "out.json").read_text())["annotations"]
    assert (written["bbox"], written["area"], written["iscrowd"]) == ([2, 1, 5, 2], 10, 0)


def test_a_file_that_cannot_be_written(tmp_path):
    with pytest.raises(NotWritten, match="cannot write"):
        write_coco(Annotations(), tmp_path / "no" / "out.json")


def changed(where, value):
    held = copy.deepcopy(FILE)
    place = held
    for key in where[:-1]:
        place = place[key]
    place[where[-1]] = value
    return held


RLE = {"size": [HEIGHT, WIDTH]}


@pytest.mark.parametrize(
    ("held", "told"),
    [
        ("{", "is no JSON: Expecting"),
        ("[1]", "expected COCO's JSON with the lists images, annotations and categories"),
        ({"images": [], "annotations": []}, "expected COCO's JSON"),
        (changed(["images"], {}), "expected a list of images, got a table of 0"),
        (changed(["images", 0], 3), "expected an image with named fields, got 3"),
        (changed(["images", 1, "id"], 7), "image 7 is in the file twice"),
        (changed(["images", 0, "id"], "7"), "expected a number for the id of an image, got '7'"),
        (changed(["images", 0, "id"], 6), "annotation 1 has image_id 7, which the file does not list"),
        (changed(["images", 0, "file_name"], None), "expected a text for the file_name of image 7, got None"),
        (changed(["images", 0, "height"], 0), "expected the height of cat/a.png of 1 to 65535 pixels, got 0"),
        (changed(["images", 0, "width"], 5), "annotation 2 of cat/a.png is 6x8, but its image is 6x5"),
        (changed(["images", 0, "file_name"], "../a.png"), "inside a folder, got '../a.png'"),
        (changed(["categories", 1, "id"], 1), "category 1 is in the file twice"),
        (changed(["annotations", 0, "category_id"], 3), "annotation 1 has category_id 3, which the file does not"),
        (changed(["annotations", 0, "image_id"], []), "annotation 1 has image_id \\[\\]"),
        (changed(["annotations", 0, "segmentation"], [[1, 2, 3, 4]]), "at least three corners x, y for a polygon of"),
        (changed(["annotations", 0, "segmentation"], [[1, 2, 3, 4, 5, 6, 7]]), "annotation 1 of cat/a.png, got 7 num"),
        (changed(["annotations", 0, "segmentation"], [[1, 2, "x", 4, 5, 6]]), "expected a number for a polygon"),
        (changed(["annotations", 0, "segmentation"], [[1, 2, float("nan"), 4, 5, 6]]), "expected a number for a poly"),
        (changed(["annotations", 0, "segmentation"], "abc"), "expected a list of polygons in annotation 1"),
        (
            changed(["annotations", 0, "segmentation"], [[90, 80, 95, 80, 95, 90]]),
            "annotation 1 .* lies outside of its",
        ),
        (changed(["annotations", 1, "segmentation"], RLE | {"counts": [2, 3]}), "2 .*: expected runs over 48 pixels"),
        (changed(["annotations", 1, "segmentation"], RLE | {"counts": [0.5]}), "expected a whole number for a run"),
        (changed(["annotations", 1, "segmentation"], RLE | {"counts": "2 3"}), "got the character ' ' in it"),
        (changed(["annotations", 1, "segmentation"], {"counts": [48]}), "expected a list of sides in annotation 2"),
        (changed(["annotations", 2, "bbox"], None), "annotation 3 of dog/b.jpg has neither a segmentation nor a bbox"),
        (changed(["annotations", 2, "bbox"], [1, 2, 3]), r"expected a bbox \[x, y, width, height\] for annotation 3"),
        (changed(["annotations", 2, "bbox"], [1, 2, -3, 4]), "expected a bbox"),
        (changed(["annotations", 2, "bbox"], [8, 2, 3, 4]), "annotation 3 .* lies outside of its image, which is 6x8"),
    ],
)
def test_a_bad_file_is_one_sentence(write, held, told):
    with pytest.raises(CorruptData, match=told) as caught:
        read_coco(write(held))
    assert "\n" not in str(caught.value)
    assert "instances.json" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataUnavailable, match="found no file"):
        read_coco(tmp_path / "absent.json")


def test_a_file_of_neither_tool(write):
    with pytest.raises(CorruptData, match="neither COCO's JSON nor an export of Label Studio"):
        read_annotations(write({"a": 1}))
