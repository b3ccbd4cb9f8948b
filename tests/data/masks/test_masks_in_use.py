"""Annotations by the command line and in a run's configuration."""

import json

import pytest
import torch
from tests.cli.conftest import cli
from tests.pictures import image_folder

from rightreasons.core import CorruptData
from rightreasons.data import ImageFolder, read_coco, read_png, write_coco
from rightreasons.experiments import DataConfig, build_data


@pytest.fixture
def photos(tmp_path, monkeypatch):
    """photos/ without masks and masks.json with those they would have had."""
    drawn = image_folder(tmp_path / "drawn", each=5)
    image_folder(tmp_path / "photos", each=5, masks=False)
    write_coco(read_png(drawn), tmp_path / "masks.json")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def whole_of(data):
    return data.batch(torch.arange(len(data)))


def test_a_run_takes_annotations_from_a_file(photos):
    config = DataConfig(name="photos", annotations="masks.json")
    splits = build_data(config, seed=0)
    expected = build_data(DataConfig(name="drawn"), seed=0)
    for part in ("train", "test"):
        for key in ("inputs", "relevant", "irrelevant", "annotated"):
            assert torch.equal(
                getattr(whole_of(getattr(splits, part)), key), getattr(whole_of(getattr(expected, part)), key)
            )


def test_a_run_may_test_on_a_folder_that_the_file_annotates_too(photos):
    image_folder(photos / "more", names=("left", "right"), each=5, masks=False)
    for path in (photos / "more").rglob("*.png"):
        path.rename(path.with_name(f"x{path.name}"))
    held = json.loads((photos / "masks.json").read_text())
    held["images"][0]["file_name"] = "left/x0.png"
    (photos / "masks.json").write_text(json.dumps(held))
    splits = build_data(DataConfig(name="photos", test="more", annotations="masks.json"), seed=0)
    assert whole_of(splits.train).annotated.sum() == 9
    assert whole_of(splits.test).annotated.tolist() == [True] + [False] * 9


def test_a_run_makes_the_masks_of_the_training_images_worse(photos):
    config = DataConfig(name="drawn", degrade={"missing": 0.5})
    plain = build_data(DataConfig(name="drawn"), seed=0)
    worse = build_data(config, seed=0)
    assert torch.equal(whole_of(worse.test).relevant, whole_of(plain.test).relevant)
    area = whole_of(plain.train).relevant.sum(dim=(1, 2, 3))
    assert torch.equal(whole_of(worse.train).relevant.sum(dim=(1, 2, 3)), area - (0.5 * area).round())
    other = build_data(DataConfig(name="drawn", degrade={"missing": 0.5, "seed": 1}), seed=0)
    assert not torch.equal(whole_of(worse.train).relevant, whole_of(other.train).relevant)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (
            DataConfig(name="drawn", degrade={"blur": 1.0}),
            "degrade has no setting 'blur'. There are: boundary, missing",
        ),
        (DataConfig(name="drawn", degrade={"missing": 2.0}), "boundary and missing in"),
        (DataConfig(name="digits", annotations="masks.json"), "expected no annotations with digits"),
        (DataConfig(name="photos", annotations="absent.json"), "found no file absent.json"),
    ],
)
def test_wrong_settings(photos, config, told):
    with pytest.raises((ValueError, OSError), match=told):
        build_data(config, seed=0)


def test_the_command_says_what_is_there_and_takes_it_in(photos):
    said = cli("masks", "masks.json")
    assert said.code == 0, said
    assert [line.split()[-1] for line in said.out.splitlines() if "pixels" in line] == ["10", "10", "0"]
    said = cli("masks", "masks.json", "--images", "photos", "--out", "photos")
    assert said.code == 0, said
    ours, theirs = (whole_of(ImageFolder(photos / name)) for name in ("photos", "drawn"))
    assert torch.equal(ours.irrelevant, theirs.irrelevant)
    assert torch.equal(ours.relevant, theirs.relevant)


def test_the_command_writes_coco(photos):
    said = cli("masks", "drawn", "--out", "new/again.json")
    assert said.code == 0, said
    again, first = read_coco("new/again.json"), read_coco("masks.json")
    assert all(torch.equal(again[name].relevant, first[name].relevant) for name in first)


def test_the_commands_mistakes_are_one_line(photos):
    assert "found no file absent.json" in cli("masks", "absent.json").mistake
    assert (
        "has no label 'cat'. There are: relevant, irrelevant" in cli("masks", "masks.json", "--relevant", "cat").mistake
    )
    (photos / "photos" / "left" / "0.png").unlink()
    said = cli("masks", "masks.json", "--images", "photos")
    assert "1 of 10 annotations fit no image in folder/photos: left/0.png" in said.mistake
    with pytest.raises(CorruptData, match="fit no image"):
        build_data(DataConfig(name="photos", annotations="masks.json"), seed=0)
