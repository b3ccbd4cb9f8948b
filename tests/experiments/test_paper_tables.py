"""The tables of the attention-and-counterfactuals paper, and what a record tells of a run's cost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.data import ArrayDataset, FeatureDataset, Subset
from rightreasons.experiments import features
from rightreasons.experiments.config import parse_run
from rightreasons.experiments.features import TrunkSettings, UpTo, with_features
from rightreasons.experiments.run import FITTED, Resources, fitted, scores, train, weight_counts
from rightreasons.experiments.table import read_table
from rightreasons.experiments.table.columns import COLUMNS, column_text, published_text
from rightreasons.experiments.table.rows import figures
from rightreasons.models import BACKBONES, adapt, build, count_weights
from rightreasons.training import evaluate

QUIET = Resources("cpu", progress=False)


def trunk():
    """Two convolutions of 3 * 5 * 16 + 5 and 5 * 7 + 7 weights, and a head of 7 * 9 + 9 that no feature is of."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 5, 4, stride=4), nn.ReLU(), nn.Conv2d(5, 7, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return adapt(nn.Sequential(*layers, nn.Linear(7, 9)), "2", mean=(0.5,), std=(0.5,))


@pytest.fixture(autouse=True)
def own_trunk(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "TRUNKS", {**features.TRUNKS, "tiny": trunk})
    monkeypatch.setattr(features, "BACKBONES", {**BACKBONES, "last": ""})
    monkeypatch.setattr(features, "backbone", lambda name, **asked: LastMap(asked))
    monkeypatch.setenv("RIGHTREASONS_CACHE", str(tmp_path / "cache"))


class LastMap(nn.Module):
    def __init__(self, asked):
        super().__init__()
        self.asked = asked

    def forward(self, images):
        return images.expand(-1, 3, -1, -1)

    def extra_repr(self):
        return repr(self.asked)


def images(count=12):
    torch.manual_seed(1)
    pixels = torch.randint(256, (count, 1, 8, 8), dtype=torch.uint8)
    return ArrayDataset(pixels, torch.arange(count) % 3, classes=["a", "b", "c"], name="noise")


def test_a_trunk_without_a_layer_gives_its_last_map():
    data = with_features(images(), TrunkSettings("last", side=16, normalization="imagenet"))
    assert data.part.asked == {"pretrained": True, "normalization": "imagenet", "size": 16}
    assert data.shape == (3, 8, 8)
    assert "last map at 16" in data.name
    with pytest.raises(ValueError, match=r"no frozen trunk named 'tiny'\. There are: vgg16"):
        TrunkSettings("tiny")
    with pytest.raises(ValueError, match="expected own, imagenet, signed, unscaled, scaled_twice, got 'none'"):
        TrunkSettings("last", normalization="none")
    with pytest.raises(ValueError, match="own normalization with a layer"):
        TrunkSettings("tiny", "1", normalization="imagenet")


@pytest.mark.parametrize(("layer", "weights"), [("1", 245), ("2", 245 + 42)])
def test_only_the_weights_that_run_are_counted(tmp_path, layer, weights):
    part = UpTo(trunk(), layer)
    data = FeatureDataset(images(), part, tmp_path)
    assert data.frozen_weights() == weights
    assert not any(module._forward_pre_hooks for module in part.modules())
    model = adapt(build("attention_head", data.shape, 3, settings={"hidden": 4}))
    own = count_weights(model.network)
    assert weight_counts(model, data) == {"parameters": weights + own, "trainable": own}
    for weight in model.network.head.parameters():
        weight.requires_grad_(False)
    assert weight_counts(model, images())["trainable"] == 0


def test_the_loss_of_a_split_is_its_mean_cross_entropy():
    model, data = adapt(build("mlp", (1, 8, 8), 3, settings={"hidden": [4]})), images()
    found = evaluate(model, data)
    picked = F.log_softmax(found.logits.double(), dim=1)[torch.arange(12), found.target]
    assert scores(model, data)["loss"] == pytest.approx(-float(picked.mean()))
    assert fitted(model, data) == {key: scores(model, data)[key] for key in ("accuracy", "loss", "images")}


def test_many_training_images_are_looked_at_in_part():
    model, data = adapt(build("mlp", (1, 8, 8), 3, settings={"hidden": []})), images()
    many = Subset(data, torch.arange(FITTED + 500) % 12)
    found = fitted(model, many)
    assert found["images"] == FITTED
    assert found == fitted(model, many)


