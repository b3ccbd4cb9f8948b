from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from rightreasons.attribution.baselines import UniformBaseline
from rightreasons.attribution.forward import Forward, rows_at_once
from rightreasons.attribution.perturbation import (
    LIME,
    RISE,
    FeatureAblation,
    KernelSHAP,
    MeaningfulPerturbation,
    Occlusion,
)
from rightreasons.attribution.perturbation.baselines import MeanBaseline, ScaledBlur, baselines_of
from rightreasons.attribution.perturbation.masking import coalition_keys, scores
from rightreasons.core import NotDifferentiable
from rightreasons.core.protocols import require_differentiable
from rightreasons.models import adapt
from tests.attribution.perturbation.counting import Counting, quarters
from tests.networks import SIDE, images, network

EVERY = [
    Occlusion(3, 2),
    FeatureAblation(cells=4),
    RISE(masks=20),
    LIME(samples=30, cells=4),
    KernelSHAP(samples=30, cells=4),
    MeaningfulPerturbation(steps=4),
]
every = pytest.mark.parametrize("method", EVERY, ids=lambda m: type(m).__name__)


def with_max_batch(method, max_batch):
    return dataclasses.replace(method, max_batch=max_batch)


@every
def test_the_bound_on_memory_is_kept_and_changes_no_value(method):
    inputs, target = images(5)
    counting = Counting(network("relu"))
    found = {}
    for max_batch in (1, 7, 1000):
        counting.passes.clear()
        with torch.no_grad():
            found[max_batch] = with_max_batch(method, max_batch)(adapt(counting, "inner.3"), inputs, target)
        assert max(counting.passes) <= max_batch
    torch.testing.assert_close(found[1], found[1000], rtol=1e-10, atol=1e-13)
    torch.testing.assert_close(found[7], found[1000], rtol=1e-10, atol=1e-13)


@every
def test_on_the_graph_the_bound_holds_and_changes_no_gradient(method):
    if not method.differentiable:
        pytest.skip("makes no such claim")
    inputs, target = images(3)
    counting = Counting(network("batch_norm"))
    model = adapt(counting, "inner.second.0")
    gradients = []
    for max_batch in (7, 1000):
        counting.passes.clear()
        loss = with_max_batch(method, max_batch)(model, inputs, target).square().sum()
        gradients.append(torch.autograd.grad(loss, list(counting.parameters()), retain_graph=True))
        assert max(counting.passes) <= max_batch
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-9, atol=1e-12)


def test_activations_of_several_chunks_are_not_kept():
    """What a graph keeps of the network's passes does not grow with the number of windows."""
    inputs, target = images(2)
    model = adapt(network("relu"))

    def kept(**settings):
        numbers = []
        hooks = torch.autograd.graph.saved_tensors_hooks(lambda t: numbers.append(t.numel()) or t, lambda t: t)
        with hooks:
            Occlusion(1, **settings)(model, inputs, target)
        return sum(numbers)

    assert kept(max_batch=16) < kept(max_batch=1000) / 20


def test_a_later_backward_pass_leaves_no_trace_in_running_statistics():
    inputs, target = images(3)
    model = adapt(network("batch_norm")).train()
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    Occlusion(4, max_batch=5)(model, inputs, target).sum().backward()
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name


def test_weights_changed_before_the_backward_pass_are_refused():
    inputs, target = images(3)
    model = adapt(network("relu"))
    heatmap = Occlusion(4, max_batch=5)(model, inputs, target)
    with torch.no_grad():
        next(model.parameters()).mul_(2)
    with pytest.raises(RuntimeError, match="changed in place"):
        heatmap.sum().backward()


