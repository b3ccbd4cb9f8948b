"""ClArC as recipes: directions from groups or masks, and what each revision does to a shortcut of one direction."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from rightreasons.core import BadModel, MissingAnnotation
from rightreasons.core.hooks import substituted
from rightreasons.data import ArrayDataset
from rightreasons.models import adapt
from rightreasons.training import (
    RECIPES,
    AClArC,
    FitSettings,
    Objective,
    PClArC,
    RRClArCRecipe,
    evaluate,
)
from rightreasons.training.recipes.artifact import (
    Artifact,
    by_groups,
    directions_of_groups,
    even_cells,
    principal_directions,
    probe_accuracy,
    values_of,
)
from rightreasons.training.recipes.clarc import frozen_below, moved_in
from tests.training.shortcut_images import EVEN, SETTINGS, killed_and_resumed, quiet, shortcut_images, worst
from tests.training.shortcut_images import mlp as small_mlp

SKEWED = (0.48, 0.02, 0.02, 0.48)
NAMES = ("rr_clarc", "p_clarc", "a_clarc")
mlp = partial(small_mlp, layer="1")
every = pytest.mark.parametrize("name", NAMES)


def shortcut(shares=SKEWED, images=600, seed=0, **given):
    """The patch is in the masks, too."""
    masks = torch.zeros(sum(round(share * images) for share in shares), 1, 6, 6)
    masks[:, :, 4:, 4:] = 1
    return shortcut_images(shares, images, seed, noise=150, contrast=60, **{"irrelevant": masks.bool(), **given})


def flipped(data):
    """The same images with the other value of the patch."""
    pixels = (255 * data.batch(torch.arange(len(data))).inputs).round().long()
    pixels[:, 0, 4:, 4:] = 230 - pixels[:, 0, 4:, 4:]
    return ArrayDataset(pixels.to(torch.uint8), data.target, classes=data.classes, name="flipped", group=data.group)


@pytest.fixture(scope="module")
def plain():
    model = mlp()
    quiet(model, shortcut(), Objective(), SETTINGS)
    return model


# What each comes to


@pytest.mark.parametrize("artifact", ["groups", "masks"])
@pytest.mark.parametrize("make", [partial(RRClArCRecipe, weight=10.0), AClArC], ids=["rr_clarc", "a_clarc"])
def test_training_on_raises_the_worst_group_over_plain_training(make, artifact, plain):
    test, model = shortcut(EVEN, seed=1), mlp()
    assert worst(plain, test) < 0.6
    result = make(artifact=artifact)(model, shortcut(), Objective(), SETTINGS, fit=quiet)
    assert worst(model, test) > worst(plain, test) + 0.1
    before, after = result.report
    assert before["shift"] > 0
    assert 0.9 < before["probe"] <= 1
    assert before["variance_share"] > 0.2
    assert after["slope"] < (0.02 if make is not AClArC else 0.2) * before["slope"]


@pytest.mark.parametrize("artifact", ["groups", "masks"])
def test_after_p_clarc_predictions_no_longer_change_with_the_artifact(artifact, plain):
    test, model = shortcut(EVEN, seed=1), mlp()
    changed = (evaluate(plain, test).predictions != evaluate(plain, flipped(test)).predictions).float().mean()
    assert changed > 0.3
    before, after = PClArC(artifact=artifact)(model, shortcut(), Objective(), SETTINGS, fit=quiet).report
    changed = (evaluate(model, test).predictions != evaluate(model, flipped(test)).predictions).float().mean()
    # The direction is exact from masks, and a mean over few images from groups.
    assert changed < {"masks": 0.01, "groups": 0.15}[artifact]
    assert after["variance_share"] < 1e-6 < before["variance_share"]
    assert after["probe"] < 0.7 < before["probe"]


@every
def test_without_a_first_training_the_model_is_taken_as_it_comes(name, plain, weights):
    model = mlp()
    model.load_state_dict(plain.state_dict())
    result = RECIPES[name](epochs_before=0)(model, shortcut(), Objective(), replace(SETTINGS, epochs=1), fit=quiet)
    assert [line["epoch"] for line in result.history] == ([] if name == "p_clarc" else [1.0])
    assert result.report[0]["train_accuracy"] == evaluate(plain, shortcut()).accuracy
    other = mlp()
    RECIPES[name]()(other, shortcut(), Objective(), SETTINGS, fit=quiet)
    assert weights(other).equal(weights(model)) == (name == "p_clarc")


@every
def test_the_same_seed_gives_the_same_weights_and_a_killed_recipe_goes_on(name, tmp_path, weights):
    data, settings = shortcut(images=200), FitSettings(epochs=2, batch_size=64, lr=0.01)
    models, recipe = [mlp() for _ in range(3)], RECIPES[name]()
    recipe(models[0], data, Objective(), settings, fit=quiet)
    stopped = killed_and_resumed(recipe, models[1:], data, tmp_path)
    assert stopped == (name != "p_clarc")
    assert (tmp_path / "plain" / "directions.safetensors").is_file()
    assert weights(models[2]).equal(weights(models[0]))
    assert set(models[2].state_dict()) == set(mlp().state_dict())


def test_frozen_weights_stay_and_the_others_move(weights):
    data, model = shortcut(images=200), mlp()
    recipe = RRClArCRecipe(epochs_after=1)
    quiet(model, data, Objective(), FitSettings(epochs=2))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    replace(recipe, epochs_before=0)(model, data, Objective(), FitSettings(), fit=quiet)
    after = model.state_dict()
    moved = {name for name, value in after.items() if not value.equal(before[name])}
    assert moved == {"network.3.weight", "network.3.bias"}
    assert all(weight.requires_grad for weight in model.parameters())
    replace(recipe, epochs_before=0, freeze=False)(model, data, Objective(), FitSettings(), fit=quiet)
    assert not any(value.equal(before[name]) for name, value in model.state_dict().items() if "network" in name)


def test_below_a_layer_normalizations_keep_their_statistics():
    network = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten())
    model = adapt(nn.Sequential(network, nn.Linear(16, 2))).train()
    with frozen_below(model, "0.2", torch.rand(2, 1, 6, 6)):
        assert not network[1].training
        assert network[3].training
        assert [weight.requires_grad for weight in network.parameters()] == [False] * 6 + [True] * 2
    assert all(module.training for module in model.modules())
    assert all(weight.requires_grad for weight in model.parameters())


def test_a_clarc_moves_images_to_the_place_of_a_random_value_only_while_training():
    network, generator = nn.Linear(4, 4), torch.Generator().manual_seed(0)
    basis = torch.eye(4)[:1]
    found = Artifact(basis, torch.tensor([[5.0, 9, 9, 9], [-5.0, 9, 9, 9]]))
    maps = torch.randn(64, 4, 3, 2, generator=generator)
    moved = moved_in(network.train(), found)(maps)
    assert moved[:, 1:].equal(maps[:, 1:])
    assert set(moved[:, 0].unique().round(decimals=4).tolist()) == {5.0, -5.0}
    assert bool((moved[:, 0].flatten(1) == moved[:, 0, :1, 0]).all() or moved[:, 0].flatten(1).std(dim=1).max() < 1e-5)
    assert moved_in(network.eval(), found)(maps) is maps


def test_p_clarc_gives_what_the_projected_network_gives(plain):
    data, model = shortcut(), mlp()
    model.load_state_dict(plain.state_dict())
    found = by_groups(plain, data, "1", kind="signal", rank=1, user="test")
    inputs = data.batch(torch.arange(50)).inputs
    v, z = found.basis[0], found.places.mean(dim=0)
    with torch.no_grad(), substituted(plain.network, "1", lambda a: a - torch.outer((a - z) @ v, v)):
        wanted = plain(inputs)
    PClArC(epochs_before=0)(model, data, Objective(), SETTINGS, fit=quiet)
    assert torch.allclose(model(inputs), wanted, rtol=1e-5, atol=1e-5)


# Where the directions come from


def test_in_even_cells_every_value_comes_as_often_as_any_other_within_a_class():
    target = torch.tensor([0, 0, 0, 0, 1, 1, 1, 2, 2])
    value = torch.tensor([0, 0, 0, 1, 0, 1, 1, 1, 1])
    rows = even_cells(target, value)
    cells = (2 * target + value)[rows]
    assert torch.bincount(cells).tolist() == [3, 3, 3, 3]


def test_the_direction_is_that_of_the_artifact_and_not_of_the_class_it_goes_with():
    generator = torch.Generator().manual_seed(0)
    group = torch.repeat_interleave(torch.arange(4), torch.tensor([490, 10, 10, 490]))
    target, value = group // 2, group % 2
    noise = 0.01 * torch.randn(1000, 5, generator=generator)
    activations = noise + 3 * target[:, None] * torch.eye(5)[0] + 2 * value[:, None] * torch.eye(5)[1]
    rows = even_cells(target, value)
    signal = directions_of_groups(activations[rows], value[rows], kind="signal", rank=1)
    assert signal[0, 1].abs() > 0.999
    several = directions_of_groups(activations[rows], value[rows], kind="svm", rank=3)
    assert several[0, 1].abs() > 0.9
    assert torch.allclose(several @ several.mT, torch.eye(3), atol=1e-5)
    with pytest.raises(ValueError, match="rank of at most 1"):
        directions_of_groups(activations[rows], value[rows], kind="signal", rank=2)


def test_principal_directions_are_those_of_the_second_moment():
    moves = torch.randn(40, 6, generator=torch.Generator().manual_seed(0)) @ torch.diag(
        torch.tensor([1.0, 5, 1, 3, 0, 0])
    )
    found = principal_directions(moves, rank=2)
    _, vectors = torch.linalg.eigh(moves.mT @ moves)
    assert torch.allclose((found @ vectors[:, [5, 4]]).abs(), torch.eye(2), atol=1e-4)
    with pytest.raises(ValueError, match="rank of at most 4"):
        principal_directions(moves, rank=5)


def test_a_probe_reads_what_is_there_and_nothing_else():
    generator = torch.Generator().manual_seed(0)
    group = torch.repeat_interleave(torch.arange(4), torch.tensor([190, 60, 60, 190]))
    target, value = group // 2, group % 2
    noise = torch.randn(500, 3, generator=generator)
    assert probe_accuracy(torch.cat([noise, 9.0 * value[:, None]], dim=1), target, value) > 0.99
    assert probe_accuracy(torch.cat([noise, 9.0 * target[:, None]], dim=1), target, value) == pytest.approx(
        0.5, abs=0.15
    )


# What is refused


@every
def test_what_is_missing_is_told(name):
    recipe, settings = RECIPES[name], FitSettings()
    with pytest.raises(MissingAnnotation, match=r"needs the group of each image.*artifact = 'masks'"):
        recipe()(mlp(), shortcut(images=40, shares=EVEN, group=None), Objective(), settings, fit=quiet)
    with pytest.raises(MissingAnnotation, match="the artifact tells the class of every image"):
        recipe()(mlp(), shortcut((0.5, 0, 0, 0.5), images=40), Objective(), settings, fit=quiet)
    data = shortcut(images=40, shares=EVEN, irrelevant=None)
    with pytest.raises(MissingAnnotation, match=r"needs irrelevant masks.*artifact = 'groups'"):
        recipe(artifact="masks")(mlp(), data, Objective(), settings, fit=quiet)
    with pytest.raises(BadModel, match="name one"):
        recipe()(adapt(mlp().network), shortcut(images=40, shares=EVEN), Objective(), settings, fit=quiet)


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"artifact": "words"}, "groups, masks"),
        ({"directions": "pca"}, "signal, svm"),
        ({"artifact": "masks", "directions": "svm"}, "expected directions 'signal'"),
        ({"rank": 0}, "rank of at least 1"),
        ({"epochs_before": -1}, "epochs_before"),
        ({"weight": "target:0.02"}, "a number or 'balance'"),
        ({"weight": -1.0}, "weight"),
        ({"epochs_after": 0}, "epochs_after"),
    ],
)
def test_settings_out_of_range(settings, why):
    with pytest.raises(ValueError, match=why):
        RRClArCRecipe(**settings)


def test_a_clarc_checks_its_epochs():
    with pytest.raises(ValueError, match="epochs_after"):
        AClArC(epochs_after=0)


def test_groups_that_cross_the_classes_are_the_values_and_others_are_taken_by_class():
    nested = shortcut(EVEN, images=40)
    assert values_of(nested, "test").equal(nested.group % 2)
    crossing = shortcut(EVEN, images=40, group=nested.group % 2)
    assert values_of(crossing, "test").equal(nested.group % 2)
