import copy
import json

import numpy as np
import pytest
import torch

from rightreasons.core import CorruptData
from rightreasons.data import read_annotations, read_label_studio
from rightreasons.data.masks.label_studio import file_of

HEIGHT, WIDTH = 20, 40


def region(kind, **value):
    label = value.pop("label", "wrong")
    return {
        "id": f"id-{kind}", "type": f"{kind}labels", "from_name": "label", "to_name": "image",
        "original_width": WIDTH, "original_height": HEIGHT, "image_rotation": 0,
        "value": {**value, f"{kind}labels": [label]},
    }  # fmt: skip


def brush(mask, label="wrong"):
    """A brush's code in which every number stands for itself, 65536 at most."""
    # A brush of some color: what counts is how far it covers.
    colors = np.broadcast_to(np.array([7, 0, 200, 0], np.uint8), (mask.size, 4)).copy()
    colors[:, 3] = mask.ravel()
    numbers = colors.ravel()
    header = format(len(numbers), "032b") + "00111" + "0010001101111111"
    bits = header + "0" + "11" + format(len(numbers) - 1, "016b") + "".join(format(n, "08b") for n in numbers)
    bits += "0" * (-len(bits) % 8)
    code = [int(bits[i : i + 8], 2) for i in range(0, len(bits), 8)]
    return region("brush", format="rle", rle=code, label=label)


def rectangle(x, y, width, height, label="wrong", **more):
    return region("rectangle", x=x, y=y, width=width, height=height, rotation=more.get("rotation", 0), label=label)


def task(*results, image="/data/upload/3/0a1b2c3d-bird_1.png", number=5, **more):
    submitted = [{"id": i, "completed_by": i, "was_cancelled": False, "result": r} for i, r in enumerate(results)]
    return {"id": number, "data": {"image": image}, "annotations": submitted, "predictions": [{"result": 3}], **more}


@pytest.fixture
def read(tmp_path):
    def written(tasks, **settings):
        path = tmp_path / "export.json"
        path.write_text(tasks if isinstance(tasks, str) else json.dumps(tasks))
        return read_label_studio(path, **settings)

    return written


def box(rows, columns):
    mask = torch.zeros(1, HEIGHT, WIDTH)
    mask[0, slice(*rows), slice(*columns)] = 1
    return mask


def test_every_form_of_region(read):
    painted = np.zeros((HEIGHT, WIDTH))
    painted[3:9, 5:30] = 255
    painted[4, 5] = 51
    expected = torch.from_numpy(painted / 255).float()[None]
    polygon = region("polygon", points=[[25, 10], [75, 10], [75, 50], [25, 50]], closed=True)
    tasks = [
        task([brush(painted)], image="brush.png"),
        task([polygon], image="polygon.png"),
        task([rectangle(25, 10, 50, 40)], image="rectangle.png"),
        task([rectangle(50, 50, 25, 10, rotation=90)], image="turned.png"),
        task([region("ellipse", x=50, y=50, radiusX=25, radiusY=25, rotation=0)], image="ellipse.png"),
        task([region("keypoint", x=50, y=50, width=10)], image="dot.png"),
    ]
    found = {name: marks.irrelevant for name, marks in read(tasks).items()}
    assert torch.allclose(found["brush.png"], expected)
    assert torch.equal(found["polygon.png"], box((2, 10), (10, 30)))
    assert torch.equal(found["rectangle.png"], box((2, 10), (10, 30)))
    # 10 wide and 2 high, turned about its upper left corner (20, 10) so that it hangs down from it to the left.
    assert torch.equal(found["turned.png"], box((10, 20), (18, 20)))
    assert found["ellipse.png"].sum() == pytest.approx(np.pi * 10 * 5, rel=0.03)
    assert found["dot.png"].sum() == pytest.approx(np.pi * 4, rel=0.1)
    assert found["dot.png"][0, 9:11, 19:21].all()


def test_several_regions_labels_and_kinds(read):
    results = [rectangle(0, 0, 10, 100), rectangle(50, 0, 10, 100), rectangle(20, 0, 5, 50, label="Good")]
    results.append({"id": "z", "type": "choices", "value": {"choices": ["blurred"]}})
    marks = read([task(results)])["bird_1.png"]
    assert torch.equal(marks.irrelevant, box((0, 20), (0, 4)) + box((0, 20), (20, 24)))
    assert torch.equal(marks.relevant, box((0, 10), (8, 10)))
    swapped = read([task(results)], relevant=["wrong"], ignore=["good"])["bird_1.png"]
    assert torch.equal(swapped.relevant, marks.irrelevant)
    assert swapped.irrelevant is None


def test_shape_and_label_may_be_two_entries(read):
    labeled = rectangle(0, 0, 50, 50)
    labeled["type"] = "labels"
    labeled["value"]["labels"] = labeled["value"].pop("rectanglelabels")
    plain = copy.deepcopy(labeled)
    plain["type"] = "rectangle"
    del plain["value"]["labels"]
    assert torch.equal(read([task([plain, labeled])])["bird_1.png"].irrelevant, box((0, 10), (0, 20)))
    with pytest.raises(CorruptData, match="region id-rectangle of task 5 has no label"):
        read([task([plain])])


def test_canceled_and_empty_annotations(read):
    tasks = [
        task([rectangle(0, 0, 10, 10)], [rectangle(50, 50, 10, 10)]),
        task([], image="none.png"),
        task(image="x.png"),
    ]
    tasks[0]["annotations"][1]["was_cancelled"] = True
    annotations = read(tasks)
    assert list(annotations) == ["bird_1.png"]
    assert torch.equal(annotations["bird_1.png"].irrelevant, box((0, 2), (0, 4)))


