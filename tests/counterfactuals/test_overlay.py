"""What is drawn of a change."""

from __future__ import annotations

import pytest
import torch

from rightreasons.core import ANY_OTHER
from rightreasons.counterfactuals import Limits, edges, overlay, way, way_probabilities
from rightreasons.models import adapt
from tests.counterfactuals.linear import linear
from tests.networks import images, network

SIDE = 4


def case(changes, gap):
    """Class 1 leads by the sum of the pixels minus ``gap``; an image of gray 0.4 and its change by pixel."""
    weight = torch.stack([torch.zeros(SIDE * SIDE), torch.ones(SIDE * SIDE)]).double()
    model = linear(weight, torch.tensor([0.0, -0.4 * SIDE * SIDE - gap], dtype=torch.float64), SIDE)
    inputs = torch.full((1, 1, SIDE, SIDE), 0.4, dtype=torch.float64)
    changed = inputs.clone()
    for place, value in changes.items():
        changed.view(-1)[place] += value
    return model, inputs, changed, torch.tensor([1])


def test_changes_that_the_class_does_not_need_and_those_nobody_sees_are_left_out_and_counted():
    changes = {0: 0.5, 5: 0.3, 6: -0.1, 9: 0.01, 10: 0.2, 11: 0.005}
    model, inputs, changed, target = case(changes, gap=0.7)
    found = overlay(model, inputs, changed, target)
    # 0.5 + 0.3 is enough: the smaller ones go, though one of them pulled the other way.
    assert sorted(found.drawn.flatten().nonzero()[:, 0].tolist()) == [0, 5]
    assert (int(found.needless), int(found.faint), bool(found.valid)) == (4, 0, True)
    torch.testing.assert_close(found.change.flatten()[[0, 5]], torch.tensor([0.5, 0.3]).double())
    assert torch.equal(found.images != inputs, found.drawn)
    assert int(found.queries) > 3


def test_a_needed_change_that_cannot_be_seen_is_faint_and_the_rest_does_not_flip():
    model, inputs, changed, target = case({0: 0.5, 1: 0.015}, gap=0.505)
    found = overlay(model, inputs, changed, target, limits=Limits(lead=0.0))
    assert found.drawn.flatten().nonzero()[:, 0].tolist() == [0]
    assert (int(found.needless), int(found.faint), bool(found.valid)) == (0, 1, False)
    seen = overlay(model, inputs, changed, target, limits=Limits(lead=0.0), visible=0.01)
    assert (int(seen.faint), bool(seen.valid)) == (0, True)


@pytest.mark.parametrize("most", [3, 4, 5, 8, 50])
def test_a_budget_holds(most):
    model, inputs, changed, target = case({place: 0.05 + place / 100 for place in range(12)}, gap=0.7)
    found = overlay(model, inputs, changed, target, limits=Limits(max_queries=most))
    assert int(found.queries) <= most
    assert bool(found.valid)
    with pytest.raises(ValueError, match="max_queries of at least 3, got 2"):
        overlay(model, inputs, changed, target, limits=Limits(max_queries=2))


def test_in_inference_mode():
    model, inputs, changed, target = case({0: 0.5, 5: 0.3, 9: 0.01}, gap=0.7)
    expected = overlay(model, inputs, changed, target)
    with torch.inference_mode():
        found = overlay(model, inputs.clone(), changed.clone(), target)
    torch.testing.assert_close(found.change, expected.change)


def test_of_what_does_not_flip_all_that_is_seen_is_drawn():
    model, inputs, changed, target = case({0: 0.5, 1: 0.3, 2: 0.01}, gap=5.0)
    found = overlay(model, inputs, changed, target)
    assert found.drawn.flatten().nonzero()[:, 0].tolist() == [0, 1]
    assert (int(found.needless), int(found.faint), bool(found.valid)) == (0, 1, False)


def test_the_range_of_the_pixels_does_not_matter():
    model, inputs, changed, target = case({0: 0.5, 5: 0.3, 9: 0.01}, gap=0.7)
    wide = linear(model.network[2].weight.data / 255, model.network[2].bias.data, SIDE)
    found = overlay(model, inputs, changed, target)
    scaled = overlay(wide, 255 * inputs, 255 * changed, target, pixel_range=(0.0, 255.0))
    torch.testing.assert_close(scaled.change, found.change)
    assert torch.equal(scaled.needless, found.needless)


def test_a_batch_equals_its_singles_and_any_other_class_will_do():
    model = adapt(network("relu").eval())
    inputs, _ = images(4)
    changed = (inputs + 0.6 * torch.randn(inputs.shape, generator=torch.Generator().manual_seed(3))).clamp(0, 1)
    target = torch.full((4,), ANY_OTHER)
    together = overlay(model, inputs, changed, target)
    for row in range(4):
        one = slice(row, row + 1)
        apart = overlay(model, inputs[one], changed[one], target[one])
        assert torch.equal(apart.drawn, together.drawn[one])
        assert torch.equal(apart.needless, together.needless[one])


def test_the_signed_value_is_that_of_the_channel_that_changes_most():
    inputs = torch.full((1, 3, 2, 2), 0.5)
    changed = inputs.clone()
    changed[0, :, 0, 1] = torch.tensor([0.6, 0.1, 0.8])
    model = linear(torch.zeros(2, 12), torch.tensor([1.0, 0.0]), side=2, channels=3)
    found = overlay(model, inputs, changed, torch.tensor([1]))
    assert float(found.signed[0, 0, 0, 1]) == pytest.approx(-0.4)
    assert found.signed.count_nonzero() == 1


def test_the_way_is_straight_and_both_ends_are_on_it():
    model = adapt(network("relu").eval())
    inputs, _ = images(3)
    changed = inputs.flip(0).contiguous()
    frames = way(inputs, changed, frames=5)
    assert frames.shape == (5, *inputs.shape)
    torch.testing.assert_close(frames[1], 0.75 * inputs + 0.25 * changed)
    chances = way_probabilities(model, frames)
    for step in range(5):
        torch.testing.assert_close(chances[step], model(frames[step]).detach().softmax(dim=1))


def test_edges_are_one_pixel_wide_where_the_image_is_steepest():
    square = torch.zeros(1, 2, 10, 10)
    square[..., 3:7, 3:7] = 1.0
    found = edges(square)[0, 0]
    assert float(found.max()) == 1
    assert found[5].nonzero()[:, 0].tolist() == [2, 6]
    assert found[0].count_nonzero() == 0
    assert torch.equal(edges(torch.full((1, 1, 4, 4), 0.3)), torch.zeros(1, 1, 4, 4))


@pytest.mark.wrong_types
def test_what_does_not_go_together_is_refused():
    model, inputs, changed, target = case({0: 0.5}, gap=0.4)
    with pytest.raises(ValueError, match="changed images of shape"):
        overlay(model, inputs, changed[:, :, :2], target)
    with pytest.raises(ValueError, match="one target an input"):
        overlay(model, inputs, changed, target.repeat(2))
    with pytest.raises(ValueError, match="at least two frames"):
        way(inputs, changed, frames=1)
