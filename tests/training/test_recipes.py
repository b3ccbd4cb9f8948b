"""Mask-free recipes: each formula against a plain version, and all of them on a shortcut with a few exceptions."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.core import BadModel, CorruptData, MissingAnnotation
from rightreasons.data import ArrayDataset, Grouped, Subset, decoy, groups_of, split
from rightreasons.data.splits import stream
from rightreasons.metrics import average_group_accuracy, per_group_accuracy
from rightreasons.models import adapt
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
from rightreasons.training.recipes import find_another as finding
from rightreasons.training.recipes import group_dro as robust
from rightreasons.training.recipes import jtt as twice
from rightreasons.training.recipes.dfr import Refit, balanced, features, folded, last_layer, write_head
from rightreasons.training.recipes.find_another import Marked, marks_of, packed, share_inside
from tests.training.shortcut_images import EVEN, SETTINGS, killed_and_resumed, mlp, quiet, shortcut_images, worst

SKEWED = (0.49, 0.01, 0.01, 0.49)
# The recipes of class artifact compensation have files of their own.
every_recipe = pytest.mark.parametrize("name", [name for name in RECIPES if not name.endswith("clarc")])


def shortcut(shares=SKEWED, images=1000, seed=0):
    return shortcut_images(shares, images, seed, noise=200, contrast=30)


@pytest.fixture(scope="module")
def plain():
    model = mlp()
    quiet(model, shortcut(), Objective(), SETTINGS)
    return model


# All of them


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


# Find another explanation


def test_marks_are_the_pixels_above_a_share_of_the_largest_gradient_of_the_sum_of_log_probabilities():
    model, data = mlp(), shortcut(images=40)
    found = torch.cat([marks_of(size, 0.4) for _, size in finding._sizes(model, data)])
    for i in range(len(data)):
        image = data[i].inputs.requires_grad_()
        (gradient,) = torch.autograd.grad(torch.log_softmax(model(image), dim=1).sum(), image)
        assert found[i].equal((gradient.abs() > 0.4 * gradient.abs().max())[0])
    assert 0 < found.float().mean() < 1


def test_a_color_pixel_counts_by_its_largest_channel_and_no_gradient_gives_no_mark():
    model = adapt(nn.Sequential(nn.Flatten(), nn.Linear(8, 2)))
    with torch.no_grad():
        model.network[1].weight.copy_(torch.tensor([[3, 0, 5, 0, 4, -9, 0, 1], [0.0] * 8]))
    images = torch.randint(0, 255, (3, 2, 2, 2), dtype=torch.uint8)
    data = ArrayDataset(images, torch.zeros(3).long(), classes=["a", "b"], name="two channels")
    ((_, sizes),) = finding._sizes(model, data)
    assert (sizes / sizes.amax(dim=(1, 2, 3), keepdim=True)).view(3, 4).allclose(torch.tensor([4 / 9, 1, 5 / 9, 1 / 9]))
    assert not marks_of(torch.zeros(2, 1, 3, 3), 0.5).any()


def test_marks_are_packed_eight_a_byte_and_come_back_as_masks():
    marks = torch.rand(5, 1, 3, 7) > 0.5
    pixels = torch.zeros(5, 1, 3, 7, dtype=torch.uint8)
    masks = {"relevant": torch.ones(5, 1, 3, 7), "annotated": torch.zeros(5, dtype=torch.bool)}
    data = Marked(ArrayDataset(pixels, torch.zeros(5).long(), classes=["a"], name="flat", **masks), packed(marks))
    assert data.marks.shape == (5, 3)
    batch = data.batch(torch.tensor([4, 1]))
    assert batch.irrelevant.equal(marks[[4, 1]].float())
    assert batch.annotated_rows().all()
    assert batch.relevant is None
    assert data.area() == pytest.approx(marks.float().mean().item())
    with pytest.raises(ValueError, match="expected packed marks"):
        Marked(data, packed(marks[:4]))


def test_the_share_inside_marks():
    size = torch.tensor([[1.0, 3.0], [0.0, 4.0]]).view(1, 1, 2, 2)
    marks = torch.tensor([[True, False], [False, True]]).view(1, 1, 2, 2)
    assert share_inside(size, marks).item() == pytest.approx(5 / 8)
    assert share_inside(size * 0, marks).isnan().all()


def test_each_round_is_kept_from_what_all_earlier_ones_looked_at(tmp_path):
    data, settings = shortcut(images=300), replace(SETTINGS, batch_size=20)
    seen = []

    def watched(model, data, objective, settings, **more):
        seen.append((data, objective))
        return quiet(model, data, objective, settings, **more)

    result = FindAnotherExplanation(rounds=2)(mlp(), data, Objective(), settings, fit=watched, out=tmp_path)
    first_model = mlp()
    quiet(first_model, data, Objective(), settings)
    (first, plain), (second, kept), (third, _) = seen
    assert first is data
    assert not plain.terms
    assert isinstance(kept.terms["rrr"].loss, RRR)
    assert (second.marks | third.marks).equal(third.marks)
    assert not second.marks.equal(third.marks)
    assert [line["round"] for line in result.report] == [0, 1, 2]
    assert [line.get("marked_share") for line in result.report] == [None, second.area(), third.area()]
    # The patch is where the plain model looks, and what the next one is kept from.
    marks = second.of(torch.arange(len(data))).float().mean(dim=0)[0]
    assert marks[4:, 4:].mean() > 0.9 > 10 * marks[:4].mean()
    plain_share = torch.cat([share_inside(size, second.of(index)) for index, size in finding._sizes(first_model, data)])
    assert result.report[1]["gradient_share"] < 0.5 * plain_share.mean()


def test_marks_are_stored_once_and_only_for_their_own_model(tmp_path, monkeypatch):
    data, settings = shortcut(images=100), FitSettings(epochs=1)
    recipe = FindAnotherExplanation()
    recipe(mlp(), data, Objective(), settings, fit=quiet, out=tmp_path)
    file = tmp_path / "round-0" / "marks.safetensors"
    before = file.read_bytes()
    made = []
    monkeypatch.setattr(finding, "packed", lambda marks: made.append(1) or packed(marks))
    recipe(mlp(), data, Objective(), settings, fit=quiet, out=tmp_path)
    assert not made
    recipe(mlp(seed=1), data, Objective(), settings, fit=quiet, out=tmp_path)
    assert made
    assert file.read_bytes() != before
    file.write_bytes(b"nothing")
    with pytest.raises(CorruptData, match="is damaged; remove it"):
        recipe(mlp(), data, Objective(), settings, fit=quiet, out=tmp_path)


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


# DFR


@pytest.mark.parametrize("classes", [2, 3])
def test_the_folded_layer_gives_the_decision_function_of_scikit_learn(classes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import StandardScaler

    generator = torch.Generator().manual_seed(0)
    values = torch.randn(90, 6, generator=generator) * torch.tensor([1, 10, 0.1, 3, 1, 1]) + 2
    values[:, 5] = 7.0  # says nothing
    target = torch.arange(90) % classes
    values[:, 0] += target
    head = Refit(values, target, target, classes)
    weight, bias = folded(*head.head(torch.arange(90), 0.3), head.center, head.spread)
    logits = values.double() @ weight.mT + bias
    scaled = StandardScaler().fit_transform(values.double().numpy())

    def decision(positive):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            machine = LogisticRegression(penalty="l1", C=0.3, solver="liblinear", random_state=0)
            return machine.fit(scaled, positive.numpy()).decision_function(scaled)

    if classes == 2:
        np.testing.assert_allclose((logits[:, 1] - logits[:, 0]).numpy(), decision(target == 1), atol=1e-3)
    else:
        expected = np.stack([decision(target == number) for number in range(3)], axis=1)
        np.testing.assert_allclose(logits.numpy(), expected, atol=1e-3)
    assert (weight == 0).any()
    assert logits.isfinite().all()


def test_balanced_rows_hold_every_group_as_often_as_the_smallest():
    group = torch.tensor([5, 2, 5, 5, 2, 5, 2, 2])
    rows = balanced(group, stream(0, "draw"))
    assert rows.shape == (2, 4)
    assert group[rows[0]].tolist() == [2] * 4
    assert group[rows[1]].tolist() == [5] * 4
    assert balanced(torch.tensor([0, 1, 1, 1, 1, 0]), stream(1, "draw")).shape == (2, 2)
    with pytest.raises(MissingAnnotation, match="at least 2 images, got 1 in one of the 2 groups"):
        balanced(torch.tensor([0, 1, 1]), stream(0, "draw"))


def test_the_strength_is_that_of_the_best_worst_group_of_the_other_half():
    generator = torch.Generator().manual_seed(3)
    target = torch.arange(400) % 2
    group = 2 * target + (torch.arange(400) // 2) % 2
    values = torch.randn(400, 20, generator=generator)
    values[:, 0] += target
    head = Refit(values, target, group, 2)
    strengths = (1.0, 0.03, 1e-4)
    rows = balanced(group, stream(0, "dfr halves"))
    fitted, judged = rows[:, :50].flatten(), rows[:, 50:].flatten()
    found = []
    for strength in strengths:
        weight, bias = head.head(fitted, strength)
        right = (head.values[judged] @ weight.mT + bias).argmax(dim=1) == target[judged]
        found.append(min(right[group[judged] == g].double().mean().item() for g in range(4)))
    assert len(set(found)) > 1
    assert head.chosen(strengths, 0) == (strengths[int(np.argmax(found))], pytest.approx(max(found)))


def test_only_the_last_layer_changes_and_it_is_the_mean_of_the_refits(plain):
    model, data = mlp(), shortcut()
    DFR(refits=3)(model, data, Objective(), SETTINGS, fit=quiet)
    states = plain.state_dict(), model.state_dict()
    changed = [name for name in states[0] if not states[0][name].equal(states[1][name])]
    assert changed == ["network.3.weight", "network.3.bias"]
    hidden = plain.network[:3](data.batch(torch.arange(len(data))).inputs).detach()
    layer = last_layer(plain, data)
    assert layer is plain.network[3]
    torch.testing.assert_close(features(plain, layer, data), hidden)
    head = Refit(hidden, data.target, data.target * 4 + data.group, 2)
    strength, _ = head.chosen(DFR().strengths, 0)
    generator = stream(0, "dfr refits")
    heads = [head.head(balanced(head.group, generator).flatten(), strength) for _ in range(3)]
    weight = torch.stack([w for w, _ in heads]).mean(dim=0) / head.spread
    bias = torch.stack([b for _, b in heads]).mean(dim=0) - weight @ head.center
    torch.testing.assert_close(model.network[3].weight, weight.float())
    torch.testing.assert_close(model.network[3].bias, bias.float())


def test_held_out_images_of_each_group_are_not_trained_on():
    data, seen = shortcut(images=1000), []

    def watched(model, data, *args, **more):
        seen.append(data)
        return quiet(model, data, *args, **more)

    result = DFR(held_out=0.3)(mlp(), data, Objective(), FitSettings(epochs=1), fit=watched)
    assert torch.bincount(groups_of(seen[0])).tolist() == [343, 7, 7, 343]
    assert result.report[1]["images_a_group"] == 3


def test_a_shortcut_without_exceptions_cannot_be_balanced(toy):
    pixels = torch.randint(0, 255, (40, 1, 8, 8), dtype=torch.uint8)
    data = ArrayDataset(pixels, torch.arange(40) % 4, classes=list("abcd"), name="noise")
    with pytest.raises(MissingAnnotation, match="expected groups that cross the classes, got one group a class"):
        DFR()(mlp(), decoy(data, "decoy/rrr", split="train", size=2), Objective(), fit=quiet)
    with pytest.raises(MissingAnnotation, match="DFR needs to know the group of each image"):
        DFR()(mlp(), data, Objective(), fit=quiet)


class TwoHeads(nn.Module):
    """The linear layer that is registered last is not the one that makes the logits."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(4, 2)
        self.body = nn.Linear(36, 4)

    def forward(self, inputs):
        return self.head(self.body(inputs.flatten(1)))


def test_the_last_layer_is_the_one_that_makes_the_logits():
    data, model = shortcut(EVEN, images=8), adapt(TwoHeads())
    assert last_layer(model, data) is model.network.head
    write_head(model.network.head, torch.ones(2, 4).double(), torch.zeros(2).double())
    assert model.network.head.weight.dtype == torch.float32
    assert model.network.head.weight.detach().min() == 1
    ends_in_relu = adapt(nn.Sequential(nn.Flatten(), nn.Linear(36, 2), nn.ReLU(), nn.Softplus()))
    with pytest.raises(BadModel, match="expected a network whose logits come out of a Linear layer, got Sequential"):
        DFR()(ends_in_relu, data, Objective(), fit=quiet)
    with pytest.raises(BadModel, match="expected a last layer with a bias"):
        DFR()(adapt(nn.Sequential(nn.Flatten(), nn.Linear(36, 2, bias=False))), data, Objective(), fit=quiet)


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
