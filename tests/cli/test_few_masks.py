"""A user with few masks."""

import json

import pytest

from tests.cli.conftest import cli

PLAIN = """
[data]
name = "digits"
decoy = "decoy/rrr"
decoy_size = 2
annotated = 0.02
[model]
name = "mlp"
[training]
epochs = 1
batch_size = 64
"""


@pytest.fixture(scope="module")
def few(tmp_path_factory):
    """A plain run on digits of which one in fifty is annotated."""
    out = tmp_path_factory.mktemp("few")
    (out / "plain.toml").write_text(PLAIN)
    said = cli("train", "--config", out / "plain.toml", "--device", "cpu", "--out", out / "plain")
    assert said.code == 0, said
    return out / "plain"


def revise(run, out, *flags):
    said = cli("revise", run, *flags, "--epochs", 1, "--device", "cpu", "--out", out)
    assert said.code == 0, said
    return said, json.loads((out / "record.json").read_text())


def test_a_loss_on_hardly_any_image_is_told(few, tmp_path):
    said, record = revise(few, tmp_path / "alone")
    share = record["history"][-1]["annotated_share"]
    assert 0.01 < share < 0.03
    assert f"counted {share * 64:.2g} annotated images a step" in said.out
    assert "--annotated-batch 64" in said.out


def test_drawn_images_are_counted_and_nothing_is_said(few, tmp_path):
    said, record = revise(few, tmp_path / "drawn", "--annotated-batch", 64)
    assert record["config"]["training"]["annotated_batch"] == 64
    assert "annotated images a step" not in said.out


def test_pixels_are_swapped_without_a_loss(few, tmp_path):
    _, record = revise(few, tmp_path / "swapped", "--irrelevant", "swapped", "--borrow", 2, "--grow", 1)
    assert record["config"]["terms"] == {}
    training = record["config"]["training"]
    assert training["augmentation"]["borrow"] == 2
    assert training["annotated_batch"] == 64, "what lends its masks is to be drawn"


def test_pixels_are_swapped_beside_a_loss_that_is_asked_for(few, tmp_path):
    _, record = revise(few, tmp_path / "both", "--irrelevant", "uniform", "--weight", 0.1)
    assert list(record["config"]["terms"]) == ["rrr"]
    assert record["config"]["training"]["annotated_batch"] == 0


@pytest.mark.parametrize("flag", ["--borrow", "--grow"])
def test_which_pixels_without_by_what_is_refused(few, tmp_path, flag):
    said = cli("revise", few, flag, 1, "--out", tmp_path / "run")
    assert said.code == 2
    assert "--irrelevant swapped" in said.mistake


def test_a_weight_that_follows_the_task_is_told_to_end_near_0_after_a_finished_run(few, tmp_path):
    said, _ = revise(few, tmp_path / "on", "--weight", "balance")
    assert "--fresh, or a number" in " ".join(said.out.split())
    said, _ = revise(few, tmp_path / "anew", "--weight", "balance", "--fresh")
    assert "or a number" not in said.out


def test_revising_without_a_word_still_takes_the_loss(few, tmp_path):
    """Also where the run replaced pixels already."""
    revise(few, tmp_path / "swapped", "--irrelevant", "uniform")
    _, record = revise(tmp_path / "swapped", tmp_path / "again")
    assert list(record["config"]["terms"]) == ["rrr"]
    assert record["config"]["training"]["augmentation"]["irrelevant"] == "uniform"


def test_drawn_images_without_anything_to_look_at_them_are_refused(tmp_path):
    said = cli("train", "--data", "digits", "--annotated-batch", 8, "--out", tmp_path / "run")
    assert said.code == 2
    assert "--loss" in said.mistake
