"""Contextual decomposition against a plain version, layer by layer."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import contextual
from rightreasons.attribution.contextual import decompose
from rightreasons.core import BadModel
from rightreasons.models import adapt
from tests.networks import SIDE, images, network


def shared(part, rest, bias):
    share = part.abs() / (part.abs() + rest.abs())
    return part + share * bias, rest + (1 - share) * bias


def plain(net, x, mask):
    """Part and rest through a sequential network, written as the paper has it."""
    part, rest = x * mask, x * (1 - mask)
    for module in net:
        if isinstance(module, nn.Conv2d):
            form = (1, -1, 1, 1)
            part, rest = (F.conv2d(v, module.weight) for v in (part, rest))
            part, rest = shared(part, rest, module.bias.view(form))
        elif isinstance(module, nn.Linear):
            part, rest = (F.linear(v, module.weight) for v in (part, rest))
            part, rest = shared(part, rest, module.bias)
        elif isinstance(module, nn.ReLU):
            part, rest = part.relu(), (part + rest).relu() - part.relu()
        elif isinstance(module, nn.MaxPool2d):
            _, where = F.max_pool2d(part + rest, 2, return_indices=True)
            part, rest = (v.flatten(2).gather(2, where.flatten(2)).view(where.shape) for v in (part, rest))
        else:
            part, rest = part.flatten(1), rest.flatten(1)
    return part, rest


def mask_of(count):
    mask = torch.zeros(count, 1, SIDE, SIDE, dtype=torch.float64)
    mask[..., :7, 3:] = 1
    return mask


def test_it_is_the_papers_rule_layer_by_layer():
    net, (inputs, _), mask = network("relu"), images(3), mask_of(3)
    found = decompose(adapt(net), inputs, graph=False)
    part, rest = plain(net, inputs, mask)
    torch.testing.assert_close(found.part(mask), part)
    torch.testing.assert_close(found.logits - found.part(mask), rest)


@pytest.mark.parametrize("net", ["relu", "batch_norm", "residual", "pooled"])
def test_all_pixels_bring_everything_but_a_bias_share_and_none_bring_little(net):
    model, (inputs, _) = adapt(network(net)), images(3)
    found = decompose(model, inputs, graph=False)
    everything = torch.ones(3, 1, SIDE, SIDE, dtype=torch.float64)
    torch.testing.assert_close(found.part(everything), model(inputs))


@pytest.mark.parametrize("training", [False, True])
def test_batch_norm_is_affine_with_the_statistics_of_the_pass(training):
    model, (inputs, _), mask = adapt(network("batch_norm")).train(training), images(4), mask_of(4)
    found = decompose(model, inputs, graph=False)
    inner = model.network
    part, rest = inputs * mask, inputs * (1 - mask)
    for block in (inner.first, inner.second):
        convolution, norm = block[0], block[1]
        part, rest = (F.conv2d(v, convolution.weight) for v in (part, rest))
        part, rest = shared(part, rest, convolution.bias.view(1, -1, 1, 1))
        whole = part + rest
        mean = whole.mean((0, 2, 3)) if training else norm.running_mean
        variance = whole.var((0, 2, 3), correction=0) if training else norm.running_var
        if training:  # the pass has moved the running statistics, which it does not read
            assert not torch.allclose(mean, norm.running_mean)
        scale = norm.weight / (variance + norm.eps).sqrt()
        shift = (norm.bias - mean * scale).view(1, -1, 1, 1)
        part, rest = shared(part * scale.view(1, -1, 1, 1), rest * scale.view(1, -1, 1, 1), shift)
        part, rest = part.relu(), (part + rest).relu() - part.relu()
        if len(block) == 4:
            _, where = F.max_pool2d(part + rest, 2, return_indices=True)
            part, rest = (v.flatten(2).gather(2, where.flatten(2)).view(where.shape) for v in (part, rest))
    part, rest = (F.linear(v.flatten(1), inner.head.weight) for v in (part, rest))
    torch.testing.assert_close(found.part(mask), shared(part, rest, inner.head.bias)[0])


def test_standardization_belongs_to_the_pixel():
    """A pixel below the mean is not shared between part and rest."""
    net, (inputs, _), mask = network("relu"), images(3), mask_of(3)
    model = adapt(net, mean=(0.4, 0.6), std=(0.2, 0.3))
    mean, std = torch.tensor([0.4, 0.6]).view(1, 2, 1, 1), torch.tensor([0.2, 0.3]).view(1, 2, 1, 1)
    part, _ = plain(net, (inputs - mean) / std, mask)
    torch.testing.assert_close(decompose(model, inputs, graph=False).part(mask), part, rtol=1e-6, atol=1e-6)


def test_a_residual_sum_adds_parts():
    torch.manual_seed(0)
    net = network("residual")
    inputs, mask = images(2)[0], mask_of(2)

    def layer(module, pair):
        part, rest = (F.conv2d(v, module.weight, padding=1) for v in pair)
        return shared(part, rest, module.bias.view(1, -1, 1, 1))

    def relu(pair):
        return pair[0].relu(), sum(pair).relu() - pair[0].relu()

    pair = relu(layer(net.stem, (inputs * mask, inputs * (1 - mask))))
    _, where = F.max_pool2d(sum(pair), 2, return_indices=True)
    pair = tuple(v.flatten(2).gather(2, where.flatten(2)).view(where.shape) for v in pair)
    inner = layer(net.conv2, relu(layer(net.conv1, pair)))
    pair = relu((pair[0] + inner[0], pair[1] + inner[1]))
    part, rest = (F.linear(v.flatten(1), net.head.weight) for v in pair)
    expected = shared(part, rest, net.head.bias)[0]
    torch.testing.assert_close(decompose(adapt(net), inputs, graph=False).part(mask), expected)


def test_an_operator_without_a_rule_is_named():
    found = decompose(adapt(network("transformer")), images(2)[0], graph=False)
    with pytest.raises(BadModel, match="no rule for the operator 'layer_norm'"):
        found.part(mask_of(2))


class Then(nn.Module):
    """An operator on the image, and a dense layer."""

    def __init__(self, operator, weight) -> None:
        super().__init__()
        self.operator = operator
        self.weight = nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def forward(self, x):
        return F.linear(self.operator(x).flatten(1), self.weight)


PIXELS = torch.tensor([0.2, 0.9]).double().view(1, 1, 1, 2)
LEFT = torch.tensor([1.0, 0.0]).double().view(1, 1, 1, 2)


def part_of(operator, weight):
    found = decompose(adapt(Then(operator, weight)), PIXELS, graph=False)
    return found.part(LEFT).item(), found.logits.item()


@pytest.mark.parametrize("value", [1.0, 3.0, -2.0])
def test_a_constant_beside_the_image_is_no_pixel(value):
    """As a bias that neither part nor rest reaches, it is halved, whatever its value."""
    beside = {
        "cat": lambda x: torch.cat([x, torch.full_like(x, value)], dim=1),
        "stack": lambda x: torch.stack([x, torch.full_like(x, value)], dim=1),
    }
    for operator in beside.values():
        part, whole = part_of(operator, [[0.0, 0.0, 1.0, 1.0]])
        assert whole == pytest.approx(2 * value)
        assert part == pytest.approx(value)
    for operator in (
        lambda x: F.pad(x, (0, 1), value=value)[..., 2:],
        lambda x: x.masked_fill(torch.tensor([True, False]), value)[..., :1],
        lambda x: torch.where(torch.tensor([True, False]), value, x)[..., :1],
    ):
        part, whole = part_of(operator, [[1.0]])
        assert (part, whole) == (pytest.approx(value / 2), pytest.approx(value))


def test_coordinates_beside_the_image_leave_the_pixels_their_own():
    """The network of coordinate convolutions, with all weight on the pixels."""
    grid = torch.tensor([-1.0, 1.0]).double().view(1, 1, 1, 2)
    part, whole = part_of(lambda x: torch.cat([x, grid], dim=1), [[2.0, 3.0, 0.0, 0.0]])
    assert (part, whole) == (pytest.approx(0.4), pytest.approx(0.4 + 2.7))


@pytest.mark.parametrize(
    ("operator", "expected"),
    [
        (lambda x: F.avg_pool2d(x, (1, 2)), 0.1),
        (lambda x: x.sum(-1), 0.2),
        (lambda x: (x - 0.1).sum(-1), 0.1),
        # It is half of the sum, and has half of what is taken off.
        (lambda x: x.sum(-1) - 0.5, 0.2 - 0.25),
        # The left pixel is half of the mean, and has half of what standardizes it.
        (lambda x: (x.mean(-1) - 0.4) / 0.5, (0.1 - 0.2) / 0.5),
        (lambda x: F.interpolate(x, size=(1, 1), mode="area") * 2 - 1, 0.2 - 0.5),
        (lambda x: F.pad(x - 0.5, (1, 1)).sum(-1), -0.3),
    ],
)
def test_means_and_sums_of_pixels_are_shared_by_what_each_pixel_brings(operator, expected):
    assert part_of(operator, [[1.0]])[0] == pytest.approx(expected)


@pytest.mark.parametrize("activation", [nn.Sigmoid(), nn.Softplus(), nn.Tanh()], ids=repr)
def test_the_part_behind_an_activation_is_over_what_nothing_makes_of_it(activation):
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 3, bias=False), activation).double()
    found = decompose(adapt(net), PIXELS, graph=False).part(LEFT)
    expected = activation(net[1].weight[:, 0] * 0.2) - activation(torch.zeros(3).double())
    torch.testing.assert_close(found[0], expected)
    assert not decompose(adapt(net), PIXELS, graph=False).part(0 * LEFT).any()


@pytest.mark.parametrize(
    ("operator", "message"),
    [
        (lambda x: torch.ones(1).double() / x, "'div' by values of the image"),
        (lambda x: torch.ones(1).double() / F.conv2d(x, torch.ones(1, 1, 1, 1).double()), "'div' by values"),
        (lambda x: torch.div(x, 0.3, rounding_mode="floor"), "'div' that rounds"),
        (lambda x: x * (x > 0.5), "compares values of the image"),
    ],
)
def test_divisors_and_masks_made_of_the_image_are_refused(operator, message):
    with pytest.raises(BadModel, match=message):
        part_of(operator, [[1.0, 1.0]])


def apart(values):
    """The same numbers with channels last in memory."""
    return values.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


@pytest.mark.parametrize("form", [(3, 2, 2, 1), (3, 2)])
def test_the_shared_bias_has_the_derivatives_of_its_formula(form, monkeypatch):
    monkeypatch.setattr(contextual, "_IN_CACHE", 2 * 4)  # two images at a time
    torch.manual_seed(0)
    part, whole = (torch.randn(form, dtype=torch.float64) for _ in range(2))
    bias = torch.randn(2, *(1,) * (len(form) - 2), dtype=torch.float64)
    given = [t.requires_grad_() for t in (apart(part) if part.ndim == 4 else part, bias, whole)]
    torch.testing.assert_close(contextual._BiasShared.apply(*given), contextual._with_bias(*given))
    assert torch.autograd.gradcheck(contextual._BiasShared.apply, given)
    assert torch.autograd.gradgradcheck(contextual._BiasShared.apply, given)


def test_where_part_and_rest_are_zero_a_bias_is_halved_and_gradients_are_finite():
    part, bias = torch.zeros(2, 3, requires_grad=True), torch.tensor([1.0, -2.0, 1e30], requires_grad=True)
    whole = bias.detach().expand(2, 3).clone().requires_grad_()
    found = contextual._BiasShared.apply(part, bias, whole)
    torch.testing.assert_close(found, 0.5 * bias.expand(2, 3))
    gradients = torch.autograd.grad(found.sum(), (part, bias, whole))
    assert [g.flatten().tolist() for g in gradients] == [[1.0] * 6, [1.0] * 3, [0.0] * 6]


@pytest.mark.parametrize("net", ["relu", "batch_norm", "residual", "pooled"])
def test_the_fast_layout_of_single_precision_gives_the_same_numbers_and_gradients(net):
    model, (inputs, _), mask = adapt(network(net)), images(3), mask_of(3)
    single = adapt(network(net).float())
    exact = decompose(model, inputs, graph=True)
    fast = decompose(single, inputs.float(), graph=True)
    assert any(step.value.ndim == 4 and step.value.stride(1) == 1 for step in fast.steps)
    expected, found = exact.part(mask), fast.part(mask.float())
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-5)
    pairs = zip(model.parameters(), single.parameters(), strict=True)
    gradients = [
        torch.autograd.grad(v.square().sum(), p, materialize_grads=True, allow_unused=True)
        for v, p in zip((expected, found), map(list, zip(*pairs, strict=True)), strict=True)
    ]
    for theirs, ours in zip(*gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-4)