def test_a_record_tells_what_the_columns_show(tmp_path):
    given = {"data": {"name": "digits", "validation": 0.2}, "model": {"name": "mlp"}, "training": {"epochs": 1}}
    record = train(parse_run(given), tmp_path / "run", QUIET).record
    for name in ("loss", "validation_accuracy", "validation_loss", "train_accuracy", "train_loss"):
        assert math.isfinite(COLUMNS[name].of(record.results))
    assert COLUMNS["parameters"].of(record.results) == 64 * 50 + 50 + 50 * 30 + 30 + 30 * 10 + 10
    assert COLUMNS["seconds"].of(figures(record)) == pytest.approx(record.seconds)
    last = record.history[-1]
    assert COLUMNS["validation_accuracy"].of(record.results) == pytest.approx(100 * last["validation_accuracy"])
    assert math.isnan(COLUMNS["parameters"].of({"test": {"accuracy": 0.5}}))


def test_the_time_to_99_per_cent_follows_from_the_held_out_images(tmp_path):
    given = {"data": {"name": "digits"}, "model": {"name": "mlp"}, "training": {"epochs": 1}}
    record = train(parse_run(given), tmp_path / "run", QUIET).record
    held_out = [0.98, 0.99, 0.985, 0.995]
    epochs = [
        {"seconds": 2.0 + n, "validation_accuracy": right, "test_accuracy": 1.0} for n, right in enumerate(held_out)
    ]

    def read(history):
        return COLUMNS["seconds_to_99"].of(figures(replace(record, history=history)))

    assert read(epochs) == 5.0
    assert read(epochs[3:]) == 5.0
    assert math.isnan(read(epochs[:1]))
    assert math.isnan(read([{"seconds": 1.0, "test_accuracy": 1.0}]))


def test_columns_have_digits_of_their_own():
    assert [column_text(name, 4214829.126, 2) for name in ("accuracy", "parameters", "parameters_gain")] == [
        "4214829.13",
        "4,214,829",
        "4214829.13",
    ]
    assert column_text("loss", 0.06591, 1) == "0.0659"
    assert [published_text(value) for value in (96.7, 4214829.0, 122.61)] == ["96.7", "4,214,829", "122.61"]


def test_the_five_variants_of_the_attention_table_differ_in_their_block_alone():
    plan = read_table("attention")
    assert list(plan.base) == ["plain", "SE", "CBAM", "PAM", "GC"]
    for config in plan.arms.values():
        settings = {"settings": plan.plain.model.settings}
        assert replace(config, model=replace(config.model, **settings)) == plan.plain
        assert set(config.model.settings) == {"block"}
    weights = {
        name: count_weights(build(c.model.name, (1280, 3, 3), 10, settings=c.model.settings)) - 165_258
        for name, c in plan.base.items()
    }
    # As in the paper's table 4, whose 63 and 35 more behind SE and PAM are misprints.
    assert weights == {"plain": 0, "SE": 204_800, "CBAM": 204_898, "PAM": 2_048_001, "GC": 204_800}


def test_the_published_values_are_those_of_the_paper():
    found = {(p.arm, p.column): p.value for p in read_table("attention").published}
    assert found["CBAM", "accuracy"] == 97.0
    assert found["PAM", "parameters"] == 6298230
    assert len(found) == 5 * 4
    found = {(p.arm, p.column): p.value for p in read_table("backbones").published}
    assert found["InceptionV3, new", "validation_accuracy"] == 21.2
    assert found["plain", "accuracy"] == 99.02
    assert len(found) == 13 * 4 + 3
    assert all(p.mark == "read" for name in ("attention", "backbones", "finetune") for p in read_table(name).published)


def test_the_backbones_are_all_there_and_only_the_packaged_one_is_trained_before():
    plan = read_table("backbones")
    named = [c.model.settings["backbone"] for c in plan.arms.values() if c.model.name == "backbone"]
    assert sorted(told["name"] for told in named) == sorted(BACKBONES)
    assert not any("pretrained" in told for told in named)
    frozen = [c.data.features["trunk"] for c in plan.arms.values() if c.data.features]
    assert frozen == ["efficientnet_lite0"] * 4


def test_what_is_fine_tuned_begins_where_its_features_end():
    for config in read_table("finetune").arms.values():
        if config.model.name == "efficientnet_lite0_tail":
            assert config.data.features["layer"] == f"_blocks.{config.model.settings['after']}"
            assert config.data.features["side"] == 112
