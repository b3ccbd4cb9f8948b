"""What each of two processes does; started by test_two_processes.py with `accelerate launch`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from rightreasons.attribution import GradCAM
from rightreasons.data.arrays import ArrayDataset
from rightreasons.data.digits import load_digits
from rightreasons.models import adapt
from rightreasons.supervision import RES, RRR
from rightreasons.training import FitSettings, Objective, Term, TrainingStep, default_accelerator, fit
from rightreasons.training.loading import share


def network(seed, dtype=torch.float32):
    torch.manual_seed(seed)
    layers = nn.Conv2d(1, 4, 3, padding=1), nn.Softplus(), nn.Flatten(), nn.Linear(256, 10)
    return adapt(nn.Sequential(*layers).to(dtype))


def annotated(data, share_of_images=1.0):
    """The digits with their border marked as irrelevant."""
    border = torch.ones(len(data), 1, 8, 8)
    border[..., 1:-1, 1:-1] = 0
    masks = {"relevant": 1 - border, "irrelevant": border}
    marked = torch.arange(len(data)) < share_of_images * len(data)
    return ArrayDataset(data.images, data.target, classes=data.classes, name="digits", annotated=marked, **masks)


def objective():
    return Objective({"rrr": Term(RRR(), 0.01), "res": Term(RES(GradCAM(), slack=0.0), 0.1)})


def rrr_only():
    return Objective({"rrr": Term(RRR(), 3.0)})


def gradient(process=0, processes=1, prepare=lambda step: step):
    """The gradient on one batch in float64, as the loop computes it."""
    model = network(0, torch.float64)
    rows = share(torch.arange(32), process, processes)
    batch = annotated(load_digits("train")).batch(rows)
    batch = replace(batch, inputs=batch.inputs.double(), irrelevant=batch.irrelevant.double())
    step = prepare(TrainingStep(model, rrr_only()))
    step(batch)["loss"].backward(inputs=list(model.parameters()))
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def train(seed, accelerator, **where):
    model = network(seed)
    data, test = annotated(load_digits("train")), load_digits("test")
    settings = FitSettings(epochs=10, batch_size=64, lr=0.01, seed=seed)
    result = fit(
        model, data, objective(), settings, validate={"test": test}, accelerator=accelerator, progress=False, **where
    )
    return model, result


def main(folder):
    torch.set_num_threads(1)
    accelerator = default_accelerator()
    process, processes = accelerator.process_index, accelerator.num_processes
    joint = gradient(process, processes, accelerator.prepare)
    model, result = train(0, accelerator, out=folder)
    weights = nn.utils.parameters_to_vector(model.parameters()).tolist()
    # Half the images annotated, a learned imputation, batches in which a process may find no annotation at all.
    partly = Objective({"res": Term(RES(GradCAM(), imputation="learned"), 0.1)})
    settings = FitSettings(epochs=1, batch_size=4)
    few = annotated(load_digits("test"), 0.1)
    learned = fit(network(1), few, partly, settings, accelerator=accelerator, progress=False)
    found = {"processes": processes, "gradient": joint.tolist(), "weights": weights, "history": result.history}
    found["learned"] = learned.history[-1]["loss"]
    (folder / f"process{process}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
