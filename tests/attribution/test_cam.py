from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import (
    AcrossLayers,
    EigenCAM,
    GradCAM,
    GradCAMPlusPlus,
    HiResCAM,
    LayerCAM,
    Saliency,
    ScoreCAM,
    XGradCAM,
)
from rightreasons.core import BadModel
from rightreasons.models import MLP, adapt
from rightreasons.models.classifier import record
from tests.networks import SIDE, images, network


def pieces(inputs, target):
    """Activations of layer 3 of the ReLU network and the logit's gradient with respect to them."""
    net = network("relu")
    maps = net[:4](inputs).detach().requires_grad_()
    logits = net[4:](maps)
    (slopes,) = torch.autograd.grad(logits[range(len(target)), target].sum(), maps)
    return net, maps.detach(), slopes


def upsampled(heatmap):
    return F.interpolate(heatmap, size=(SIDE, SIDE), mode="bilinear", align_corners=False)


def test_grad_cam_is_its_formula():
    inputs, target = images()
    net, maps, slopes = pieces(inputs, target)
    heatmap = torch.zeros(3, 1, *maps.shape[2:], dtype=torch.float64)
    for b in range(3):
        for k in range(5):
            heatmap[b, 0] += slopes[b, k].mean() * maps[b, k]
    expected = upsampled(heatmap.clamp(min=0))
    torch.testing.assert_close(GradCAM("3")(adapt(net), inputs, target).detach(), expected)


def test_grad_cam_plus_plus_is_its_formula_with_the_exponential_carried_along():
    """Eqs. 12 and 19 with Y = exp(S): first, second and third derivative are exp(S) times g, g^2, g^3."""
    inputs, target = images()
    net, maps, slopes = pieces(inputs, target)
    maps = maps.relu()  # as in the paper, where the explained maps come from behind a ReLU
    score = net(inputs)[range(3), target].detach()
    heatmap = torch.zeros(3, 1, *maps.shape[2:], dtype=torch.float64)
    for b in range(3):
        e = score[b].exp()
        for k in range(5):
            weight = 0.0
            for i in range(maps.shape[2]):
                for j in range(maps.shape[3]):
                    g = slopes[b, k, i, j]
                    below = 2 * e * g**2 + maps[b, k].sum() * e * g**3
                    alpha = e * g**2 / below if below != 0 else 0.0
                    weight += alpha * max(e * g, 0.0)
            heatmap[b, 0] += weight / e * maps[b, k]
    weights = GradCAMPlusPlus().weights(maps, slopes)
    found = (weights * maps).sum(1, keepdim=True).relu()
    torch.testing.assert_close(found, heatmap.clamp(min=0))


def test_maps_from_before_a_relu_give_no_pole():
    maps = torch.tensor([[[[-3.0, 1.0]]]], dtype=torch.float64)  # sum -2
    slopes = torch.tensor([[[[1.0, 0.5]]]], dtype=torch.float64)  # 2 + g sum = 0 and 1
    weights = GradCAMPlusPlus().weights(maps, slopes)
    assert weights.flatten().tolist() == [0.5]


def test_x_grad_cam_weights_the_gradient_by_the_share_of_the_activation():
    inputs, target = images()
    net, maps, slopes = pieces(inputs, target)
    heatmap = torch.zeros(3, 1, *maps.shape[2:], dtype=torch.float64)
    for b in range(3):
        for k in range(5):
            shares = maps[b, k] / maps[b, k].sum()
            heatmap[b, 0] += (shares * slopes[b, k]).sum() * maps[b, k]
    found = XGradCAM("3")(adapt(net), inputs, target).detach()
    torch.testing.assert_close(found, upsampled(heatmap.clamp(min=0)))
    assert XGradCAM().weights(torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2)).item() == 0


def test_layer_cam_and_hi_res_cam_weight_every_place_on_its_own():
    inputs, target = images()
    net, maps, slopes = pieces(inputs, target)
    positive, whole = (torch.zeros(3, 1, *maps.shape[2:], dtype=torch.float64) for _ in range(2))
    for b in range(3):
        for k in range(5):
            positive[b, 0] += slopes[b, k].clamp(min=0) * maps[b, k]
            whole[b, 0] += slopes[b, k] * maps[b, k]
    found = LayerCAM("3")(adapt(net), inputs, target).detach()
    torch.testing.assert_close(found, upsampled(positive.clamp(min=0)))
    found = HiResCAM("3")(adapt(net), inputs, target).detach()
    torch.testing.assert_close(found, upsampled(whole))
    assert (found < 0).any()


def test_hi_res_cam_sums_to_the_score_without_the_bias_where_the_head_is_linear():
    head = nn.Sequential(nn.Flatten(), nn.Linear(4 * SIDE * SIDE, 3))
    net = nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), head).double()
    inputs, target = images()
    values = HiResCAM("1")(adapt(net), inputs, target).sum((1, 2, 3))
    torch.testing.assert_close(values, net(inputs)[range(3), target] - head[1].bias[target])


@pytest.mark.parametrize("method", [GradCAM, GradCAMPlusPlus, XGradCAM, LayerCAM, HiResCAM])
def test_without_gradients_no_graph_is_kept_below_the_layer(method):
    net, (inputs, target) = network("pooled"), images()
    enabled = {}
    for name, module in net.named_children():
        module.register_forward_hook(lambda m, a, o, name=name: enabled.update({name: o.requires_grad}))
    with torch.no_grad():
        method("3")(adapt(net), inputs, target)
    assert [name for name, on_graph in enabled.items() if on_graph] == ["4", "5", "6", "7"]
    method("3")(adapt(net), inputs, target)
    assert enabled["0"]


