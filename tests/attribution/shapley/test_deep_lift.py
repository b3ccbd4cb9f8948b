"""DeepLIFT beside a plain version, by hand, on networks written in many ways, and where it must refuse."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import BlurredBaseline, ConstantBaseline, DeepLIFT, DeepSHAP, UniformBaseline
from rightreasons.attribution.lrp import NotConserved
from rightreasons.attribution.shapley import meeting
from rightreasons.core import BadModel, Batch
from rightreasons.models import adapt, contrast
from rightreasons.models.blocks import BLOCKS
from rightreasons.models.classifier import record
from rightreasons.supervision import RRR
from rightreasons.training import Objective, Term, TrainingStep
from tests.attribution.lrp.networks import NETWORKS as WRITTEN
from tests.attribution.lrp.networks import network as written
from tests.networks import NETWORKS, images, network

RULES = ("rescale", "reveal_cancel")


def test_of_a_linear_model_it_is_the_weight_times_the_change():
    net = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(108, 3)).double()
    inputs, target = images()
    leaf = inputs.clone().requires_grad_()
    (weight,) = torch.autograd.grad(net(leaf).gather(1, target[:, None]).sum(), leaf)
    for rule in RULES:
        found = DeepLIFT(0.2, rule).per_channel(adapt(net), inputs, target)
        torch.testing.assert_close(found, weight * (inputs - 0.2), rtol=1e-12, atol=1e-14)


def test_one_relu_by_hand():
    """relu(3 - 1) - relu(0 - 1) = 2 over a way of 3: the unit's multiplier is 2/3, which x shares 2 to 1."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(2, 1), nn.ReLU()).double()
    net[1].weight.data = torch.ones(1, 2).double()
    net[1].bias.data = -torch.ones(1).double()
    inputs = torch.tensor([2.0, 1.0]).double().view(1, 2, 1, 1)
    found = DeepLIFT().per_channel(adapt(net), inputs, torch.tensor([0]))
    assert found.flatten().tolist() == pytest.approx([4 / 3, 2 / 3])


def test_a_maximum_by_hand():
    """Of max(3, 2) - max(1, 4) = -1 the place of the larger maximum, the baseline's 4, has all."""
    net = nn.Sequential(nn.MaxPool2d((1, 2)), nn.Flatten()).double()
    inputs, start = torch.tensor([3.0, 2.0]).double(), torch.tensor([1.0, 4.0]).double()

    def explained(image, baseline):
        method = DeepLIFT(Fixed(baseline.view(1, 1, 1, 2)))
        return method(adapt(net), image.view(1, 1, 1, 2), torch.tensor([0])).flatten().tolist()

    assert explained(inputs, start) == pytest.approx([0.0, -1.0])
    assert explained(start, inputs) == pytest.approx([0.0, 1.0])
    assert explained(inputs, torch.tensor([2.0, 0.0]).double()) == pytest.approx([1.0, 0.0])


class Fixed(ConstantBaseline):
    """An image as it is."""

    def __init__(self, image):
        object.__setattr__(self, "image", image)

    def of(self, inputs):
        return self.image.expand(inputs.shape)[None]


def plain_deep_lift(net, image, start, target):
    """A LeNet's multipliers, layer by layer and number by number; ``net`` is conv, relu, pool, conv, relu, dense."""
    ends = []
    for value in (image, start):
        values = [value[None]]
        for layer in net:
            values.append(layer(values[-1]))
        ends.append([v[0] for v in values])
    multiplier = torch.zeros_like(ends[0][-1])
    multiplier[target] = 1
    for number in range(len(net) - 1, -1, -1):
        layer, (x, y), (b, c) = net[number], *((e[number], e[number + 1]) for e in ends)
        if isinstance(layer, nn.ReLU):
            change = torch.where(x == b, 1, x - b)
            multiplier = multiplier * torch.where(x == b, (x > 0).double(), (y - c) / change)
        elif isinstance(layer, nn.MaxPool2d):
            multiplier = plain_pool(x, b, y, c, multiplier)
        else:  # linear: the multipliers of the inputs are sums over weights
            unit = x.clone().requires_grad_()
            (multiplier,) = torch.autograd.grad(layer(unit[None])[0], unit, multiplier)
    return multiplier * (image - start)


def plain_pool(x, b, y, c, multiplier):
    before = torch.zeros_like(x)
    for channel, row, column in torch.cartesian_prod(*map(torch.arange, y.shape)).tolist():
        window = [(channel, 2 * row + i, 2 * column + j) for i in (0, 1) for j in (0, 1)]
        change = y[channel, row, column] - c[channel, row, column]
        place = max(window, key=lambda p: x[p] if change >= 0 else b[p])
        way = x[place] - b[place]
        share = change / way if way != 0 else 1.0
        before[place] += share * multiplier[channel, row, column]
    return before


