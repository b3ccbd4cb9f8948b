"""The learning rate over a run and early stopping: against torch's schedulers, and resumed to the bit."""

import itertools
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch.optim import SGD
from torch.optim.lr_scheduler import CosineAnnealingLR, ReduceLROnPlateau

from rightreasons.core import ResumeRefused
from rightreasons.data.arrays import Subset
from rightreasons.training import FitSettings, Objective, evaluate, fit
from rightreasons.training.schedule import Watched, rate

QUICK = FitSettings(epochs=6, batch_size=16, lr=0.02)
PLATEAU = replace(QUICK, schedule="plateau", schedule_patience=1)
STOPPING = replace(QUICK, epochs=12, lr=0.3, patience=2)


def parts(toy):
    """Images to train on, and others to validate on whose labels are partly wrong, so that validation gets worse."""
    data = toy()
    held = Subset(data, range(64, 96))
    held.target = held.target.clone()
    held.target[::3] = (held.target[::3] + 1) % 4
    return Subset(data, range(64)), held


def one_weight(lr):
    return SGD([torch.nn.Parameter(torch.zeros(1))], lr=lr)


def test_cosine_is_torchs():
    optimizer = one_weight(0.3)
    scheduler = CosineAnnealingLR(optimizer, T_max=20)
    settings = FitSettings(lr=0.3, schedule="cosine")
    for step in range(20):
        assert rate(settings, Watched(), step, 20) == pytest.approx(optimizer.param_groups[0]["lr"], abs=1e-12)
        optimizer.step()
        scheduler.step()


@pytest.mark.parametrize(("monitor", "mode"), [("loss", "min"), ("accuracy", "max")])
@pytest.mark.parametrize("patience", [1, 2, 3])
def test_a_plateau_is_torchs_with_a_patience_of_one_less(monitor, mode, patience):
    settings = FitSettings(lr=0.4, schedule="plateau", schedule_factor=0.3, schedule_patience=patience, monitor=monitor)
    optimizer, watched = one_weight(0.4), Watched()
    theirs = ReduceLROnPlateau(optimizer, mode, factor=0.3, patience=patience - 1, threshold=0, eps=0)
    values = torch.randint(0, 12, (40,), generator=torch.Generator().manual_seed(patience)).tolist()
    for epoch, value in enumerate(values, start=1):
        theirs.step(value)
        watched = watched.seen(float(value), epoch, settings)
        assert rate(settings, watched, 0, 1) == pytest.approx(optimizer.param_groups[0]["lr"])
    assert watched.best == (min if monitor == "loss" else max)(values)
    assert values[watched.epoch - 1] == watched.best
    assert watched.factor < 0.1


def test_stopping_waits_for_epochs_in_a_row():
    settings, watched = FitSettings(patience=3), Watched()
    stops = []
    for epoch, value in enumerate([5.0, 4.0, 4.5, 4.0, 3.0, math.nan, 3.0, 9.0], start=1):
        watched = watched.seen(value, epoch, settings)
        stops.append(watched.stops(settings))
    assert stops == [False] * 7 + [True]
    assert (watched.best, watched.epoch, watched.factor) == (3.0, 5, 1.0)
    assert not watched.stops(FitSettings())
    assert Watched().seen(math.nan, 1, settings).best is None


def test_cosine_trains_at_the_rates_it_says(tiny, toy):
    """Plain gradient descent by hand, one rate a step."""
    settings = FitSettings(epochs=2, batch_size=96, optimizer="sgd", lr=0.5, schedule="cosine")
    model, expected, data = tiny(dropout=0.0), tiny(dropout=0.0), toy()
    history = fit(model, data, Objective(), settings, progress=False).history
    batch = data.batch(torch.arange(96))
    for lr in (0.5, 0.25):
        loss = F.cross_entropy(expected(batch.inputs), batch.target)
        gradients = torch.autograd.grad(loss, list(expected.parameters()))
        for weight, gradient in zip(expected.parameters(), gradients, strict=True):
            weight.data -= lr * gradient
    for ours, theirs in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)
    assert [line["lr"] for line in history] == pytest.approx([0.5, 0.25])


def test_a_plateau_cuts_the_rate_in_a_run(tiny, toy):
    train, held = parts(toy)
    history = fit(tiny(), train, Objective(), PLATEAU, validate={"validation": held}, progress=False).history
    watched, rates = Watched(), []
    for line in history:
        rates.append(PLATEAU.lr * watched.factor)
        watched = watched.seen(line["validation_loss"], int(line["epoch"]), PLATEAU)
    assert [line["lr"] for line in history] == rates
    assert rates[-1] < PLATEAU.lr


def test_a_run_stops_and_takes_its_best_weights(tiny, toy, weights):
    train, held = parts(toy)
    model = tiny()
    seen = []

    def keep(trained):
        logits = evaluate(trained, held).logits.double()
        seen.append((F.cross_entropy(logits, held.target).item(), weights(trained)))
        return 0.0

    result = fit(model, train, Objective(), STOPPING, validate={"validation": held, "kept": keep}, progress=False)
    losses = [loss for loss, _ in seen]
    assert losses == [line["validation_loss"] for line in result.history]
    best = losses.index(min(losses))
    assert len(losses) == best + 1 + STOPPING.patience < STOPPING.epochs
    assert result.best_epoch == best + 1
    assert weights(model).equal(seen[best][1])
    assert not weights(model).equal(seen[-1][1])


