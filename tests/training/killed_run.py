"""A run that kills itself at a given forward pass; started by test_checkpoint.py in a process of its own."""

import os
import signal
import sys
from pathlib import Path

import torch
from torch import nn

from rightreasons.data.arrays import ArrayDataset
from rightreasons.models import adapt
from rightreasons.supervision import RRR
from rightreasons.training import FitSettings, Objective, Term, fit


def run(folder, *, killed_at=0):
    """The result and the final weights of three epochs of twelve steps, from a checkpoint where there is one."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    images = torch.randint(0, 256, (190, 1, 8, 8), dtype=torch.uint8)
    border = torch.ones(190, 1, 8, 8)
    border[..., 1:-1, 1:-1] = 0
    data = ArrayDataset(images, torch.arange(190) % 10, classes="0123456789", name="noise", irrelevant=border)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Dropout(0.3), nn.Linear(32, 10))
    steps = []

    def die(*_):
        steps.append(1)
        if len(steps) == killed_at:
            os.kill(os.getpid(), signal.SIGKILL)

    network.register_forward_hook(die)
    settings = FitSettings(epochs=3, batch_size=16, seed=1)
    objective = Objective({"rrr": Term(RRR(), 0.1)})
    result = fit(adapt(network), data, objective, settings, out=folder, resume=True, progress=False)
    return result, nn.utils.parameters_to_vector(network.parameters()).detach()


if __name__ == "__main__":
    run(Path(sys.argv[1]), killed_at=int(sys.argv[2]))
