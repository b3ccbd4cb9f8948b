"""Eigen-CAM and Score-CAM against loops."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import EigenCAM, ScoreCAM
from rightreasons.attribution.cam.activation import distinct
from rightreasons.attribution.cam.leading import leading_direction
from rightreasons.models import adapt
from tests.networks import SIDE, images, network


def upsampled(heatmap):
    return F.interpolate(heatmap, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize(("net", "layer"), [("relu", "3"), ("relu", "2"), ("residual", "conv2")])
def test_eigen_cam_is_the_projection_on_the_first_right_singular_vector(net, layer, centered):
    model, (inputs, target) = adapt(network(net)), images()
    with torch.no_grad():
        maps = model.trace(inputs, [layer]).activations[layer]
        rows = []
        for each in maps:
            points = each.flatten(1).T
            points = points - points.mean(0) if centered else points
            _, _, directions = torch.linalg.svd(points)
            heatmap = (points @ directions[0]).view(each.shape[1:])
            rows.append(heatmap if heatmap.max() >= -heatmap.min() else -heatmap)
        expected = upsampled(torch.stack(rows)[:, None].relu())
        torch.testing.assert_close(EigenCAM(layer, centered)(model, inputs, target), expected)
    torch.testing.assert_close(EigenCAM(layer, centered)(model, inputs, target).detach(), expected)


@pytest.mark.parametrize("shape", [(6, 20), (20, 6)])
@pytest.mark.parametrize("second", [0.5, 0.999, 0.999999])
@pytest.mark.parametrize("graph", [False, True])
def test_the_leading_direction_is_found_however_close_the_next_one_is(shape, second, graph):
    generator = torch.Generator().manual_seed(1)
    u, _, v = torch.linalg.svd(torch.randn(4, *shape, generator=generator, dtype=torch.float64), full_matrices=False)
    values = torch.tensor([1.0, second, 0.1, 0.1, 0.0, 0.0], dtype=torch.float64)
    found = leading_direction(u * values @ v, graph=graph)
    torch.testing.assert_close((found * v[:, 0]).sum(1).abs(), torch.ones(4, dtype=torch.float64))


def test_maps_of_zeros_give_a_map_of_zeros_and_a_finite_gradient():
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Flatten(), nn.Linear(400, 3)).double()
    nn.init.zeros_(net[0].weight)
    nn.init.zeros_(net[0].bias)
    heatmap = EigenCAM("0")(adapt(net), *images())
    assert not heatmap.any()
    (slope,) = torch.autograd.grad(heatmap.sum(), net[0].weight)
    assert torch.isfinite(slope).all()


def score_cam(net, layer, inputs, target):
    """Algorithm 1, one image and one map at a time."""
    with torch.no_grad():
        maps = adapt(net).trace(inputs, [layer]).activations[layer]
        heatmaps = []
        for image, each, label in zip(inputs, maps, target, strict=True):
            black = net(torch.zeros_like(image[None]))[0, label]
            gains = []
            for map_, one in zip(each, upsampled(each[:, None]), strict=True):
                constant = map_.max() == map_.min()  # enlarging rounds, and parts equal values
                mask = torch.zeros_like(one) if constant else (one - one.min()) / (one.max() - one.min())
                gains.append(net(image[None] * mask)[0, label] - black)
            weights = torch.stack(gains).softmax(0)
            heatmaps.append((weights[:, None, None] * each).sum(0, keepdim=True).relu())
        return upsampled(torch.stack(heatmaps))


@pytest.mark.parametrize("max_batch", [1, 4, 256])
@pytest.mark.parametrize(("net", "layer"), [("relu", "3"), ("relu", "2"), ("residual", "conv2")])
def test_score_cam_is_its_algorithm(net, layer, max_batch):
    net, (inputs, target) = network(net), images()
    expected = score_cam(net, layer, inputs, target)
    with torch.no_grad():
        torch.testing.assert_close(ScoreCAM(layer, max_batch=max_batch)(adapt(net), inputs, target), expected)
    torch.testing.assert_close(ScoreCAM(layer, max_batch=max_batch)(adapt(net), inputs, target).detach(), expected)


def with_idle_filters():
    """Of eight filters two are dead, one is constant, two are twins and two nearly so."""
    net = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 3)).double()
    with torch.no_grad():
        net[0].weight[:3] = 0
        net[0].bias[:3] = torch.tensor([-1.0, 0.0, 0.7])
        net[0].bias[3:] = 0.5
        net[0].weight[4] = net[0].weight[3]
        net[0].weight[6] = net[0].weight[5] + 1e-6
        net[0].bias[6] = net[0].bias[5]
        net[3].weight *= 30  # so that scores differ
    return net


def rows_run(net, method, inputs, target):
    rows = []
    handle = net.register_forward_hook(lambda module, args, output: rows.append(len(output)))
    with torch.no_grad():
        heatmap = method(adapt(net), inputs, target)
    handle.remove()
    return sum(rows) - len(inputs), heatmap  # less the pass that gives the maps


def test_dead_constant_and_equal_maps_are_scored_once():
    net, (inputs, target) = with_idle_filters(), images()
    expected = score_cam(net, "1", inputs, target)
    rows, heatmap = rows_run(net, ScoreCAM("1"), inputs, target)
    assert rows <= 3 * (1 + 4)  # for each image black, and 3 = 4, 5 ~ 6, 7, and one more where rounding parts 5 and 6
    torch.testing.assert_close(heatmap, expected, rtol=1e-3, atol=1e-3 * float(expected.max()))
    rows, heatmap = rows_run(net, ScoreCAM("1", tolerance=0.0), inputs, target)
    assert rows == 3 * (1 + 5)
    torch.testing.assert_close(heatmap, expected)


def test_maps_of_different_images_are_never_joined():
    shown = torch.tensor([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [0.0, 1.0]])
    chosen, same_as = distinct(shown, torch.tensor([0, 0, 1, 1]), tolerance=1e-3)
    assert chosen.tolist() == [0, 3]
    assert same_as.tolist() == [0, 0, -1, 1]


def test_bfloat16_gives_nearly_the_same_map_in_the_same_precision():
    net, (inputs, target) = network("relu", dtype=torch.float32), images(dtype=torch.float32)
    with torch.no_grad():
        full = ScoreCAM("2")(adapt(net), inputs, target)
        half = ScoreCAM("2", bfloat16=True)(adapt(net), inputs, target)
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert not ScoreCAM("2", bfloat16=True).differentiable
    assert not ScoreCAM("2", bfloat16=True)(adapt(net), inputs, target).requires_grad
    torch.testing.assert_close(half, full, rtol=0.02, atol=0.02 * float(full.max()))


@pytest.mark.wrong_types
def test_wrong_settings_are_refused():
    for bad in ({"max_batch": 0}, {"tolerance": -1.0}, {"tolerance": 1.0}, {"score": "loud"}):
        with pytest.raises(ValueError, match="expected"):
            ScoreCAM(**bad)
