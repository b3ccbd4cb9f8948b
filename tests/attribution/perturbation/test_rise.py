from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rightreasons.attribution.perturbation import RISE
from rightreasons.attribution.perturbation.rise import _Masks
from rightreasons.models import adapt
from tests.attribution.perturbation.counting import linear, shares
from tests.networks import SIDE, images, network


def masks(method, size=(SIDE, SIDE)):
    drawn = _Masks.draw(method, size, device=torch.device("cpu"))
    return drawn, drawn[torch.arange(method.masks)]


def test_the_map_against_a_loop_over_masks():
    inputs, target = images(3)
    model = adapt(network("relu"))
    method = RISE(masks=30, cells=4, probability=0.3, baseline=0.2)
    total = torch.zeros(3, SIDE, SIDE).double()
    for mask in masks(method)[1].double():
        seen = mask * inputs + (1 - mask) * 0.2
        score = model(seen).softmax(1).gather(1, target[:, None])[:, 0]
        total += score[:, None, None] * mask
    torch.testing.assert_close(method(model, inputs, target)[:, 0], total / (30 * 0.3))


@pytest.mark.parametrize("size", [(28, 28), (30, 17)])
def test_a_mask_is_a_crop_of_its_enlarged_grid(size):
    method = RISE(masks=5, cells=6)
    drawn, found = masks(method, size)
    assert found.shape == (5, *size)
    for i in range(5):
        cell = [-(-side // 6) for side in size]
        large = F.interpolate(drawn.grids[None, i : i + 1], [7 * c for c in cell], mode="bilinear", align_corners=False)
        top, left = drawn.shift[i].tolist()
        assert 0 <= top < cell[0]
        assert 0 <= left < cell[1]
        torch.testing.assert_close(found[i], large[0, 0, top : top + size[0], left : left + size[1]])


def test_masks_show_a_pixel_with_their_probability():
    _, found = masks(RISE(masks=3000, probability=0.3))
    assert found.min() >= 0
    assert found.max() <= 1
    torch.testing.assert_close(found.mean(dim=0), torch.full((SIDE, SIDE), 0.3), rtol=0, atol=0.03)
    shift = masks(RISE(masks=3000, cells=3))[0].shift
    assert shift.unique().tolist() == [0, 1, 2, 3]


def test_on_a_linear_model_the_map_is_the_covariance_of_masks_with_the_score():
    """E[score * M_i] / p has a part of the mean score that all pixels share and one of pixel i and its neighbors."""
    inputs, target = images(2)
    net = linear()
    method = RISE(masks=400, cells=12, score="logit")
    _, drawn = masks(method)
    flat = drawn.double().flatten(1)
    pixels = shares(net, inputs, target).flatten(1)
    bias = net[1].bias[target].detach()
    expected = (flat.T @ (flat @ pixels.T + bias)).T / (400 * 0.5)
    found = method(adapt(net), inputs, target).detach()
    torch.testing.assert_close(found.flatten(1), expected)


def test_it_points_at_what_matters():
    inputs = torch.rand(2, 2, SIDE, SIDE, dtype=torch.float64) + 0.5
    net = linear()
    net[1].weight.data.zero_()
    net[1].weight.data.view(-1, 2, SIDE, SIDE)[0, :, 3:6, 6:9] = 0.2
    heatmap = RISE(masks=2000, cells=4)(adapt(net), inputs, torch.zeros(2, dtype=torch.long))
    for image in heatmap[:, 0]:
        row, column = divmod(int(image.argmax()), SIDE)
        assert 3 <= row < 6
        assert 6 <= column < 9
        assert image[3:6, 6:9].mean() > image[:, :4].mean() * 1.05
