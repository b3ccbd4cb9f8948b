"""The tables that ship: each is read, and each of its runs can be begun, on a handful of images instead of its own."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest
import torch

from rightreasons.data import ArrayDataset, Subset
from rightreasons.data import load as whole
from rightreasons.experiments import build
from rightreasons.experiments.build import build_run, check_names
from rightreasons.experiments.table import read_table, tables
from rightreasons.training.objective import TrainingStep

BEGUN = ("cdep-decoy", "color-mnist", "r4", "rrr", "squares-asym", "toy-colors", "typology-feedback", "typology-mnist")
TWINS = {
    "squares-sym": "squares-asym",
    "typology-fashion": "typology-mnist",
    "typology-feedback-fashion": "typology-feedback",
}
COUNT = 100


@cache
def handful(name, split, *, folder=None, cache=None):
    """Of drawn images the first of each class; noise in place of those that are fetched."""
    if name in ("mnist", "fashion_mnist"):
        pixels = torch.randint(256, (COUNT, 1, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
        return ArrayDataset(pixels, torch.arange(COUNT) % 10, classes=[str(n) for n in range(10)], name=name)
    data = whole(name, split)
    return Subset(data, torch.arange(COUNT))


@pytest.fixture(autouse=True)
def few_images(monkeypatch):
    monkeypatch.setattr(build, "load", handful)


@pytest.mark.parametrize("name", tables())
def test_every_table_names_only_what_exists(name):
    plan = read_table(name)
    for entry in plan.entries():
        check_names(entry.config)
    assert plan.name == name
    assert plan.description.endswith(".")


@pytest.mark.parametrize(("name", "arm"), [(name, arm) for name in BEGUN for arm in read_table(name).base])
def test_a_run_of_a_table_can_be_begun(name, arm):
    config = read_table(name).base[arm]
    splits, model, objective = build_run(config)
    batch = splits.train.batch(torch.arange(4))
    move = build.build_fit_settings(config.training, 0, config.data.pixels).augmentation
    if move is not None:
        batch = move(batch, torch.Generator().manual_seed(0))
    parts = TrainingStep(model, objective)(batch)
    assert set(config.terms) <= set(parts)
    assert all(torch.isfinite(part).all() for part in parts.values())
    parts["loss"].backward()
    build.build_recipe(config.recipe)


@pytest.mark.parametrize(("name", "twin"), TWINS.items())
def test_twins_differ_in_their_images_alone(name, twin):
    own, other = read_table(name), read_table(twin)
    names = {own.plain.data.name, other.plain.data.name}
    assert len(names) == 2
    for arm, config in own.arms.items():
        expected = other.arms[arm]
        assert replace(config, data=replace(config.data, name=expected.data.name)) == expected


def test_color_and_feedback_have_no_controls_of_masks():
    for name in ("color-mnist", "typology-feedback", "typology-feedback-fashion"):
        assert not [entry.name for entry in read_table(name).entries() if entry.control]
    kinds = {config.data.masks for config in read_table("typology-feedback").arms.values()}
    assert kinds == {"wrong", "incomplete"}


def test_squares_show_what_the_paper_measures():
    plan = read_table("squares-asym")
    assert {"average_group", "worst_group"} <= set(plan.columns)
    assert {(row.arm, row.value) for row in plan.published if row.column == "worst_group"} == {("plain", 12.0)}
