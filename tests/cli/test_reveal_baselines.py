"""One-vs-one maps from images of the other class, from the command line."""

from __future__ import annotations

import pytest
import safetensors.torch

from rightreasons.experiments import Record
from rightreasons.experiments import baselines as named_baselines
from tests.cli.conftest import cli, width_of
from tests.experiments.kept import kept_in

CPU = ("--device", "cpu")
METHODS = ("--method", "integrated_gradients", "--method", "deep_lift", "--against", 3)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nearest", "nearest 3: maps begin at the nearest training image of that class; the model takes"),
        ("generated", "generated 3: maps begin at an image of that class generated from the image itself; the model"),
    ],
)
def test_maps_begin_at_an_image_of_the_other_class(digits_runs, tmp_path, monkeypatch, name, words):
    monkeypatch.setattr(named_baselines, "learnt_parts", kept_in(tmp_path / "kept"))
    ask = ("reveal", digits_runs / "plain", *METHODS, "--images", 4, *CPU)
    said = cli(*ask, "--baseline", name, "--out", tmp_path / "maps")
    assert said.code == 0, said
    assert words in said.out
    assert ("trained on the training images, once" in said.out) == (name == "generated")
    record = Record.read(tmp_path / "maps" / "reveal.json")
    assert record.config["baseline"] == name
    assert len(record.results["baselines"][name]["taken"]) == 4
    held = safetensors.torch.load_file(tmp_path / "maps" / "heatmaps.safetensors")
    assert held[f"baseline.{name}"].shape == (4, 1, 8, 8)
    plain = cli(*ask, "--out", tmp_path / "plain")
    assert "maps begin" not in plain.out
    before = safetensors.torch.load_file(tmp_path / "plain" / "heatmaps.safetensors")
    for method in ("integrated_gradients", "deep_lift"):
        assert not held[method].allclose(before[method])
    assert width_of(tmp_path / "maps" / "sheet.png") > width_of(tmp_path / "plain" / "sheet.png")


def test_the_page_of_a_whole_data_set_says_where_maps_begin(digits_runs, tmp_path):
    ask = ("reveal", digits_runs / "plain", "--images", 70, *METHODS, "--quiet", *CPU, "--out", tmp_path)
    said = cli(*ask, "--baseline", "nearest")
    assert said.code == 0, said
    page = (tmp_path / "index.html").read_text()
    assert "the predicted class against 3, from the nearest training image of that class" in page
    assert "baseline was" in cli(*ask, "--baseline", "0.5").mistake


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "deep_lift", "--baseline", "nearest"), "name that class: --against"),
        (("--against", "3", "--baseline", "nearest"), "expected a method that begins at a baseline"),
        ((*METHODS, "--baseline", "-3"), "expected a baseline among the pixels' values, 0 to 1, got -3"),
        ((*METHODS, "--baseline", "near"), "a number or one of mean, blurred, nearest, generated, got 'near'"),
    ],
)
def test_a_mistake_is_one_line(digits_runs, tmp_path, options, told):
    assert told in cli("reveal", digits_runs / "plain", *options, *CPU, "--out", tmp_path / "maps").mistake


def test_weights_with_images_of_ones_own_have_no_training_images(project):
    said = cli("train", "--data", "photos", "--model", "net.py:build", "--epochs", 1, *CPU, "--out", "run")
    assert said.code == 0, said
    named = ("--model", "net.py:build", "--weights", "run/model.safetensors", "--data", "photos")
    ask = ("reveal", *named, "--method", "deep_lift", "--against", "left", "--baseline", "nearest")
    assert "baseline 'nearest' needs training images, and none are known" in cli(*ask, *CPU).mistake
    assert cli("reveal", "run", *ask[-6:], "--images", 2, *CPU, "--out", "maps").code == 0


@pytest.mark.parametrize(
    ("table", "against", "told"),
    [
        ('name = "deep_lift"\nnope = 1', "3", "has no setting 'nope'"),
        ('name = "deep_left"', "3", "Did you mean 'deep_lift'?"),
        ('name = "deep_lift"', "nine", "no class 'nine' to explain against"),
        ('name = "deep_lift"', "", "name that class: --against"),
    ],
)
def test_mistakes_are_refused_before_networks_are_announced(digits_runs, tmp_path, table, against, told):
    (tmp_path / "methods.toml").write_text(f"[[method]]\n{table}\n")
    asked = ("--config", tmp_path / "methods.toml", "--baseline", "generated", "--against", against)
    said = cli("reveal", digits_runs / "plain", *asked, *CPU, "--out", tmp_path / "maps")
    assert told in said.mistake
    assert said.out == ""
