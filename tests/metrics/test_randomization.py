from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import pytest
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn.utils import prune

from rightreasons.attribution import GradCAM, Saliency
from rightreasons.core import Attribution, Batch
from rightreasons.metrics import EdgeDetector, ParameterRandomization, RandomLogit
from rightreasons.metrics.randomization import drawn_anew, layers_upwards
from rightreasons.metrics.similarity import compared
from rightreasons.models import adapt, contrast
from tests.contracts.test_attributions import snapshot
from tests.networks import NETWORKS, images, network

ORDERS = ["cascading", "independent", "bottom_up"]
SIMILARITIES = ["spearman", "ssim", "cosine"]


def case(name="relu", method=Saliency()):
    model, batch = adapt(network(name)), Batch(*images(4))
    with torch.no_grad():
        return model, batch, method(model, batch.inputs, batch.target)


@dataclass(frozen=True)
class Breaks(Attribution):
    """Fails at its second call."""

    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = False
    calls: list

    def attribute(self, model, inputs, target, *, graph):
        self.calls.append(1)
        if len(self.calls) > 1:
            raise RuntimeError("out of memory")
        return inputs


@pytest.mark.parametrize("similarity", SIMILARITIES)
@pytest.mark.parametrize("order", ORDERS)
def test_an_edge_detector_does_not_notice(order, similarity):
    model, batch, heatmap = case(method=EdgeDetector())
    metric = ParameterRandomization(EdgeDetector(), similarity, order=order)
    torch.testing.assert_close(metric(model, batch, heatmap), torch.ones(4, dtype=torch.double))
    found = RandomLogit(EdgeDetector(), similarity)(model, batch, heatmap)
    torch.testing.assert_close(found, torch.ones(4, dtype=torch.double))


@pytest.mark.parametrize("order", ORDERS)
def test_the_curve_is_that_of_a_network_whose_layers_were_reset_one_after_the_other(order):
    """The plain way: a copy of the network, each layer reset in it for good."""
    model, batch, heatmap = case()
    metric = ParameterRandomization(Saliency(), order=order)
    curve = metric.curve(model, batch, heatmap)
    names = ["0", "3", "6", "8"]
    assert list(curve) == (names if order == "bottom_up" else names[::-1])
    done = []
    for name, found in curve.items():
        done = [name] if order == "independent" else [*done, name]
        other = network("relu")
        with torch.random.fork_rng():
            for layer in done:
                torch.manual_seed(seed_of(layer))
                other.get_submodule(layer).reset_parameters()
        moved = Saliency()(adapt(other), batch.inputs, batch.target).detach()
        expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(heatmap, moved, strict=True)]
        torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double).abs())
        signed = ParameterRandomization(Saliency(), order=order, absolute=False).curve(model, batch, heatmap)[name]
        torch.testing.assert_close(signed, torch.tensor(expected, dtype=torch.double))
    torch.testing.assert_close(metric(model, batch, heatmap), torch.stack(list(curve.values())).mean(0))


def seed_of(layer):
    from rightreasons.metrics.randomization import _seed_of

    return _seed_of(0, layer)


@pytest.mark.parametrize("name", NETWORKS)
def test_the_network_gets_its_own_weights_back(name):
    model, batch, heatmap = case(name)
    for parameter in model.network.parameters():
        parameter.grad = torch.ones_like(parameter)
    before, objects = snapshot(model), [id(p) for p in model.network.parameters()]
    ParameterRandomization(Saliency())(model, batch, heatmap)
    assert snapshot(model) == before
    assert [id(p) for p in model.network.parameters()] == objects


def test_it_gets_them_back_also_when_the_method_fails():
    model, batch, heatmap = case()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="out of memory"):
        ParameterRandomization(Breaks([]))(model, batch, heatmap)
    assert snapshot(model) == before