def test_scores_against_a_loop():
    inputs, target = images(3)
    model = adapt(network("relu"))
    factor = torch.linspace(0, 1, 4, dtype=torch.float64)
    keys = torch.arange(4)[:, None].expand(-1, 3)
    settings = Occlusion(score="probability", max_batch=5)

    def place(step, image):
        return factor[step].view(-1, 1, 1, 1) * inputs[image]

    found = scores(model, place, keys, target, settings=settings, graph=False)
    for s in range(4):
        for i in range(3):
            expected = model(factor[s] * inputs[i : i + 1]).softmax(1)[0, target[i]]
            assert float(found[s, i]) == pytest.approx(float(expected.detach()), rel=1e-12)


@pytest.mark.parametrize("features", [5, 52, 53, 130])
def test_coalitions_have_the_same_key_exactly_when_they_show_the_same_living_features(features):
    generator = torch.Generator().manual_seed(0)
    shown = torch.rand(40, features, generator=generator) < 0.5
    shown[20:] = shown[:20]
    shown[20:, -1] ^= True  # twins but for the last feature
    alive = torch.rand(3, features, generator=generator) < 0.7
    alive[0, -1], alive[1, -1] = False, True
    keys = coalition_keys(shown, alive)
    for image in range(3):
        pictures = [tuple((s & alive[image]).tolist()) for s in shown]
        for a in range(40):
            for b in range(a):
                assert (keys[a, image] == keys[b, image]).item() == (pictures[a] == pictures[b])


def test_equal_pictures_run_once():
    """Of the coalitions of four regions at most 16 differ; a region that holds the baseline halves them."""
    inputs, target = images(2)
    inputs[1, :, :6, :6] = 0
    counting = Counting(network("relu"))
    with torch.no_grad():
        LIME(samples=500, segments=quarters)(adapt(counting, "inner.3"), inputs, target)
    assert sum(counting.passes) == 16 + 8


def test_windows_over_nothing_but_the_baseline_do_not_run():
    inputs, target = images(1)
    inputs[:, :, :, 6:] = 0.5
    counting = Counting(network("relu"))
    method = Occlusion(3, baseline=0.5)
    with torch.no_grad():
        found = method(adapt(counting, "inner.3"), inputs, target)
    assert sum(counting.passes) == 8 + 1
    assert (found[..., 6:] == 0).all()
    assert (found[..., :6] != 0).all()


@pytest.mark.parametrize("method", EVERY[:5], ids=lambda m: type(m).__name__)
def test_where_the_image_holds_the_baseline_its_gradient_is_right_all_the_same(method):
    """Such copies are equal, but their gradients with respect to the image are not."""
    inputs, target = images(2)
    inputs[:, :, :6, :] = 0.0
    model = adapt(network("transformer"))  # a pooling over equal pixels would have a kink here
    direction = torch.randn(inputs.shape, dtype=torch.float64)

    def loss(x):
        return method(model, x, target).square().sum()

    leaf = inputs.clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(leaf), leaf)
    with torch.no_grad():
        expected = (loss(inputs + 1e-7 * direction) - loss(inputs - 1e-7 * direction)) / 2e-7
    assert float((found * direction).sum()) == pytest.approx(float(expected), rel=1e-5)


def test_large_images_go_in_smaller_chunks():
    assert rows_at_once(None, torch.zeros(1, 1, 28, 28)) == 64
    assert rows_at_once(None, torch.zeros(1, 1, 28, 28, device="meta")) == 256
    assert rows_at_once(None, torch.zeros(1, 3, 224, 224)) == 3
    assert rows_at_once(None, torch.zeros(1, 3, 224, 224, device="meta")) == 55
    assert rows_at_once(None, torch.zeros(1, 1, 2000, 2000)) == 1
    assert rows_at_once(100, torch.zeros(1, 1, 2000, 2000)) == 100


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_the_memory_layout_changes_no_logit(channels, dtype):
    net = nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(100, 3)).to(
        dtype
    )
    inputs = torch.rand(5, channels, SIDE, SIDE).to(dtype)
    with torch.no_grad():
        torch.testing.assert_close(Forward(adapt(net))(inputs), net(inputs))
        torch.testing.assert_close(Forward(adapt(net))(inputs.mT), net(inputs.mT))


