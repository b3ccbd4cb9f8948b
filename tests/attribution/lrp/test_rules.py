"""Every rule against plain matrix algebra, on every operator with a weight."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.attribution.lrp import RULES, AlphaBeta, Epsilon, Gamma, Rule, ZBox
from rightreasons.attribution.lrp.message import Message
from rightreasons.attribution.lrp.rules import Layer
from rightreasons.attribution.tape.linear_map import weighted

STABILIZER = 1e-6
LOW, HIGH = -0.7, 1.3

OPERATORS = {
    "linear": (nn.Linear(6, 4), (3, 6)),
    "linear of tokens": (nn.Linear(6, 4, bias=False), (2, 5, 6)),
    "conv2d": (nn.Conv2d(2, 3, 3, padding=1), (2, 2, 5, 4)),
    "strided": (nn.Conv2d(2, 3, (3, 2), stride=(2, 1)), (2, 2, 6, 5)),
    "dilated": (nn.Conv2d(2, 3, 2, dilation=2, bias=False), (2, 2, 5, 5)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2, padding="same"), (2, 4, 4, 4)),
    "conv1d": (nn.Conv1d(3, 4, 3), (2, 3, 7)),
    "conv3d": (nn.Conv3d(1, 2, 2), (2, 1, 3, 3, 3)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2), (2, 4, 3, 3)),
}


def layer_of(name: str, *, nonnegative: bool) -> tuple[Layer, nn.Module]:
    module, shape = OPERATORS[name]
    module = module.double().requires_grad_(False)
    inputs = torch.randn(shape, dtype=torch.float64)
    inputs = inputs.abs() if nonnegative else inputs
    operator, names = "linear", ()
    if not isinstance(module, nn.Linear):
        transposed = isinstance(module, nn.ConvTranspose2d)
        operator = f"conv{'_transpose' if transposed else ''}{module.weight.ndim - 2}d"
        names = ("stride", "padding", "dilation", "groups") + (("output_padding",) if transposed else ())
    made = weighted(operator, (inputs, module.weight, module.bias), {n: getattr(module, n) for n in names})
    low, high = (torch.full_like(inputs, bound) for bound in (LOW, HIGH))
    return Layer(made.map, inputs, made.weight, made.bias, module(inputs), nonnegative, low, high), module


def matrix_of(module: nn.Module, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The operator on one image as a dense matrix, and its bias, by feeding unit vectors."""
    one = inputs[:1]
    bias = module(torch.zeros_like(one)).flatten()
    units = torch.eye(one.numel(), dtype=torch.float64).view(-1, *one.shape[1:])
    return (module(units).flatten(1) - bias).T, bias


def plain(rule: str, x, w, b, relevance):
    """The rule for one image, a loop over outputs: w is (outputs, inputs)."""
    result = torch.zeros_like(x)
    for j in range(len(w)):
        z, r = float(w[j] @ x + b[j]), relevance[j]
        contributions = x * w[j]
        zero = torch.zeros(())

        def share(parts, bias, r=r):
            total = parts.sum() + bias
            return parts * r / (total + (STABILIZER if total >= 0 else -STABILIZER))

        if rule == "zero":
            result += contributions * r / z
        elif rule == "epsilon":
            result += share(contributions, b[j])
        elif rule == "z_plus":
            result += share(contributions.clamp(min=0), b[j].clamp(min=0))
        elif rule == "alpha_beta":
            result += 2 * share(contributions.clamp(min=0), b[j].clamp(min=0))
            result -= share(contributions.clamp(max=0), b[j].clamp(max=0))
        elif rule == "gamma":
            keep = (lambda v: v.clamp(min=0)) if z > 0 else (lambda v: v.clamp(max=0))
            result += share(contributions + 0.25 * keep(contributions), b[j] + 0.25 * keep(b[j]))
        elif rule == "w_square":
            result += share(w[j] ** 2, b[j] ** 2)
        elif rule == "flat":
            result += share((w[j] != 0).double(), zero)
        elif rule == "z_box":
            result += share(contributions - LOW * w[j].clamp(min=0) - HIGH * w[j].clamp(max=0), zero)
    return result


