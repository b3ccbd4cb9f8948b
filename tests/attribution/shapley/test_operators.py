"""DeepLIFT through every operator that has a rule, and what has none."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import ConstantBaseline, DeepLIFT
from rightreasons.attribution.shapley.elementwise import change_ratio, quotient
from rightreasons.attribution.tape import Slot, Step
from rightreasons.core import BadModel
from rightreasons.models import adapt
from tests.networks import images


class Between(nn.Module):
    """A convolution, the operator in question, and a dense layer."""

    def __init__(self, operator) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1).double()
        self.operator = operator
        size = operator(torch.ones(1, 4, 12, 12, dtype=torch.float64)).numel()
        self.head = nn.Linear(size, 3).double()

    def forward(self, x):
        return self.head(self.operator(self.first(x)).flatten(1))


def tokens(x):
    return x.flatten(2).transpose(1, 2)[:, :9]


def masked_attention(x):
    mask = torch.ones(9, 9, dtype=torch.bool).tril()
    return F.scaled_dot_product_attention(tokens(x), tokens(x) * 2, tokens(x).flip(1), attn_mask=mask)


def causal_heads(x):
    split = tokens(x).view(len(x), 9, 2, 2).transpose(1, 2)
    return F.scaled_dot_product_attention(split, split.flip(-1), split, is_causal=True)


def folded_heads(x):
    """The batch and the heads in one dimension, so that one row cannot stand for all."""
    split = tokens(x).reshape(len(x), 9, 2, 2).transpose(1, 2).reshape(2 * len(x), 9, 2)
    mixed = torch.bmm((split @ split.transpose(1, 2)).softmax(-1), split)
    return mixed.view(len(x), 2, 9, 2)


MULTI_HEAD = nn.MultiheadAttention(4, 2, batch_first=True).double()
OPERATORS = {
    "gelu": F.gelu,
    "gelu by tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "elu": F.elu,
    "leaky relu": lambda x: F.leaky_relu(x, 0.3),
    "prelu": lambda x: F.prelu(x, torch.linspace(-0.5, 0.5, 4, dtype=x.dtype)),
    "clamp": lambda x: x.clamp(-0.2, 0.4),
    "hardswish": F.hardswish,
    "exp, log and roots": lambda x: (x.exp() + 1).log().sqrt() + (x * x + 1).rsqrt(),
    "powers": lambda x: x.square() + x.abs() + x**3,
    "sine": lambda x: x.sin() * x.cos(),
    "product": lambda x: x[:, :2] * x[:, 2:],
    "product of a map and its mean": lambda x: x * x.mean((2, 3), keepdim=True),
    "gate": lambda x: x * torch.sigmoid(x.mean((2, 3)))[:, :, None, None],
    "quotient": lambda x: x / (x * x + 1),
    "quotient of a map and its sum": lambda x: x.exp() / x.exp().sum((2, 3), keepdim=True),
    "over the image": lambda x: 2 / (x.square() + 1),
    "root mean square by hand": lambda x: x * (x.square().mean(1, keepdim=True) + 1e-3).rsqrt(),
    "softmax": lambda x: x.softmax(1),
    "log softmax": lambda x: F.log_softmax(5 * x, dim=-1),
    "layer norm": lambda x: F.layer_norm(x, (12,), torch.linspace(-1, 1, 12).double(), torch.ones(12).double()),
    "layer norm over two axes": lambda x: F.layer_norm(x, (12, 12)),
    "group norm": lambda x: F.group_norm(x, 2, torch.linspace(-1, 1, 4).double()),
    "rms norm": lambda x: F.rms_norm(x, (12,)),
    "batch norm behind no layer": lambda x: F.batch_norm(F.relu(x), torch.ones(4).double(), 2 * torch.ones(4).double()),
    "matrix product": lambda x: x @ x.mT,
    "einsum": lambda x: torch.einsum("bchw,bdhw->bcd", x, x.relu()),
    "einsum with a constant": lambda x: torch.einsum("bchw,cd->bdhw", x, torch.ones(4, 2).double()),
    "attention": masked_attention,
    "causal attention with heads": causal_heads,
    "batch and heads in one dimension": folded_heads,
    "multi-head attention": lambda x: MULTI_HEAD(tokens(x), tokens(x), tokens(x), need_weights=False)[0],
    "max_pool2d": lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
    "max_pool2d of an activation": lambda x: F.max_pool2d(F.gelu(x), (2, 3), dilation=(2, 1), ceil_mode=True),
    "max_pool2d of a relu that is read twice": lambda x: pooled_and_read(x),
    "max_pool1d": lambda x: F.max_pool1d(x.flatten(2), 2),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 3),
    "amax": lambda x: x.amax((2, 3)),
    "max over a dimension": lambda x: x.max(dim=1).values,
    "maximum of two": lambda x: torch.maximum(x[:, :2], x[:, 2:]),
    "maximum with a constant": lambda x: torch.maximum(x, torch.tensor(0.1, dtype=x.dtype)),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "differences and multiples": lambda x: 3 * x[:, :2] - x[:, 2:] / 2 + 1,
    "concatenation": lambda x: torch.cat([x, -x.relu(), torch.ones_like(x)], dim=1),
    "function of a sum of functions": lambda x: F.gelu(F.silu(x) + F.relu(x.flip(1))),
    "in place": lambda x: (2 * x).add_(F.relu(x), alpha=0.5).relu_(),
}


def pooled_and_read(x):
    x = x.relu()
    return torch.cat([F.max_pool2d(x, 2), F.avg_pool2d(x, 2)], dim=1)


@pytest.mark.parametrize("name", list(OPERATORS))
def test_operators_are_exact_over_any_way_and_gradients_over_a_short_one(name):
    model, (inputs, target) = adapt(Between(OPERATORS[name])), images(2)
    method = DeepLIFT(0.3)
    assert method.completeness_error(model, inputs, target).abs().max() < 1e-12
    assert DeepLIFT(0.3, "reveal_cancel").completeness_error(model, inputs, target).abs().max() < 1e-12
    every = method.all_classes(model, inputs)[torch.arange(2), target]
    torch.testing.assert_close(every[1:], method.per_channel(model, inputs[1:], target[1:]).detach())
    leaf = inputs.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(leaf).gather(1, target[:, None]).sum(), leaf)
    near = Beside(1e-7)
    found = DeepLIFT(near).per_channel(model, inputs, target).detach()
    expected = slope * (inputs - near.of(inputs)[0])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize(
    "name", ["gelu", "exp, log and roots", "quotient", "softmax", "group norm", "attention", "amax", "max_pool2d"]
)
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_weights_are_trained_through_it_by_the_right_gradient(name, rule):
    net, (inputs, target) = Between(OPERATORS[name]), images()
    method, weight = DeepLIFT(0.3, rule), net.first.weight

    def loss():
        return method(adapt(net), inputs, target).square().sum()

    (found,) = torch.autograd.grad(loss(), weight)
    direction = torch.randn(weight.shape, dtype=torch.float64)
    values = []
    with torch.no_grad():
        for step in (1e-6, -2e-6):
            weight += step * direction
            values.append(float(loss()))
    assert float((found * direction).sum()) == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


class Beside(ConstantBaseline):
    """The image moved a little."""

    def of(self, inputs):
        move = torch.linspace(-1.0, 1.0, inputs[0].numel(), dtype=inputs.dtype).view(inputs[0].shape)
        return (inputs - self.value * move)[None]


@pytest.mark.parametrize("size", [1e-3, 1e-4, 1e-5])
@pytest.mark.parametrize("name", ["gelu", "softplus", "exp, log and roots"])
def test_a_short_way_is_as_exact_as_a_long_one(name, size):
    """Where the quotient would be rounding the derivative stands in, in the middle, where it misses least."""
    model, (inputs, target) = adapt(Between(OPERATORS[name])), images()
    method = DeepLIFT(Beside(size))
    assert method.completeness_error(model, inputs, target).abs().max() < 1e-12


REFUSED = {
    "another branch": (lambda x: 2 * x if x.sum() > 50 else 3 * x, "another way"),
    "another mask": (lambda x: torch.where(x > 0, x, 0.2 * x), "another way"),
    "a product with a comparison": (lambda x: x * (x > 0), "another way"),
    "no rule": (lambda x: x.cumsum(-1), "operator 'cumsum'"),
    "a number read": (lambda x: x * x.mean().item(), "operator 'item'"),
    "a bound that hangs on the image": (lambda x: x.clamp(min=x.mean((2, 3), keepdim=True)), "setting that hangs"),
    "an exponent": (lambda x: 2.0 ** x.relu(), "operator"),
    "three factors": (lambda x: torch.einsum("bchw,bchw,bchw->bc", x, x, x), "more than two"),
    "a rounding division": (lambda x: torch.div(x, 2 + x * x, rounding_mode="floor"), "rounds"),
    "softmax without a dimension": (lambda x: F.softmax(x.flatten(1), dim=None), "name its dim"),
}


@pytest.mark.parametrize("name", list(REFUSED))
@pytest.mark.filterwarnings("ignore:Implicit dimension choice")
def test_what_cannot_be_right_is_refused_in_one_sentence(name):
    operator, message = REFUSED[name]
    model, (inputs, target) = adapt(Between(operator)), images()
    with pytest.raises(BadModel, match=message) as refusal:
        DeepLIFT()(model, inputs * 5, target)
    assert "\n" not in str(refusal.value)
    assert ". " not in str(refusal.value)


class Rooted(nn.Module):
    """A convolution, a ReLU, a root with its pole where the ReLU is dead, and a dense layer."""

    def __init__(self, root) -> None:
        super().__init__()
        self.first, self.head, self.root = nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4 * 144, 3), root
        self.double()
        self.first.weight.data[0], self.first.bias.data[0] = 0, -1  # dead at image and baseline

    def forward(self, x):
        return self.head(self.root(self.first(x).relu()).flatten(1))


@pytest.mark.parametrize("root", [torch.sqrt, lambda x: x**0.5], ids=["sqrt", "pow"])
@pytest.mark.parametrize("rule", ["rescale", "reveal_cancel"])
def test_a_root_of_zero_at_both_ends_has_no_share(root, rule):
    net, (inputs, target) = Rooted(root), images()
    assert torch.isfinite(net(inputs)).all()
    method = DeepLIFT(0.3, rule, check=True)
    assert torch.isfinite(method.per_channel(adapt(net), inputs, target)).all()
    assert method.completeness_error(adapt(net), inputs, target).abs().max() < 1e-12


def step_of(function):
    return Step(function.__name__, torch.ones(1), function, (Slot(0),))


@pytest.mark.parametrize("function", [torch.sqrt])
def test_beside_a_pole_the_quotient_and_its_derivatives_are_as_ever(function):
    x = torch.tensor([0.0, 0.0, 4.0, 2.0]).double().requires_grad_()
    b = torch.tensor([0.0, 1.0, 1.0, 2.0]).double()
    ratio = quotient(step_of(function), function(x), function(b), x, b)
    assert ratio.tolist() == pytest.approx([0, 1, 1 / 3, 0.5 / 2**0.5])
    picked = ratio[[0, 2, 3]].sum()
    (slope,) = torch.autograd.grad(picked, x)
    # (sqrt x - sqrt b) / (x - b) is 1 / (sqrt x + sqrt b)
    assert slope[[0, 2, 3]].tolist() == pytest.approx([0, -1 / 36, -1 / 8 / 2**0.5 / 2])


@pytest.mark.parametrize("way", [1e-6, 1e-9, 1e-12])
@pytest.mark.parametrize(
    ("function", "second"),
    [
        (torch.tanh, lambda x: -2 * x.tanh() * (1 - x.tanh() ** 2)),
        (torch.exp, torch.exp),
        (torch.log, lambda x: -1 / x**2),
        (torch.sqrt, lambda x: -0.25 * x**-1.5),
    ],
    ids=["tanh", "exp", "log", "sqrt"],
)
def test_near_its_baseline_the_gradient_of_a_quotient_is_half_the_second_derivative(function, second, way):
    b = torch.tensor([0.3, 0.9, 1.7]).double()
    x = (b + way).requires_grad_()
    (slope,) = torch.autograd.grad(change_ratio(step_of(function), function(x), function(b), x, b).sum(), x)
    torch.testing.assert_close(slope, second(b) / 2, rtol=1e-5, atol=0.0)
