"""A run of four epochs that kills itself in the third; started by test_run.py in a process of its own."""

import os
import signal
import sys
from dataclasses import replace

import torch

from rightreasons.experiments import train
from tests.experiments.conftest import QUICK, RESOURCES

if __name__ == "__main__":
    torch.set_num_threads(1)
    # The package holds a function of this name.
    fitting = sys.modules["rightreasons.training.fit"]
    save, count = fitting.save_checkpoint, [0]

    def save_and_die(*args, **kwargs):
        save(*args, **kwargs)
        count[0] += 1
        if count[0] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    fitting.save_checkpoint = save_and_die
    train(replace(QUICK, training=replace(QUICK.training, epochs=4)), sys.argv[1], RESOURCES)
