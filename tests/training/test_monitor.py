import os
import signal

import pytest
import torch

from rightreasons.core import TrainingDiverged
from rightreasons.training.monitor import Bar, Meter, can_defer, deferred_interrupt


def _parts(loss, term):
    return {"loss": torch.tensor(loss), "rrr": torch.tensor(term)}


@pytest.mark.parametrize("every", [1, 2, 50])
def test_means_are_weighted_by_images(every):
    meter = Meter(1, every)
    meter.add(_parts(1.0, 4.0), images=3, step=1)
    meter.add(_parts(5.0, 0.0), images=1, step=2)
    assert meter.means() == {"loss": 2.0, "rrr": 3.0}


def test_a_meter_goes_on_from_its_state():
    meter = Meter(1, 1)
    meter.add(_parts(1.0, 4.0), images=3, step=1)
    later = Meter(1, 1, meter.state())
    later.add(_parts(5.0, 0.0), images=1, step=2)
    assert later.means() == {"loss": 2.0, "rrr": 3.0}


@pytest.mark.parametrize("every", [1, 3, 50])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_the_step_and_the_part_at_fault_are_named(every, value):
    meter = Meter(2, every)
    with pytest.raises(TrainingDiverged, match=r"^rrr is (nan|inf) at step 8 \(epoch 2\)") as caught:  # noqa: PT012
        for step, bad in ((7, 0.0), (8, value), (9, value)):
            meter.add(_parts(1.0 + bad, bad), images=1, step=step)
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
