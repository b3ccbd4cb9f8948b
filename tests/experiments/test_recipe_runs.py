"""Recipes by configuration: built by name, run, resumed, recorded, and never mixed up."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import replace

import pytest
import torch

from rightreasons.core import MissingAnnotation, ResumeRefused, UnknownName
from rightreasons.data import groups_of
from rightreasons.experiments import (
    DataConfig,
    ModelConfig,
    RecipeConfig,
    RunConfig,
    TermConfig,
    TrainingConfig,
    as_dict,
    build_data,
    parse_run,
    read_toml,
    to_toml,
    train,
)
from rightreasons.experiments import run as module
from rightreasons.experiments.build import build_recipe
from rightreasons.experiments.study import arms_of, bound_arm, control_arms, plain_arm
from rightreasons.metrics import average_group_accuracy, worst_group_accuracy
from rightreasons.training import DFR, JTT, RECIPES, evaluate
from tests.experiments.conftest import RESOURCES

BASE = RunConfig(
    data=DataConfig(name="digits", decoy="decoy/rrr", decoy_size=2),
    model=ModelConfig(name="mlp", settings={"hidden": [20]}),
    training=TrainingConfig(epochs=2, batch_size=128, lr=0.01),
)


def with_recipe(name, **settings):
    return replace(BASE, recipe=RecipeConfig(name, settings))


def weights(model):
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.mark.parametrize("name", list(RECIPES))
def test_a_recipe_is_its_settings(name):
    """As every method: frozen, its representation its configuration, and plain enough for a file."""
    recipe = RECIPES[name]()
    values = dataclasses.asdict(recipe)
    held = parse_run(read_text(to_toml({"recipe": {"name": name, "settings": values}})))
    assert build_recipe(held.recipe) == recipe == eval(repr(recipe), {type(recipe).__name__: type(recipe)})
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(recipe, next(iter(values)), 3)
    assert json.loads(json.dumps(as_dict(held))) == json.loads(json.dumps(as_dict(parse_run(as_dict(held)))))


def read_text(text):
    import tomllib

    return tomllib.loads(text)


def test_recipes_are_built_by_name_with_their_settings():
    assert build_recipe(RecipeConfig()) is None
    assert build_recipe(RecipeConfig("jtt", {"upweight": 5})) == JTT(upweight=5)
    assert build_recipe(RecipeConfig("dfr", {"strengths": [1, 0.1]})) == DFR(strengths=(1, 0.1))
    with pytest.raises(UnknownName, match=r"unknown recipe 'jt'\. Did you mean 'jtt'"):
        build_recipe(RecipeConfig("jt"))
    with pytest.raises(ValueError, match=r"recipe 'jtt' has no setting 'lambda'\. There are: first_epochs, upweight"):
        build_recipe(RecipeConfig("jtt", {"lambda": 1}))
    with pytest.raises(ValueError, match="expected the name of a recipe with its settings"):
        build_recipe(RecipeConfig(settings={"upweight": 5}))
    with pytest.raises(ValueError, match="unknown key 'kind' in recipe"):
        parse_run({"recipe": {"kind": "jtt"}})


def test_an_older_configuration_is_that_of_a_run_without_a_recipe():
    older = as_dict(BASE)
    del older["recipe"]
    assert parse_run(older) == BASE
    assert parse_run(read_text(to_toml(as_dict(BASE)))) == BASE


def test_a_run_with_a_recipe_is_recorded_resumed_and_not_run_again(tmp_path, monkeypatch):
    config = with_recipe("jtt", upweight=3)
    whole = train(config, tmp_path / "whole", RESOURCES)
    assert sorted(path.name for path in whole.out.iterdir() if path.is_dir()) == ["first", "second"]
    assert parse_run(read_toml(whole.out / "config.toml")) == config
    assert [line["stage"] for line in whole.record.history] == [1, 2, 2]
    assert {"test_accuracy", "loss"} <= set(whole.record.history[0])
    assert whole.record.results["recipe"][0]["misclassified"] > 0

    loop, calls = module.fit, []

    def killed(*args, **kwargs):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return loop(*args, **kwargs)

    monkeypatch.setattr(module, "fit", killed)
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "killed", RESOURCES)
    with pytest.raises(ResumeRefused, match=r"recipe\.settings\.upweight was 3 and is now 4"):
        train(with_recipe("jtt", upweight=4), tmp_path / "killed", RESOURCES)
    monkeypatch.setattr(module, "fit", loop)
    assert weights(train(config, tmp_path / "killed", RESOURCES).model).equal(weights(whole.model))
    monkeypatch.setattr(module, "fit", lambda *_, **__: pytest.fail("it was run again"))
    assert weights(train(config, tmp_path / "whole", RESOURCES).model).equal(weights(whole.model))


def test_groups_of_the_test_are_scored(tmp_path):
    run = train(with_recipe("group_dro"), tmp_path, RESOURCES)
    test = build_data(BASE.data, seed=0).test
    prediction, group = evaluate(run.model, test).predictions, groups_of(test)
    scores = run.record.results["test"]
    assert scores["worst_group"] == pytest.approx(worst_group_accuracy(prediction, test.target, group))
    assert scores["average_group"] == pytest.approx(average_group_accuracy(prediction, test.target, group))
    assert len(run.record.results["recipe"]) == 10


def test_data_without_groups_have_no_group_scores(tmp_path):
    config = replace(BASE, data=DataConfig(name="digits"), training=replace(BASE.training, epochs=0))
    assert not {"worst_group", "average_group"} & set(train(config, tmp_path, RESOURCES).record.results["test"])


def test_a_decoy_on_every_image_gives_dfr_nothing_to_balance(tmp_path):
    with pytest.raises(MissingAnnotation, match="expected groups that cross the classes"):
        train(with_recipe("dfr"), tmp_path, RESOURCES)


def test_the_other_arms_of_a_study_have_no_recipe_and_there_are_no_masks_to_control():
    config = with_recipe("find_another")
    assert plain_arm(config) == BASE
    assert bound_arm(config).recipe == RecipeConfig()
    assert control_arms(config) == {}
    assert "zero mask" in control_arms(replace(config, terms={"rrr": TermConfig("rrr")}))
    assert arms_of(config)["after"] == config
