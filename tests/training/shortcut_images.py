"""Images with a shortcut that a few exceptions tell apart, and what is trained on them, for the tests of recipes."""

from __future__ import annotations

from functools import partial

import torch
from torch import nn

from rightreasons.data import ArrayDataset
from rightreasons.metrics import worst_group_accuracy
from rightreasons.models import adapt
from rightreasons.training import FitSettings, Objective, evaluate, fit

SETTINGS = FitSettings(epochs=8, batch_size=50, lr=0.01)
EVEN = (0.25,) * 4
SKEWED = (0.49, 0.01, 0.01, 0.49)
quiet = partial(fit, progress=False)


def shortcut_images(shares, images, seed=0, *, noise, contrast, **given):
    """Two classes by a brightness of the upper rows; a bright patch goes with the class as often as the shares say."""
    generator = torch.Generator().manual_seed(seed)
    group = torch.repeat_interleave(torch.arange(4), torch.tensor([round(share * images) for share in shares]))
    group = group[torch.randperm(len(group), generator=generator)]
    target, sign = group // 2, group % 2
    pixels = torch.randint(0, noise, (len(group), 1, 6, 6), generator=generator)
    pixels[:, 0, :2] += (contrast * target).view(-1, 1, 1)
    pixels[:, 0, 4:, 4:] = (40 + 150 * sign).view(-1, 1, 1)
    given = {"group": group, **given}
    return ArrayDataset(pixels.to(torch.uint8), target, classes=["dark", "bright"], name="shortcut", **given)


def shortcut(shares=SKEWED, images=1000, seed=0):
    """A shortcut with an exception in fifty images."""
    return shortcut_images(shares, images, seed, noise=200, contrast=30)


def mlp(seed=0, classes=2, layer=None):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, classes))
        return adapt(network, layer=layer)


def worst(model, data):
    return worst_group_accuracy(evaluate(model, data).predictions, data.target, data.group)


def killed_and_resumed(recipe, models, data, out):
    """A recipe killed before its second training with the first model, and gone on with the second one.

    Returns:
        Whether there was a second training to be killed.
    """
    settings = FitSettings(epochs=2, batch_size=64, lr=0.01)
    calls = []

    def killed(*args, **kwargs):
        if len(calls) == 1:
            raise KeyboardInterrupt
        calls.append(quiet(*args, resume=True, **kwargs))
        return calls[-1]

    try:
        recipe(models[0], data, Objective(), settings, fit=killed, out=out)
        stopped = False
    except KeyboardInterrupt:
        stopped = True
    result = recipe(models[1], data, Objective(), settings, fit=partial(quiet, resume=True), out=out)
    assert result.resumed_from == calls[0].steps
    return stopped
