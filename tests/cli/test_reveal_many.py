"""What a user found: many methods, a rival that is the class itself, masks that say nothing, networks as they are."""

import numpy as np
import pytest
import torch
from PIL import Image

from rightreasons.attribution import Saliency
from rightreasons.models import LeNet
from tests.cli.conftest import DIGITS, cli
from tests.pictures import image_folder


def test_many_methods_get_a_row_each_and_a_sheet_in_blocks(digits_runs, tmp_path):
    names = (
        "saliency",
        "input_x_gradient",
        "guided_backprop",
        "deconv_net",
        "lrp",
        "deep_lift",
        "smoothed",
        "occlusion",
    )
    methods = [word for name in names for word in ("--method", name)]
    said = cli("reveal", digits_runs / "plain", *methods, "--images", 2, "--device", "cpu", "--out", tmp_path)
    lines = said.out.splitlines()
    assert any(line.startswith("DeepLIFT irrelevant") and line.endswith("%") for line in lines), said.out
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width < 1600
        assert sheet.height > sheet.width / 2


@pytest.mark.parametrize(("explained", "column"), [("predicted", 2), ("true", 1)])
def test_images_of_the_class_itself_are_not_drawn(digits_runs, tmp_path, explained, column):
    options = ("--images", 30, "--target", explained, "--device", "cpu", "--out", tmp_path)
    classes = [line.split()[column] for line in cli("reveal", digits_runs / "plain", *options).out.splitlines()[2:32]]
    said = cli("reveal", digits_runs / "plain", "--against", classes[0], *options).out
    against = [line.split()[column] for line in said.splitlines()[2:32]]
    assert len(against) == 30
    assert classes[0] not in against
    assert len(set(against)) > 1


def test_what_masks_cover_stands_beside_the_shares(digits_runs, tmp_path):
    said = cli("reveal", digits_runs / "plain", "--images", 5, "--device", "cpu", "--out", tmp_path).out
    assert "irrelevant masks cover 6.2 % of an image on average" in said  # 2x2 of 8x8 pixels.


def test_masks_that_are_all_empty_are_refused(tmp_path):
    photos = image_folder(tmp_path / "photos")
    for file in photos.glob("*/*/*.png"):
        with Image.open(file) as mask:
            Image.fromarray(np.zeros((mask.height, mask.width), np.uint8)).save(file)
    told = cli("train", "--data", photos, *DIGITS[2:], "--loss", "rrr", "--out", tmp_path / "run").mistake
    assert "every mask of" in told
    assert "nobody has marked a pixel" in told


@pytest.mark.wrong_types
def test_a_network_that_was_not_adapted_is_told_how():
    with pytest.raises(ValueError, match=r"expected a classifier, got LeNet; make one of it: adapt\(network\)"):
        Saliency()(LeNet(), torch.rand(1, 1, 28, 28), torch.zeros(1, dtype=torch.long))
