"""Masks and networks that an explanation loss cannot learn from: one line on stderr and exit 2, before any training."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.cli.conftest import cli, png
from tests.pictures import SIDE

PHOTOS = ("--data", "photos", "--model", "net.py:build", "--epochs", 1, "--device", "cpu", "--out", "run")
TRANSFORMER = """
from torch import nn


class Small(nn.Module):
    def __init__(self, classes):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 4, 4)
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True)
        self.head = nn.Linear(8, classes)

    def forward(self, x):
        return self.head(self.block(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def build(shape, classes):
    return Small(classes)
"""


def painted(kind, value):
    """Every mask of that kind in photos/ becomes all of this value."""
    for file in Path("photos").glob(f"*/{kind}/*.png"):
        png(file, np.full((SIDE, SIDE), value, np.uint8))


def without(kind):
    for folder in Path("photos").glob(f"*/{kind}"):
        shutil.rmtree(folder)


@pytest.mark.parametrize("kind", ["relevant", "irrelevant"])
def test_masks_that_cover_everything_are_refused_at_the_start(project, kind):
    painted(kind, 255)
    told = cli("train", *PHOTOS, "--loss", "rrr").mistake
    assert f"every mask of {kind} pixels of " in told
    assert "covers its whole image" in told
    assert not list(Path("run").glob("*.safetensors"))
    # Nobody looks at them in a plain run.
    assert cli("train", *PHOTOS).code == 0


def test_some_masks_that_cover_everything_are_no_mistake(project):
    png(Path("photos/left/irrelevant/3.png"), np.full((SIDE, SIDE), 255, np.uint8))
    assert cli("train", *PHOTOS, "--loss", "rrr").code == 0


@pytest.mark.parametrize(
    ("loss", "there", "missing"),
    [
        ("hint", "irrelevant", "relevant"),
        ("energy", "irrelevant", "relevant"),
        ("rrr", "relevant", "irrelevant"),
        ("cdep", "relevant", "irrelevant"),
    ],
)
def test_a_loss_whose_kind_of_mask_is_missing(project, loss, there, missing):
    without(missing)
    told = cli("train", *PHOTOS, "--loss", loss).mistake
    assert f"needs masks of {missing} pixels and the batch has only masks of {there} pixels" in told


def test_masks_of_other_images(project):
    """COCO marks for names that are not in the folder, and for an image of another size."""
    without("relevant")
    without("irrelevant")
    box = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4], "iscrowd": 0, "area": 16}
    content = {"categories": [{"id": 1, "name": "irrelevant"}], "annotations": [box]}
    for name, side, said in (
        ("left/elsewhere.png", SIDE, "left/elsewhere.png"),
        ("left/3.png", 2 * SIDE, "another image"),
    ):
        image = {"id": 1, "file_name": name, "height": side, "width": SIDE}
        Path("marks.json").write_text(json.dumps({"images": [image], **content}))
        assert said in cli("train", *PHOTOS, "--annotations", "marks.json", "--loss", "rrr").mistake


def test_masks_that_are_all_blank_are_counted(project, caplog):
    painted("relevant", 0)
    said = cli("masks", "photos", "--out", "marks.json")
    assert said.code == 0, said
    assert caplog.messages == ["all 30 relevant masks of photos are blank: no pixel is marked in them"]
    without("irrelevant")
    without("relevant")
    caplog.clear()
    said = cli("data", "photos", "--annotations", "marks.json")
    assert caplog.messages == ["all 30 relevant masks of marks.json are blank: no pixel is marked in them"]
    told = " ".join(said.out.split())
    assert "relevant (blank: no pixel is" in told
    assert "irrelevant (blank" not in told


def test_messages_about_images_name_options_of_the_command_line(project):
    for kind in ("relevant", "irrelevant"):
        without(kind)
    png(Path("photos/left/0.png"), np.zeros((2 * SIDE, SIDE, 3), np.uint8))
    assert "resize all alike with --resize 64" in cli("data", "photos").mistake
    held = {"images": [{"id": 1, "file_name": "left/1.png", "height": SIDE, "width": SIDE}]}
    held["categories"] = [{"id": 1, "name": "bird"}]
    held["annotations"] = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [0, 0, 4, 4]}]
    Path("marks.json").write_text(json.dumps(held))
    told = cli("data", "photos", "--resize", 8, "--annotations", "marks.json").mistake
    assert "rightreasons masks FILE --relevant LABEL --irrelevant LABEL" in told
    # What the message says to do.
    assert cli("masks", "marks.json", "--irrelevant", "bird", "--out", "sorted.json").code == 0


@pytest.mark.parametrize("loss", ["cdep", "ibp_ex", "r4"])
def test_a_loss_by_operators_on_a_transformer_names_the_operator_and_its_layer(project, loss):
    Path("vit.py").write_text(TRANSFORMER)
    told = cli("train", *PHOTOS, "--model", "vit.py:build", "--loss", loss).mistake
    assert "the operator 'layer_norm' in layer 'block.norm1'" in told


def test_an_explanation_loss_for_which_nobody_keeps_masks(project):
    text = Path("run.toml")
    text.write_text(
        "[data]\nname = 'digits'\ndecoy = 'decoy/rrr'\ndecoy_size = 2\nannotated = 0.0\n[model]\nname = 'mlp'\n"
        "[terms.rrr]\nloss = 'rrr'\n"
    )
    told = cli("train", "--config", text, "--device", "cpu", "--out", "run").mistake
    assert "0 annotated" in told
    assert "nobody has marked a pixel" in told
