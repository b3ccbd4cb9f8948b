"""A value is chosen on training images alone, and the choice can be made again from its records."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from rightreasons.core import Batch, MissingAnnotation
from rightreasons.data import ArrayDataset, Rescaled, Subset, decoy, load
from rightreasons.experiments import Resources, build_data, parse_run
from rightreasons.experiments import build as build_module
from rightreasons.experiments.select import (
    Chosen,
    Held,
    Regrounded,
    Select,
    bears_decoy,
    chosen,
    hold_out,
    irrelevant_of,
    judge,
    misled,
    try_candidate,
)
from rightreasons.models import adapt

RESOURCES = Resources("cpu", progress=False)
RUN = parse_run(
    {
        "data": {"name": "digits", "decoy": "decoy/rrr", "decoy_size": 2},
        "model": {"name": "mlp", "settings": {"hidden": [8]}},
        "training": {"epochs": 4, "batch_size": 256},
        "terms": {"rrr": {"loss": "rrr"}},
    }
)
SELECT = Select("terms.rrr.weight", (0.0, 5.0), "swap", share=0.2, epochs=1, swaps=3)


class Looking(torch.nn.Module):
    """Says the class by what one pixel shows: its value times the number of classes."""

    def __init__(self, row, column, classes):
        super().__init__()
        self.row, self.column, self.classes = row, column, classes

    def forward(self, inputs):
        value = inputs[:, 0, self.row, self.column]
        return -(value[:, None] * 10 - torch.arange(self.classes)).abs()


def marked(count=40, classes=2):
    """The class shows in the object at (1, 1) and, in training, in the ground at (0, 0)."""
    target = torch.arange(count) % classes
    shade = (target * 25.5).round().to(torch.uint8).view(-1, 1)
    images = torch.full((count, 1, 4, 4), 200, dtype=torch.uint8)
    images[:, 0, 0, 0:1] = shade
    images[:, 0, 1, 1:2] = shade
    relevant = torch.zeros(count, 1, 4, 4, dtype=torch.bool)
    relevant[:, :, 1, 1] = True
    return ArrayDataset(images, target, classes=[str(c) for c in range(classes)], name="marked", relevant=relevant)


def test_no_test_image_is_loaded_for_a_choice(monkeypatch, tmp_path):
    def guarded(name, part="train", **more):
        if part != "train":
            raise AssertionError("the test images were loaded")
        return load(name, part, **more)

    monkeypatch.setattr(build_module, "load", guarded)
    with pytest.raises(AssertionError, match="test images"):
        build_data(RUN.data, seed=0)
    record = try_candidate(SELECT.candidates(RUN)[1], SELECT, tmp_path, RESOURCES)
    assert len(record.results["scores"]) == 3
    assert record.results["score"] == min(record.results["scores"])
    assert not any("test" in key for line in record.history for key in line)


def test_what_judges_a_candidate_has_no_place_for_test_images():
    assert [field.name for field in fields(Held)] == ["train", "held_out"]
    held = hold_out(SELECT.candidates(RUN)[0])
    whole = build_data(RUN.data, seed=0).train
    assert len(held.train) + len(held.held_out) == len(whole)
    assert len(held.held_out) == pytest.approx(0.2 * len(whole), abs=10)
    with pytest.raises(ValueError, match="share of the training images to hold out"):
        hold_out(RUN)


def test_candidates_differ_in_the_value_alone_and_are_searched_on_one_seed():
    made = SELECT.candidates(replace(RUN, seed=7))
    assert [c.terms["rrr"].weight for c in made] == [0.0, 5.0]
    assert {(c.seed, c.training.epochs, c.data.validation) for c in made} == {(0, 1, 0.2)}
    assert replace(SELECT, epochs=None).candidates(RUN)[0].training.epochs == 4


def test_a_swap_changes_the_decoy_of_every_image_and_nothing_else():
    data = decoy(load("digits", "train"), "decoy/rrr", split="train", size=2)
    held = Held(data, Rescaled(Subset(data, torch.arange(200)), 0.0, 2.0))
    assert bears_decoy(held.held_out)
    before, after = held.held_out.batch(torch.arange(200)), misled(held.held_out, 1).batch(torch.arange(200))
    changed = (before.inputs != after.inputs).flatten(1).any(1)
    assert changed.all()
    outside = before.irrelevant == 0
    assert torch.equal(before.inputs[outside], after.inputs[outside])


def test_without_a_decoy_the_ground_comes_from_another_class():
    data = marked()
    ground = Regrounded(data, seed=3)
    batch, old = ground.batch(torch.arange(40)), data.batch(torch.arange(40))
    assert torch.equal(batch.inputs[:, 0, 1, 1], old.inputs[:, 0, 1, 1])
    # Two classes: the other's shade, 0 or 26 of 255.
    other = torch.tensor([26.0, 0.0]).div(255)[old.target]
    assert torch.allclose(batch.inputs[:, 0, 0, 0], other)
    assert torch.equal(batch.target, old.target)


def test_where_the_other_image_has_its_object_the_mean_of_its_ground_is_taken():
    images = torch.zeros(2, 1, 1, 4, dtype=torch.uint8)
    images[0, 0, 0] = torch.tensor([10, 20, 30, 40])
    images[1, 0, 0] = torch.tensor([100, 110, 130, 255])
    relevant = torch.tensor([[1, 0, 0, 0], [0, 0, 0, 1]], dtype=torch.bool).view(2, 1, 1, 4)
    data = ArrayDataset(images, torch.tensor([0, 1]), classes=["a", "b"], name="two", relevant=relevant)
    found = Regrounded(data).batch(torch.arange(2)).inputs.mul(255).squeeze()
    assert found[0].tolist() == pytest.approx([10, 110, 130, (100 + 110 + 130) / 3], abs=1e-3)
    assert found[1].tolist() == pytest.approx([30, 20, 30, 255], abs=1e-3)


def test_the_swap_tells_who_looks_at_the_ground():
    held = Held(marked(), marked())
    at_object, at_ground = (judge(adapt(Looking(p, p, 2)), held, SELECT) for p in (1, 0))
    assert at_object == [1.0] * 3
    assert at_ground == [0.0] * 3
    assert judge(adapt(Looking(0, 0, 2)), held, replace(SELECT, by="validation")) == [1.0]


def test_only_annotated_images_can_be_swapped_and_none_is_an_error():
    data = marked()
    some = ArrayDataset(
        data.images,
        data.target,
        classes=data.classes,
        name="some",
        relevant=data.relevant,
        annotated=torch.arange(40) < 8,
    )
    assert len(misled(some, 0)) == 8
    bare = ArrayDataset(data.images, data.target, classes=data.classes, name="bare")
    with pytest.raises(MissingAnnotation, match="neither a decoy nor masks"):
        misled(bare, 0)
    with pytest.raises(ValueError, match="at least two classes"):
        Regrounded(Subset(data, torch.tensor([0, 2])))


def records_of(scores):
    """As if the candidates had been tried."""
    made = SELECT.candidates(RUN)
    held = {str(SELECT.described(c)): score for c, score in zip(made, scores, strict=True) if score != "missing"}

    class Found:
        def __init__(self, score):
            self.results = {"score": score}

    return lambda config: Found(held[str(config)]) if str(config) in held else None


@pytest.mark.parametrize(
    ("scores", "value"), [([0.3, 0.9], 5.0), ([0.9, 0.3], 0.0), ([0.5, 0.5], 0.0), ([None, 0.1], 5.0)]
)
def test_the_best_counts_and_the_first_of_equals(scores, value):
    found = chosen(RUN, SELECT, records_of(scores))
    assert found.value == value
    assert found.scores == tuple(scores)


def test_a_choice_waits_for_all_candidates_and_fails_if_all_diverged():
    assert chosen(RUN, SELECT, records_of([0.3, "missing"])) is None
    with pytest.raises(ValueError, match=r"every candidate for terms\.rrr\.weight diverged"):
        chosen(RUN, SELECT, records_of([None, None]))


def test_a_choice_says_what_it_rests_on():
    told = Chosen(SELECT, 5.0, (None, 0.912)).told
    for part in ("terms.rrr.weight = 5.0", "worst of 3 swaps", "20 % of the training images", "seed 0 alone"):
        assert part in told
    assert "0.0: diverged, 5.0: 91.2" in told
    assert "after 1 epochs" in told


@pytest.mark.parametrize(
    ("scores", "doubtful"), [((0.05, 0.1), True), ((None, 0.02), True), ((0.05, 0.11), False), ((0.9, None), False)]
)
def test_a_choice_among_guesses_says_so(scores, doubtful):
    told = Chosen(SELECT, 5.0, scores).doubt(10)
    assert told == ("; none is above chance (10.0), so the choice says nothing" if doubtful else "")


def test_a_candidate_that_diverges_has_no_score(tmp_path):
    wild = replace(RUN, training=replace(RUN.training, lr=1e30, epochs=1))
    record = try_candidate(SELECT.candidates(wild)[1], SELECT, tmp_path, RESOURCES)
    assert record.results["score"] is None
    assert "Try a lower learning rate" in record.results["diverged"]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"by": "test"}, "nothing is chosen by the test"),
        ({"values": (1.0,)}, "at least two different values"),
        ({"values": (1.0, 1.0, 2.0)}, "at least two different values"),
        ({"share": 1.0}, "held-out share"),
        ({"epochs": 0}, "at least one swap and one epoch"),
        ({"swaps": 0}, "at least one swap and one epoch"),
    ],
)
def test_a_choice_with_a_mistake_says_which(change, told):
    with pytest.raises(ValueError, match=told):
        replace(SELECT, **change)


@pytest.mark.parametrize(
    "key",
    [
        "seed",
        "data.seed",
        "data.name",
        "data.decoy_size",
        "data.validation",
        "data.images",
        "data.masks",
        "data",
        "terms",
    ],
)
def test_a_choice_must_not_change_what_it_is_judged_on(key):
    with pytest.raises(ValueError, match="must not change the images, or the seed, that it is judged on"):
        replace(SELECT, key=key)


@pytest.mark.parametrize(
    "key", ["terms.rrr.weight", "training.lr", "model.settings.hidden", "recipe.name", "data.annotated", "data.degrade"]
)
def test_what_an_arm_does_can_be_chosen(key):
    assert replace(SELECT, key=key).key == key


def test_a_value_that_is_given_twice_is_told():
    with pytest.raises(ValueError, match=r"different values of terms\.rrr\.weight for RRR, got 1.0 twice"):
        replace(SELECT, values=(1, 1.0)).check(RUN, "RRR")


def test_test_images_that_move_with_the_seed_cannot_be_kept_out_of_a_search(tmp_path):
    (tmp_path / "photos").mkdir()
    folder = replace(RUN, data=replace(RUN.data, name=str(tmp_path / "photos"), decoy=""))
    with pytest.raises(ValueError, match="drawn anew with each seed"):
        SELECT.check(folder, "RRR")
    SELECT.check(replace(folder, data=replace(folder.data, seed=0)), "RRR")
    with pytest.raises(ValueError, match=r"RRR has no 'terms\.res\.weight'"):
        replace(SELECT, key="terms.res.weight").check(RUN, "RRR")


def test_irrelevant_masks_are_taken_as_they_are():
    inputs = torch.zeros(1, 1, 2, 2)
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]])
    target = torch.tensor([0])
    assert torch.equal(irrelevant_of(Batch(inputs, target, irrelevant=mask)), mask)
    assert torch.equal(irrelevant_of(Batch(inputs, target, relevant=mask)), 1 - mask)
    with pytest.raises(MissingAnnotation):
        irrelevant_of(Batch(inputs, target))
