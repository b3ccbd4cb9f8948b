import json

import pytest
import torch

from rightreasons.experiments import read_quality
from tests.cli.conftest import cli, control_characters

QUICK = ("--images", 8, "--device", "cpu", "--batch-size", 4)


@pytest.fixture(scope="module")
def evaluated(digits_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("quality")
    methods = ("--method", "saliency", "--method", "grad_cam", "--method", "input_x_gradient")
    said = cli("evaluate", digits_runs / "plain", *methods, *QUICK, "--out", out)
    assert said.code == 0, said
    return out, said


def test_it_writes_a_page_and_the_numbers(evaluated):
    out, said = evaluated
    assert {path.name for path in out.iterdir()} == {"index.html", "quality.json"}
    table = read_quality(out / "quality.json")
    assert table.names == ("saliency", "grad_cam", "input_x_gradient", "random heatmap", "edge detector")
    assert len(table.index) == 8
    assert table["saliency", "deletion"].scores.shape == (8,)
    assert "How good are the explanations?" in (out / "index.html").read_text()
    assert "index.html, quality.json" in said.out
    assert control_characters(said.out) == []


def test_the_table_is_shown_with_the_controls(evaluated):
    _, said = evaluated
    lines = [line.split()[0] for line in said.out.splitlines() if line.strip()]
    assert {"saliency", "random", "edge"} <= set(lines)
    assert "not clearly better than a random heatmap" in " ".join(said.out.split())


def test_a_method_that_cannot_explain_the_network_is_told_by_its_reason(evaluated):
    out, said = evaluated
    assert said.err.startswith("Grad-CAM: ")
    assert "no convolution" in said.err
    row = read_quality(out / "quality.json").rows[1]
    assert (row.name, bool(row.reason)) == ("grad_cam", True)
    assert "no convolution" in (out / "index.html").read_text()


def test_the_record_says_what_was_asked(evaluated):
    held = json.loads((evaluated[0] / "quality.json").read_text())
    assert held["kind"] == "evaluate"
    assert held["config"]["images"] == 8
    assert held["config"]["methods"] == ["saliency", "grad_cam", "input_x_gradient"]
    assert held["environment"]["device"] == "cpu"


def test_the_same_seed_gives_the_same_scores_twice(digits_runs, tmp_path):
    asked = ("--metric", "deletion", "--metric", "random_logit", "--method", "saliency")
    for name, seed in (("one", 1), ("again", 1), ("other", 2)):
        said = cli("evaluate", digits_runs / "plain", *asked, *QUICK, "--seed", seed, "--out", tmp_path / name)
        assert said.code == 0, said
    one, again, other = (read_quality(tmp_path / name / "quality.json") for name in ("one", "again", "other"))
    assert one.index == again.index
    assert one.index != other.index
    for metric in ("deletion", "random_logit"):
        assert torch.equal(one["saliency", metric].scores, again["saliency", metric].scores)


def test_weights_and_a_folder_of_images(project):
    said = cli("train", "--data", "photos", "--model", "net.py:build", "--epochs", 1, "--device", "cpu", "--out", "run")
    assert said.code == 0, said
    weights = ("--model", "net.py:build", "--weights", "run/model.safetensors", "--data", "photos")
    said = cli("evaluate", *weights, "--metric", "pointing_game", "--target", "true", *QUICK, "--out", "q")
    assert said.code == 0, said
    table = read_quality("q/quality.json")
    assert table.target == "true"
    assert [row.reason for row in table.rows] == [""] * 5
    assert torch.isfinite(table["saliency", "pointing_game"].scores).any()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--method", "salency"), "unknown attribution 'salency'. Did you mean 'saliency'?"),
        (("--metric", "deletino"), "unknown metric 'deletino'. Did you mean 'deletion'?"),
        (("--images", "0"), "expected methods, images and a batch size of at least 1, got 3, 0 and 32"),
        (("--model", "mlp"), "is a run and has its own network"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_folder(digits_runs, tmp_path, options, told):
    said = cli("evaluate", digits_runs / "plain", *options, "--out", tmp_path / "q")
    assert told in said.mistake
    assert not (tmp_path / "q").exists()


def test_no_default_metric_judges_the_model_in_place_of_the_map(evaluated):
    """Masks say where a model should look: an explainer that shows that it does not would come out worst."""
    names = [measure.name for measure in read_quality(evaluated[0] / "quality.json").measures]
    assert names == ["deletion", "insertion", "max_sensitivity", "parameter_randomization", "sparseness"]