def test_every_layer_with_weights_is_drawn_anew():
    model, batch, _ = case("transformer")
    layers = layers_upwards(model, batch.inputs[:1])
    assert next(iter(layers)) == "(root)"
    assert list(layers)[1] == "patch"
    assert list(layers)[-1] == "head"
    for name, module in layers.items():
        own = [p.detach().clone() for p in module.parameters(recurse=False)]
        with drawn_anew(module, model.network, seed=5):
            changed = [not torch.equal(a, b) for a, b in zip(own, module.parameters(recurse=False), strict=True)]
        # A normalization is reset to ones and zeros, which its fresh weights are.
        assert all(changed) or "norm" in name


def test_weights_that_two_modules_share_are_exchanged_in_both():
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    both = nn.Sequential(first, second)
    with drawn_anew(first, both, seed=0):
        assert second.weight is first.weight
    assert second.weight is first.weight


def test_batch_normalization_forgets_its_statistics_and_finds_them_again():
    module = nn.BatchNorm2d(3)
    module.running_mean.fill_(5)
    with drawn_anew(module, nn.Sequential(module), seed=0):
        assert module.running_mean.tolist() == [0, 0, 0]
    assert module.running_mean.tolist() == [5, 5, 5]


NORMALIZED = [
    nn.utils.weight_norm,
    nn.utils.spectral_norm,
    nn.utils.parametrizations.weight_norm,
    nn.utils.parametrizations.spectral_norm,
    partial(prune.random_unstructured, name="weight", amount=0.2),
]


@pytest.mark.filterwarnings("ignore:`torch.nn.utils.weight_norm` is deprecated")
@pytest.mark.parametrize("normalized", NORMALIZED)
def test_a_weight_that_is_computed_of_others_is_drawn_anew_with_them(normalized):
    net = nn.Sequential(nn.Flatten(), normalized(nn.Linear(8, 4)), nn.ReLU(), nn.Linear(4, 3)).double().eval()
    inputs = torch.rand(2, 2, 2, 2, dtype=torch.double)
    net(inputs).sum().backward()
    before, weight = net(inputs), net[1].weight.detach().clone()
    layers = layers_upwards(adapt(net), inputs[:1])
    changed = []
    for module in layers.values():
        with drawn_anew(module, net, seed=3), torch.no_grad():
            net(inputs)
            changed.append(not torch.allclose(net[1].weight, weight))
        assert torch.equal(net[1].weight, weight)
        assert torch.equal(net(inputs), before)
    assert any(changed)
    batch = Batch(inputs, torch.tensor([0, 1]))
    heatmap = Saliency()(adapt(net), inputs, batch.target).detach()
    assert ParameterRandomization(Saliency())(adapt(net), batch, heatmap).isfinite().all()


def test_a_module_that_keeps_a_tensor_of_its_last_pass_is_reset():
    class Keeps(nn.Linear):
        def forward(self, x):
            self.last = super().forward(x)
            return self.last

    module = Keeps(4, 2)
    kept = module(torch.rand(3, 4))
    with drawn_anew(module, nn.Sequential(module), seed=0):
        module(torch.rand(3, 4))
    assert module.last is kept


def test_without_a_seed_every_call_draws_its_own():
    model, batch, heatmap = case()
    for kind in (ParameterRandomization, RandomLogit):
        found = {tuple(kind(Saliency(), seed=None)(model, batch, heatmap).tolist()) for _ in range(12)}
        assert len(found) > 1
    with torch.random.fork_rng():
        one, other = (ParameterRandomization(Saliency(), seed=None) for _ in range(2))
        torch.manual_seed(4)
        first = one(model, batch, heatmap)
        torch.manual_seed(4)
        assert torch.equal(first, other(model, batch, heatmap))


