from dataclasses import replace

import pytest
import torch

from rightreasons.attribution import GradCAM
from rightreasons.core import Batch
from rightreasons.models import adapt
from tests.networks import CLASSES, SIDE, images, network


@pytest.fixture
def model():
    return adapt(network("softplus"))


@pytest.fixture
def batch(model):
    """Four images: a relevant square, an irrelevant corner, and between them pixels that nobody marked."""
    relevant = torch.zeros(4, 1, SIDE, SIDE, dtype=torch.float64)
    irrelevant = torch.zeros_like(relevant)
    for row in range(4):
        relevant[row, :, 3 + row : 7 + row, 2:6] = 1
        irrelevant[row, :, :3, 8 - row :] = 1
    inputs, target = images(4)
    return alive(model, Batch(inputs, target, relevant=relevant, irrelevant=irrelevant))


@pytest.fixture
def alive_for():
    return alive


def alive(model, batch: Batch) -> Batch:
    """The batch with such targets that no image's class activation map is all zero."""
    with torch.no_grad():
        peaks = [
            GradCAM()(model, batch.inputs, torch.full_like(batch.target, c)).amax((1, 2, 3)) for c in range(CLASSES)
        ]
    best, target = torch.stack(peaks).max(dim=0)
    assert (best > 0).all()
    return replace(batch, target=target)
