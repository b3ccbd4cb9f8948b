"""Networks that vote."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.attribution import IntegratedGradients
from rightreasons.data.arrays import ArrayDataset
from rightreasons.models import MLP, DeepEnsemble, NamedEnsemble, adapt, build
from rightreasons.training import FitSettings, Objective, fit


@pytest.fixture
def three() -> DeepEnsemble:
    torch.manual_seed(0)
    return DeepEnsemble([nn.Sequential(nn.Flatten(), nn.Linear(4, 3)) for _ in range(3)])


def test_its_softmax_is_the_mean_of_the_members(three):
    inputs = torch.randn(5, 1, 2, 2)
    mean = torch.stack([member(inputs).softmax(1) for member in three.members]).mean(0)
    torch.testing.assert_close(three.eval()(inputs).softmax(1), mean)
    torch.testing.assert_close(three(inputs).exp(), mean)


def test_in_training_each_member_learns_from_its_own_images(three):
    inputs = torch.randn(8, 1, 2, 2)
    logits = three.train()(inputs)
    owners = [0, 0, 0, 1, 1, 1, 2, 2]
    expected = torch.stack([three.members[owner](inputs[row : row + 1])[0] for row, owner in enumerate(owners)])
    torch.testing.assert_close(logits, expected)
    logits[6:].sum().backward()
    assert three.members[2][1].weight.grad.abs().sum() > 0
    assert all(three.members[other][1].weight.grad.abs().sum() == 0 for other in (0, 1))


def test_one_member_is_that_network():
    torch.manual_seed(0)
    alone = MLP((1, 4, 4), 3)
    inputs = torch.rand(6, 1, 4, 4)
    torch.testing.assert_close(DeepEnsemble([alone]).eval()(inputs).softmax(1), alone.eval()(inputs).softmax(1))


def test_by_name_with_members_of_their_own_weights():
    member = {"name": "strided_cnn", "widths": [16, 48], "hidden": 72, "dropout": 0.25}
    made = build("deep_ensemble", (1, 28, 28), 10, settings={"members": 3, "member": member})
    assert isinstance(made, NamedEnsemble)
    assert sum(p.numel() for p in made.parameters()) == 451_950
    first, second, _ = made.members
    assert not torch.equal(first[0].weight, second[0].weight)
    assert len(build("deep_ensemble", (1, 8, 8), 10, settings={"member": "mlp"}).members) == 3


def test_the_vote_is_explained(three):
    inputs, target = torch.rand(4, 1, 2, 2), torch.tensor([0, 1, 2, 0])
    heatmap = IntegratedGradients(steps=300)(adapt(three, layer="members.0.0").eval(), inputs, target)
    rows = torch.arange(4)
    gained = three(inputs)[rows, target] - three(torch.zeros_like(inputs))[rows, target]
    torch.testing.assert_close(heatmap.sum(dim=(1, 2, 3)), gained, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("images", "learning"), [(1, 1), (3, 1), (4, 2), (5, 2), (6, 3)])
def test_a_small_batch_goes_to_some_members_and_many_of_them_to_all(three, images, learning):
    three.train()(torch.randn(images, 1, 2, 2)).sum().backward()
    assert sum(member[1].weight.grad is not None for member in three.members) == learning
    for _ in range(20):
        three(torch.randn(images, 1, 2, 2)).sum().backward()
    assert all(member[1].weight.grad is not None for member in three.members)


def test_it_trains_on_images_that_no_batch_divides():
    member = {"name": "strided_cnn", "widths": [2], "hidden": 4}
    model = adapt(build("deep_ensemble", (1, 8, 8), 2, settings={"member": member}))
    images = torch.randint(256, (20, 1, 8, 8), dtype=torch.uint8)
    data = ArrayDataset(images, torch.arange(20) % 2, classes=("even", "odd"), name="two")
    history = fit(model, data, Objective({}), FitSettings(epochs=2, batch_size=9), progress=False).history
    assert len(history) == 2


def test_no_members_are_refused():
    with pytest.raises(ValueError, match="expected one member or more, got none"):
        build("deep_ensemble", (1, 28, 28), 10, settings={"members": 0})
