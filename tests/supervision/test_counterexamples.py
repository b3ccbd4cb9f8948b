from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rightreasons.supervision import Counterexamples


def test_the_loss_is_the_cross_entropy_of_the_copies(model, batch):
    loss = Counterexamples(copies=3, seed=4)
    inputs, rows = loss.copied(batch)
    target = batch.target[rows]
    assert len(inputs) == 12
    with torch.no_grad():
        expected = -sum(float(torch.log_softmax(model(x[None]), 1)[0, y]) for x, y in zip(inputs, target, strict=True))
    found = loss(model, batch, model(batch.inputs))
    torch.testing.assert_close(float(found.detach()), expected / 12)


def test_only_irrelevant_pixels_change_and_all_of_them_do(batch):
    inputs, rows = Counterexamples(low=2.0, high=5.0).copied(batch)
    mask = batch.irrelevant.bool().expand_as(inputs)
    assert torch.equal(inputs[~mask], batch.inputs[~mask])
    assert torch.equal(rows, torch.arange(4))
    assert inputs[mask].min() >= 2
    assert inputs[mask].max() <= 5
    assert inputs[mask].max() - inputs[mask].min() > 2.5


def test_a_pixel_that_is_half_irrelevant_is_mixed(batch):
    half = replace(batch, irrelevant=torch.full_like(batch.irrelevant, 0.5), inputs=torch.zeros_like(batch.inputs))
    inputs, _ = Counterexamples().copied(half)
    assert 0.4 < inputs.max() <= 0.5


def test_copies_of_an_image_differ_unless_the_seed_says_otherwise(batch):
    inputs, _ = Counterexamples(copies=2, seed=1).copied(batch)
    assert not torch.equal(inputs[:4], inputs[4:])
    assert torch.equal(Counterexamples(copies=2, seed=1).copied(batch)[0], inputs)
    assert not torch.equal(Counterexamples(copies=2, seed=2).copied(batch)[0], inputs)
    other = replace(batch, index=torch.arange(4))
    assert not torch.equal(Counterexamples(copies=2, seed=1).copied(other)[0], inputs)
    loss = Counterexamples()
    assert not torch.equal(loss.copied(batch)[0], loss.copied(batch)[0])


def test_a_seed_leaves_the_global_generator_alone(batch):
    state = torch.get_rng_state()
    Counterexamples(seed=1, share=0.5).copied(batch)
    assert torch.equal(torch.get_rng_state(), state)


def test_swapped_pixels_come_from_another_image_at_the_same_place(batch):
    whole = replace(batch, irrelevant=torch.ones_like(batch.irrelevant))
    for seed in range(10):
        inputs, rows = Counterexamples(noise="swapped", seed=seed).copied(whole)
        sources = [[j for j in range(4) if torch.equal(x, batch.inputs[j])] for x in inputs]
        assert all(len(s) == 1 and s[0] != i for i, s in enumerate(sources))
        assert torch.equal(rows, torch.arange(4))


@pytest.mark.parametrize("seeds", [range(60), [None] * 60])
def test_swapped_pixels_come_from_any_other_image(seeds, batch):
    whole = replace(batch, irrelevant=torch.ones_like(batch.irrelevant))
    pairs = set()
    for seed in seeds:
        inputs, _ = Counterexamples(noise="swapped", seed=seed).copied(whole)
        pairs |= {(i, j) for i, x in enumerate(inputs) for j in range(4) if torch.equal(x, batch.inputs[j])}
    assert pairs == {(i, j) for i in range(4) for j in range(4) if i != j}


@pytest.mark.parametrize(("share", "count"), [(1.0, 3), (0.5, 2), (0.34, 1), (0.01, 1)])
def test_share_is_the_part_of_the_annotated_images_that_is_copied(share, count, batch):
    partly = replace(batch, annotated=torch.tensor([True, False, True, True]))
    seen = set()
    for seed in range(20):
        inputs, copied = Counterexamples(share=share, seed=seed).copied(partly)
        outside = [~batch.irrelevant[j].bool().expand_as(batch.inputs[j]) for j in range(4)]
        rows = [j for x in inputs for j in range(4) if torch.equal(x[outside[j]], batch.inputs[j][outside[j]])]
        assert len(rows) == count == len(set(rows))
        assert copied.tolist() == rows
        seen.update(rows)
    assert seen == {0, 2, 3}


def test_it_explains_nothing(model, batch):
    loss = Counterexamples(seed=0)
    assert loss.attribution is None
    inputs, rows = loss.copied(batch)
    expected = F.cross_entropy(model(inputs), batch.target[rows])
    torch.testing.assert_close(loss(model, batch, model(batch.inputs)), expected)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "settings",
    [{"copies": 0}, {"share": 0.0}, {"share": 1.1}, {"low": 1.0}, {"noise": "white"}, {"low": 2.0, "high": 1.0}],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        Counterexamples(**settings)
