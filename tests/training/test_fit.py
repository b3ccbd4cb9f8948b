import importlib
import math
import os
import signal
import time
from dataclasses import dataclass, field, replace

import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from torch import nn

from rightreasons.attribution import GradCAM
from rightreasons.core import BadModel, ExplanationLoss, TrainingDiverged
from rightreasons.data import Augmentation
from rightreasons.data.arrays import ArrayDataset, Subset
from rightreasons.models import adapt
from rightreasons.supervision import RES, RRR
from rightreasons.training import FitSettings, Objective, Term, evaluate, fit
from rightreasons.training.checkpoint import FILE_NAME
from rightreasons.training.loading import epoch_order
from rightreasons.training.monitor import Meter

fit_module = importlib.import_module("rightreasons.training.fit")
PLAIN = Objective()
RIGHT = Objective({"rrr": Term(RRR(), 0.1)})
QUICK = FitSettings(epochs=2, batch_size=16, lr=0.01)


@dataclass(frozen=True)
class At(ExplanationLoss):
    """Calls a function at one call; otherwise zero."""

    call: int = field(repr=False)
    action: object = field(repr=False)
    calls: list = field(repr=False)

    def __call__(self, model, batch, logits):
        self.calls.append(1)
        acted = self.action() if len(self.calls) == self.call else None
        return logits.sum() * (0.0 if acted is None else acted)


def at(call, action):
    return Objective({"at": Term(At(call, action, []))})


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def test_it_learns_and_logs_every_part_by_name(tiny, toy):
    model, data = tiny(), toy()
    seen = []
    result = fit(
        model,
        data,
        RIGHT,
        replace(QUICK, epochs=8),
        validate={"toy": data, "depth": lambda m: seen.append(m.training) or 3, "more": lambda m: {"a": 1, "b": 2}},
        progress=False,
    )
    line = result.history[-1]
    assert set(line) == {
        "epoch",
        "loss",
        "cross_entropy",
        "rrr",
        "seconds",
        "cpu_seconds",
        "toy_accuracy",
        "depth",
        "more_a",
        "more_b",
    }
    assert line["loss"] == pytest.approx(line["cross_entropy"] + 0.1 * line["rrr"], rel=1e-5)
    assert evaluate(model, data).accuracy > 0.95
    assert line["toy_accuracy"] == evaluate(model, data).accuracy
    assert seen == [False] * 8
    assert [entry["epoch"] for entry in result.history] == list(range(1, 9))
    assert (result.steps, result.resumed_from) == (48, None)


