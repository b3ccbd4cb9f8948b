"""Annotated images that are drawn for the explanation losses at every step."""

import signal
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from rightreasons.core import MissingAnnotation
from rightreasons.data import Augmentation, WithMasks
from rightreasons.data.marks import annotated_images
from rightreasons.models import adapt
from rightreasons.supervision import RRR, RRClArC
from rightreasons.training import FitSettings, Objective, Term, fit
from rightreasons.training.fit import _Loop
from rightreasons.training.loading import epoch_order

QUICK = FitSettings(epochs=2, batch_size=16, lr=0.01, annotated_batch=8)
RIGHT = Objective({"rrr": Term(RRR(), 0.1)})


def few(toy, count=3, images=40):
    annotated = torch.zeros(images, dtype=torch.bool)
    annotated[7 : 7 + count] = True
    return toy(images, annotated=annotated)


class Watched:
    """An augmentation that notes what it is given."""

    borrow = 1

    def __init__(self):
        self.batches = []

    def __call__(self, batch, generator):
        self.batches.append(batch)
        return batch


class Hidden:
    """An augmentation that is told by its type alone, so that runs with different ones can be taken up."""

    borrow = 1

    def __init__(self, call):
        self.__call = call

    def __repr__(self):
        return "Hidden()"

    def __call__(self, batch, generator):
        return self.__call(batch, generator)


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

    augmentation.borrow = 1
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


def test_an_epoch_taken_up_in_the_middle_draws_on_from_there(tiny, toy, weights, tmp_path):
    whole, parts = tiny(), tiny()
    settings = replace(QUICK, epochs=1)
    fit(whole, few(toy), RIGHT, settings, progress=False)
    seen = Watched()

    def stop_at_the_second(batch, generator):
        if len(seen.batches) == 1:
            signal.raise_signal(signal.SIGINT)
        return seen(batch, generator)

    stopping = replace(settings, augmentation=Hidden(stop_at_the_second))
    with pytest.raises(KeyboardInterrupt):
        fit(parts, few(toy), RIGHT, stopping, out=tmp_path, progress=False)
    on = replace(settings, augmentation=Hidden(seen))
    fit(parts, few(toy), RIGHT, on, out=tmp_path, resume=True, progress=False)
    straight = Watched()
    fit(tiny(), few(toy), RIGHT, replace(settings, augmentation=Hidden(straight)), progress=False)
    assert [b.index.tolist() for b in seen.batches] == [b.index.tolist() for b in straight.batches]
    assert weights(parts).equal(weights(whole))


def test_the_first_parts_of_each_process_differ(tiny, toy):
    loop = _Loop(tiny(), few(toy), RIGHT, replace(QUICK, annotated_batch=30), accelerator=Accelerator(cpu=True))
    rows = torch.arange(4)
    drawn = {tuple(loop.with_drawn(rows, (0, step, process)).tolist()) for step in (0, 1) for process in (0, 1)}
    assert len(drawn) == 4


def test_an_augmentation_that_does_not_borrow_gets_no_images_without_a_loss(tiny, toy, weights):
    plain, asked = tiny(), tiny()
    for model, count in ((plain, 0), (asked, 8)):
        settings = replace(QUICK, annotated_batch=count, augmentation=Augmentation(shift=1))
        fit(model, few(toy), Objective(), settings, progress=False)
    assert weights(plain).equal(weights(asked))


def test_an_augmentation_that_loses_images_is_refused(tiny, toy):
    settings = replace(QUICK, augmentation=lambda batch, generator: batch[:-1])
    with pytest.raises(ValueError, match="24 images back"):
        fit(tiny(), few(toy), RIGHT, settings, progress=False)


def test_the_share_of_images_that_the_losses_count(tiny, toy):
    alone = fit(tiny(), few(toy), RIGHT, replace(QUICK, annotated_batch=0), progress=False).history
    assert [line["annotated_share"] for line in alone] == [pytest.approx(3 / 40)] * 2
    assert (
        "annotated_share"
        not in fit(tiny(), toy(40), RIGHT, replace(QUICK, annotated_batch=0), progress=False).history[0]
    )
    concept = Objective({"rr": Term(RRClArC(torch.eye(4)[:1], layer="0"), 1.0)})
    assert "annotated_share" not in fit(tiny(), few(toy), concept, QUICK, progress=False).history[0]


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
