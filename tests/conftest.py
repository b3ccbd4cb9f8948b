import os

# Before torch is imported: spinning threads slow small networks tenfold beside another process.
os.environ.setdefault("GOMP_SPINCOUNT", "0")

import jaxtyping
import pytest
import torch


@pytest.fixture(autouse=True)
def _same_dice():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture(autouse=True)
def _shapes_are_checked(request):
    """Types and shapes of all calls are checked (see ``addopts``), but for tests that pass wrong ones on purpose."""
    wrong_on_purpose = request.node.get_closest_marker("wrong_types") is not None
    jaxtyping.config.update("jaxtyping_disable", wrong_on_purpose)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)
