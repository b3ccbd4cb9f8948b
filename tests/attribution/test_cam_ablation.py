"""Ablation-CAM against a loop that runs the whole network, and what it costs."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import AblationCAM
from rightreasons.attribution.cam.base import on_grid
from rightreasons.attribution.score import explained
from rightreasons.core import BadModel
from rightreasons.models import adapt
from rightreasons.models.classifier import record
from tests.networks import SIDE, images, network

LAYERS = [
    ("relu", "3"),
    ("relu", "2"),
    ("batch_norm", "second.0"),
    ("residual", "stem"),
    ("residual", "conv1"),
    ("residual", "conv2"),
    ("transformer", "blocks.0.norm1"),
    ("transformer", "blocks.1.mlp"),
    ("pooled", "3"),
    ("pooled", "4"),
]


def ablated_by_hand(net, layer, inputs, target, score="logit"):
    """One image, one map, one pass of the whole network at a time."""
    heatmaps = []
    for image, label in zip(inputs.split(1), target.split(1), strict=True):
        activation = adapt(net).trace(image, [layer]).activations[layer]
        dimension = 1 if activation.ndim == 4 else 2
        whole = explained(net(image), label, score)
        heatmap = 0
        for k, one in enumerate(on_grid(activation, layer, image, net)[0]):

            def without(module, args, output, k=k):
                return output.index_fill(dimension, torch.tensor([k]), 0)  # noqa: B023

            handle = net.get_submodule(layer).register_forward_hook(without)
            heatmap = heatmap + (whole - explained(net(image), label, score)) / whole.abs() * one
            handle.remove()
        heatmaps.append(heatmap.relu()[None, None])
    return F.interpolate(torch.cat(heatmaps), size=(SIDE, SIDE), mode="bilinear", align_corners=False)


@pytest.mark.parametrize("max_batch", [1, 3, 11, 256])
@pytest.mark.parametrize(("name", "layer"), LAYERS)
def test_it_is_the_share_of_the_score_that_is_lost_without_the_map(name, layer, max_batch):
    net, (inputs, target) = network(name), images()
    with torch.no_grad():
        expected = ablated_by_hand(net, layer, inputs, target)
        found = AblationCAM(layer, max_batch=max_batch)(adapt(net), inputs, target)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("score", ["logit", "log_probability", "sum_log_probabilities"])
@pytest.mark.parametrize("layer", ["3", "4"])
def test_the_closed_form_behind_averaged_maps_is_right_for_every_score(layer, score):
    net, (inputs, target) = network("pooled"), images()
    with torch.no_grad():
        expected = ablated_by_hand(net, layer, inputs, target, score)
        torch.testing.assert_close(AblationCAM(layer, score)(adapt(net), inputs, target), expected)


def rows_of(net, parts):
    counts = dict.fromkeys(parts, 0)

    def count(name):
        def hook(module, args, output):
            counts[name] += len(output)

        return hook

    for part in parts:
        net.get_submodule(part).register_forward_hook(count(part))
    return counts


def test_behind_averaged_maps_one_pass_is_enough():
    net, (inputs, target) = network("pooled"), images()
    counts = rows_of(net, ["0", "7"])
    with torch.no_grad():
        AblationCAM("4")(adapt(net), inputs, target)
    assert counts == {"0": 3, "7": 3}


def test_the_trunk_does_not_run_again_for_every_map():
    net, (inputs, target) = network("relu"), images()
    counts = rows_of(net, ["0"])
    with torch.no_grad():
        AblationCAM("3")(adapt(net), inputs, target)
    assert counts["0"] == 2 * 3


def test_maps_of_zeros_are_left_out():
    net, (inputs, target) = network("relu"), images()
    with torch.no_grad():
        net[3].weight[1:] = 0
        net[3].bias[1:] = 0
    seen = []
    net[5].register_forward_hook(lambda module, args, output: seen.append(output))
    with torch.no_grad():
        expected = ablated_by_hand(net, "3", inputs, target)
        seen.clear()
        torch.testing.assert_close(AblationCAM("3")(adapt(net), inputs, target), expected)
        assert len(seen) == 2
        net[3].weight[0], net[3].bias[0] = 0, 0
        assert not AblationCAM("3")(adapt(net), inputs, target).any()


def test_evidence_for_a_class_with_a_negative_score_stays_evidence():
    net, (inputs, target) = network("pooled"), images()
    with torch.no_grad():
        before = AblationCAM("4")(adapt(net), inputs, target)
        scores = net(inputs)[range(3), target]
        net[7].bias -= 100
        after = AblationCAM("4")(adapt(net), inputs, target)
    factor = (scores.abs() / (scores - 100).abs()).view(-1, 1, 1, 1)
    torch.testing.assert_close(after, before * factor)


@pytest.mark.parametrize(("name", "layer"), [("relu", "3"), ("residual", "conv2"), ("transformer", "blocks.0.norm1")])
def test_running_the_whole_network_again_gives_the_same(name, layer):
    net, (inputs, target) = network(name), images()
    with torch.no_grad():
        expected = AblationCAM(layer)(adapt(net), inputs, target)
        torch.testing.assert_close(AblationCAM(layer, rerun="network")(adapt(net), inputs, target), expected)


class Deciding(nn.Module):
    """Looks at values to decide, which no mapped function can."""

    def forward(self, x):
        return x * 2 if float(x.sum()) > 0 else x


def test_a_network_that_decides_by_values_can_be_run_as_a_whole():
    net, (inputs, target) = network("relu"), images()
    with torch.no_grad():
        net[4] = nn.Sequential(nn.ReLU(), Deciding()).eval()
        with pytest.raises(BadModel, match="rerun='network'"):
            AblationCAM("3")(adapt(net), inputs, target)
        assert AblationCAM("3", rerun="network")(adapt(net), inputs, target).any()


def test_a_recorded_pass_changes_nothing():
    model, (inputs, target) = adapt(network("relu"), "3"), images()
    expected = AblationCAM()(model, inputs, target)
    recorded = record(model, inputs.requires_grad_(), ["3"])
    torch.testing.assert_close(AblationCAM()(recorded, inputs, target), expected)


@pytest.mark.wrong_types
def test_wrong_settings_are_refused():
    for bad in ({"max_batch": 0}, {"rerun": "tail"}, {"score": "loud"}):
        with pytest.raises(ValueError, match="expected"):
            AblationCAM(**bad)


def test_without_max_batch_the_budget_is_that_of_all_methods_and_counts_activations():
    net, (inputs, target) = network("relu"), images(70)
    seen = []
    net[4].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    with torch.no_grad():
        maps = adapt(net).trace(inputs[:1], ["3"]).activations["3"].shape[1]
        seen.clear()
        AblationCAM("3")(adapt(net), inputs, target)
    assert AblationCAM().max_batch is None
    # After the pass of all, behind the layer run so many images that with all maps they are 64.
    assert maps == 5
    assert {shape[0] for shape in seen} == {70, 12, 70 % 12}
