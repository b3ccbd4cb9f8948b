"""The last layer trained again on balanced groups, against scikit-learn and by hand."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from torch import nn

from rightreasons.core import BadModel, MissingAnnotation
from rightreasons.data import ArrayDataset, decoy, groups_of
from rightreasons.data.splits import stream
from rightreasons.models import adapt
from rightreasons.training import (
    DFR,
    FitSettings,
    Objective,
)
from rightreasons.training.recipes.dfr import Refit, balanced, features, folded, last_layer, write_head
from tests.training.shortcut_images import (
    EVEN,
    SETTINGS,
    mlp,
    quiet,
    shortcut,
)


@pytest.fixture(scope="module")
def plain():
    model = mlp()
    quiet(model, shortcut(), Objective(), SETTINGS)
    return model


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
