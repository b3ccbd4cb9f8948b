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


def test_a_class_against_itself_is_told(digits_runs, tmp_path):
    options = ("--images", 30, "--device", "cpu", "--out", tmp_path)
    lines = cli("reveal", digits_runs / "plain", *options).out.splitlines()[2:32]
    taken = [line.split()[2] for line in lines]
    said = cli("reveal", digits_runs / "plain", "--against", taken[0], *options)
    told = f"{taken.count(taken[0])} of the images are taken for {taken[0]} themselves: against itself a class has an"
    assert told in said.out


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