def test_the_best_weights_are_taken_though_nothing_stopped(tiny, toy):
    train, held = parts(toy)
    model, settings = tiny(), replace(STOPPING, epochs=5, patience=5, monitor="accuracy")
    result = fit(model, train, Objective(), settings, validate={"validation": held}, progress=False)
    accuracies = [line["validation_accuracy"] for line in result.history]
    assert len(accuracies) == 5
    assert evaluate(model, held).accuracy == max(accuracies)
    assert result.best_epoch == accuracies.index(max(accuracies)) + 1
    assert "validation_loss" in result.history[0]


@pytest.mark.parametrize(
    "settings",
    [replace(QUICK, schedule="cosine"), PLATEAU, STOPPING, replace(PLATEAU, patience=3, epochs=8)],
    ids=["cosine", "plateau", "stopping", "both"],
)
@pytest.mark.parametrize("where", ["between epochs", "inside one"])
def test_a_resumed_run_ends_in_the_same_weights(tiny, toy, tmp_path, weights, settings, where):
    train, held = parts(toy)

    def run(model, **kept):
        return fit(model, train, Objective(), settings, validate={"validation": held}, progress=False, **kept)

    whole, again = tiny(), tiny(seed=5)
    expected = run(whole)
    stopped = tiny()
    passes = itertools.count(1)

    def interrupt(module, *_):
        # Four steps an epoch; between two epochs, that is in the pass that validates.
        if module.training != (where == "between epochs") and next(passes) == (14 if module.training else 3):
            raise KeyboardInterrupt

    handle = stopped.network.register_forward_hook(interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(stopped, out=tmp_path)
    handle.remove()
    result = run(again, out=tmp_path, resume=True)
    assert 0 < result.resumed_from < result.steps
    assert weights(again).equal(weights(whole))
    assert [{**line, "seconds": 0, "cpu_seconds": 0} for line in result.history] == [
        {**line, "seconds": 0, "cpu_seconds": 0} for line in expected.history
    ]
    assert result.best_epoch == expected.best_epoch


def test_a_stopped_run_is_handed_back(tiny, toy, tmp_path, weights):
    train, held = parts(toy)
    first, again = tiny(), tiny(seed=3)
    results = [
        fit(
            model,
            train,
            Objective(),
            STOPPING,
            validate={"validation": held},
            out=tmp_path,
            resume=True,
            progress=False,
        )
        for model in (first, again)
    ]
    assert results[1].steps == results[1].resumed_from == results[0].steps
    assert results[1].best_epoch == results[0].best_epoch
    assert weights(again).equal(weights(first))


def test_what_a_plateau_or_stopping_needs_is_said(tiny, toy):
    train, held = parts(toy)
    for settings, told in ((PLATEAU, "schedule plateau"), (STOPPING, "patience 2")):
        for validate in (None, {"test": held}):
            with pytest.raises(ValueError, match=f"expected validation images for {told}.*never selected by"):
                fit(tiny(), train, Objective(), settings, validate=validate, progress=False)
    with pytest.raises(ValueError, match="check 'validation' to return 'loss'"):
        fit(tiny(), train, Objective(), PLATEAU, validate={"validation": lambda _: {"f1": 0.5}}, progress=False)


def test_a_check_may_tell_the_value(tiny, toy):
    """Worse from the second epoch on, whatever the model does."""
    told = iter([{"loss": value} for value in (1.0, 2.0, 3.0, 4.0)])
    settings = replace(STOPPING, lr=0.01)
    result = fit(tiny(), toy(), Objective(), settings, validate={"validation": lambda _: next(told)}, progress=False)
    assert (len(result.history), result.best_epoch) == (3, 1)


def test_other_schedules_are_refused_and_older_checkpoints_are_not(tiny, toy, tmp_path):
    settings = replace(QUICK, epochs=1)
    fit(tiny(), toy(), Objective(), settings, out=tmp_path, progress=False)
    for change in ({"schedule": "cosine"}, {"monitor": "accuracy"}):
        other = replace(settings, **change)
        with pytest.raises(ResumeRefused, match=f"{next(iter(change))} was absent and is now"):
            fit(tiny(), toy(), Objective(), other, out=tmp_path, resume=True, progress=False)
    cosine = replace(settings, schedule="cosine")
    fit(tiny(), toy(), Objective(), cosine, out=tmp_path / "cosine", progress=False)
    with pytest.raises(ResumeRefused, match="epochs was 1 and is now 2"):
        fit(tiny(), toy(), Objective(), replace(cosine, epochs=2), out=tmp_path / "cosine", resume=True, progress=False)


@pytest.mark.parametrize(
    "change",
    [
        {"schedule": "step"},
        {"monitor": "f1"},
        {"schedule_factor": 1.0},
        {"schedule_factor": math.nan},
        {"schedule_patience": 0},
        {"patience": -1},
    ],
)
def test_settings_out_of_range(change):
    with pytest.raises(ValueError, match="expected"):
        replace(QUICK, **change)


def test_a_configuration_hands_the_schedule_on():
    from rightreasons.experiments.build import build_fit_settings, check_names
    from rightreasons.experiments.config import DataConfig, RunConfig, TrainingConfig

    training = TrainingConfig(schedule="plateau", patience=3, schedule_factor=0.1, monitor="accuracy")
    settings = build_fit_settings(training, 0)
    assert (settings.schedule, settings.patience, settings.schedule_factor) == ("plateau", 3, 0.1)
    with pytest.raises(ValueError, match=r"data\.validation"):
        check_names(RunConfig(training=training))
    check_names(RunConfig(training=training, data=DataConfig(validation=0.1)))
    assert not build_fit_settings(TrainingConfig(), 0).watches