@pytest.mark.parametrize("start", [0.0, 0.4])
def test_it_is_the_plain_version_on_a_lenet(start):
    inputs, target = images()
    net = network("relu")
    with torch.no_grad():
        found = DeepLIFT(start).per_channel(adapt(net), inputs, target)
    for i in range(3):
        expected = plain_deep_lift(net, inputs[i], torch.full_like(inputs[i], start), int(target[i]))
        torch.testing.assert_close(found[i], expected, rtol=1e-10, atol=1e-14)


ALL = [*NETWORKS, *(f"written {name}" for name in WRITTEN)]


def built(name):
    return written(name.removeprefix("written ")) if name.startswith("written") else network(name)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ALL)
@pytest.mark.filterwarnings("ignore:Using padding='same'")
def test_values_sum_to_the_change_of_the_logit(name, rule):
    model, (inputs, target) = adapt(built(name)), images()
    method = DeepLIFT([0.0, BlurredBaseline(2.0)], rule, check=True, tolerance=1e-10)
    assert method.completeness_error(model, inputs, target).abs().max() < 1e-10


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["relu", "softplus", "transformer"])
def test_where_the_image_is_the_baseline_nothing_blows_up(name, rule):
    """Also in the gradient of a loss on the map; nearly equal is no worse than equal."""
    net, (inputs, target) = network(name), images()
    for start in (inputs, inputs + 1e-13, torch.where(torch.rand(inputs.shape) > 0.5, inputs, 0.0)):
        heatmap = DeepLIFT(Fixed(start), rule)(adapt(net), inputs, target)
        if start is inputs:
            assert torch.equal(heatmap, torch.zeros_like(heatmap))
        loss = heatmap.square().sum() + heatmap.sum()
        gradients = torch.autograd.grad(loss, list(net.parameters()), allow_unused=True, materialize_grads=True)
        assert all(torch.isfinite(g).all() and g.abs().max() < 1e3 for g in gradients)


def test_a_baseline_that_all_images_share_runs_once():
    net, (inputs, target) = network("relu"), images()
    rows = []
    net[0].register_forward_hook(lambda module, args, output: rows.append(len(output)))
    DeepLIFT(0.5)(adapt(net), inputs, target)
    assert rows == [3, 1]
    rows.clear()
    DeepLIFT([0.5, UniformBaseline(count=2), BlurredBaseline()])(adapt(net), inputs, target)
    assert rows == [3, 1, 1, 1, 3]


def test_several_baselines_are_averaged():
    model, (inputs, target) = adapt(network("relu")), images()
    apart = [DeepLIFT(start)(model, inputs, target) for start in (0.1, BlurredBaseline(1.0))]
    both = DeepLIFT([0.1, BlurredBaseline(1.0)])(model, inputs, target)
    torch.testing.assert_close(both, torch.stack(apart).mean(dim=0))


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.head = nn.Conv2d(2, 4, 3).double(), nn.Linear(400, 3).double()

    def forward(self, x):
        x = F.dropout2d(F.relu(self.first(x)), 0.5, self.training)
        return self.head(F.dropout(x.flatten(1), 0.5, self.training))


def test_image_and_baseline_meet_the_same_dropout():
    model, (inputs, target) = adapt(Dropping().train()), images()
    torch.manual_seed(3)
    found = DeepLIFT(check=True, tolerance=1e-12).per_channel(model, inputs, target).sum((1, 2, 3))
    after = torch.rand(1)
    torch.manual_seed(3)
    image = model(inputs)
    assert torch.equal(after, torch.rand(1))  # drawn once
    torch.manual_seed(3)
    change = (image - model(torch.zeros_like(inputs))).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(found, change)


def test_standardization_is_followed():
    net, (inputs, target) = network("relu"), images()
    model = adapt(net, mean=(0.2, 0.3), std=(0.5, 0.7))
    mean, std = torch.tensor([0.2, 0.3]).view(2, 1, 1), torch.tensor([0.5, 0.7]).view(2, 1, 1)
    by_hand = DeepLIFT(Fixed(((0.1 - mean) / std).double()[None]))
    expected = by_hand(adapt(net), (inputs - model.mean) / model.std, target)
    torch.testing.assert_close(DeepLIFT(0.1)(model, inputs, target), expected, rtol=1e-6, atol=1e-8)


def test_what_does_not_sum_is_refused_when_asked(monkeypatch):
    model, (inputs, target) = adapt(network("relu")), images()
    monkeypatch.setitem(meeting.SWEEPS, "rescale", lambda ends, slopes: 0.9 * sweep(ends, slopes))
    sweep = meeting.swept
    DeepLIFT()(model, inputs, target)
    with pytest.raises(NotConserved, match="do not sum to the change of the score"):
        DeepLIFT(check=True)(model, inputs, target)
    monkeypatch.setitem(meeting.SWEEPS, "rescale", lambda ends, slopes: torch.nan * sweep(ends, slopes))
    with pytest.raises(NotConserved, match="nan of them"):
        DeepLIFT(check=True)(model, inputs, target)