def test_it_equals_a_loop_written_by_hand(tiny, toy, weights):
    data, model, other = toy(90), tiny(dropout=0.0), tiny(dropout=0.0)
    fit(model, data, PLAIN, replace(QUICK, weight_decay=0.1), progress=False)
    optimizer = torch.optim.Adam(other.network.parameters(), lr=0.01, weight_decay=0.1, foreach=False)
    for epoch in range(2):
        for rows in epoch_order(90, 16, seed=0, epoch=epoch):
            batch = data.batch(rows)
            optimizer.zero_grad()
            F.cross_entropy(other.network(batch.inputs), batch.target).backward()
            optimizer.step()
    torch.testing.assert_close(weights(model), weights(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["adam", "adamw", "sgd"])
def test_every_optimizer_lowers_the_loss(tiny, toy, name):
    settings = replace(QUICK, epochs=6, optimizer=name, lr=0.05, momentum=0.95 if name == "sgd" else 0.0)
    history = fit(tiny(), toy(), PLAIN, settings, progress=False).history
    assert history[-1]["loss"] < 0.7 * history[0]["loss"]


def test_the_seed_alone_decides(tiny, toy, weights):
    finals = []
    for seed, torch_seed in ((0, 1), (0, 2), (5, 1)):
        torch.manual_seed(torch_seed)
        model = tiny()
        fit(model, toy(), RIGHT, replace(QUICK, seed=seed), progress=False)
        finals.append(weights(model))
    assert finals[0].equal(finals[1])
    assert not finals[0].equal(finals[2])


def test_callers_state_is_given_back(tiny, toy):
    model = tiny()
    model.eval()
    model.network[4].train()
    before = torch.get_rng_state()
    fit(model, toy(), RIGHT, QUICK, progress=False)
    assert torch.get_rng_state().equal(before)
    assert not model.training
    assert not model.network[0].training
    assert model.network[4].training
    assert all(p.requires_grad for p in model.parameters())


def test_frozen_weights_stay(tiny, toy):
    model = tiny()
    model.network[0].requires_grad_(False)
    before = model.network[0].weight.clone()
    last = model.network[5].weight.detach().clone()
    fit(model, toy(), RIGHT, QUICK, progress=False)
    assert model.network[0].weight.equal(before)
    assert not model.network[5].weight.equal(last)


def test_a_learned_imputation_is_trained_along(tiny, toy):
    loss = RES(GradCAM(), imputation="learned")
    before = [p.detach().clone() for p in loss.imputation.parameters()]
    fit(tiny(), toy(), Objective({"res": Term(loss)}), QUICK, progress=False)
    assert all(not p.equal(b) for p, b in zip(loss.imputation.parameters(), before, strict=True))


def test_augmentation_gets_the_same_dice_in_every_run(tiny, toy, weights):
    def brighter(batch, generator):
        noise = torch.rand(batch.inputs.shape, generator=generator)
        draws.append(noise[0, 0, 0, 0].item())
        return replace(batch, inputs=batch.inputs + 0.1 * noise)

    draws, finals = [], []
    for _ in range(2):
        model = tiny()
        fit(model, toy(), PLAIN, replace(QUICK, augmentation=brighter), progress=False)
        finals.append(weights(model))
    assert finals[0].equal(finals[1])
    assert len(set(draws)) == 12


def test_workers_change_nothing(tiny, toy, weights):
    finals = []
    for workers in (0, 1):
        model = tiny()
        fit(model, toy(), PLAIN, replace(QUICK, epochs=1, workers=workers), progress=False)
        finals.append(weights(model))
    assert finals[0].equal(finals[1])


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_names_step_epoch_and_part(tiny, toy, tmp_path, value, weights):
    model = tiny()
    with pytest.raises(TrainingDiverged, match=r"^at is (nan|-?inf) at step 9 \(epoch 2\)"):
        fit(model, toy(), at(9, lambda: value), QUICK, out=tmp_path, progress=False)
    assert torch.isfinite(weights(model)).all()
    assert [f.name for f in tmp_path.iterdir()] == [FILE_NAME]


def test_weights_that_are_not_finite_are_not_saved(tiny, toy, tmp_path):
    model = tiny()

    def poison():
        # The loss is finite and its gradient is not, as for the square root of zero.
        model.network[5].bias.register_hook(lambda gradient: gradient * math.nan)

    with pytest.raises(TrainingDiverged, match=r"a weight is not finite after step 6 \(epoch 1\)"):
        fit(model, toy(), at(6, poison), QUICK, out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("call", [1, 3, 6, 7, 10, 12])
def test_ctrl_c_stops_between_two_steps_and_resumes_to_the_same_weights(tiny, toy, tmp_path, weights, call):
    whole, model, again = tiny(), tiny(), tiny(seed=9)
    expected = fit(whole, toy(), at(99, interrupt), QUICK, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(model, toy(), at(call, interrupt), QUICK, out=tmp_path, progress=False)
    result = fit(again, toy(), at(99, interrupt), QUICK, out=tmp_path, resume=True, progress=False)
    assert result.resumed_from == call
    assert result.steps == expected.steps
    assert weights(again).equal(weights(whole))
    for ours, theirs in zip(result.history, expected.history, strict=True):
        assert {**ours, "seconds": 0, "cpu_seconds": 0} == {**theirs, "seconds": 0, "cpu_seconds": 0}


def test_ctrl_c_while_validating_keeps_the_epoch(tiny, toy, tmp_path, weights):
    whole, model, again = tiny(), tiny(), tiny(seed=9)
    fit(whole, toy(), RIGHT, QUICK, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(model, toy(), RIGHT, QUICK, validate={"x": lambda m: interrupt()}, out=tmp_path, progress=False)
    result = fit(again, toy(), RIGHT, QUICK, validate={"x": lambda m: 1.0}, out=tmp_path, resume=True, progress=False)
    assert result.resumed_from == 6
    assert [line["x"] for line in result.history] == [1.0, 1.0]
    assert weights(again).equal(weights(whole))


def test_a_second_ctrl_c_in_an_update_saves_nothing_torn(tiny, toy, tmp_path, weights):
    def twice():
        interrupt()
        model.network[5].bias.register_hook(lambda gradient: interrupt())

    whole, model, again = tiny(), tiny(), tiny(seed=9)
    fit(whole, toy(), at(99, twice), QUICK, progress=False)
    with pytest.raises(KeyboardInterrupt):
        fit(model, toy(), at(9, twice), QUICK, out=tmp_path, progress=False)
    result = fit(again, toy(), at(99, twice), QUICK, out=tmp_path, resume=True, progress=False)
    assert result.resumed_from == 6
    assert weights(again).equal(weights(whole))


def test_ctrl_c_without_a_folder_stops_at_once(tiny, toy):
    with pytest.raises(KeyboardInterrupt):
        fit(tiny(), toy(), at(2, interrupt), QUICK, progress=False)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_the_time_of_an_epoch_counts_what_was_before_an_interruption(tiny, toy, tmp_path):
    def slow():
        time.sleep(0.3)
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        fit(tiny(), toy(), at(2, slow), QUICK, out=tmp_path, progress=False)
    again = fit(tiny(), toy(), at(10**6, slow), QUICK, out=tmp_path, resume=True, progress=False)
    assert again.resumed_from is not None
    assert again.history[0]["seconds"] > 0.3 > again.history[1]["seconds"]
    assert again.history[0]["cpu_seconds"] < again.history[0]["seconds"]


def test_batch_norm_sees_each_batch_once(toy):
    model = adapt(nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)))
    fit(model, toy(), Objective({"a": Term(RRR(), 0.1), "b": Term(RES(GradCAM()), 0.1)}), QUICK, progress=False)
    assert model.network[1].num_batches_tracked == 12


def test_progress_is_shown_on_request(tiny, toy, capsys):
    fit(tiny(), toy(), PLAIN, QUICK)
    assert "epoch 2/2" in capsys.readouterr().err
    fit(tiny(), toy(), PLAIN, QUICK, progress=False)
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    "wrong",
    [
        {"epochs": -1},
        {"batch_size": 0},
        {"optimizer": "lbfgs"},
        {"lr": 0.0},
        {"lr": math.nan},
        {"weight_decay": -1.0},
        {"workers": -1},
        {"momentum": 0.9},
    ],
)
def test_wrong_settings_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        FitSettings(**wrong)


def test_wrong_data_is_refused_before_training(tiny, toy):
    big = ArrayDataset(torch.zeros(4, 1, 9, 12, dtype=torch.uint8), torch.zeros(4).long(), classes="ab", name="big")
    with pytest.raises(BadModel, match=r"images of shape \(1, 9, 12\)"):
        fit(tiny(), big, PLAIN, QUICK, progress=False)
    with pytest.raises(ValueError, match="label out of range: expected 0 to 2, got 3"):
        fit(tiny(classes=3), toy(), PLAIN, QUICK, progress=False)
    with pytest.raises(ValueError, match="at least one image"):
        fit(tiny(), Subset(toy(), []), PLAIN, QUICK, progress=False)


def test_a_network_without_weights_to_train_is_refused(tiny, toy):
    model = tiny()
    model.requires_grad_(False)
    with pytest.raises(ValueError, match="at least one weight"):
        fit(model, toy(), PLAIN, QUICK, progress=False)


def test_gradient_accumulation_is_refused(tiny, toy):
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="expected no gradient accumulation, got 2 steps"):
        fit(tiny(), toy(), PLAIN, QUICK, accelerator=accelerator, progress=False)


