import json
import os
import signal

import pytest
import torch

from rightreasons.core import TrainingDiverged
from rightreasons.data.arrays import Subset
from rightreasons.supervision import RRR
from rightreasons.training import FitSettings, Objective, Term, fit
from rightreasons.training.monitor import Bar, Meter, can_defer, deferred_interrupt


def _parts(loss, term):
    return {"loss": torch.tensor(loss), "rrr": torch.tensor(term)}


@pytest.mark.parametrize("every", [1, 2, 50])
def test_each_part_is_weighted_by_the_images_it_is_a_mean_of(every):
    meter = Meter(1, every)
    meter.add(_parts(1.0, 4.0), images={"loss": 3, "rrr": 1}, step=1)
    meter.add(_parts(5.0, 8.0), images={"loss": 1, "rrr": 3}, step=2)
    assert meter.means() == {"loss": 2.0, "rrr": 7.0}


def test_steps_without_annotated_images_do_not_dilute_a_term():
    meter = Meter(1, 1)
    meter.add(_parts(1.0, 0.0), images={"loss": 60, "rrr": 0}, step=1)
    assert meter.means()["rrr"] == 0
    meter.add(_parts(1.0, 8.0), images={"loss": 4, "rrr": 4}, step=2)
    assert meter.means() == {"loss": 1.0, "rrr": 8.0}


def test_sums_and_images_are_added_up_over_processes():
    """Two processes with 1 and 3 annotated images of 4 each."""
    meters = [Meter(1, 1), Meter(1, 1)]
    meters[0].add(_parts(1.0, 4.0), images={"loss": 4, "rrr": 1}, step=1)
    meters[1].add(_parts(5.0, 8.0), images={"loss": 4, "rrr": 3}, step=1)
    seen = []
    for meter in meters:
        meter.means(lambda own: seen.append(own) or own)
    joint = [a + b for a, b in zip(*seen, strict=True)]
    assert meters[0].means(lambda own: joint) == {"loss": 3.0, "rrr": 7.0}


def test_a_meter_goes_on_from_its_state():
    meter = Meter(1, 1)
    meter.add(_parts(1.0, 4.0), images={"loss": 3, "rrr": 1}, step=1)
    later = Meter(1, 1, json.loads(json.dumps(meter.state())))
    later.add(_parts(5.0, 8.0), images={"loss": 1, "rrr": 3}, step=2)
    assert later.means() == {"loss": 2.0, "rrr": 7.0}


def test_the_logged_term_is_that_of_the_annotated_images_alone(tiny, toy):
    """Frozen by a learning rate of almost 0: 4 annotated images of 64 show the same value as the 4 alone."""
    data = toy(64, annotated=torch.arange(64) % 16 == 5)
    settings = FitSettings(epochs=1, batch_size=8, lr=1e-12, seed=0)
    objective = Objective({"rrr": Term(RRR(), 0.1)})
    model = tiny()
    for module in model.network.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    alone = Subset(data, data.annotated.nonzero()[:, 0])
    among, only = (fit(model, d, objective, settings, progress=False).history[0] for d in (data, alone))
    assert only["rrr"] > 0
    assert among["rrr"] == pytest.approx(only["rrr"], rel=1e-4)


@pytest.mark.parametrize("every", [1, 3, 50])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_step_and_the_part_at_fault_are_named(every, value):
    meter = Meter(2, every)
    with pytest.raises(TrainingDiverged, match=r"^rrr is (nan|inf) at step 8 \(epoch 2\)") as caught:  # noqa: PT012
        for step, bad in ((7, 0.0), (8, value), (9, value)):
            meter.add(_parts(1.0 + bad, bad), images={"loss": 1, "rrr": 1}, step=step)
        meter.read()
    assert "lower learning rate" in str(caught.value)


def test_ctrl_c_waits_for_the_check():
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012, SIM117
        with deferred_interrupt(True) as check:
            os.kill(os.getpid(), signal.SIGINT)
            reached = True
            check()
    assert reached
    assert can_defer()


def test_ctrl_c_is_not_lost_when_nobody_checks():
    with pytest.raises(KeyboardInterrupt), deferred_interrupt(True):
        os.kill(os.getpid(), signal.SIGINT)


def test_a_second_ctrl_c_acts_at_once():
    reached = []
    with pytest.raises(KeyboardInterrupt), deferred_interrupt(True):  # noqa: PT012
        os.kill(os.getpid(), signal.SIGINT)
        reached.append(1)
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(1000):
            pass
        reached.append(2)
    assert reached == [1]


def test_the_bar_shows_epoch_and_parts(capsys):
    bar = Bar(epochs=3, total=10, done=0, shown=True)
    bar.epoch(2)
    bar._bar.mininterval = 0
    bar.step({"rrr": 0.25})
    bar.step({"rrr": 0.25})
    bar.close()
    shown = capsys.readouterr().err
    assert "epoch 2/3" in shown
    assert "rrr=0.25" in shown


def test_no_bar_is_silent(capsys):
    bar = Bar(epochs=3, total=10, done=0, shown=False)
    bar.epoch(1)
    bar.step({"rrr": 0.25})
    bar.close()
    assert capsys.readouterr() == ("", "")
