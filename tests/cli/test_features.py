import numpy as np
import pytest
from PIL import Image

from rightreasons.experiments import Record
from tests.cli.conftest import cli, control_characters, png
from tests.pictures import picture

CPU = ("--device", "cpu")
NETWORK = """
from torch import nn
from rightreasons.models import attach


def build(shape, classes):
    body = nn.Sequential(nn.Conv2d(shape[0], 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3))
    return attach(body, {"name": "position_attention", "reduction": 2}, classes, channels=6, hidden=4)
"""


@pytest.fixture
def run(project):
    (project / "attend.py").write_text(NETWORK)
    said = cli("train", "--data", "photos", "--model", "attend.py:build", "--epochs", 1, *CPU, "--out", "run")
    assert said.code == 0, said
    return project / "run"


def test_it_writes_a_page_the_numbers_the_raw_maps_and_the_pictures(run, project):
    said = cli("features", "run", "--index", 1, "--index", 0, "--query", "2,9", "--maps", 3, *CPU, "--out", "inside")
    assert said.code == 0, said
    out = project / "inside"
    assert {path.name for path in out.iterdir()} == {"index.html", "features.json", "features.safetensors", "images"}
    record = Record.read(out / "features.json")
    assert [told["position"] for told in record.results["images"]] == [1, 0]
    assert record.config["queries"] == [[2, 9]]
    assert record.results["layers"]["backbone.0"]["channels"] == 4
    assert len(record.results["layers"]["backbone.0"]["shown"]) == 3
    page = (out / "index.html").read_text()
    assert "what pixel 2,9 takes" in page
    assert "rightreasons" in page
    with Image.open(out / "images" / "001-attention-block.png") as shown:
        assert shown.width > 3 * 200
    assert "index.html, features.json, features.safetensors, images/" in said.out
    assert "Its learned scale is" in said.out
    assert control_characters(said.out) == []


def test_layers_are_listed_and_nothing_is_written(run, project):
    before = sorted(project.rglob("*"))
    said = cli("features", "run", "--list", *CPU)
    assert said.code == 0, said
    text = " ".join(said.out.split())
    for told in ("backbone.0 Conv2d maps, 4 x 10 x 10 yes", "head.2 Linear a vector of 4", "block PositionAttention"):
        assert told in text, said.out
    assert [path for path in sorted(project.rglob("*")) if path not in before] == []


def test_pictures_of_ones_own_and_weights_without_their_run(run, project):
    for seed in range(2):
        png(project / "mine" / f"{seed}.png", picture(0, 90 + seed))
    named = ("--model", "attend.py:build", "--weights", "run/model.safetensors", "--data", "photos")
    asked = ("--image", "mine", "--image", "photos/left/0.png", "--layer", "backbone.3", "--scale", "map")
    said = cli("features", *named, *asked, *CPU, "--out", "inside")
    assert said.code == 0, said
    results = Record.read("inside/features.json").results
    assert [told["name"] for told in results["images"]] == ["0.png", "1.png", "0.png"]
    assert all(told["truth"] is None for told in results["images"])
    assert list(results["layers"]) == ["backbone.3"]
    page = (project / "inside" / "index.html").read_text()
    assert "one for each map by itself" in page
    assert "<dt>Data</dt><dd>3 pictures of your own</dd>" in page
    assert "folder/photos" not in page
    assert "out of proportion" not in said.out


def test_mistakes_are_one_line_that_says_what_to_do_and_leave_no_folder(run, project):
    for options, told in (
        (("--layer", "backbone.1x"), "no layer named 'backbone.1x'. Did you mean 'backbone.1'"),
        (("--layer", "head.2"), "gives a vector of 4; choose among those that do: backbone, block, backbone.0"),
        (("--layer", "nope"), "no layer named 'nope'. With maps there are: backbone, block, backbone.0"),
        (("--layer", ""), "expected the name of a layer, got an empty one: --list prints the layers"),
        (("--index", 999), "expected positions from 0 to"),
        (("--index", 0, "--image", "photos/left/0.png"), "expected one way to name images"),
        (("--image", "missing.png"), "no picture missing.png"),
        (("--images", 25), "1 to 24 images on a page"),
        (("--query", "3"), "expected --query column,row, as 10,20, got '3'"),
        (("--query", "12,0"), "a pixel from 0,0 to 11,11"),
        (("--model", "mlp"), "is a run and has its own network"),
    ):
        said = cli("features", "run", *options, *CPU, "--out", "inside")
        assert told in said.mistake, said
        assert not (project / "inside").exists()


def test_a_network_without_maps_says_so(digits_runs, tmp_path):
    said = cli("features", digits_runs / "plain", *CPU, "--out", tmp_path / "inside")
    assert "has no convolution or attention block with maps of places" in said.mistake
    said = cli("features", digits_runs / "plain", "--list", *CPU)
    assert said.code == 0, said
    assert "a vector of" in said.out


def test_without_a_network_it_says_what_is_missing(tmp_path):
    for options in (("--list",), ("--data", "digits"), ("--model", "lenet", "--list")):
        said = cli("features", *options, *CPU, "--out", tmp_path / "inside")
        assert said.mistake.startswith("expected the folder of a run, or a network and its weights: --model and")


def test_a_folder_whose_pictures_lie_deeper_is_told_so(run, project):
    said = cli("features", "run", "--image", "photos", *CPU, "--out", "inside")
    assert "the folder photos holds no picture directly, where pictures are looked for" in said.mistake
    assert "sub-folders (left, right): name one with --image photos/left" in said.mistake
    (project / "empty").mkdir()
    assert cli("features", "run", "--image", "empty", *CPU).mistake == "the folder empty holds no picture"


@pytest.mark.parametrize("command", ["features", "reveal", "counterfactual"])
def test_a_squashed_picture_is_noted_once(run, project, command):
    for name, size in (("wide", (30, 10)), ("square", (20, 20))):
        png(project / "mine" / f"{name}.png", np.full((size[1], size[0], 3), 90, dtype=np.uint8))
    shown = "mine/wide.png" if command == "reveal" else "mine"
    said = cli(command, "run", "--image", shown, *CPU, "--out", "inside")
    assert said.code == 0, said
    count = "1 of 1 image is" if command == "reveal" else "1 of 2 images are"
    told = f"{count} squashed to 12x12, out of proportion; most of all mine/wide.png, 10x30 (height x width), by a "
    assert said.out.count("out of proportion") == 1
    assert told in said.out, said.out
