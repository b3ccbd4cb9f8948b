"""Losses on colors, against the same formulas written out pixel by pixel."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from rightreasons.core import Batch
from rightreasons.supervision import ColorGradient, Recolored
from rightreasons.supervision.color_invariance import ink


def test_ink_is_the_brightest_channel_over_that_of_the_brightest_pixel():
    image = torch.tensor([[[[0.0, 0.2]], [[0.1, 0.4]]]])  # a black-to-color pair of pixels, two channels
    torch.testing.assert_close(ink(image), torch.tensor([[[[0.25, 1.0]]]]))
    assert torch.equal(ink(torch.zeros(1, 3, 2, 2)), torch.zeros(1, 1, 2, 2))
    torch.testing.assert_close(ink(image * 4 - 2, -2.0, 2.0), ink(image))


def test_no_color_of_an_image_is_left_in_its_ink(batch):
    shape = torch.rand(5, 1, 4, 4)
    colored = shape * torch.rand(5, 3, 1, 1)
    torch.testing.assert_close(ink(colored), ink(shape.expand(-1, 3, -1, -1)))


def plain_ink(image, low, high):
    bright = torch.stack([channel - low for channel in image]).max(dim=0).values / (high - low)
    return bright / bright.max()


@pytest.mark.parametrize("of", ["image", "pixel"])
def test_copies_bear_random_colors_over_the_same_ink(of, batch):
    loss = Recolored(of=of, low=-1.0, high=3.0, seed=1)
    copies = loss.copied(batch.inputs)
    assert copies.shape == batch.inputs.shape
    for image, copy in zip(batch.inputs, copies, strict=True):
        colors = (copy + 1) / 4 / plain_ink(image, -1.0, 3.0)
        assert colors.min() >= 0
        assert colors.max() <= 1
        spread = colors.flatten(1).std(dim=1)
        assert (spread > 0.2).all() if of == "pixel" else (spread < 1e-12).all()
    first = ((copies + 1) / 4)[:, 0].flatten(1).amax(1)
    assert len(first.unique()) == len(first)
    assert torch.equal(loss.copied(batch.inputs), copies)
    assert not torch.equal(replace(loss, seed=2).copied(batch.inputs), copies)
    unseeded = replace(loss, seed=None)
    assert not torch.equal(unseeded.copied(batch.inputs), unseeded.copied(batch.inputs))


def test_recolored_is_the_cross_entropy_of_the_copies(model, batch):
    loss = Recolored(seed=3)
    expected = F.cross_entropy(model(loss.copied(batch.inputs)), batch.target)
    torch.testing.assert_close(loss(model, batch, model(batch.inputs)), expected)


def test_color_gradient_is_the_squared_derivative_by_a_common_color(model, batch):
    """Against central differences of the answer as the color of the image changes."""
    batch = replace(batch, inputs=batch.inputs.sigmoid())
    found = ColorGradient()(model, batch, model(batch.inputs))

    def answer(images):
        return model(images).log_softmax(dim=1).sum(dim=1).detach()

    expected, step = 0.0, 1e-5
    for channel in range(2):
        moved = torch.zeros_like(batch.inputs)
        moved[:, channel] = ink(batch.inputs)[:, 0]
        slopes = (answer(batch.inputs + step * moved) - answer(batch.inputs - step * moved)) / (2 * step)
        expected = expected + slopes.square()
    torch.testing.assert_close(found.detach(), expected.mean(), rtol=1e-6, atol=0)


@pytest.mark.parametrize("loss", [Recolored(seed=0), ColorGradient()])
def test_no_mask_is_needed_and_none_is_used(loss, model, batch):
    bare = Batch(batch.inputs, batch.target)
    logits = model(batch.inputs)
    torch.testing.assert_close(loss(model, bare, logits), loss(model, batch, logits))


@pytest.mark.parametrize("loss", [Recolored(seed=0), ColorGradient()])
def test_a_black_image_has_a_finite_loss(loss, model, batch):
    black = Batch(torch.zeros_like(batch.inputs), batch.target)
    value = loss(model, black, model(black.inputs))
    value.backward()
    assert torch.isfinite(value)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "make",
    [lambda: Recolored(of="patch"), lambda: Recolored(low=1.0), lambda: ColorGradient(low=2.0, high=2.0)],
)
def test_wrong_settings_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()