def counted(net):
    calls = []
    net.register_forward_hook(lambda *_: calls.append(1))
    return calls


def test_a_recorded_pass_is_not_run_again_with_or_without_gradients():
    net, (inputs, target) = network("relu"), images()
    expected = GradCAM("3")(adapt(net), inputs, target)
    calls = counted(net)
    recorded = record(adapt(net, "3"), inputs.requires_grad_(), ["3"])
    torch.testing.assert_close(GradCAM()(recorded, inputs, target), expected)
    with torch.no_grad():
        torch.testing.assert_close(GradCAM()(recorded, inputs, target), expected.detach())
    assert len(calls) == 1


def test_across_layers_is_the_mean_of_maps_of_maximum_one_from_one_pass():
    net, (inputs, target) = network("residual"), images()
    expected = torch.zeros(3, 1, SIDE, SIDE, dtype=torch.float64)
    for layer in ("stem", "conv2"):
        for b in range(3):
            heatmap = GradCAM(layer)(adapt(net), inputs[b : b + 1], target[b : b + 1])[0].detach()
            expected[b] += heatmap / max(float(heatmap.abs().max()), 1e-300) / 2
    calls = counted(net)
    method = AcrossLayers(GradCAM(), ["stem", "conv2"])
    torch.testing.assert_close(method(adapt(net), inputs, target).detach(), expected)
    assert len(calls) == 1
    with torch.no_grad():
        torch.testing.assert_close(method(adapt(net), inputs, target), expected)
        AcrossLayers(ScoreCAM(), ["stem", "conv2"])(adapt(net), inputs, target)
        AcrossLayers(EigenCAM(), ["stem", "conv2"])(adapt(net), inputs, target)


def test_the_gradient_through_several_layers_is_right():
    net, (inputs, target) = network("residual"), images()
    method, model = AcrossLayers(HiResCAM(), ["stem", "conv2"]), adapt(net)
    mix = torch.randn(3, 1, SIDE, SIDE, dtype=torch.float64)

    def loss():
        return (method(model, inputs, target) * mix).sum()

    (slope,) = torch.autograd.grad(loss(), net.conv1.weight)
    direction = torch.randn_like(slope)
    with torch.no_grad():
        net.conv1.weight += 1e-6 * direction
        above = loss()
        net.conv1.weight -= 2e-6 * direction
        below = loss()
    assert float((slope * direction).sum()) == pytest.approx(float((above - below) / 2e-6), rel=1e-6)


def test_across_layers_is_what_its_method_is():
    assert AcrossLayers(GradCAM(), ["a"]).differentiable
    assert not AcrossLayers(GradCAM(), ["a"]).signed
    assert AcrossLayers(HiResCAM(), ["a"]).signed
    assert hash(AcrossLayers(GradCAM(), ["a"])) == hash(AcrossLayers(GradCAM(), ("a",)))


@pytest.mark.wrong_types
def test_across_layers_refuses_what_explains_no_layer_and_what_is_no_list():
    for method, layers in ((Saliency(), ["a"]), (GradCAM(), "conv1"), (GradCAM(), [])):
        with pytest.raises(ValueError, match="expected"):
            AcrossLayers(method, layers)
    with pytest.raises(BadModel, match="no layer named"):
        AcrossLayers(GradCAM(), ["conv7"])(adapt(network("relu")), *images())


def test_tokens_are_laid_out_on_their_grid_without_the_class_token():
    model, (inputs, target) = adapt(network("transformer")), images()
    assert model.layer == "blocks.1.norm1"
    trace = model.trace(inputs, [model.layer])
    tokens = trace.activations[model.layer]
    (slopes,) = torch.autograd.grad(trace.logits[range(3), target].sum(), tokens)
    weight = slopes[:, 1:].mean(1, keepdim=True)
    heatmap = (weight * tokens[:, 1:]).sum(2).view(3, 1, 3, 3).relu()
    torch.testing.assert_close(GradCAM()(model, inputs, target), upsampled(heatmap))


def test_every_layer_with_places_can_be_explained():
    model, (inputs, target) = adapt(network("residual")), images()
    for layer in ("stem", "conv1", "conv2"):
        assert GradCAM(layer)(model, inputs, target).shape == (3, 1, SIDE, SIDE)


def test_what_has_no_map_is_refused_in_one_sentence():
    inputs, target = images()
    with pytest.raises(BadModel, match="name a layer"):
        GradCAM()(adapt(MLP((2, SIDE, SIDE), 3).double()), inputs, target)
    with pytest.raises(BadModel, match="There are: 0, 1, 2, 3"):
        GradCAM("conv9")(adapt(network("relu")), inputs, target)
    with pytest.raises(BadModel, match="expected maps"):
        GradCAM("6")(adapt(network("relu")), inputs, target)
    shared = nn.Conv2d(2, 2, 3, padding=1)
    twice = nn.Sequential(shared, nn.ReLU(), shared, nn.Flatten(), nn.Linear(2 * SIDE * SIDE, 3)).double()
    with pytest.raises(BadModel, match="more than once"):
        GradCAM("0")(adapt(twice), inputs, target)
