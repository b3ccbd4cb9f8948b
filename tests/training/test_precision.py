"""Training in bfloat16."""

import importlib
from dataclasses import replace

import pytest
import torch
from accelerate import Accelerator
from torch import nn

from rightreasons.attribution import GradCAM
from rightreasons.core import ResumeRefused
from rightreasons.models import adapt
from rightreasons.supervision import RES, RRR
from rightreasons.training import FitSettings, Objective, Term, evaluate, fit

fit_module = importlib.import_module("rightreasons.training.fit")
PLAIN = Objective()
RIGHT = Objective({"rrr": Term(RRR(), 0.1)})
QUICK = FitSettings(epochs=2, batch_size=16, lr=0.01)


def test_mixed_precision_trains_explanations(tiny, toy):
    model, seen = tiny(), []
    model.network[0].register_forward_hook(lambda module, args, output: seen.append(output.dtype))
    terms = {"rrr": Term(RRR(), 0.1), "res": Term(RES(GradCAM()), 0.1)}
    settings = replace(QUICK, epochs=6)
    accelerator = Accelerator(cpu=True, mixed_precision="bf16")
    result = fit(model, toy(), Objective(terms), settings, accelerator=accelerator, progress=False)
    assert torch.bfloat16 in seen
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert evaluate(model, toy()).accuracy > 0.9
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_a_run_may_name_its_precision(tiny, toy):
    model, seen = tiny(), []
    model.network[0].register_forward_hook(
        lambda module, args, output: seen.append((model.training, output.dtype, output.stride(1)))
    )
    terms = {"rrr": Term(RRR(), 0.1)}
    checks = {"test": toy(), "own": lambda model: model(toy().batch(torch.arange(2)).inputs).sum().item()}
    fit(model, toy(), Objective(terms), replace(QUICK, precision="bf16"), validate=checks, progress=False)
    assert {each[:2] for each in seen} == {(True, torch.bfloat16), (False, torch.bfloat16), (False, torch.float32)}
    assert {stride for training, _, stride in seen if training} == {1}
    seen.clear()
    evaluate(model, toy())
    assert {each[:2] for each in seen} == {(False, torch.float32)}
    assert all(p.dtype == torch.float32 for p in model.parameters())


class Viewed(nn.Module):
    """A network that calls ``view`` on its maps."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3 * 36, 4)

    def forward(self, inputs):
        return self.head(self.conv(inputs).relu().view(len(inputs), -1))


def test_a_network_that_calls_view_trains_in_bfloat16_too(toy):
    model = adapt(Viewed())
    result = fit(model, toy(), PLAIN, replace(QUICK, precision="bf16", epochs=3), progress=False)
    assert result.history[-1]["loss"] < result.history[0]["loss"]


def test_an_unknown_precision_is_refused():
    with pytest.raises(ValueError, match=r"expected bf16 as precision \(or leave it out\), got 'fp8'"):
        replace(QUICK, precision="fp8")


def test_precision_is_part_of_what_is_resumed(tiny, toy, tmp_path):
    fit(tiny(), toy(), PLAIN, QUICK, out=tmp_path, progress=False)
    with pytest.raises(ResumeRefused, match="precision"):
        fit(tiny(), toy(), PLAIN, replace(QUICK, precision="bf16"), out=tmp_path, resume=True, progress=False)


def test_the_model_is_left_without_autocast(tiny, toy):
    model = tiny()
    fit(model, toy(), PLAIN, QUICK, accelerator=Accelerator(cpu=True, mixed_precision="bf16"), progress=False)
    assert model(toy().batch(torch.arange(2)).inputs).dtype == torch.float32
