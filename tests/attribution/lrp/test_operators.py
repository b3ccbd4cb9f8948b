"""Operators without a weight: relevance passes them as it should, and what cannot be followed is refused."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import InputXGradient
from rightreasons.attribution.lrp import LRP
from rightreasons.core import BadModel
from rightreasons.models import adapt
from tests.attribution.lrp.networks import drawn
from tests.networks import images

ZERO = LRP({"name": "epsilon", "epsilon": 0.0})
EPSILON = LRP("epsilon", check=True, tolerance=1e-6)


class Between(nn.Module):
    """A convolution, the operator in question, and a dense layer."""

    def __init__(self, operator, *, bias: bool = True) -> None:
        super().__init__()
        self.first = nn.Conv2d(2, 4, 3, padding=1, bias=bias).double()
        self.operator = operator
        size = operator(torch.zeros(1, 4, 12, 12, dtype=torch.float64)).numel()
        self.head = nn.Linear(size, 3, bias=bias).double()

    def forward(self, x):
        return self.head(self.operator(self.first(x)).flatten(1))


# Piecewise linear and without constants: LRP-0 is the input times the gradient.
HOMOGENEOUS = {
    "relu": F.relu,
    "relu method in place": lambda x: x.clone().relu_(),
    "inplace argument": lambda x: F.relu(x, inplace=True),
    "ignored result of an operation in place": lambda x: (F.relu_(x), x)[1],
    "relu of the dispatcher": lambda x: torch.ops.aten.relu(x),
    "relu as a product with a comparison": lambda x: x * (x > 0),
    "max_pool2d": lambda x: F.max_pool2d(x, 3, stride=2, padding=1),
    "max_pool2d, ceil and dilation": lambda x: F.max_pool2d(x, (2, 3), dilation=(2, 1), ceil_mode=True),
    "max_pool2d with indices": lambda x: F.max_pool2d(x, 2, return_indices=True)[0],
    "torch.max_pool2d": lambda x: torch.max_pool2d(x, 2),
    "max_pool1d": lambda x: F.max_pool1d(x.flatten(2), 2),
    "adaptive_max_pool2d": lambda x: F.adaptive_max_pool2d(x, 3),
    "amax": lambda x: x.amax((2, 3)),
    "max over a dimension": lambda x: x.max(dim=1).values,
    "maximum of two": lambda x: torch.maximum(x[:, :2], x[:, 2:]),
    "avg_pool2d": lambda x: F.avg_pool2d(x, 3, padding=1, count_include_pad=False),
    "adaptive_avg_pool2d": lambda x: F.adaptive_avg_pool2d(x, 5),
    "mean": lambda x: x.mean((2, 3), keepdim=True),
    "sum": lambda x: x.sum(-1),
    "interpolate": lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"),
    "reshape": lambda x: x.reshape(len(x), -1),
    "view and permute": lambda x: x.view(len(x), 4, -1).permute(0, 2, 1),
    "transpose": lambda x: x.transpose(1, 3).contiguous(),
    "mT": lambda x: x.mT,
    "squeeze and unsqueeze": lambda x: x.unsqueeze(2).squeeze(2),
    "chunk, swap and cat": lambda x: torch.cat(x.chunk(2, dim=1)[::-1], dim=1),
    "split": lambda x: x.split([1, 3], dim=1)[1],
    "unbind and stack": lambda x: torch.stack(x.unbind(1)[:2], dim=-1),
    "slices": lambda x: x[:, 1:, ::2, 3],
    "index": lambda x: x[:, [0, 2, 2]],
    "pad with zeros": lambda x: F.pad(x, (1, 2, 0, 1)),
    "pad by reflection": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "flip and roll": lambda x: x.flip(-1).roll(1, 2),
    "pixel_shuffle": lambda x: F.pixel_shuffle(x, 2),
    "expand": lambda x: x[:, :1].expand(-1, 3, -1, -1),
    "where": lambda x: torch.where(x > 0, x, 0.2 * x),
    "masked_fill": lambda x: x.masked_fill(x < 0.1, 0.0),
    "leaky relu": lambda x: F.leaky_relu(x, 0.3),
    "residual sum": lambda x: x + 2 * F.relu(x),
    "sum in place": lambda x: (2 * x).add_(F.relu(x), alpha=0.5),
    "augmented sum": lambda x: augmented(x),
    "difference": lambda x: F.relu(x) - x[:, :1],
    "times and over constants": lambda x: -x * torch.arange(1.0, 5, dtype=x.dtype).view(4, 1, 1) / 3,
    "dropout that is off": lambda x: F.dropout(x, 0.5, training=False),
    "dtype and device": lambda x: x.to("cpu").double().contiguous(),
    "matmul with a constant": lambda x: x @ torch.linspace(-1, 1, 36, dtype=x.dtype).view(12, 3),
    "einsum with a constant": lambda x: torch.einsum("bchw,cd->bdhw", x, torch.linspace(-1, 1, 8).double().view(4, 2)),
    "a buffer": lambda x: x * torch.zeros_like(x).fill_(2.0),
    "shapes read off": lambda x: x.view(x.size(0), -1)[:, : x.shape[2] * x.ndim],
}


def augmented(x):
    y = 2 * x
    y += F.relu(x)
    y *= 2.0
    return y


@pytest.mark.parametrize("name", list(HOMOGENEOUS))
def test_what_is_piecewise_linear_gives_the_input_times_the_gradient(name):
    model, (inputs, target) = adapt(Between(HOMOGENEOUS[name])), images()
    found, expected = ZERO(model, inputs, target), InputXGradient()(model, inputs, target)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5 * float(expected.detach().abs().max()))
    EPSILON(model, inputs, target)


ACTIVATIONS = {
    "gelu": F.gelu,
    "silu": F.silu,
    "softplus": F.softplus,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "elu": F.elu,
    "relu6": F.relu6,
    "hardtanh": F.hardtanh,
    "hardswish": F.hardswish,
    "mish": F.mish,
    "prelu": lambda x: F.prelu(x, torch.tensor([0.2], dtype=x.dtype)),
    "clamp": lambda x: x.clamp(-0.2, 0.4),
}


@pytest.mark.parametrize("name", list(ACTIVATIONS))
def test_relevance_passes_an_activation_unchanged(name):
    """R of the dense layer's inputs, over the convolution's sums, times its inputs."""
    net, (inputs, target) = Between(ACTIVATIONS[name]), images()
    with torch.no_grad():
        values = net.operator(net.first(inputs))
        relevance = (values.flatten(1) * net.head.weight[target]).view_as(values)
        sums = net.first(inputs)
        slopes = relevance / (sums + 0.01 * torch.where(sums < 0, -1, 1))
        expected = inputs * F.conv_transpose2d(slopes, net.first.weight, padding=1)
        found = LRP(layers={"first": {"name": "epsilon", "stabilizer": 0.01}, "head": "zero"}).per_channel(
            adapt(net), inputs, target
        )
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("rule", ["gamma", "alpha_beta"])
def test_outputs_below_zero_count_where_a_relu_is_not_their_only_reader(rule):
    net, (inputs, target) = Between(lambda x: x + F.relu(x)), images()
    method = LRP("epsilon", layers={"first": rule})
    found = method(adapt(net), inputs, target)
    net.operator = lambda x: 2 * F.leaky_relu(x, 0.5)  # the same function in one piece
    torch.testing.assert_close(found, method(adapt(net), inputs, target))


def test_products_share_alike_and_a_gate_gets_nothing():
    inputs, target = images()
    square = Between(lambda x: x[:, :2] * x[:, 2:], bias=False)
    found = ZERO(adapt(square), inputs, target)
    torch.testing.assert_close(found, InputXGradient()(adapt(square), inputs, target) / 2)
    total = square(inputs).gather(1, target[:, None]).sum()
    torch.testing.assert_close(found.sum(), total)

    def gated(x):
        return x[:, :2] * torch.sigmoid(x[:, 2:].mean((2, 3))).view(len(x), 2, 1, 1)

    excited = Between(gated, bias=False)
    found = ZERO(adapt(excited), inputs, target)
    torch.testing.assert_close(found.sum(), excited(inputs).gather(1, target[:, None]).sum())
    excited.first.weight.data[2:] *= -3  # another gate, the same way for relevance
    with torch.no_grad():
        gate = torch.sigmoid(excited.first(inputs)[:, 2:].mean((2, 3))).view(3, 2, 1, 1)
        slopes = excited.head.weight[target].view(3, 2, 12, 12) * gate
        expected = inputs * F.conv_transpose2d(slopes, excited.first.weight[:2], padding=1)
    torch.testing.assert_close(ZERO.per_channel(adapt(excited), inputs, target).detach(), expected)


def test_a_bias_or_a_constant_added_keeps_its_own_part():
    inputs, target = images()
    net = Between(lambda x: x + 0.7, bias=False)
    account = LRP("epsilon", check=True).conservation(adapt(net), inputs, target)
    with torch.no_grad():
        own = sum(float(0.7 * net.head.weight[t].sum()) for t in target)
    assert account.absorbed == pytest.approx(own, rel=1e-3)


def test_softmax_and_matmul_follow_the_rules_of_attn_lrp():
    inputs, target = images()

    def mixed(x):
        x = x.flatten(2)
        return torch.softmax(x, dim=-1) @ x.transpose(1, 2)

    net = Between(mixed, bias=False)
    with torch.no_grad():
        maps = net.first(inputs).flatten(2)
        weights = maps.softmax(-1)
        slopes = net.head.weight[target].view(3, 4, 4) / 2
        to_weights = weights * (slopes @ maps)
        share = maps * (to_weights - weights * to_weights.sum(-1, keepdim=True))
        share = share + maps * (weights.transpose(1, 2) @ slopes).transpose(1, 2)
        expected = inputs * F.conv_transpose2d((share / maps).view(3, 4, 12, 12), net.first.weight, padding=1)
    torch.testing.assert_close(ZERO.per_channel(adapt(net), inputs, target).detach(), expected)


def held(x, dims, eps, weight, *, centered=True):
    """A normalization whose spread is a constant to the gradient."""
    middle = x.mean(dims, keepdim=True) if centered else 0.0
    spread = ((x - middle).square().mean(dims, keepdim=True) + eps).sqrt().detach()
    return (x - middle) / spread * weight


LINE = torch.linspace(0.5, 1, 12).double()
PLANE = torch.linspace(0.5, 1, 576).double().view(4, 12, 12)
CHANNELS = torch.tensor([1.0, 2, 3, 4]).double().view(4, 1, 1)
NORMALIZATIONS = {
    "layer_norm": (lambda x: F.layer_norm(x, (12, 12)), lambda x: held(x, (2, 3), 1e-5, 1.0)),
    "layer_norm with weight": (
        lambda x: F.layer_norm(x, x.shape[1:], PLANE.view_as(x[0]), eps=1e-2),
        lambda x: held(x, (1, 2, 3), 1e-2, PLANE),
    ),
    "group_norm": (
        lambda x: F.group_norm(x, 2, CHANNELS.flatten()),
        lambda x: held(x.view(-1, 2, 2, 12, 12), (2, 3, 4), 1e-5, 1.0).view_as(x) * CHANNELS,
    ),
    "rms_norm": (
        lambda x: F.rms_norm(x, (12,), LINE),
        lambda x: held(x, (3,), torch.finfo(x.dtype).eps, LINE, centered=False),
    ),
}


@pytest.mark.parametrize("name", list(NORMALIZATIONS))
def test_a_normalization_is_linear_for_a_constant_spread_and_conserves(name):
    inputs, target = images()
    normalization, plain = NORMALIZATIONS[name]
    net = Between(normalization, bias=False)
    account = ZERO.conservation(adapt(net), inputs, target)
    assert account.pixels == pytest.approx(account.logits)
    found = ZERO(adapt(net), inputs, target)
    net.operator = plain
    torch.testing.assert_close(found, InputXGradient()(adapt(net), inputs, target))


def test_batch_norm_that_stands_alone_passes_relevance():
    inputs, target = images()
    norm = nn.BatchNorm2d(4).double().eval()
    nn.init.uniform_(norm.running_mean)
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), norm, nn.Flatten(), nn.Linear(400, 3, bias=False)).double()
    account = LRP("epsilon", check=True).conservation(adapt(net), inputs, target)
    assert account.logits == pytest.approx(float(net(inputs).detach().gather(1, target[:, None]).sum()))


def test_a_layer_whose_output_has_two_readers_is_folded_for_one_of_them():
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.norm, self.head = nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Linear(400, 3)

        def forward(self, x):
            x = self.first(x)
            return self.head((self.norm(x) + x).flatten(1))

    model, (inputs, target) = adapt(drawn(Forked())), images()
    EPSILON(model, inputs, target)
    torch.testing.assert_close(ZERO(model, inputs, target), InputXGradient()(model, inputs, target))


def test_a_module_used_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.same, self.relu = nn.Conv2d(2, 2, 3, padding=1), nn.ReLU(inplace=True)
            self.head = nn.Linear(288, 3)

        def forward(self, x):
            return self.head(self.relu(self.same(self.relu(self.same(x)))).flatten(1))

    model, (inputs, target) = adapt(Twice().double()), images()
    torch.testing.assert_close(ZERO(model, inputs, target), InputXGradient()(model, inputs, target))
    by_name = LRP("epsilon", layers={"same": "z_plus"})
    torch.testing.assert_close(by_name(model, inputs, target), LRP("epsilon_plus")(model, inputs, target))


def test_dropout_in_training_mode_is_the_mask_that_was_drawn():
    net = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.Dropout(0.5), nn.Flatten(), nn.Linear(400, 3, bias=False))
    model, (inputs, target) = adapt(net.double().train()), images()
    torch.manual_seed(3)
    found = ZERO(model, inputs, target)
    torch.manual_seed(3)
    mask = F.dropout(torch.ones(3, 4, 10, 10, dtype=torch.float64), 0.5)
    logits = net[3]((net[0](inputs) * mask).flatten(1)).gather(1, target[:, None])
    torch.testing.assert_close(found.sum((1, 2, 3)), logits[:, 0])


def in_place_through_a_view(x):
    x[:, :2].relu_()
    return x


REFUSED = {
    "no rule": (lambda x: x.cumsum(-1), "operator 'cumsum': no rule"),
    "numbers read": (lambda x: x * x.mean().item(), "operator 'item'"),
    "a branch on values": (lambda x: x if x.sum() > 0 else -x, None),
    "assignment": (lambda x: x.index_fill_(1, torch.tensor([0]), 0.0), "operator 'index_fill'"),
    "memory behind a view": (in_place_through_a_view, "changed its memory through another view"),
    "quotient": (lambda x: x / x.abs(), "operator 'abs'"),
    "quotient of two": (lambda x: x / (x * x + 1), "through 'div' of what all hangs on the image"),
    "instance norm": (F.instance_norm, "operator 'instance_norm'"),
    "lstm": (lambda x: x.logsumexp(1), "operator 'logsumexp'"),
}


@pytest.mark.parametrize("name", list(REFUSED))
def test_what_cannot_be_followed_is_refused_in_one_sentence(name):
    operator, message = REFUSED[name]
    model, (inputs, target) = adapt(Between(operator)), images()
    if message is None:
        LRP("epsilon")(model, inputs, target)  # a comparison is a constant, and so is the way it sends the pass
        return
    with pytest.raises(BadModel, match=message) as refusal:
        LRP("epsilon")(model, inputs, target)
    assert "\n" not in str(refusal.value)
    assert ". " not in str(refusal.value)


@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_the_other_refusals():
    inputs, target = images()
    norm = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(400, 3)).double()
    with pytest.raises(BadModel, match=r"BatchNorm in training mode.*eval"):
        LRP()(adapt(norm.train()), inputs, target)
    uneven = nn.Sequential(nn.Conv2d(2, 4, 2, padding="same"), nn.Flatten(), nn.Linear(576, 3)).double()
    with pytest.raises(BadModel, match="pads one side more"):
        LRP()(adapt(uneven), inputs, target)

    class Blind(nn.Module):
        def forward(self, x):
            return torch.zeros(len(x), 3, dtype=x.dtype)

    with pytest.raises(BadModel, match="do not hang on the image"):
        LRP()(adapt(Blind()), inputs, target)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_torchscript_is_refused():
    model, (inputs, target) = adapt(nn.Sequential(nn.Flatten(), nn.Linear(288, 3)).double()), images()
    model.network = torch.jit.trace(model.network, inputs)
    with pytest.raises(BadModel, match="TorchScript"):
        LRP()(model, inputs, target)


def test_a_compiled_network_is_explained_as_it_was_written():
    net, (inputs, target) = (
        nn.Sequential(nn.Flatten(), nn.Linear(288, 3), nn.ReLU(), nn.Linear(3, 3)).double(),
        images(),
    )
    expected = LRP()(adapt(net), inputs, target)
    compiled = torch.compile(net, backend="eager")
    compiled(inputs)
    torch.testing.assert_close(LRP()(adapt(compiled), inputs, target), expected)
