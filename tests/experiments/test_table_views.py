"""The same images under every arm, from weights that were kept."""

from __future__ import annotations

import shutil

import pytest
import torch

import rightreasons.experiments.table_views as module
from rightreasons.core import CorruptData
from rightreasons.experiments import build_data, load_run, train
from rightreasons.experiments.table import PLAIN, Records, read_table, table_rows
from rightreasons.experiments.table_views import first_of_classes, table_views
from tests.experiments.table_files import QUICK, RESOURCES


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A table that was run once: its plan, its rows and the folder of its weights."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "quick.toml").write_text(QUICK)
    plan, records = read_table(str(folder / "quick.toml")), Records([folder / "records"])
    for seed in range(2):
        for name, config in plan.runs(seed, controls=False).items():
            place = f"quick/seed-{seed}/{name.replace(' ', '-').lower()}"
            records.add(train(config, folder / "runs" / place, RESOURCES).record, place)
    return plan, table_rows(plan, records), folder / "runs"


@pytest.fixture
def runs(quick, tmp_path):
    """A copy of the folder of weights, to take something away from."""
    shutil.copytree(quick[2], tmp_path / "runs")
    return tmp_path / "runs"


def weights(runs, seed, name):
    return runs / "quick" / f"seed-{seed}" / name / "model.safetensors"


def test_images_are_the_first_of_evenly_spaced_classes():
    target = torch.tensor([3, 3, 0, 1, 2, 0, 1, 5, 4])
    assert first_of_classes(target, 6) == [2, 3, 4, 0, 8, 7]
    assert first_of_classes(target, 3) == [2, 4, 8]
    assert first_of_classes(target, 1) == [2]
    assert first_of_classes(target, 9) == first_of_classes(target, 6)


def test_every_arm_is_shown_the_same_decoyed_images(quick):
    plan, rows, runs = quick
    views = table_views(plan, rows, runs, resources=RESOURCES)
    assert [arm.name for arm in views.arms] == [PLAIN, "clean bound", "RRR"]
    assert views.missing == {}
    assert [image.truth for image in views.images] == [0, 2, 4, 6, 8]
    assert views.rule.endswith("5 classes, evenly spaced: 0, 2, 4, 6, 8.")
    test = build_data(plan.plain.data, seed=0).test
    batch = test.batch(torch.tensor([image.position for image in views.images]))
    assert all(torch.equal(image.image, own) for image, own in zip(views.images, batch.inputs, strict=True))
    assert all(bool(image.irrelevant.any()) for image in views.images)
    for arm, name in zip(views.arms, ["plain", "clean-bound", "rrr"], strict=True):
        model = load_run(runs / "quick" / "seed-0" / name).model
        inputs = batch.inputs.clone().requires_grad_()
        logits = model(inputs)
        (gradient,) = torch.autograd.grad(logits.log_softmax(dim=1).sum(), inputs)
        assert arm.predictions == tuple(logits.argmax(dim=1).tolist())
        torch.testing.assert_close(arm.heatmaps["Saliency"], gradient[:, 0])


def test_one_of_the_two_explainers_was_used_by_no_arm(quick):
    plan, rows, runs = quick
    views = table_views(plan, rows, runs, count=2, resources=RESOURCES)
    assert list(views.explainers) == ["Saliency", "Integrated gradients"]
    assert views.untrained == "Integrated gradients"
    assert views.arms[0].heatmaps["Integrated gradients"].shape == (2, 8, 8)


def test_arms_without_weights_are_named(quick, runs):
    plan, rows, _ = quick
    for seed in range(2):
        weights(runs, seed, "rrr").unlink()
    views = table_views(plan, rows, runs, resources=RESOURCES)
    assert [arm.name for arm in views.arms] == [PLAIN, "clean bound"]
    assert views.missing == {"RRR": "weights not kept of seed 0"}


def test_the_seed_with_the_most_weights_is_shown(quick, runs):
    plan, rows, _ = quick
    weights(runs, 0, "rrr").unlink()
    views = table_views(plan, rows, runs, resources=RESOURCES)
    assert views.seed == 1
    assert len(views.arms) == 3


def test_weights_are_found_by_what_was_run_not_by_their_folder(quick, runs):
    plan, rows, _ = quick
    runs.joinpath("quick", "seed-0").rename(runs / "elsewhere")
    assert table_views(plan, rows, runs, resources=RESOURCES).seed == 0


def test_without_weights_no_images_are_loaded(quick, tmp_path, monkeypatch):
    plan, rows, _ = quick
    monkeypatch.setattr(module, "build_data", None)
    for folder in (tmp_path, tmp_path / "nowhere"):
        views = table_views(plan, rows, folder, resources=RESOURCES)
        assert (views.images, views.arms) == ((), ())
        assert list(views.missing) == [PLAIN, "clean bound", "RRR"]


def test_a_damaged_run_is_an_error_not_a_missing_one(quick, runs):
    plan, rows, _ = quick
    weights(runs, 0, "rrr").with_name("record.json").write_text("{")
    with pytest.raises(CorruptData):
        table_views(plan, rows, runs, resources=RESOURCES)
    with pytest.raises(ValueError, match="at least one image"):
        table_views(plan, rows, runs, count=0, resources=RESOURCES)
