from __future__ import annotations

import math
from itertools import combinations, permutations

import pytest
import torch
from sklearn.linear_model import Ridge

from rightreasons.attribution.perturbation import LIME, KernelSHAP
from rightreasons.attribution.perturbation.surrogate import shapley_coalitions
from rightreasons.models import adapt
from tests.attribution.perturbation.counting import linear, quarters, shares, stripes
from tests.networks import SIDE, images, network


def score(model, image, target, labels, shown, baseline=0.0):
    seen = torch.where(torch.isin(labels, torch.tensor(sorted(shown))), image, torch.tensor(baseline).double())
    return float(model(seen[None])[0, target].detach())


def shapley(model, image, target, labels, baseline=0.0):
    """By the definition: the mean over all orders of what a region adds when it comes."""
    features = labels.unique().tolist()
    value = {
        frozenset(c): score(model, image, target, labels, c, baseline)
        for size in range(len(features) + 1)
        for c in combinations(features, size)
    }
    found = dict.fromkeys(features, 0.0)
    for order in permutations(features):
        before = frozenset()
        for feature in order:
            found[feature] += (value[before | {feature}] - value[before]) / math.factorial(len(features))
            before = before | {feature}
    return found


@pytest.mark.parametrize("segments", [quarters, stripes])
def test_with_all_coalitions_kernel_shap_is_the_shapley_value(segments):
    inputs, target = images(3)
    model = adapt(network("relu"))
    found = KernelSHAP(segments=segments, samples=14, baseline=0.3)(model, inputs, target)
    labels = segments(inputs)
    for i in range(3):
        for label, value in shapley(model, inputs[i], target[i], labels[i], 0.3).items():
            region = labels[i] == label
            share = torch.full((int(region.sum()),), value / int(region.sum())).double()
            torch.testing.assert_close(found[i, 0][region], share, rtol=1e-6, atol=1e-9)


def test_kernel_shap_of_nine_regions_against_the_sum_over_coalitions():
    inputs, target = images(1)
    model = adapt(network("relu"))
    found = KernelSHAP(cells=3, samples=2**9 - 2)(model, inputs, target)[0, 0].detach()
    labels = torch.arange(9).view(3, 3).repeat_interleave(4, 0).repeat_interleave(4, 1)
    value = {
        c: score(model, inputs[0], target[0], labels, c) for size in range(10) for c in combinations(range(9), size)
    }
    for feature in (0, 4, 8):
        expected = sum(
            (value[tuple(sorted((*c, feature)))] - v) / (9 * math.comb(8, len(c)))
            for c, v in value.items()
            if feature not in c
        )
        assert float(found[labels == feature].sum()) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("samples", [1, 2, 5, 20, 127, 128, 200, 1000])
