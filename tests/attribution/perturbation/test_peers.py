"""Our maps beside captum's."""

from __future__ import annotations

import importlib

import pytest
import torch

from rightreasons.attribution.perturbation import LIME, FeatureAblation, KernelSHAP, Occlusion
from rightreasons.attribution.perturbation.regions import grid
from rightreasons.models import LeNet, adapt

pytestmark = [pytest.mark.peers, pytest.mark.filterwarnings("default")]


@pytest.fixture
def lenet():
    inputs = torch.rand(4, 1, 28, 28)
    return LeNet().eval(), inputs, torch.arange(4)


def close(found, expected, tolerance=1e-5):
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance * float(expected.abs().max()))


@pytest.mark.parametrize(("window", "stride"), [(4, 4), (5, 3), ((3, 8), (2, 5))])
def test_captum_occlusion(lenet, window, stride):
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet
    windows, strides = (s if isinstance(s, tuple) else (s, s) for s in (window, stride))
    with torch.no_grad():
        theirs = attr.Occlusion(net).attribute(
            inputs, sliding_window_shapes=(1, *windows), strides=(1, *strides), target=target, baselines=0.1
        )
        ours = Occlusion(window, stride, baseline=0.1)(adapt(net), inputs, target)
    close(ours, theirs.float())


def test_captum_feature_ablation(lenet):
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet
    with torch.no_grad():
        theirs = attr.FeatureAblation(net).attribute(
            inputs, feature_mask=grid(28, 28, cells=7)[None, None], target=target
        )
        close(FeatureAblation(cells=7)(adapt(net), inputs, target), theirs)


def test_captum_exact_shapley_values(lenet):
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet
    labels = grid(28, 28, cells=2)
    with torch.no_grad():
        theirs = attr.ShapleyValues(net).attribute(inputs, feature_mask=labels[None, None], target=target)
        ours = KernelSHAP(cells=2, samples=14)(adapt(net), inputs, target)
    close(ours * 14 * 14, theirs)


def test_captum_kernel_shap_with_all_coalitions_drawn(lenet):
    """Captum draws coalitions, so each of the 14 comes many times; its fit nears the exact values."""
    attr = importlib.import_module("captum.attr")
    net, inputs, target = lenet
    labels = grid(28, 28, cells=2)
    with torch.no_grad():
        theirs = attr.KernelShap(net).attribute(
            inputs, feature_mask=labels[None, None], target=target, n_samples=1000, perturbations_per_eval=50
        )
        ours = KernelSHAP(cells=2, samples=14)(adapt(net), inputs, target) * 14 * 14
    close(ours, theirs, tolerance=0.05)


def test_captum_lime_on_the_same_samples(lenet):
    """Both draw regions with probability 1/2 and weigh by the same kernel: they agree as two of our seeds do."""
    attr = importlib.import_module("captum.attr")
    linear = importlib.import_module("captum._utils.models.linear_model")
    net, inputs, target = lenet
    labels = grid(28, 28, cells=3)[None, None]
    similarity = importlib.import_module("captum.attr._core.lime").get_exp_kernel_similarity_function

    def close_to_all(_, perturbed, shown, **__):
        distance = 1 - (shown.float().mean()).sqrt()
        return float(torch.exp(-(distance**2) / (2 * 0.25**2)))

    assert callable(similarity)
    peer = attr.LimeBase(
        net,
        linear.SkLearnRidge(alpha=1.0),
        similarity_func=close_to_all,
        perturb_func=lambda x, **_: (torch.rand(1, 9) < 0.5).long(),
        perturb_interpretable_space=True,
        from_interp_rep_transform=lambda z, x, **_: x * z[0][labels].to(x.dtype),
        to_interp_rep_transform=None,
    )
    with torch.no_grad():
        theirs = peer.attribute(inputs[:1], target=target[:1], n_samples=600)[0]
        ours, other = (LIME(cells=3, samples=600, seed=s)(adapt(net), inputs[:1], target[:1])[0, 0] for s in (0, 1))
    spread = (ours - other).norm() / ours.norm()
    found = torch.stack([ours[labels[0, 0] == label][0] for label in range(9)])
    assert (found - theirs).norm() / found.norm() < max(1.5 * spread, 0.05)