def test_several_annotators(read):
    three = task([rectangle(0, 0, 50, 100)], [rectangle(25, 0, 50, 100)], [rectangle(25, 0, 25, 50)])
    assert torch.equal(read([three])["bird_1.png"].irrelevant, box((0, 20), (0, 30)))
    most = read([three], agreement="majority")["bird_1.png"].irrelevant
    assert torch.equal(most, box((0, 20), (10, 20)))
    with_nothing = task([rectangle(0, 0, 50, 100)], [rectangle(25, 0, 50, 100)], [], [])
    assert read([with_nothing], agreement="majority")["bird_1.png"].irrelevant.sum() == 0
    alone = task([rectangle(0, 0, 50, 100)])
    assert torch.equal(read([alone], agreement="majority")["bird_1.png"].irrelevant, box((0, 20), (0, 20)))
    two_tasks = [task([rectangle(0, 0, 10, 100)]), task([rectangle(50, 0, 10, 100)])]
    assert torch.equal(read(two_tasks)["bird_1.png"].irrelevant, box((0, 20), (0, 4)) + box((0, 20), (20, 24)))


@pytest.mark.parametrize(
    ("link", "name"),
    [
        ("/data/upload/1/0a1b2c3d-cat.png", "cat.png"),
        ("/data/upload/0a1b2c3d-a%20b.png", "a b.png"),
        ("http://localhost:8080/data/upload/1/0a1b2c3d-0a1b2c3d-cat.png", "0a1b2c3d-cat.png"),
        ("/data/upload/1/plain-name.png", "plain-name.png"),
        ("/data/local-files/?d=photos/cat/a.png", "photos/cat/a.png"),
        ("s3://bucket/photos/cat/a.png", "photos/cat/a.png"),
        ("https://host/photos/a.png?token=x/y.png", "photos/a.png"),
        ("cat/a.png", "cat/a.png"),
    ],
)
def test_the_file_that_a_link_leads_to(link, name):
    assert file_of(link) == name


def test_the_image_may_have_another_key(read):
    one = task([rectangle(0, 0, 10, 10)])
    one["data"] = {"caption": "a cat", "photo": "cat/a.jpg"}
    assert list(read([one])) == ["cat/a.jpg"]


def broken(**change):
    one = task([rectangle(0, 0, 10, 10)])
    one["annotations"][0]["result"][0].update(change)
    return [one]


def value(**change):
    return broken(value={**rectangle(0, 0, 10, 10)["value"], **change})


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ("no", "is no JSON"),
        ({"tasks": []}, "expected a list of tasks, as Label Studio exports them, got a table of 1"),
        ([{"image": "a.png", "label": []}], "export as JSON, not as JSON-MIN"),
        ([{"id": 3, "data": {"image": "a.png"}}], "expected a list of annotations in task 3, got None"),
        ([{"id": 3, "data": {"text": "a"}, "annotations": []}], "task 3 names no image file in its data, which has: t"),
        ([{"id": 3, "data": {"a": "a.png", "b": "b.png"}, "annotations": []}], "task 3 names 2 image files"),
        ([task(3)], "expected a list of results in task 5, got 3"),
        (broken(original_width=None), "expected a number for the width of region id-rectangle of task 5, got None"),
        (broken(image_rotation=90), "region id-rectangle of task 5 was drawn on the image turned by 90 degrees"),
        (value(rectanglelabels=["cat"]), "labels that are neither relevant nor irrelevant: cat"),
        (value(rectanglelabels=[3]), "expected a text for a label, got 3"),
        (value(x="3"), "expected a number for x of region id-rectangle of task 5, got '3'"),
        (value(x=float("inf")), "expected a number for x of region id-rectangle"),
        (value(width=None), "expected a number for width"),
        (value(points=[[1, 2], [3, 4]]), "at least three corners x, y for region id-rectangle of task 5"),
        (value(points=[1, 2, 3]), "expected a list of x and y in region id-rectangle"),
        (value(rle=[1, 300]), "expected whole numbers from 0 to 255 for the brush of region id-rectangle"),
        (value(rle=[]), "region id-rectangle of task 5, an image of 20x40: the brush's run-length code ends too early"),
        (value(rle=[0, 0, 0, 4, 57, 27, 252]), "an image of 20x40: expected a brush's .* of 3200 numbers, got 4"),
        ([task([rectangle(0, 0, 9, 9), rectangle(0, 0, 9, 9) | {"original_width": 9}])], "task 5 has regions of"),
        (broken(value={"vertices": [], "vectorlabels": ["wrong"]}), "is of a form that is not known: draw brush"),
        ([task([rectangle(0, 0, 9, 9)], image="../a.png")], "inside a folder, got '../a.png'"),
    ],
)  # fmt: skip
def test_a_bad_file_is_one_sentence(read, tasks, told):
    with pytest.raises(CorruptData, match=told) as caught:
        read(tasks)
    assert "\n" not in str(caught.value)
    assert "export.json" in str(caught.value)


@pytest.mark.wrong_types
def test_an_unknown_way_to_agree(read):
    with pytest.raises(ValueError, match="expected agreement union or majority, got 'mean'"):
        read([], agreement="mean")


def test_the_format_is_recognized(tmp_path):
    path = tmp_path / "export.json"
    path.write_text(json.dumps([task([rectangle(0, 0, 50, 50)], [rectangle(50, 50, 50, 50)])]))
    assert read_annotations(path)["bird_1.png"].irrelevant.sum() == 400
    assert read_annotations(path, agreement="majority")["bird_1.png"].irrelevant.sum() == 0
