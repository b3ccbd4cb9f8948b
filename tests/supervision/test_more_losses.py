"""The losses of the published comparisons against their formulas, written out plainly."""

from __future__ import annotations

import functools
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import GradCAM, Saliency
from rightreasons.attribution.contextual import decompose
from rightreasons.core import BadModel, Batch
from rightreasons.models import adapt
from rightreasons.supervision import CDEP, HINT, R4, RBR, RRR, TAP, CosineRRR, Energy, IBPEx, PGDEx, RRRGradCAM
from rightreasons.supervision.decomposition import decided
from tests.networks import network
from tests.supervision.test_losses import difference
from tests.supervision.test_map_guidance import Shown


def maps(model, batch, attribution):
    return attribution(model, batch.inputs, batch.target).detach()


@pytest.mark.parametrize("attribution", [GradCAM(), Saliency()])
def test_rrr_grad_cam_is_the_mean_square_on_irrelevant_pixels(attribution, model, batch):
    expected = []
    for heatmap, mask in zip(maps(model, batch, attribution), batch.irrelevant.bool(), strict=True):
        inside = (heatmap / heatmap.abs().max())[mask]
        expected.append(float((inside**2).sum()) / len(inside))
    found = RRRGradCAM(attribution)(model, batch, model(batch.inputs))
    assert float(found.detach()) == pytest.approx(sum(expected) / 4)


def test_hint_is_the_mean_squared_difference(model, batch):
    pairs = zip(maps(model, batch, GradCAM()), batch.relevant, strict=True)
    expected = [F.mse_loss(m / m.abs().max(), f) for m, f in pairs]
    assert float(HINT()(model, batch, model(batch.inputs)).detach()) == pytest.approx(float(sum(expected)) / 4)


def test_energy_is_what_lies_outside_of_the_relevant_pixels():
    relevant = torch.zeros(3, 1, 4, 4, dtype=torch.float64)
    relevant[..., :2] = 1
    shown = relevant.clone()
    shown[1, ..., 2:] = 3  # three quarters outside
    shown[2] = 0
    model, target = adapt(Shown()), torch.zeros(3, dtype=torch.long)
    losses = [
        Energy()(model, Batch(shown[i : i + 1], target[:1], relevant=relevant[i : i + 1]), torch.zeros(1, 2))
        for i in range(3)
    ]
    assert [float(value.detach()) for value in losses] == pytest.approx([0.0, 0.75, 1.0])


def test_a_box_twice_too_large_costs_energy_nothing():
    box = torch.ones(1, 1, 4, 4, dtype=torch.float64)
    shown = torch.zeros_like(box)
    shown[..., 1:3, 1:3] = 1
    batch = Batch(shown, torch.zeros(1, dtype=torch.long), relevant=box)
    assert float(Energy()(adapt(Shown()), batch, torch.zeros(1, 2)).detach()) == 0
    assert float(HINT()(adapt(Shown()), batch, torch.zeros(1, 2)).detach()) == 0.75


def test_cosine_rrr_is_the_cosine_whatever_the_scale(model, batch):
    gradients = Saliency(score="sum_log_probabilities").per_channel(model, batch.inputs, batch.target).detach()
    size = gradients.abs().sum(1).flatten(1)
    expected = F.cosine_similarity(size, batch.irrelevant.flatten(1)).mean()
    found = CosineRRR()(model, batch, model(batch.inputs))
    torch.testing.assert_close(found.detach(), expected)
    scaled = replace(batch, inputs=batch.inputs * 255)
    slower = adapt(model.network, model.layer, mean=(0.0,), std=(255.0,))
    torch.testing.assert_close(CosineRRR()(slower, scaled, slower(scaled.inputs)).detach(), expected)
    assert not torch.isclose(RRR()(slower, scaled, slower(scaled.inputs)), RRR()(model, batch, model(batch.inputs)))


def test_opposite_channels_do_not_hide_from_cosine_rrr():
    first = nn.Conv2d(2, 1, 1, bias=False, dtype=torch.float64)
    first.weight.data = torch.tensor([1.0, -1.0], dtype=torch.float64).view(1, 2, 1, 1)
    net = nn.Sequential(first, nn.Flatten(), nn.Linear(4, 2, dtype=torch.float64))
    mask = torch.tensor([[[[1.0, 0.0], [0.0, 0.0]]]], dtype=torch.float64)
    batch = Batch(torch.rand(1, 2, 2, 2, dtype=torch.float64), torch.zeros(1, dtype=torch.long), irrelevant=mask)
    assert CosineRRR()(adapt(net), batch, net(batch.inputs)) > 0.01


