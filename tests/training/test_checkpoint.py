import errno
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rightreasons.attribution import GradCAM
from rightreasons.core import BadModel, CorruptData, NotWritten, ResumeRefused, RightReasonsError
from rightreasons.data.arrays import Subset
from rightreasons.supervision import RES, RRR
from rightreasons.training import FitSettings, Objective, Term, fit
from rightreasons.training.checkpoint import FILE_NAME
from tests.training import killed_run

RIGHT = Objective({"rrr": Term(RRR(), 0.1)})
QUICK = FitSettings(epochs=1, batch_size=16, lr=0.01)


def _same_but_for_time(one, other):
    return [{**line, "seconds": 0} for line in one] == [{**line, "seconds": 0} for line in other]


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "sgd with momentum"])
def test_a_resumed_run_ends_in_the_same_weights(tiny, toy, tmp_path, weights, optimizer):
    settings = replace(QUICK, optimizer=optimizer[:3] if "sgd" in optimizer else optimizer, momentum=0.0)
    settings = replace(settings, momentum=0.9) if "momentum" in optimizer else settings
    whole, model, again = tiny(), tiny(), tiny(seed=5)
    expected = fit(whole, toy(), RIGHT, replace(settings, epochs=3), progress=False)
    fit(model, toy(), RIGHT, settings, out=tmp_path, progress=False)
    result = fit(again, toy(), RIGHT, replace(settings, epochs=3), out=tmp_path, resume=True, progress=False)
    assert weights(again).equal(weights(whole))
    assert not weights(again).equal(weights(model))
    assert _same_but_for_time(result.history, expected.history)
    assert (result.resumed_from, result.steps) == (6, 18)


def test_weights_of_losses_are_resumed_too(tiny, toy, tmp_path):
    def run(epochs, **where):
        loss = RES(GradCAM(), imputation="learned")
        fit(tiny(), toy(), Objective({"res": Term(loss)}), replace(QUICK, epochs=epochs), progress=False, **where)
        return torch.cat([p.detach().flatten() for p in loss.imputation.parameters()])

    expected = run(2)
    first = run(1, out=tmp_path)
    assert not first.equal(expected)
    assert run(2, out=tmp_path, resume=True).equal(expected)


def test_resuming_without_a_checkpoint_starts_anew(tiny, toy, tmp_path):
    assert fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path / "new", resume=True, progress=False).resumed_from is None


def test_a_finished_run_is_handed_back(tiny, toy, tmp_path, weights):
    model, again = tiny(), tiny(seed=4)
    fit(model, toy(), RIGHT, QUICK, out=tmp_path, progress=False)
    result = fit(again, toy(), RIGHT, QUICK, out=tmp_path, resume=True, progress=False)
    assert weights(again).equal(weights(model))
    assert len(result.history) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 8}, "batch_size was 16 and is now 8"),
        ({"lr": 0.5}, "lr was 0.01 and is now 0.5"),
        ({"seed": 3}, "seed was 0 and is now 3"),
        ({"optimizer": "adamw"}, "optimizer was adam and is now adamw"),
    ],
)
def test_other_settings_are_refused_by_name(tiny, toy, tmp_path, weights, change, message):
    fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path, progress=False)
    model = tiny(seed=2)
    before = weights(model)
    with pytest.raises(ResumeRefused, match=message) as caught:
        fit(model, toy(), RIGHT, replace(QUICK, **change), out=tmp_path, resume=True, progress=False)
    assert str(caught.value).count(" was ") == 1
    assert weights(model).equal(before)


def test_another_objective_data_or_network_is_refused(tiny, toy, tmp_path):
    fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path, progress=False)

    def resume(model, data, objective):
        fit(model, data, objective, QUICK, out=tmp_path, resume=True, progress=False)

    with pytest.raises(ResumeRefused, match=r"term rrr was 0\.1 \* RRR\(.*\) and is now 0\.2 \* RRR\("):
        resume(tiny(), toy(), Objective({"rrr": Term(RRR(), 0.2)}))
    with pytest.raises(ResumeRefused, match=r"term rrr was .* and is now absent"):
        resume(tiny(), toy(), Objective())
    with pytest.raises(ResumeRefused, match="data was toy, 96 images"):
        resume(tiny(), Subset(toy(), range(40)), RIGHT)
    with pytest.raises(BadModel, match=r"another shape: .*weight \(4, 64\) where the network has \(5, 64\)"):
        resume(tiny(classes=5), toy(), RIGHT)


def test_fewer_epochs_than_are_done_are_refused(tiny, toy, tmp_path):
    fit(tiny(), toy(), RIGHT, replace(QUICK, epochs=2), out=tmp_path, progress=False)
    with pytest.raises(ResumeRefused, match="at epoch 2 already"):
        fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path, resume=True, progress=False)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", None])
def test_a_damaged_checkpoint_is_said_to_be_one(tiny, toy, tmp_path, content):
    fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path, progress=False)
    file = tmp_path / FILE_NAME
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(CorruptData, match="damaged or no checkpoint"):
        fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path, resume=True, progress=False)


def test_a_full_disk_leaves_the_old_checkpoint(tiny, toy, tmp_path):
    """A limit on the size of a file fails in the middle of writing, as a full disk does."""
    fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path, progress=False)
    before = (tmp_path / FILE_NAME).read_bytes()
    old = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, old[1]))
    try:
        with pytest.raises(NotWritten, match=r"^cannot write .*: File too large; the file .* is untouched$") as caught:
            fit(tiny(), toy(), RIGHT, replace(QUICK, epochs=2), out=tmp_path, resume=True, progress=False)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, old)
    assert isinstance(caught.value, RightReasonsError)
    assert isinstance(caught.value.__cause__, OSError)
    assert (tmp_path / FILE_NAME).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


def test_an_error_while_flushing_leaves_the_old_checkpoint(tiny, toy, tmp_path, monkeypatch):
    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(NotWritten, match="No space left on device; nothing was left there"):
        fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_a_killed_run_resumes_to_the_same_weights(tmp_path):
    command = [sys.executable, "-m", "tests.training.killed_run", str(tmp_path / "killed"), "30"]
    killed = subprocess.run(
        command, cwd=Path(__file__).parents[2], capture_output=True, text=True, check=False, timeout=60
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    threads = torch.get_num_threads()
    try:
        resumed, weights = killed_run.run(tmp_path / "killed")
        whole, expected = killed_run.run(tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    assert (resumed.resumed_from, resumed.steps) == (24, 36)
    assert (whole.resumed_from, whole.steps) == (None, 36)
    assert weights.equal(expected)