class Viewing(nn.Module):
    """Calls ``view`` on its maps, which need the usual layout for it; keeps the layouts that it saw."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(2, 4, 3)
        self.seen = []

    def forward(self, x):
        self.seen.append(x.is_contiguous())
        return self.convolution(x).view(len(x), -1)


def test_a_network_that_calls_view_gets_the_usual_layout():
    net = Viewing()
    inputs, target = images(4, dtype=torch.float32)
    with torch.no_grad():
        found = Occlusion(4, max_batch=10)(adapt(net), inputs, target)
        assert net.seen == [False] + [True] * 4
        torch.testing.assert_close(found, Occlusion(4)(adapt(net.double()), inputs.double(), target).float())


def test_an_error_of_the_network_is_not_hidden():
    inputs, target = images(2, dtype=torch.float32)
    with torch.no_grad(), pytest.raises(RuntimeError, match="mat1 and mat2"):
        Occlusion(4)(adapt(nn.Sequential(nn.Flatten(), nn.Linear(7, 3))), inputs, target)


def test_a_progress_bar_shows_when_asked_for(capsys):
    inputs, target = images(2)
    model = adapt(network("relu"))
    for method in (Occlusion(4), MeaningfulPerturbation(steps=2)):
        method(model, inputs, target)
        assert capsys.readouterr().err == ""
    Occlusion(4, progress=True)(model, inputs, target)
    MeaningfulPerturbation(steps=2, progress=True)(model, inputs, target)
    shown = capsys.readouterr().err
    assert "Occlusion" in shown
    assert "MeaningfulPerturbation" in shown


def test_named_baselines():
    inputs, _ = images(2)
    mean, soft = MeanBaseline().of(inputs)[0], ScaledBlur(share=1.5 / SIDE).of(inputs)[0]
    assert mean[1, 0, 3, 4].item() == pytest.approx(inputs[1, 0].mean().item())
    weights = torch.exp(-((torch.arange(SIDE).double()[:, None] - torch.arange(SIDE)) ** 2) / (2 * 1.5**2))
    weights = weights / weights.sum(1, keepdim=True)
    expected = sum(weights[5, i] * weights[0, j] * inputs[1, 1, i, j] for i in range(SIDE) for j in range(SIDE))
    assert soft[1, 1, 5, 0].item() == pytest.approx(float(expected), rel=1e-6)
    assert ScaledBlur().share * 224 == pytest.approx(10)
    assert baselines_of(["mean", "blurred"]) == (MeanBaseline(), ScaledBlur())


@pytest.mark.parametrize("baseline", [0.3, "mean", "blurred", UniformBaseline(count=1)])
def test_the_baseline_stands_where_something_is_hidden(baseline):
    inputs, target = images(2)
    model = adapt(network("relu"))
    method = FeatureAblation(segments=quarters, baseline=baseline)
    without = inputs.clone()
    without[:, :, :6, 6:] = baselines_of(baseline)[0].of(inputs)[0][:, :, :6, 6:]
    drop = (model(inputs) - model(without)).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(method(model, inputs, target)[:, 0, 2, 8], drop)


@every
def test_of_several_baselines_the_maps_are_averaged(method):
    inputs, target = images(2)
    model = adapt(network("relu"))
    found = dataclasses.replace(method, baseline=[0.2, "mean"])(model, inputs, target)
    apart = [dataclasses.replace(method, baseline=b)(model, inputs, target) for b in (0.2, "mean")]
    torch.testing.assert_close(found, (apart[0] + apart[1]) / 2)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    ("class_", "settings"),
    [
        (Occlusion, {"window": 0}),
        (Occlusion, {"window": 2.5}),
        (Occlusion, {"window": 2, "stride": 3}),
        (Occlusion, {"window": (4, 2), "stride": (2, 3)}),
        (Occlusion, {"baseline": "black"}),
        (Occlusion, {"baseline": None}),
        (Occlusion, {"baseline": []}),
        (Occlusion, {"score": "logits"}),
        (Occlusion, {"max_batch": 0}),
        (FeatureAblation, {"segments": "quickshift"}),
        (FeatureAblation, {"cells": 0}),
        (RISE, {"masks": 0}),
        (RISE, {"probability": 1.0}),
        (LIME, {"samples": -1}),
        (LIME, {"kernel_width": 0.0}),
        (LIME, {"regularization": 0.0}),
        (KernelSHAP, {"samples": 0}),
        (MeaningfulPerturbation, {"steps": 0}),
        (MeaningfulPerturbation, {"rate": 0.0}),
        (MeaningfulPerturbation, {"sparsity": -1.0}),
        (MeaningfulPerturbation, {"jitter": -1}),
        (MeaningfulPerturbation, {"bfloat16": True}),
    ],
)
def test_wrong_settings_are_refused(class_, settings):
    with pytest.raises(ValueError, match="expected"):
        class_(**settings)


@every
def test_an_empty_batch_is_refused(method):
    inputs, target = images(2)
    with pytest.raises(ValueError, match="at least one image"):
        method(adapt(network("relu")), inputs[:0], target[:0])


@every
def test_a_bfloat16_model_is_explained_as_its_float32_self(method):
    inputs, target = images(3, dtype=torch.float32)
    expected = method(adapt(network("relu", dtype=torch.float32), "3"), inputs, target).detach()
    half = method(adapt(network("relu", dtype=torch.bfloat16), "3"), inputs.bfloat16(), target).detach().float()
    if isinstance(method, RISE | FeatureAblation | Occlusion):
        assert torch.corrcoef(torch.stack([half.flatten(), expected.flatten()]))[0, 1] > 0.9


@pytest.mark.parametrize("class_", [Occlusion, FeatureAblation, RISE, LIME, KernelSHAP])
def test_scores_in_bfloat16_give_nearly_the_same_map_off_the_graph(class_):
    inputs, target = images(3, dtype=torch.float32)
    model = adapt(network("relu", dtype=torch.float32), "3")
    full, half = (class_(bfloat16=asked)(model, inputs, target) for asked in (False, True))
    assert full.requires_grad == class_.differentiable
    assert not half.requires_grad
    assert half.dtype == torch.float32
    assert not torch.equal(half, full)
    assert torch.corrcoef(torch.stack([half.flatten(), full.detach().flatten()]))[0, 1] > 0.9


def test_scores_in_bfloat16_are_refused_where_gradients_are_needed():
    require_differentiable(LIME(), "a loss")
    assert not LIME(bfloat16=True).differentiable
    with pytest.raises(NotDifferentiable, match="LIME"):
        require_differentiable(LIME(bfloat16=True), "a loss")


def test_a_seed_leaves_the_global_generator_alone():
    """Methods with a seed leave torch's global generator alone; without one they draw from it."""
    inputs, target = images(2)
    model = adapt(network("relu"))
    state = torch.get_rng_state()
    for method in (RISE(masks=5), LIME(samples=9), KernelSHAP(samples=9), MeaningfulPerturbation(steps=2)):
        method(model, inputs, target)
    assert torch.equal(torch.get_rng_state(), state)
    fresh = RISE(masks=5, seed=None)
    first, second = fresh(model, inputs, target), fresh(model, inputs, target)
    assert not torch.equal(first, second)


def test_parameters_may_be_missing():
    """A network without weights is explained too."""
    inputs, target = images(2)
    heatmap = Occlusion(4)(adapt(nn.Sequential(nn.AdaptiveAvgPool2d((3, 1)), nn.Flatten())), inputs, target)
    assert heatmap.shape == (2, 1, SIDE, SIDE)
