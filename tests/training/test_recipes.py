"""Mask-free recipes: each formula against a plain version, and all of them on a shortcut with a few exceptions."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.core import MissingAnnotation
from rightreasons.data import ArrayDataset, Grouped, Subset, decoy, groups_of, split
from rightreasons.metrics import average_group_accuracy, per_group_accuracy
from rightreasons.supervision import RRR
from rightreasons.training import (
    DFR,
    JTT,
    RECIPES,
    FindAnotherExplanation,
    FitSettings,
    GroupDRO,
    GroupDROLoss,
    Objective,
    RecipeResult,
    Term,
    evaluate,
)
from rightreasons.training.recipes import group_dro as robust
from rightreasons.training.recipes import jtt as twice
from rightreasons.training.recipes.find_another import Marked
from tests.training.shortcut_images import (
    EVEN,
    SETTINGS,
    killed_and_resumed,
    mlp,
    quiet,
    shortcut,
    worst,
)

# The recipes of class artifact compensation have files of their own.
every_recipe = pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith("clarc")])


@pytest.fixture(scope="module")
def plain():
    model = mlp()
    quiet(model, shortcut(), Objective(), SETTINGS)
    return model


@every_recipe
def test_each_raises_the_worst_group_over_plain_training(name, plain):
    test = shortcut(EVEN, seed=1)
    assert worst(plain, test) < 0.1
    model = mlp()
    result = RECIPES[name]()(model, shortcut(), Objective(), SETTINGS, fit=quiet)
    assert worst(model, test) > worst(plain, test) + 0.2
    assert isinstance(result, RecipeResult)
    assert result.report


@every_recipe
def test_the_history_is_told_stage_by_stage(name):
    model, data = mlp(), shortcut(images=200)
    recipe = RECIPES[name]()
    result = recipe(model, data, Objective(), FitSettings(epochs=2), fit=partial(quiet, validate={"validation": data}))
    stages = [line["stage"] for line in result.history]
    expected = {"find_another": [1, 1, 2, 2], "dfr": [1, 1], "jtt": [1, 2, 2], "group_dro": [1, 1]}
    assert stages == expected[name]
    assert [line["epoch"] for line in result.history] == [float(i + 1) for i in range(len(stages))]
    assert result.steps == {"jtt": 21}.get(name, len(stages))  # few images, but each error twenty times
    assert result.resumed_from is None


@every_recipe
def test_the_same_seed_gives_the_same_weights_and_a_killed_recipe_goes_on(name, tmp_path, weights):
    data, settings = shortcut(images=200), FitSettings(epochs=2, batch_size=64, lr=0.01)
    models, recipe = [mlp() for _ in range(3)], RECIPES[name]()
    recipe(models[0], data, Objective(), settings, fit=quiet)
    stopped = killed_and_resumed(recipe, models[1:], data, tmp_path)
    assert stopped == (name in ("find_another", "jtt"))
    assert weights(models[2]).equal(weights(models[0]))
    assert all(path.is_dir() for path in tmp_path.iterdir())


# JTT


def test_what_was_misclassified_is_shown_as_often_as_asked():
    shown = twice.upweighted(6, torch.tensor([1, 4]), 3)
    assert torch.bincount(shown).tolist() == [1, 3, 1, 1, 3, 1]
    assert twice.upweighted(3, torch.tensor([], dtype=torch.int64), 5).tolist() == [0, 1, 2]
    assert twice.upweighted(3, torch.tensor([2]), 1).tolist() == [0, 1, 2]


def test_the_second_training_starts_anew_and_sees_the_errors_of_the_first(weights):
    data, seen = shortcut(images=200), []

    def watched(model, data, objective, settings, **more):
        seen.append((weights(model), data, settings.epochs))
        result = quiet(model, data, objective, settings, **more)
        seen[-1] += ((evaluate(model, data).predictions != data.target).nonzero().squeeze(1),)
        return result

    result = JTT(first_epochs=1, upweight=4)(mlp(), data, Objective(), SETTINGS, fit=watched)
    (start, first, epochs, wrong), (again, second, all_epochs, _) = seen
    assert start.equal(again)
    assert first is data
    assert (epochs, all_epochs) == (1, 8)
    assert torch.bincount(second.index).tolist() == [4 if i in wrong.tolist() else 1 for i in range(200)]
    assert result.report[0]["misclassified"] == len(wrong) > 0


class Scaled(nn.Module):
    """A task loss with a weight of its own."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, logits, target):
        return F.cross_entropy(self.scale * logits, target)


