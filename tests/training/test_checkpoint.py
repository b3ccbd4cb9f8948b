import errno
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from rightreasons.attribution import ExpectedGradients, GradCAM
from rightreasons.core import BadModel, CorruptData, NotWritten, ResumeRefused, RightReasonsError
from rightreasons.data import Augmentation
from rightreasons.data.arrays import Subset
from rightreasons.models import adapt
from rightreasons.supervision import RES, RRR
from rightreasons.training import FitSettings, Objective, Term, fit
from rightreasons.training.checkpoint import FILE_NAME
from rightreasons.training.description import described
from tests.training import killed_run

RIGHT = Objective({"rrr": Term(RRR(), 0.1)})
QUICK = FitSettings(epochs=1, batch_size=16, lr=0.01)


def _same_but_for_time(one, other):
    return [{**line, "seconds": 0, "cpu_seconds": 0} for line in one] == [
        {**line, "seconds": 0, "cpu_seconds": 0} for line in other
    ]


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


def _refusal(tmp_path, first, second):
    """What is said when a run is to go on as another; both are (model, data, objective, settings)."""
    fit(*first, out=tmp_path, progress=False)
    before = [weight.detach().clone() for weight in second[0].parameters()]
    with pytest.raises(ResumeRefused) as caught:
        fit(*second, out=tmp_path, resume=True, progress=False)
    assert str(caught.value).count(" was ") == 1
    assert all(ours.equal(old) for ours, old in zip(second[0].parameters(), before, strict=True))
    return str(caught.value)


def test_other_frozen_weights_are_refused_by_name(tiny, toy, tmp_path):
    first, second = tiny(), tiny()
    first.network[0].requires_grad_(False)
    second.network[5].requires_grad_(False)
    told = _refusal(tmp_path, (first, toy(), RIGHT, QUICK), (second, toy(), RIGHT, QUICK))
    assert (
        "trained weights was with model.network.5.weight, model.network.5.bias "
        "and is now with model.network.0.weight, model.network.0.bias." in told
    )


def test_other_frozen_modes_are_refused_by_name(tiny, toy, tmp_path):
    second = tiny()
    second.network[4].eval()
    told = _refusal(tmp_path, (tiny(), toy(), RIGHT, QUICK), (second, toy(), RIGHT, QUICK))
    assert "frozen modes was without them and is now with 4." in told


def test_another_standardization_is_refused(tiny, toy, tmp_path):
    second = adapt(tiny().network, mean=[0.5])
    told = _refusal(tmp_path, (tiny(), toy(), RIGHT, QUICK), (second, toy(), RIGHT, QUICK))
    assert "mean was [0.0] and is now [0.5]." in told


def test_other_references_are_refused(tiny, toy, tmp_path):
    def run(references):
        return tiny(), toy(), Objective({"eg": Term(RRR(ExpectedGradients(references)))}), QUICK

    told = _refusal(tmp_path, run(torch.zeros(2, 1, 8, 8)), run(torch.ones(2, 1, 8, 8)))
    assert "references=tensor 2x1x8x8 float32 " in told


def _smoothed(by):
    return lambda logits, target: F.cross_entropy(logits, target, label_smoothing=by)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (nn.CrossEntropyLoss(label_smoothing=0.1), nn.CrossEntropyLoss(label_smoothing=0.2)),
        (nn.CrossEntropyLoss(torch.ones(4)), nn.CrossEntropyLoss(torch.arange(4.0))),
        (partial(F.cross_entropy, label_smoothing=0.1), partial(F.cross_entropy, label_smoothing=0.2)),
        (_smoothed(0.1), _smoothed(0.2)),
        (lambda logits, target: F.cross_entropy(logits, target), lambda logits, target: logits.square().mean()),
        (lambda logits, target: logits.mean() * 2, lambda logits, target: logits.mean() * 3),
    ],
)
def test_another_task_is_refused(tiny, toy, tmp_path, first, second):
    runs = ((tiny(), toy(), Objective(task=task), QUICK) for task in (first, second))
    assert "task was " in _refusal(tmp_path, *runs)


def test_other_augmentations_and_images_are_refused(tiny, toy, tmp_path):
    def run(augmentation=None, data=None):
        return tiny(), data or toy(), RIGHT, replace(QUICK, augmentation=augmentation)

    told = _refusal(tmp_path / "a", run(Augmentation(shift=1)), run(Augmentation(shift=2)))
    assert "augmentation was Augmentation(shift=1, " in told
    changed = toy()
    changed.images[0] ^= 1
    assert "data was toy, 96 images, hash " in _refusal(tmp_path / "b", run(), run(data=changed))


def test_what_is_told_of_a_method_is_the_same_each_time():
    loop = SimpleNamespace()
    loop.itself = loop
    for make in (lambda: _smoothed(0.1), lambda: partial(max, key=len), lambda: {"a", "b", "c"}, lambda: loop):
        assert described(make()) == described(make())
    assert " at 0x" not in described([object(), print, torch.nn.ReLU(), F.relu, [].append, self_calling()])


def self_calling():
    def inner():
        return later()

    made = inner
    if made is None:
        later = 1
    return made


def test_an_optimizers_state_of_another_shape_is_refused(tiny, toy, tmp_path):
    fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path, progress=False)
    with safe_open(tmp_path / FILE_NAME, framework="pt") as file:
        metadata, tensors = file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    tensors["optimizer.0.exp_avg"] = torch.zeros(2, 2)
    save_file(tensors, tmp_path / FILE_NAME, metadata)
    with pytest.raises(CorruptData, match="state that is not of these weights"):
        fit(tiny(), toy(), RIGHT, QUICK, out=tmp_path, resume=True, progress=False)
