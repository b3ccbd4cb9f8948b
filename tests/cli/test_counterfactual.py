import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from rightreasons.experiments import Record
from tests.cli.conftest import cli, control_characters, png
from tests.pictures import picture

CPU = ("--device", "cpu")
FILES = ("original.png", "counterfactual.png", "difference.png", "slice.png", "way.gif")


@pytest.fixture(scope="module")
def found(digits_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("flips")
    said = cli("counterfactual", digits_runs / "plain", "--misclassified", "--images", 3, *CPU, "--out", out)
    assert said.code == 0, said
    return out, said


def test_it_writes_a_page_the_numbers_and_the_pictures(found):
    out, said = found
    assert {path.name for path in out.iterdir()} == {"index.html", "counterfactual.json", "images"}
    assert {path.name for path in (out / "images").iterdir()} == {
        f"{row:03d}-{name}" for row in range(3) for name in FILES
    }
    with Image.open(out / "images" / "000-way.gif") as animation:
        assert animation.n_frames > 2
    with Image.open(out / "images" / "000-original.png") as image:
        assert image.size == (8, 8)
    assert "What would have flipped it" in (out / "index.html").read_text()
    assert "index.html, counterfactual.json, images/" in said.out
    assert control_characters(said.out) == []


def test_of_misclassified_images_the_true_class_is_asked_for(found):
    out, said = found
    record = Record.read(out / "counterfactual.json")
    assert record.config["target"] == "true"
    for told in record.results["images"]:
        assert told["target"] == told["truth"] != told["predicted"]
        assert told["name"] in said.out
    assert "counterfactuals are valid" in " ".join(said.out.split())


def test_settings_and_budgets_reach_the_method(digits_runs, tmp_path):
    asked = ("--index", 3, "--index", 5, "--target", "any", "--method", "growing_spheres", "--set", "cells=[1]")
    said = cli("counterfactual", digits_runs / "plain", *asked, "--queries", 40, *CPU, "--out", tmp_path)
    assert said.code == 0, said
    record = Record.read(tmp_path / "counterfactual.json")
    assert record.config["settings"] == {"cells": "(1,)", "max_queries": "40"}
    assert [told["position"] for told in record.results["images"]] == [3, 5]
    assert all(told["queries"] <= 40 for told in record.results["images"])


def test_a_budget_of_time_ends_with_the_best_found(digits_runs, tmp_path):
    said = cli("counterfactual", digits_runs / "plain", "--budget-seconds", 1e-6, *CPU, "--out", tmp_path)
    assert said.code == 0, said
    results = Record.read(tmp_path / "counterfactual.json").results
    assert results["summary"]["validity"]["value"] == 0
    assert "8 not valid: the best found is kept and shown as such; more time or queries may reach them" in said.err
    assert "not valid: best found" in (tmp_path / "index.html").read_text()


def test_pictures_of_ones_own_and_weights_without_training_images(project):
    said = cli("train", "--data", "photos", "--model", "net.py:build", "--epochs", 1, *CPU, "--out", "run")
    assert said.code == 0, said
    for seed in range(2):
        png(project / "mine" / f"{seed}.png", picture(0, 90 + seed))
    said = cli("counterfactual", "run", "--image", "mine", "--image", "photos/left/0.png", *CPU, "--out", "flips")
    assert said.code == 0, said
    images = Record.read("flips/counterfactual.json").results["images"]
    assert [told["name"] for told in images] == ["0.png", "1.png", "0.png"]
    assert all(told["truth"] is None and told["position"] is None for told in images)
    # The same weights without their run: nobody knows what they were trained on.
    named = ("--model", "net.py:build", "--weights", "run/model.safetensors", "--data", "photos")
    said = cli("counterfactual", *named, "--images", 2, *CPU, "--out", "bare")
    assert said.code == 0, said
    assert "no training image of" in (project / "bare" / "index.html").read_text()
    assert "needs training images" in cli("counterfactual", *named, "--method", "nearest_neighbor", *CPU).mistake


def test_an_unreachable_target_is_kept_and_shown_as_such(project):
    (project / "never.py").write_text(
        "import torch\nfrom torch import nn\n\nclass Never(nn.Module):\n    def __init__(self, inside):\n"
        "        super().__init__()\n        self.inside = inside\n    def forward(self, x):\n"
        "        return self.inside(x) - torch.tensor([0.0, 1e4])\n\n"
        "def build(shape, classes):\n    size = shape[0] * shape[1] * shape[2]\n"
        "    return Never(nn.Sequential(nn.Flatten(), nn.Linear(size, classes)))\n"
    )
    from torch import nn

    net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 12 * 12, 2))
    torch.save({f"inside.{name}": value for name, value in net.state_dict().items()}, "never.pt")
    named = ("--model", "never.py:build", "--weights", "never.pt", "--data", "photos")
    said = cli("counterfactual", *named, "--target", "right", "--images", 2, "--set", "steps=5", *CPU, "--out", "flips")
    assert said.code == 0, said
    assert "2 not valid: the best found is kept and shown as such; another --method may reach them" in said.err
    told = json.loads((project / "flips" / "counterfactual.json").read_text())["results"]["images"]
    assert [image["valid"] for image in told] == [False, False]
    assert [image["becomes"] for image in told] == ["left", "left"]
    assert all(Path("photos", image["name"]).is_file() for image in told)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "wachtr"), "unknown counterfactual 'wachtr'. Did you mean 'wachter'?"),
        (("--target", "seven"), "no class 'seven' to reach. There are: 0, 1, 2"),
        (("--set", "steps"), "expected --set name=value, got 'steps'"),
        (("--set", "stepz=3"), "has no setting 'stepz'"),
        (("--set", "steps=many"), "counterfactual 'wachter': expected steps to be a whole number, got 'many'"),
        (("--set", "steps=2.5"), "expected steps to be a whole number, got 2.5"),
        (("--set", "step_size=[1]"), "expected step_size to be a number, got (1,)"),
        (("--set", "lead=true"), "expected lead to be a number, got True"),
        (("--set", "norm=l3"), "expected norm to be one of l2, l1, elastic, got 'l3'"),
        (
            ("--method", "growing_spheres", "--set", "cells=wide"),
            "counterfactual 'growing_spheres': expected cells to be a list of whole numbers, got 'wide'",
        ),
        (
            ("--method", "nearest_neighbor", "--set", "references=mine.pt"),
            "expected references to be images or labels, which come from data alone, got 'mine.pt'",
        ),
        (("--set", "high=0.5"), "expected pixels from 0 to 0.5, got other values in image"),
        (("--index", 99_999), "expected positions from 0 to"),
        (("--index", 3, "--misclassified"), "expected one way to name images, got index and misclassified"),
        (("--image", "missing.png"), "no picture missing.png"),
        (("--image", "missing.png", "--target", "true"), "nobody knows the true class"),
        (("--images", 0), "expected at least one image (--images), got 0"),
        (("--set", "steps=-5"), "counterfactual 'wachter': expected"),
        (("--queries", 0), "max_queries"),
        (("--budget-seconds", -1), "max_seconds"),
        (("--model", "mlp"), "is a run and has its own network"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(digits_runs, tmp_path, options, told):
    said = cli("counterfactual", digits_runs / "plain", *options, *CPU, "--out", tmp_path / "flips")
    assert told in said.mistake
    assert not (tmp_path / "flips").exists()


def test_a_target_that_is_the_prediction_already_is_told_with_the_image(digits_runs, found, tmp_path):
    told = Record.read(found[0] / "counterfactual.json").results["images"][0]
    asked = ("--index", told["position"], "--target", told["predicted"])
    said = cli("counterfactual", digits_runs / "plain", *asked, *CPU, "--out", tmp_path / "flips")
    expected = f"another class than the model gives already, got '{told['predicted']}' for {told['name']}"
    assert expected in said.mistake
    assert not (tmp_path / "flips").exists()


@pytest.mark.parametrize("method", ["amortized", "prototype_guided"])
def test_a_wrong_setting_is_refused_before_networks_are_announced(digits_runs, tmp_path, method):
    said = cli("counterfactual", digits_runs / "plain", "--method", method, "--set", "nope=1", *CPU, "--out", tmp_path)
    assert f"counterfactual '{method}' has no setting 'nope'" in said.mistake
    assert said.out == ""