def test_what_an_objective_trains_along_starts_anew_too():
    task, seen = Scaled(), []

    def watched(model, data, objective, settings, **more):
        seen.append(objective.task.scale.item())
        result = quiet(model, data, objective, settings, **more)
        assert objective.task.scale.item() != 1
        return result

    JTT()(mlp(), shortcut(images=100), Objective(task=task), SETTINGS, fit=watched)
    assert seen == [1, 1]
    assert task.scale.item() == 1


# GroupDRO


def test_three_steps_of_the_weights_by_hand():
    sizes, eta, c = [9, 4, 0, 1], 0.5, 2.0
    loss = GroupDROLoss(torch.tensor(sizes), step_size=eta, adjustment=c).train()
    q = [1 / 3, 1 / 3, 0.0, 1 / 3]
    generator = torch.Generator().manual_seed(0)
    for group in ([0, 0, 1, 3], [0, 1, 1, 1], [3, 3, 0, 0]):
        logits = torch.randn(4, 5, generator=generator).requires_grad_()
        target = torch.tensor([0, 4, 2, 1])
        each = [-torch.log_softmax(row, dim=0)[t].item() for row, t in zip(logits, target, strict=True)]
        means = {g: np.mean([e for e, own in zip(each, group, strict=True) if own == g]) for g in set(group)}
        q = [w * math.exp(eta * (means[g] + c / math.sqrt(sizes[g]))) if g in means else w for g, w in enumerate(q)]
        q = [w / sum(q) for w in q]
        value = loss(logits, target, torch.tensor(group))
        assert loss.weights.tolist() == pytest.approx(q, rel=1e-5)
        assert value.item() == pytest.approx(sum(q[g] * mean for g, mean in means.items()), rel=1e-5)
        (gradient,) = torch.autograd.grad(value, logits)
        own = F.one_hot(target, 5) - torch.softmax(logits.detach(), dim=1)
        weights = torch.tensor([q[g] / group.count(g) for g in group]).view(-1, 1)
        torch.testing.assert_close(gradient, -weights * own)


