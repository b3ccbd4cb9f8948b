import pytest
import torch
from accelerate.state import AcceleratorState
from torch import nn

from rightreasons.data.arrays import ArrayDataset
from rightreasons.models import adapt


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """Accelerate keeps its configuration for the life of a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture
def toy():
    """Images whose class is the row that is bright; a corner is marked as irrelevant, the row as relevant."""

    def make(images=96, classes=4, annotated=None):
        generator = torch.Generator().manual_seed(0)
        target = torch.arange(images) % classes
        pixels = torch.randint(0, 60, (images, 1, 8, 8), generator=generator, dtype=torch.uint8)
        relevant = torch.zeros(images, 1, 8, 8)
        relevant[torch.arange(images), 0, 2 * target] = 1
        irrelevant = torch.zeros(images, 1, 8, 8)
        irrelevant[..., 1::2, :] = 1
        pixels[relevant.bool()] += 120
        names = [str(c) for c in range(classes)]
        masks = {"relevant": relevant, "irrelevant": irrelevant, "annotated": annotated}
        return ArrayDataset(pixels, target, classes=names, name="toy", **masks)

    return make


@pytest.fixture
def tiny():
    """A convolution, dropout and a dense layer for the toy."""

    def make(seed=0, dropout=0.25, classes=4):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = nn.Sequential(
                nn.Conv2d(1, 4, 3, padding=1),
                nn.Softplus(),
                nn.AvgPool2d(2),
                nn.Flatten(),
                nn.Dropout(dropout),
                nn.Linear(64, classes),
            )
        return adapt(network)

    return make


@pytest.fixture
def weights():
    """All weights of a model as one vector."""
    return lambda model: nn.utils.parameters_to_vector(model.network.parameters()).detach().clone()