def test_of_an_image_that_is_its_baseline_rounding_is_no_fault():
    net, inputs = network("relu", dtype=torch.float32), torch.full((3, 2, 12, 12), 0.3)
    assert not DeepLIFT(0.3, check=True, tolerance=1e-6)(adapt(net), inputs, torch.arange(3)).any()


def test_all_classes_are_there_in_inference_mode():
    model, (inputs, _) = adapt(network("relu")), images()
    expected = DeepLIFT().all_classes(model, inputs)
    with torch.inference_mode():
        assert torch.equal(DeepLIFT().all_classes(model, inputs.clone()), expected)


def test_batch_norm_in_training_mode_and_logits_from_elsewhere_are_refused():
    inputs, target = images()
    with pytest.raises(BadModel, match=r"BatchNorm in training mode.*eval"):
        DeepLIFT()(adapt(network("batch_norm").train()), inputs, target)
    with pytest.raises(BadModel, match="do not hang on the image"):
        DeepLIFT()(adapt(Constant()), inputs, target)


class Constant(nn.Module):
    def forward(self, x):
        return torch.zeros(len(x), 3, dtype=x.dtype)


class Alike(nn.Module):
    """Takes the form of one tensor for another, by position and by name."""

    def __init__(self) -> None:
        super().__init__()
        self.place, self.dense = nn.Conv2d(2, 1, 1).double(), nn.LazyLinear(3).double()

    def forward(self, x):
        scores = self.place(x)
        weights = scores.flatten(1).softmax(dim=1).view_as(scores) * x[:, :1].sin().type_as(scores)
        return self.dense((x * weights).reshape_as(other=x).flatten(1))


@pytest.mark.parametrize("rule", RULES)
def test_the_form_of_another_tensor_is_no_comparison_with_it(rule):
    method = DeepLIFT(BlurredBaseline(2.0), rule)
    assert method.completeness_error(adapt(Alike()), *images()).abs().max() < 1e-10


@pytest.mark.parametrize("name", BLOCKS)
def test_attention_blocks_are_followed(name):
    block = BLOCKS[name](4)
    with torch.no_grad():
        for weight in block.parameters():
            weight.normal_()
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(), block, nn.Flatten(), nn.LazyLinear(3)).double()
    inputs, target = images()
    net(inputs)
    assert DeepLIFT(BlurredBaseline(2.0)).completeness_error(adapt(net), inputs, target).abs().max() < 1e-9


@pytest.mark.wrong_types
def test_all_classes_are_of_images():
    with pytest.raises(ValueError, match="expected images"):
        DeepLIFT().all_classes(adapt(network("relu")), images()[0][0])


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"rule": "linear"}, "expected rule to be one of rescale, reveal_cancel, got 'linear'"),
        ({"tolerance": 0.0}, "expected tolerance above 0"),
        ({"baseline": "black"}, "expected a baseline"),
        ({"baseline": []}, "at least one baseline"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        DeepLIFT(**settings)


def passes_of(net):
    rows = []
    next(m for m in net.modules() if isinstance(m, nn.Conv2d)).register_forward_hook(
        lambda module, args, output: rows.append(len(output))
    )
    return rows


def test_a_shared_baseline_runs_once_also_for_recorded_passes_and_contrasts():
    net, (inputs, target) = network("relu"), images(8)
    model, rows = adapt(net), passes_of(net)
    recorded = record(model, inputs.requires_grad_())
    for kind, first in ((recorded, [8, 1]), (contrast(model, 1), [8, 1]), (contrast(recorded, 1), [8, 1])):
        rows.clear()
        DeepLIFT()(kind, inputs, target)
        assert rows == first
        rows.clear()
        DeepSHAP(images(16, seed=9)[0])(kind, inputs, target)
        assert sorted(rows) == [1] * 8 + [16]
    rows.clear()
    DeepLIFT()(contrast(model, torch.arange(8) % 3), inputs, target)
    assert rows == [8, 8]  # each with a class of its own


def test_in_training_a_shared_baseline_costs_one_image_a_step():
    net, (inputs, target) = network("relu"), images(8)
    rows, mask = passes_of(net), torch.ones(8, 1, 12, 12)
    step = TrainingStep(adapt(net), Objective({"rrr": Term(RRR(DeepLIFT()))}))
    step(Batch(inputs, target, irrelevant=mask))["loss"].backward()
    assert rows == [8, 8, 1]  # the step's own pass, and the two of the method