def test_values_sum_to_the_change_of_the_score_whatever_the_samples(samples):
    inputs, target = images(3)
    model = adapt(network("relu"))
    found = KernelSHAP(samples=samples, baseline=0.4)(model, inputs, target)
    change = model(inputs) - model(torch.full_like(inputs, 0.4))
    change = change.gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(found.sum(dim=(1, 2, 3)), change, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cells", [1, 2, 3, 8])
def test_on_a_linear_model_a_region_has_the_sum_of_its_shares(cells):
    inputs, target = images(3)
    net = linear()
    found = KernelSHAP(cells=cells, baseline=0.2, samples=400)(adapt(net), inputs, target)
    expected = shares(net, inputs, target, 0.2)
    row = torch.arange(SIDE) * cells // SIDE
    labels = row[:, None] * cells + row
    for label in range(cells**2):
        region = labels == label
        sums = expected[:, 0][:, region].sum(dim=1)
        torch.testing.assert_close(found[:, 0][:, region].sum(dim=1), sums, rtol=1e-8, atol=1e-9)


def test_more_samples_come_nearer_to_the_exact_values():
    inputs, target = images(2)
    model = adapt(network("relu"))
    with torch.no_grad():
        exact = KernelSHAP(cells=3, samples=510)(model, inputs, target)
        errors = [
            sum(float((KernelSHAP(cells=3, samples=n, seed=s)(model, inputs, target) - exact).norm()) for s in range(4))
            for n in (30, 100, 400)
        ]
    assert errors[0] > 1.3 * errors[1] > 1.3**2 * errors[2]
    assert errors[2] < 0.05 * 4 * float(exact.norm())


def test_all_coalitions_are_taken_once_with_the_shapley_kernel():
    shown, weights = shapley_coalitions(6, 62, None)
    assert len(shown) == 62
    assert len({tuple(row.tolist()) for row in shown}) == 62
    for row, weight in zip(shown, weights, strict=True):
        size = int(row.sum())
        assert float(weight) == pytest.approx(5 / (math.comb(6, size) * size * (6 - size)))


def test_drawn_coalitions_come_with_their_complements_and_each_size_keeps_its_weight():
    generator = torch.Generator().manual_seed(0)
    shown, weights = shapley_coalitions(20, 3000, generator)
    assert len(shown) <= 3000
    rows = {tuple(row.tolist()): float(w) for row, w in zip(shown, weights, strict=True)}
    assert len(rows) == len(shown)
    for row, weight in rows.items():
        assert rows[tuple(not member for member in row)] == pytest.approx(weight)
    sizes = shown.sum(dim=1)
    assert (sizes == 1).sum() == 20
    assert (sizes == 2).sum() == 190
    assert float(weights.sum()) == pytest.approx(sum(19 / (s * (20 - s)) for s in range(1, 20)))
    for size in range(1, 20):
        expected = 19 / (size * (20 - size))
        assert float(weights[sizes == size].sum()) == pytest.approx(expected, rel=0.3)


def test_lime_is_a_weighted_ridge_regression_on_the_shown_regions():
    inputs, target = images(3)
    model = adapt(network("relu"))
    method = LIME(samples=60, cells=3, baseline=0.1, kernel_width=0.4, regularization=0.5)
    found = method(model, inputs, target).detach()
    labels = torch.arange(9).view(3, 3).repeat_interleave(4, 0).repeat_interleave(4, 1)
    shown = torch.rand(60, 9, generator=torch.Generator().manual_seed(0)) < 0.5
    shown[0] = True
    rows = shown.double()
    cosine = (rows @ torch.ones(9).double()) / (rows.norm(dim=1) * 3).clamp(min=1e-12)
    weights = torch.exp(-((1 - cosine) ** 2) / (2 * 0.4**2))
    for i in range(3):
        values = [score(model, inputs[i], target[i], labels, row.nonzero()[:, 0].tolist(), 0.1) for row in shown]
        ridge = Ridge(alpha=0.5).fit(rows.numpy(), values, sample_weight=weights.numpy())
        for label in range(9):
            assert float(found[i, 0][labels == label][0]) == pytest.approx(ridge.coef_[label], rel=1e-6)


def test_lime_on_a_linear_model_finds_the_sum_of_shares_of_each_region():
    inputs, target = images(2)
    net = linear()
    found = LIME(samples=400, segments=quarters, regularization=1e-8)(adapt(net), inputs, target)
    sums = shares(net, inputs, target).view(2, 2, 6, 2, 6).sum(dim=(2, 4))
    torch.testing.assert_close(found[:, 0, ::6, ::6], sums, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", [LIME(segments=stripes, samples=40), KernelSHAP(segments=stripes, samples=9)])
def test_a_batch_equals_its_singles_whatever_the_numbers_of_regions(method):
    inputs, target = images(6)
    model = adapt(network("relu"))
    assert len({len(labels.unique()) for labels in stripes(inputs)}) > 1
    together = method(model, inputs, target)
    apart = [method(model, inputs[i : i + 1], target[i : i + 1]) for i in range(6)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-9, atol=1e-12)
    one = KernelSHAP(segments=lambda x: torch.zeros(len(x), SIDE, SIDE, dtype=torch.long))(model, inputs, target)
    change = (model(inputs) - model(torch.zeros_like(inputs))).gather(1, target[:, None])[:, 0]
    torch.testing.assert_close(one[:, 0, 3, 3] * SIDE**2, change)