def test_compilation_is_refused_with_explanations(tiny, toy):
    accelerator = Accelerator(cpu=True, dynamo_backend="eager")
    with pytest.raises(ValueError, match="no double backward"):
        fit(tiny(), toy(), RIGHT, QUICK, accelerator=accelerator, progress=False)


def _with_batch_norm():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))


def test_a_sub_module_that_comes_in_evaluation_mode_stays_there(toy):
    net = _with_batch_norm()
    net[1].eval()
    fit(adapt(net), toy(), RIGHT, QUICK, validate={"toy": toy()}, progress=False)
    assert net[1].num_batches_tracked == 0
    assert net[1].running_mean.tolist() == [0.0] * 4
    assert [module.training for module in (net, net[0], net[1])] == [True, True, False]


def test_a_network_that_comes_in_evaluation_mode_trains_as_a_whole(toy):
    net = _with_batch_norm().eval()
    fit(adapt(net), toy(), RIGHT, QUICK, progress=False)
    assert net[1].num_batches_tracked == 12
    assert not any(module.training for module in net.modules())


def test_dropout_and_augmentation_draw_from_streams_of_their_own(tiny, toy):
    drawn = []

    def augmentation(batch, generator):
        drawn.append((torch.rand(8, generator=generator), torch.rand(8)))
        return batch

    fit(tiny(), toy(), PLAIN, replace(QUICK, augmentation=augmentation), progress=False)
    assert not any(ours.equal(of_dropout) for ours, of_dropout in drawn)
    assert len({tuple(ours.tolist()) for ours, _ in drawn}) == 12


def test_dropout_differs_between_processes(tiny, toy, monkeypatch):
    def first_numbers(process):
        monkeypatch.setattr(Accelerator, "process_index", process)
        model, seen = tiny(), []
        model.network[4].register_forward_hook(lambda module, args, output: seen.append(output == 0))
        accelerator = Accelerator(cpu=True)
        loop = fit_module._Loop(model, toy(), PLAIN, QUICK, accelerator=accelerator)
        loop.step.train()
        loop.update(toy().batch(torch.arange(16)), Meter(1, 1, None))
        return seen[-1]

    first, again, other = (first_numbers(process) for process in (0, 0, 1))
    assert first.equal(again)
    assert not first.equal(other)


def test_images_and_masks_can_be_moved_in_training(tiny, toy, weights):
    still, moved = tiny(), tiny()
    fit(still, toy(), RIGHT, QUICK, progress=False)
    fit(moved, toy(), RIGHT, replace(QUICK, augmentation=Augmentation(flip=True)), progress=False)
    assert not weights(still).equal(weights(moved))