def made(rule: str) -> Rule:
    return ZBox(low=LOW, high=HIGH) if rule == "z_box" else RULES[rule]()


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("operator", list(OPERATORS))
@pytest.mark.parametrize("rule", list(RULES))
def test_a_rule_is_its_matrix_algebra(rule, operator, nonnegative):
    layer, module = layer_of(operator, nonnegative=nonnegative)
    relevance = torch.randn_like(layer.outputs)
    found = made(rule)(layer, Message(relevance=relevance)).of(layer.inputs)
    if operator == "linear of tokens":
        pairs = zip(layer.inputs.flatten(0, 1), relevance.flatten(0, 1), strict=True)
        rows = [plain(rule, x, module.weight, torch.zeros(4, dtype=torch.float64), r) for x, r in pairs]
        expected = torch.stack(rows).view_as(layer.inputs)
    else:
        matrix, bias = matrix_of(module, layer.inputs)
        pairs = zip(layer.inputs.flatten(1), relevance.flatten(1), strict=True)
        expected = torch.stack([plain(rule, x, matrix, bias, r) for x, r in pairs]).view_as(layer.inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10 * float(expected.abs().max()))


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("rule", list(RULES))
def test_both_forms_of_a_message_give_the_same(rule, nonnegative):
    layer, _ = layer_of("conv2d", nonnegative=nonnegative)
    gradient = torch.randn_like(layer.outputs)
    found = made(rule)(layer, Message(gradient=gradient)).of(layer.inputs)
    torch.testing.assert_close(found, made(rule)(layer, Message(relevance=gradient * layer.outputs)).of(layer.inputs))


@pytest.mark.parametrize("nonnegative", [False, True])
@pytest.mark.parametrize("rule", list(RULES))
def test_relevance_that_goes_missing_is_accounted_for(rule, nonnegative):
    layer, _ = layer_of("conv2d", nonnegative=nonnegative)
    relevance = torch.randn_like(layer.outputs)
    lost: list[torch.Tensor] = []
    found = made(rule)(layer, Message(relevance=relevance), lost).of(layer.inputs)
    torch.testing.assert_close(found.sum() + sum(lost), relevance.sum())


def test_gamma_without_gamma_is_epsilon_and_with_a_large_one_is_z_plus():
    layer, _ = layer_of("conv2d", nonnegative=True)
    message = Message(gradient=torch.rand_like(layer.outputs) * (layer.outputs > 0), positive=True)
    for gamma, other in ((0.0, "epsilon"), (1e9, "z_plus")):
        found = Gamma(gamma=gamma)(layer, message).of(layer.inputs)
        torch.testing.assert_close(found, made(other)(layer, message).of(layer.inputs), rtol=1e-4, atol=1e-6)


def test_a_sum_of_zero_hands_on_nothing_and_makes_no_nan():
    layer, _ = layer_of("linear", nonnegative=True)
    silent = Layer(layer.map, layer.inputs * 0, layer.weight, None, layer.outputs * 0, nonnegative=True)
    for rule in ("zero", "epsilon", "gamma", "alpha_beta", "z_plus"):
        for message in (Message(gradient=torch.ones_like(silent.outputs)), Message(relevance=silent.outputs)):
            assert made(rule)(silent, message).of(silent.inputs).abs().sum() == 0


def test_wrong_settings_are_refused():
    for bad in (
        lambda: Epsilon(-1.0),
        lambda: Gamma(gamma=-0.1),
        lambda: AlphaBeta(alpha=2.0, beta=2.0),
        lambda: AlphaBeta(alpha=0.5, beta=-0.5),
        lambda: ZBox(low=1.0, high=1.0),
    ):
        with pytest.raises(ValueError, match="expected"):
            bad()
    with pytest.raises(ValueError, match="unknown relevance rule 'epsilom'"):
        RULES["epsilom"]
