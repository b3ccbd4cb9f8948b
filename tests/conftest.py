import os

# Before torch is imported: spinning threads slow small networks tenfold beside another process.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import pytest
import torch


@pytest.fixture(autouse=True)
def _same_dice():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