def test_two_processes_come_to_the_joint_groups_means(monkeypatch):
    """What each process adds, averaged as its gradients are, is the loss of the whole batch."""
    logits, target = torch.randn(6, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    group, sizes = torch.tensor([0, 0, 1, 0, 1, 1]), torch.tensor([5, 5])
    whole = GroupDROLoss(sizes, step_size=0.7).train()
    expected = whole(logits, target, group)
    halves, sums = (slice(2), slice(2, None)), []
    monkeypatch.setattr(robust, "_over_processes", lambda values: sums.append(values) or (values, 1))
    for rows in halves:
        GroupDROLoss(sizes)(logits[rows], target[rows], group[rows])
    joint = sums[0] + sums[1]
    monkeypatch.setattr(robust, "_over_processes", lambda values: (joint, 2))
    losses = [GroupDROLoss(sizes, step_size=0.7).train() for _ in halves]
    parts = [loss(logits[r], target[r], group[r]) for loss, r in zip(losses, halves, strict=True)]
    torch.testing.assert_close((parts[0] + parts[1]) / 2, expected)
    assert all(loss.weights.allclose(whole.weights) for loss in losses)


def test_weights_stay_in_evaluation_and_without_gradients():
    loss = GroupDROLoss(torch.tensor([2, 2]), step_size=1.0)
    batch = torch.randn(4, 2), torch.tensor([0, 1, 0, 1]), torch.tensor([0, 0, 1, 1])
    loss.eval()(*batch)
    with torch.no_grad():
        loss.train()(*batch)
    assert loss.weights.tolist() == [0.5, 0.5]
    loss.train()(*batch)
    assert loss.weights.tolist() != [0.5, 0.5]


def test_the_report_has_the_weights_and_the_checkpoint_keeps_them(tmp_path):
    data, runs = shortcut(images=200), []
    for epochs, out in ((1, tmp_path), (3, tmp_path), (3, None)):
        settings = FitSettings(epochs=epochs, batch_size=32, lr=0.01)
        recipe = GroupDRO(step_size=0.3)
        runs.append(recipe(mlp(), data, Objective(), settings, fit=partial(quiet, resume=True), out=out))
    assert runs[1].report == runs[2].report != runs[0].report
    assert [line["images"] for line in runs[1].report] == [98, 2, 2, 98]
    assert sum(line["weight"] for line in runs[1].report) == pytest.approx(1)
    assert {"loss", "group_dro"} <= set(runs[1].history[0])


def test_group_dro_goes_with_explanation_losses_and_says_what_it_lacks():
    data = shortcut(images=100)
    masked = Marked(data, torch.full((100, 5), 255, dtype=torch.uint8))
    result = GroupDRO()(mlp(), masked, Objective({"rrr": Term(RRR(), 0.01)}), FitSettings(epochs=1), fit=quiet)
    assert {"rrr", "group_dro"} <= set(result.history[0])
    with pytest.raises(ValueError, match="expected cross_entropy as the task, got nll_loss"):
        GroupDRO()(mlp(), data, Objective(task=F.nll_loss), fit=quiet)
    with pytest.raises(MissingAnnotation, match="expected groups to weigh, got one group"):
        GroupDRO()(mlp(), Grouped(data, torch.full((100,), 3)), Objective(), fit=quiet)
    objective, batch, logits = Objective(task=GroupDROLoss(torch.tensor([1, 1]))), data[0], mlp()(data[0].inputs)
    with pytest.raises(MissingAnnotation, match="group_dro needs the group of each image"):
        objective.parts(mlp(), replace(batch, group=None), logits)


# Groups


def test_groups_of_decoys_tell_class_and_sign_through_all_wrappers():
    pixels = torch.randint(0, 255, (40, 1, 8, 8), dtype=torch.uint8)
    data = ArrayDataset(pixels, torch.arange(40) % 4, classes=list("abcd"), name="noise")
    assert groups_of(data) is None
    train, test = (decoy(data, "decoy/rrr", split=part, size=2) for part in ("train", "test"))
    assert groups_of(train).tolist() == [5 * (i % 4) for i in range(40)]
    assert groups_of(test).equal(data.target * 4 + test.shown)
    part, _ = split(test, 0.25)
    assert groups_of(part).equal(groups_of(test)[part.index])
    assert Grouped(part).batch(torch.tensor([3])).group.tolist() == [int(groups_of(part)[3])]
    # What a decoy's images are has not changed: their groups are told on demand.
    assert train[0].group is None


def test_groups_are_read_from_a_data_set_that_gives_them_itself():
    data = shortcut(images=100)
    assert groups_of(data).equal(data.group)
    assert groups_of(Subset(data, [4, 2])).equal(data.group[[4, 2]])

    class Foreign(type(data)):
        pass

    class Bare:
        pass

    other = Foreign.__new__(Foreign)
    other.__dict__ = dict(data.__dict__)
    assert groups_of(other).equal(data.group)
    with pytest.raises(ValueError, match="expected groups of at least 0"):
        Grouped(data, torch.full((100,), -1))
    with pytest.raises(ValueError, match="expected 100 group numbers"):
        Grouped(data, torch.zeros(3).long())


def test_group_figures():
    prediction = torch.tensor([0, 1, 1, 1, 0, 0])
    target = torch.tensor([0, 1, 0, 1, 1, 1])
    group = torch.tensor([0, 0, 0, 2, 2, 2])
    found = per_group_accuracy(prediction, target, group)
    assert found[[0, 2]].tolist() == pytest.approx([2 / 3, 1 / 3])
    assert found[1].isnan()
    assert average_group_accuracy(prediction, target, group) == pytest.approx(0.5)


# Settings


@pytest.mark.parametrize(
    ("make", "told"),
    [
        (lambda: FindAnotherExplanation(rounds=0), "expected rounds of at least 1, got 0"),
        (lambda: FindAnotherExplanation(cutoff=1.0), "expected cutoff between 0 and 1, got 1.0"),
        (lambda: FindAnotherExplanation(weight="heavy"), "expected a weight as a number"),
        (lambda: FindAnotherExplanation(weight=-1.0), "expected a finite weight"),
        (lambda: JTT(first_epochs=0), "expected first_epochs of at least 1, got 0"),
        (lambda: JTT(upweight=0), "expected upweight of at least 1, got 0"),
        (lambda: GroupDRO(step_size=math.inf), "expected a finite step_size"),
        (lambda: GroupDRO(adjustment=-1.0), "expected a finite adjustment of at least 0"),
        (lambda: DFR(held_out=1.0), "expected held_out from 0 to below 1"),
        (lambda: DFR(refits=0), "expected refits of at least 1"),
        (lambda: DFR(strengths=(1.0, 0.0)), "expected strengths above 0"),
        (lambda: DFR(strengths=()), "expected strengths above 0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(make, told):
    with pytest.raises(ValueError, match=told):
        make()


def test_find_another_refuses_explanation_losses_beside_its_own():
    with pytest.raises(ValueError, match="makes its own masks: expected no explanation loss, got 'mine'"):
        FindAnotherExplanation()(mlp(), shortcut(images=20), Objective({"mine": Term(RRR())}), fit=quiet)