def test_the_global_generator_goes_on_as_before():
    model, batch, heatmap = case()
    state = torch.get_rng_state()
    found = [ParameterRandomization(Saliency(), seed=seed)(model, batch, heatmap) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_a_network_without_weights_is_refused():
    class Channels(nn.Module):
        def forward(self, x):
            return x.mean((2, 3))

    model = adapt(Channels())
    batch = Batch(*images(4))
    with pytest.raises(ValueError, match="expected a network with weights"):
        ParameterRandomization(Saliency())(model, batch, torch.rand(4, 1, 12, 12, dtype=torch.double))


def test_the_random_logit_is_another_class():
    model, batch, heatmap = case()
    scores = RandomLogit(Saliency(), "cosine")(model, batch, heatmap)
    others = [(batch.target + k) % 3 for k in (1, 2)]
    maps = [Saliency()(model, batch.inputs, other).detach() for other in others]
    cosines = [nn.functional.cosine_similarity(heatmap.flatten(1), m.flatten(1)).abs() for m in maps]
    assert any(torch.allclose(scores, c) for c in cosines)


def test_the_class_contrasted_with_turns_the_map_of_two_classes_round():
    """d(l0 - l1) and d(l1 - l0): opposite maps, which is as alike as can be."""
    linear = adapt(nn.Sequential(nn.Flatten(), nn.Linear(288, 2, bias=False)).double())
    with torch.no_grad():
        linear.network[1].weight[1] = -linear.network[1].weight[0]
    batch = Batch(images(4)[0], torch.tensor([0, 1, 0, 1]))
    heatmap = Saliency()(linear, batch.inputs, batch.target).detach()
    for similarity in SIMILARITIES:
        found = RandomLogit(Saliency(), similarity)(linear, batch, heatmap)
        assert found.tolist() == pytest.approx([1] * 4)
    assert RandomLogit(Saliency(), absolute=False)(linear, batch, heatmap).tolist() == pytest.approx([-1] * 4)


def test_a_contrast_of_each_image_goes_along():
    model, batch = adapt(network("relu")), Batch(*images(4))
    leads = contrast(model, (batch.target + 1) % 3)
    heatmap = Saliency()(leads, batch.inputs, batch.target).detach()
    assert torch.isfinite(ParameterRandomization(Saliency())(leads, batch, heatmap)).all()


def test_structural_similarity_is_that_of_scikit_image():
    metrics = pytest.importorskip("skimage.metrics")
    first, second = torch.randn(2, 3, 1, 15, 11, dtype=torch.double)
    found = compared("ssim", first)(second)
    scaled = [m / m.abs().amax((1, 2, 3), keepdim=True) for m in (first, second)]
    expected = [
        metrics.structural_similarity(a[0].numpy(), b[0].numpy(), data_range=2.0) for a, b in zip(*scaled, strict=True)
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.double))


def test_ranks_with_ties_correlate_as_in_scipy():
    first, second = (3 * torch.randn(2, 5, 1, 6, 6)).round().clamp(min=0)
    expected = [spearmanr(a.flatten(), b.flatten()).statistic for a, b in zip(first, second, strict=True)]
    torch.testing.assert_close(compared("spearman", first)(second), torch.tensor(expected, dtype=torch.double))


def test_a_constant_map_has_no_ranks_and_layers_that_give_none_are_left_out():
    maps = torch.ones(1, 1, 4, 4)
    assert torch.isnan(compared("spearman", maps)(torch.rand(1, 1, 4, 4))).all()
    model, batch, heatmap = case(method=GradCAM())
    metric = ParameterRandomization(GradCAM())
    curve = torch.stack(list(metric.curve(model, batch, heatmap).values()))
    torch.testing.assert_close(metric(model, batch, heatmap), curve.nanmean(0), equal_nan=True)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"order": "top_down"}, "expected order to be one of cascading"),
        ({"similarity": "pearson"}, "expected similarity to be one of spearman"),
        ({"attribution": "saliency"}, "expected attribution to be an Attribution"),
    ],
)
def test_wrong_settings_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        ParameterRandomization(**settings)