def test_rbr_weights_the_gradient_with_the_influence_on_the_weights():
    """On a linear network all derivatives can be written down."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False)).double()
    inputs, target = torch.rand(2, 1, 2, 2, dtype=torch.float64), torch.tensor([2, 0])
    mask = torch.tensor([[[[1.0, 0.0], [1.0, 0.0]]]], dtype=torch.float64).expand(2, -1, -1, -1)
    weight, expected = net[1].weight.detach(), 0.0
    for x, y, a in zip(inputs.flatten(1), target, mask.flatten(1), strict=True):
        p = (weight @ x).softmax(0)
        error = p - F.one_hot(y, 3)
        # sum over weights of d CE / d W = (sum of error) (sum of x); its derivative by x runs through both factors.
        jacobian = (p.diag() - p.outer(p)) @ weight
        influence = jacobian.sum(0) * x.sum() + error.sum()
        gradient = (weight - 3 * p.outer(torch.ones(4, dtype=torch.float64)) * 0).sum(0) - 3 * p @ weight
        expected += float((a * influence * gradient).square().sum()) / 2
    batch = Batch(inputs, target, irrelevant=mask)
    assert float(RBR()(adapt(net), batch, net(inputs)).detach()) == pytest.approx(expected, abs=1e-12)


def kept(seen, name, module, args, output):
    seen[name] = output.detach()


def test_tap_is_the_squared_activation_at_irrelevant_places(model, batch):
    seen = {}
    for name in ("0", "3"):
        keep = functools.partial(kept, seen, name)
        hook = model.network[int(name)].register_forward_hook(keep)
        model(batch.inputs)
        hook.remove()
    expected = 0.0
    for activation in seen.values():
        wide = F.max_pool2d(batch.irrelevant, 3, 1, 1)
        small = F.adaptive_avg_pool2d(wide, activation.shape[-1])
        expected += float(((small[:, 0] * activation.clamp(min=0).sum(1)) ** 2).sum()) / 4 / 2
    assert float(TAP()(model, batch, model(batch.inputs)).detach()) == pytest.approx(expected)
    one = TAP(["3"])
    assert one.tapped(model) == ("3",)
    assert float(one(model, batch, model(batch.inputs)).detach()) != pytest.approx(expected)


@pytest.mark.wrong_types
def test_tap_needs_layers_of_maps(model, batch):
    mlp = adapt(nn.Sequential(nn.Flatten(), nn.Linear(288, 3)).double())
    with pytest.raises(BadModel, match="no convolution"):
        TAP()(mlp, batch, mlp(batch.inputs))
    with pytest.raises(BadModel, match="expected maps"):
        TAP(("6",))(model, batch, model(batch.inputs))
    with pytest.raises(ValueError, match="list of names"):
        TAP("conv1")


def test_pgd_ex_moves_irrelevant_pixels_alone_and_makes_the_loss_worse(model, batch):
    loss = PGDEx(radius=0.3, steps=5)
    worst = loss.worst(model, batch.inputs, batch.target, batch.irrelevant)
    moved = (worst - batch.inputs).abs()
    mask = batch.irrelevant.bool().expand_as(moved)
    assert not moved[~mask].any()
    assert 0.1 < moved[mask].max() <= 0.3 + 1e-12
    plain = F.cross_entropy(model(batch.inputs), batch.target)
    found = loss(model, batch, model(batch.inputs))
    assert found > plain
    torch.testing.assert_close(found, F.cross_entropy(model(worst), batch.target))


def test_pgd_ex_finds_the_corner_of_the_box_of_a_linear_network():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    inputs, target = torch.rand(1, 1, 2, 2, dtype=torch.float64), torch.tensor([0])
    away = (net[1].weight[1] - net[1].weight[0]).detach().sign().view(1, 1, 2, 2)
    found = PGDEx(radius=0.5, steps=4).worst(adapt(net), inputs, target, torch.ones_like(inputs))
    torch.testing.assert_close(found, inputs + 0.5 * away)
    bounded = PGDEx(radius=0.5, steps=4, low=0.2, high=0.8).worst(adapt(net), inputs, target, torch.ones_like(inputs))
    assert bounded.min() >= 0.2
    assert bounded.max() <= 0.8


def test_pgd_ex_leaves_running_statistics_alone(batch):
    model = adapt(network("batch_norm")).train()
    before = {n: b.clone() for n, b in model.named_buffers()}
    PGDEx(radius=0.1, steps=2)(model, batch, model.eval()(batch.inputs))
    model.train()
    assert all(torch.equal(b, before[n]) for n, b in model.named_buffers())


@pytest.mark.parametrize("settings", [{"radius": 0.0}, {"steps": 0}, {"low": 1.0, "high": 0.0}])
def test_wrong_settings_of_pgd_ex_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        PGDEx(**settings)


class Normalized(nn.Module):
    """A network with one normalization."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 2)
        self.norm = norm
        self.last = nn.Linear(4 * 9, 3)

    def forward(self, x):
        x = self.first(x)
        return self.last(nn.functional.softplus(self.norm(x)).flatten(1))


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    "norm", [nn.BatchNorm2d(4), nn.GroupNorm(2, 4), nn.LayerNorm([4, 3, 3]), nn.InstanceNorm2d(4, affine=True)]
)
def test_rbr_is_right_to_third_order_through_normalizations(norm, training):
    torch.manual_seed(0)
    model = adapt(Normalized(norm).double()).train(training)
    for p in model.network.norm.parameters():
        nn.init.normal_(p, mean=1.0, std=0.2)
    inputs, mask = torch.rand(3, 1, 4, 4, dtype=torch.float64), torch.ones(3, 1, 4, 4, dtype=torch.float64)
    batch = Batch(inputs, torch.tensor([0, 1, 2]), irrelevant=mask)

    def value():
        return RBR()(model, batch, torch.zeros(3, 3))

    parameters = list(model.parameters())
    gradients = torch.autograd.grad(value(), parameters, allow_unused=True, materialize_grads=True)
    direction = [torch.randn_like(p) for p in parameters]
    found = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    assert found == pytest.approx(difference(value, parameters, direction), rel=1e-5)


