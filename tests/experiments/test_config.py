import dataclasses
import tomllib

import pytest

from rightreasons.experiments import (
    DataConfig,
    ModelConfig,
    RecipeConfig,
    RunConfig,
    TermConfig,
    TrainingConfig,
    as_dict,
    parse_run,
    read_study,
    read_toml,
    to_toml,
)
from rightreasons.experiments.study import STUDIES

FULL = RunConfig(
    seed=3,
    data=DataConfig(
        *("photos", "held out", "decoy/rrr", 2, 0.5, (-1.0, 1.0), 0.1, 0.5, "random", 32, 1, 7),
        annotations="masks.json",
        degrade={"boundary": 0.1, "seed": 3},
        classes=("Coat", "Dress"),
        images=100,
        test_images=750,
        features={"trunk": "efficientnet_lite0", "layer": "_blocks.10", "side": 160},
    ),
    model=ModelConfig("net.py:build", {"hidden": [50, 30], "deep": True}, "conv", "w.pt", (0.5, 0.4), (0.2, 0.3)),
    training=TrainingConfig(
        *(2, 64, "sgd", 0.1, 1e-7, 0.9, {"shift": 1, "flip": False}),
        schedule="plateau",
        schedule_factor=0.1,
        schedule_patience=4,
        patience=3,
        monitor="accuracy",
        annotated_batch=7,
        precision="bf16",
    ),
    terms={
        "first": TermConfig("rrr", 10.0, "saliency", {"score": "logit"}, {}),
        "second": TermConfig("res", 1.0, settings={"imputation": "gaussian"}),
    },
    recipe=RecipeConfig("jtt", {"upweight": 3}),
)


@pytest.mark.parametrize("config", [RunConfig(), FULL], ids=["defaults", "every key"])
def test_a_configuration_written_as_toml_reads_back_the_same(config):
    assert parse_run(tomllib.loads(to_toml(as_dict(config)))) == config


@pytest.mark.parametrize("name", STUDIES)
def test_every_study_reads_back_the_same(name):
    run = read_study(name).run
    assert parse_run(tomllib.loads(to_toml(as_dict(run)))) == run


def test_every_field_has_a_value_of_its_own_in_the_full_configuration():
    """Otherwise the round trip above would not see a forgotten key."""
    for part in (FULL.data, FULL.model, FULL.training, FULL.recipe):
        default = type(part)()
        same = [f.name for f in dataclasses.fields(part) if getattr(part, f.name) == getattr(default, f.name)]
        assert not same


@pytest.mark.parametrize(
    "text",
    ['quote " and \\ backslash', "two\nlines\ttab", "\x7f \x00 \x1b", "Größe ☂ 𝄞", "[bold]", ""],
)
def test_any_text_survives_toml(text):
    config = RunConfig(data=DataConfig(name=text), model=ModelConfig(settings={text: text, "list": [{"a b": text}]}))
    assert parse_run(tomllib.loads(to_toml(as_dict(config)))) == config


def test_numbers_survive_toml():
    config = RunConfig(training=TrainingConfig(lr=1e-300, weight_decay=7.8125e-7))
    assert parse_run(tomllib.loads(to_toml(as_dict(config)))) == config


def test_keys_without_a_value_are_left_out_and_read_as_none():
    text = to_toml(as_dict(RunConfig()))
    assert "decoy_size" not in text
    assert parse_run({"data": {"decoy_size": None}}).data.decoy_size is None


def test_whole_numbers_are_taken_for_fractions_and_not_the_other_way_round():
    assert parse_run({"training": {"lr": 1}}).training.lr == 1.0
    assert parse_run({"data": {"pixels": [0, 255]}}).data.pixels == (0.0, 255.0)


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"sed": 1}, "unknown key 'sed' in run. There are: seed, data, model, training, terms"),
        ({"data": {"nam": "x"}}, "unknown key 'nam' in data. There are: name, test"),
        ({"terms": {"a": {"loss": "rrr", "wieght": 1}}}, "unknown key 'wieght' in terms.a. There are: loss, weight"),
        ({"terms": {"a": {}}}, "missing key 'loss' in terms.a"),
        ({"terms": 3}, "expected a table for terms, got 3"),
        ({"terms": {"a": "rrr"}}, "expected a table for terms.a, got 'rrr'"),
        ({"model": "lenet"}, "expected a table for model, got 'lenet'"),
        ({"model": {"settings": 3}}, "expected a table of plain values for model.settings, got 3"),
        ({"seed": "1"}, "expected int for run.seed, got '1'"),
        ({"seed": True}, "expected int for run.seed, got True"),
        ({"training": {"epochs": 1.5}}, "expected int for training.epochs, got 1.5"),
        ({"training": {"lr": "fast"}}, "expected float for training.lr, got 'fast'"),
        ({"data": {"pixels": [0]}}, r"expected 2 numbers for data.pixels, got \[0\]"),
        ({"data": {"pixels": ["a", "b"]}}, "expected a list of numbers for data.pixels"),
        ({"data": {"pixels": "ab"}}, "expected a list of numbers for data.pixels"),
        ({"data": {"pixels": 1}}, "expected a list of numbers for data.pixels"),
        ({"data": {"masks": "none"}}, "expected true, zero, random, wrong, incomplete for data.masks, got 'none'"),
        ({"model": {"mean": []}}, "expected 1 number for model.mean"),
    ],
)
def test_what_is_wrong_is_said(values, told):
    with pytest.raises(ValueError, match=told):
        parse_run(values)


def test_dates_are_refused_since_a_record_cannot_hold_them():
    with pytest.raises(ValueError, match=r"expected a table of plain values for model\.settings"):
        parse_run(tomllib.loads("[model.settings]\nday = 2024-01-01"))


def test_a_file_that_is_no_toml_is_named_with_the_line(tmp_path):
    path = tmp_path / "run.toml"
    path.write_text("seed = 1\nlr == 2\n")
    with pytest.raises(ValueError, match=r"run.toml is no TOML: .*line 2"):
        read_toml(path)
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"run.toml is no TOML"):
        read_toml(path)
    with pytest.raises(ValueError, match="no configuration file"):
        read_toml(tmp_path / "other.toml")


def test_the_seed_of_the_data_is_the_runs_unless_it_has_its_own():
    assert RunConfig(seed=4).data_seed == 4
    assert RunConfig(seed=4, data=DataConfig(seed=0)).data_seed == 0


def test_the_classes_to_keep_are_names():
    assert parse_run({"data": {"classes": ["Coat", "Dress"]}}).data.classes == ("Coat", "Dress")
    for wrong in ("Coat", [1, 2]):
        with pytest.raises(ValueError, match=r"expected a list of names for data\.classes"):
            parse_run({"data": {"classes": wrong}})
