"""Annotated images that are drawn for the explanation losses at every step."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.core import MissingAnnotation
from rightreasons.data import Augmentation, WithMasks
from rightreasons.data.marks import annotated_images
from rightreasons.models import adapt
from rightreasons.supervision import RRR
from rightreasons.training import FitSettings, Objective, Term, fit
from rightreasons.training.loading import epoch_order

QUICK = FitSettings(epochs=2, batch_size=16, lr=0.01, annotated_batch=8)
RIGHT = Objective({"rrr": Term(RRR(), 0.1)})


def few(toy, count=3, images=40):
    annotated = torch.zeros(images, dtype=torch.bool)
    annotated[7 : 7 + count] = True
    return toy(images, annotated=annotated)


class Watched:
    """An augmentation that notes what it is given."""

    def __init__(self):
        self.batches = []

    def __call__(self, batch, generator):
        self.batches.append(batch)
        return batch


def test_annotated_images_stand_behind_the_batch_and_only_these(tiny, toy):
    watched = Watched()
    fit(tiny(), few(toy), RIGHT, replace(QUICK, augmentation=watched), progress=False)
    order = [rows for epoch in range(2) for rows in epoch_order(40, 16, seed=0, epoch=epoch)]
    assert len(watched.batches) == len(order)
    for batch, rows in zip(watched.batches, order, strict=True):
        assert batch.index[:-8].equal(rows)
        assert batch.annotated[-8:].all()
    drawn = [batch.index[-8:] for batch in watched.batches]
    assert set(torch.cat(drawn).tolist()) == {7, 8, 9}
    assert not drawn[0].equal(drawn[1]), "the same images were drawn twice in a row"


def test_the_task_does_not_see_them_and_the_loss_does(tiny, toy):
    """One step written by hand: the cross-entropy of the batch, and RRR's mean over the drawn and the batch's own."""
    data, model, other = few(toy), tiny(dropout=0.0), tiny(dropout=0.0)
    watched = Watched()
    settings = replace(QUICK, epochs=1, batch_size=40, augmentation=watched, optimizer="sgd", lr=0.5)
    history = fit(model, data, RIGHT, settings, progress=False).history
    batch = watched.batches[0]
    task = F.cross_entropy(other(batch.inputs[:40]), batch.target[:40])
    marked = batch[batch.annotated]
    assert len(marked) == 8 + 3
    term = RRR()(other, marked, other(marked.inputs))
    (task + 0.1 * term).backward()
    assert history[0]["cross_entropy"] == pytest.approx(task.item(), rel=1e-5)
    assert history[0]["rrr"] == pytest.approx(term.item(), rel=1e-5)
    with torch.no_grad():
        for mine, theirs in zip(model.network.parameters(), other.network.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs - 0.5 * theirs.grad, rtol=1e-5, atol=1e-6)


def test_without_a_loss_they_lend_an_augmentation_their_masks_and_are_gone(toy):
    network = nn.Sequential(nn.BatchNorm2d(1, momentum=None), nn.Flatten(), nn.Linear(64, 4))
    data, watched = few(toy), Watched()
    fit(adapt(network), data, Objective(), replace(QUICK, epochs=1, augmentation=watched), progress=False)
    assert [len(batch) for batch in watched.batches] == [24, 24, 16]
    seen = torch.stack([batch.inputs[:-8].mean() for batch in watched.batches]).mean()
    torch.testing.assert_close(network[0].running_mean[0], seen)


def test_borrowed_masks_reach_images_whose_batch_holds_no_annotated_one(tiny, toy):
    settings = Augmentation(irrelevant="uniform", low=2.0, high=3.0, borrow=1)
    changed = []

    def augmentation(batch, generator):
        moved = settings(batch, generator)
        changed.append((moved.inputs >= 2).flatten(1).any(1))
        return moved

    data = few(toy, count=1)
    fit(tiny(), data, Objective(), replace(QUICK, augmentation=augmentation), progress=False)
    assert torch.cat(changed).all()


def test_neither_loss_nor_augmentation_draws_none(tiny, toy, weights):
    plain, asked = tiny(), tiny()
    fit(plain, few(toy), Objective(), replace(QUICK, annotated_batch=0), progress=False)
    fit(asked, few(toy), Objective(), QUICK, progress=False)
    assert weights(plain).equal(weights(asked))


def test_a_resumed_run_draws_the_same(tiny, toy, weights, tmp_path):
    whole, parts = tiny(), tiny()
    fit(whole, few(toy), RIGHT, QUICK, progress=False)
    fit(parts, few(toy), RIGHT, replace(QUICK, epochs=1), out=tmp_path, progress=False)
    fit(parts, few(toy), RIGHT, QUICK, out=tmp_path, resume=True, progress=False)
    assert weights(parts).equal(weights(whole))


def test_which_images_are_annotated(toy):
    data = few(toy)
    assert annotated_images(data, chunk=9).tolist() == [7, 8, 9]
    empty = WithMasks(data, "zero")
    assert annotated_images(empty).tolist() == [7, 8, 9], "a control with empty masks is to draw the same images"
    with pytest.raises(MissingAnnotation, match="has none"):
        annotated_images(few(toy, count=0))


def test_a_negative_number_is_refused():
    with pytest.raises(ValueError, match="annotated_batch"):
        FitSettings(annotated_batch=-1)