def test_cdep_is_the_softmax_of_what_irrelevant_pixels_bring_and_the_rest(batch):
    model = adapt(network("relu"))
    part = decompose(model, batch.inputs, graph=False).part(batch.irrelevant)
    rest = model(batch.inputs).detach() - part
    expected = torch.stack([part, rest]).softmax(0)[0].mean()
    torch.testing.assert_close(CDEP()(model, batch, model(batch.inputs)).detach(), expected)


def test_cdep_on_logits_is_how_far_the_classes_parts_lie_apart(batch):
    model = adapt(network("relu"))
    part = decompose(model, batch.inputs, graph=False).part(batch.irrelevant).detach()
    expected = float(torch.stack([(p - p.mean()).abs().mean() for p in part]).mean())
    found = CDEP(measure="logits")(model, batch, model(batch.inputs)).detach()
    assert float(found) == pytest.approx(expected, rel=1e-6)


@pytest.mark.wrong_types
def test_no_shift_of_all_logits_gets_away_from_cdep_on_logits():
    """What the softmax form allows: the same number on the rest of every logit changes no answer and hides the part."""
    part = torch.tensor([[0.5, -0.5, 1.0]])
    for shift in (0.0, 30.0):
        found = SimpleNamespace(part=lambda mask: part, logits=part + shift)
        assert float(decided(found, part, "logits")) == pytest.approx(0.5556, abs=1e-4)
        assert (float(decided(found, part, "softmax")) < 1e-9) == bool(shift)


def test_cdep_on_random_pixels_needs_no_mask(batch):
    model = adapt(network("relu"))
    bare = replace(batch, relevant=None, irrelevant=None)
    loss = CDEP(random_pixels=5, seed=1)
    value = loss(model, bare, model(bare.inputs))
    assert 0 < float(value.detach()) < 1
    assert float(loss(model, bare, model(bare.inputs)).detach()) == float(value.detach())
    assert float(CDEP(random_pixels=5, seed=2)(model, bare, model(bare.inputs)).detach()) != float(value.detach())


def test_cdep_draws_the_pixels_that_are_bright(batch):
    dark = torch.zeros_like(batch.inputs)
    dark[..., 5, 7] = 1
    (mask,) = CDEP(random_pixels=1)._pixels(dark)
    assert mask[0].nonzero().tolist() == [[0, 5, 7]]


def test_cdep_on_a_transformer_names_the_operator(batch):
    model = adapt(network("transformer"))
    with pytest.raises(BadModel, match="no rule for the operator 'layer_norm'"):
        CDEP()(model, batch, model(batch.inputs))


def test_ibp_ex_is_the_cross_entropy_of_the_worst_corner_of_a_linear_network():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2)).double()
    inputs, target = torch.rand(1, 1, 2, 2, dtype=torch.float64), torch.tensor([0])
    batch = Batch(inputs, target, irrelevant=torch.ones_like(inputs))
    width = 0.5 * net[1].weight.detach().abs().sum(1)
    worst = net(inputs).detach() + width * torch.tensor([-1.0, 1.0], dtype=torch.float64)
    found = IBPEx(radius=0.5)(adapt(net), batch, net(inputs))
    torch.testing.assert_close(found.detach(), F.cross_entropy(worst, target))


def test_ibp_ex_bounds_what_pgd_ex_finds(model, batch):
    found = [loss(radius=0.05)(model, batch, model(batch.inputs)) for loss in (PGDEx, IBPEx)]
    assert found[0] <= found[1]


def test_r4_is_twice_the_gradient_where_nothing_moves_and_more_where_it_does(model, batch):
    gradients = Saliency(score="sum_log_probabilities").per_channel(model, batch.inputs, batch.target).detach()
    expected = float(2 * (batch.irrelevant * gradients.abs()).sum()) / 4
    logits = model(batch.inputs)
    assert float(R4(radius=1e-9)(model, batch, logits).detach()) == pytest.approx(expected, rel=1e-4)
    assert float(R4(radius=0.1)(model, batch, logits).detach()) > 1.01 * expected


@pytest.mark.parametrize("loss", [IBPEx, R4])
def test_bounds_need_a_radius(loss):
    with pytest.raises(ValueError, match="radius above 0"):
        loss(radius=0.0)
