from __future__ import annotations

import pytest
import torch

from rightreasons.attribution.perturbation import FeatureAblation, Occlusion
from rightreasons.attribution.perturbation.regions import grid
from rightreasons.models import adapt
from tests.attribution.perturbation.counting import linear, shares, stripes
from tests.networks import SIDE, images, network


@pytest.mark.parametrize(("window", "stride"), [(3, 3), (5, 2), ((2, 6), (1, 4)), (12, 12), (20, 20), (7, 7)])
def test_occlusion_against_a_loop_over_windows(window, stride):
    inputs, target = images(3)
    model = adapt(network("relu"))
    high, wide = window if isinstance(window, tuple) else (window, window)
    down, across = stride if isinstance(stride, tuple) else (stride, stride)
    score = model(inputs).gather(1, target[:, None])[:, 0]
    total, covered = torch.zeros(3, SIDE, SIDE).double(), torch.zeros(SIDE, SIDE)
    top = 0
    while True:
        left = 0
        while True:
            hidden = inputs.clone()
            hidden[:, :, top : top + high, left : left + wide] = 0.2
            drop = score - model(hidden).gather(1, target[:, None])[:, 0]
            total[:, top : top + high, left : left + wide] += drop[:, None, None]
            covered[top : top + high, left : left + wide] += 1
            if left + wide >= SIDE:
                break
            left += across
        if top + high >= SIDE:
            break
        top += down
    found = Occlusion(window, stride, baseline=0.2)(model, inputs, target)
    torch.testing.assert_close(found[:, 0], total / covered)


def test_windows_of_a_pixel_give_the_shares_of_a_linear_model():
    inputs, target = images(3)
    net = linear()
    found = Occlusion(1, baseline=0.1)(adapt(net), inputs, target)
    torch.testing.assert_close(found.detach(), shares(net, inputs, target, 0.1), rtol=1e-9, atol=1e-11)


def test_the_window_is_an_eighth_of_the_shorter_side_unless_it_is_set():
    down, across = Occlusion().windows(224, 448)
    assert down.shape == (8, 224)
    assert across.shape == (16, 448)
    assert down.sum(dim=1).tolist() == [28] * 8
    assert (Occlusion(28, stride=14).windows(224, 224)[0].sum(dim=0) <= 2).all()


def test_a_stride_that_leaves_pixels_out_is_refused_when_the_window_is_known():
    inputs, target = images(1)
    with pytest.raises(ValueError, match="leave pixels out"):
        Occlusion(stride=3)(adapt(network("relu")), inputs, target)


def test_flipping_the_image_of_a_symmetric_task_flips_the_map():
    inputs, target = images(2)
    net = linear()
    mirrored = linear()
    mirrored[1].weight.data = net[1].weight.data.view(-1, 2, SIDE, SIDE).flip(3).flatten(1)
    found = Occlusion(4)(adapt(net), inputs, target)
    torch.testing.assert_close(Occlusion(4)(adapt(mirrored), inputs.flip(3), target), found.flip(3))


@pytest.mark.parametrize("segments", ["grid", stripes])
def test_feature_ablation_against_a_loop_over_regions(segments):
    inputs, target = images(4)
    model = adapt(network("relu"))
    labels = stripes(inputs) if segments is stripes else grid(SIDE, SIDE, cells=5).expand(4, -1, -1)
    found = FeatureAblation(segments=segments, cells=5, baseline=0.7)(model, inputs, target)
    for i in range(4):
        whole = model(inputs[i : i + 1])[0, target[i]]
        for label in labels[i].unique():
            region = labels[i] == label
            hidden = torch.where(region, torch.tensor(0.7).double(), inputs[i])
            drop = whole - model(hidden[None])[0, target[i]]
            torch.testing.assert_close(found[i, 0][region], drop.expand(int(region.sum())))


def test_a_grid_has_cells_of_almost_equal_size():
    labels = grid(28, 28, cells=8)
    sizes = torch.bincount(labels.flatten())
    assert len(sizes) == 64
    assert sizes.min() >= 9
    assert sizes.max() <= 16
    assert torch.equal(grid(3, 2, cells=8), torch.arange(6).view(3, 2))
