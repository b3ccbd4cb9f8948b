import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from torch import nn

from rightreasons.attribution import GradCAM, Saliency
from rightreasons.models import adapt
from rightreasons.supervision import RES, LearnedImputation, adaptive_threshold, gaussian_imputation
from tests.networks import SIDE, network
from tests.supervision.test_map_guidance import Shown, cells, maps_of, pixels


def satisfied(a: float, values: list[float], sides: list[int]) -> int:
    return sum(v >= a if side > 0 else v < a for v, side in zip(values, sides, strict=True))


def brute_force(values: list[float], sides: list[int]) -> int:
    """The most pixels that any threshold satisfies, tried below, at, between and above all values."""
    ordered = sorted(set(values))
    between = [(x + y) / 2 for x, y in pairwise(ordered)]
    return max(satisfied(a, values, sides) for a in [ordered[0] - 1, *ordered, *between, ordered[-1] + 1])


@pytest.mark.parametrize("levels", [None, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_threshold_satisfies_as_many_pixels_as_any(levels, dtype):
    generator = torch.Generator().manual_seed(0)
    for trial in range(60):
        maps = torch.rand(2, 1, 3, 4, generator=generator, dtype=dtype)
        if levels is not None:
            maps = (maps * levels).floor() / levels  # ties
        relevant = (torch.rand(2, 1, 3, 4, generator=generator) < (trial % 5) / 4).to(dtype)
        irrelevant = (torch.rand(2, 1, 3, 4, generator=generator) < (trial % 7) / 6).to(dtype)
        side = (relevant - irrelevant)[relevant != irrelevant]
        a = adaptive_threshold(maps, relevant, irrelevant)
        assert a.shape == ()
        assert a.dtype == dtype
        if len(side):
            values = maps[relevant != irrelevant].tolist()
            assert satisfied(float(a), values, side.tolist()) == brute_force(values, side.tolist())


def threshold(values, relevant, irrelevant) -> float:
    rows = [torch.tensor(t, dtype=torch.float64).view(1, 1, 1, -1) for t in (values, relevant, irrelevant)]
    return float(adaptive_threshold(*rows))


def test_the_threshold_in_known_cases():
    assert threshold([0.2, 0.8, 0.5], [0, 1, 0], [1, 0, 0]) == 0.8  # the unmarked 0.5 does not count
    assert threshold([0.2, 0.8], [1, 1], [0, 0]) == 0.2  # nothing irrelevant: everything is above
    assert threshold([0.2, 0.8], [0, 0], [1, 1]) == math.nextafter(0.8, 1)  # nothing relevant: everything is below
    assert threshold([0.5, 0.5, 0.5], [1, 0, 0], [0, 1, 1]) == math.nextafter(0.5, 1)  # ties fall together
    assert threshold([0.1, 0.9], [1, 0], [0, 1]) == 0.1  # of equally good ones the smallest
    assert threshold([0.1, 0.9], [1, 1], [1, 1]) == 0  # marked as both is not marked
    assert threshold([0.1, 0.9], [0.49, 0.5], [0, 0]) == 0.9  # a faint mark has no vote


def test_no_gradient_runs_through_the_threshold():
    maps = torch.rand(1, 1, 3, 3, requires_grad=True)
    assert not adaptive_threshold(maps, torch.ones(1, 1, 3, 3), torch.zeros(1, 1, 3, 3)).requires_grad


def plain_blur(mask, size: int):
    """The Gaussian mean over the pixels of the window that lie inside the image."""
    sigma, reach, height, width = size / 4, size // 2, len(mask), len(mask[0])
    blurred = [[0.0] * width for _ in range(height)]
    for row in range(height):
        for column in range(width):
            total = weight = 0.0
            for r in range(max(0, row - reach), min(height, row + reach + 1)):
                for c in range(max(0, column - reach), min(width, column + reach + 1)):
                    g = math.exp(-((r - row) ** 2 + (c - column) ** 2) / (2 * sigma**2))
                    total, weight = total + g * mask[r][c], weight + g
            blurred[row][column] = total / weight
    return blurred


def plain_res(model, batch, *, attribution, slack, slope, target_of) -> float:
    """Eq. 8 image by image and pixel by pixel, with the threshold from trying all."""
    maps = maps_of(model, batch, attribution)
    relevant, irrelevant = pixels(batch, "relevant"), pixels(batch, "irrelevant")
    marked = [
        (m[r][c], f[r][c] - k[r][c])
        for m, f, k in zip(maps, relevant, irrelevant, strict=True)
        for r, c in cells(batch)
        if abs(f[r][c] - k[r][c]) >= 0.5
    ]
    values, sides = [v for v, _ in marked], [h for _, h in marked]
    candidates = [*sorted(values), math.nextafter(max(values), math.inf)]
    a = max(candidates, key=lambda v: satisfied(v, values, sides))
    total = 0.0
    for m, f, k in zip(maps, relevant, irrelevant, strict=True):
        h, terms, distances, weight = target_of(f), [], [], 0.0
        for r, c in cells(batch):
            difference = f[r][c] - k[r][c]
            if difference != 0:
                side = math.copysign(1, difference)
                terms.append(abs(difference) * abs(math.tanh(slope * (m[r][c] - a)) - side))
                distances.append(abs(difference) * abs(m[r][c] - h[r][c]))
                weight += abs(difference)
        total += max(0, sum(terms) / weight - slack) + sum(distances) / weight
    return total / len(batch)


@pytest.mark.parametrize("attribution", [GradCAM(), Saliency()])
@pytest.mark.parametrize("size", [3, 5])
def test_res_g_is_equation_8(attribution, size, model, batch):
    settings = {"attribution": attribution, "slack": 0.3, "slope": 4.0}
    batch.irrelevant[0, 0, 4, 3] = 1
    batch.relevant[1, 0, 5, 3] = 0.25
    found = RES(**settings, imputation="gaussian", kernel_size=size)(model, batch, model(batch.inputs))
    expected = plain_res(model, batch, **settings, target_of=lambda f: plain_blur(f, size))
    torch.testing.assert_close(float(found.detach()), expected)


def test_without_imputation_the_distance_is_to_the_mask_itself(model, batch):
    found = RES(imputation=None, slack=0.05)(model, batch, model(batch.inputs))
    expected = plain_res(model, batch, attribution=GradCAM(), slack=0.05, slope=5.0, target_of=lambda f: f)
    torch.testing.assert_close(float(found.detach()), expected)


def test_slack_applies_to_each_image_and_a_large_one_leaves_the_distance(model, batch):
    maps = torch.tensor(maps_of(model, batch, GradCAM()), dtype=torch.float64)[:, None]
    h, marked = gaussian_imputation(batch.relevant, batch.irrelevant), batch.relevant != batch.irrelevant
    distance = torch.stack([(m - t).abs()[k].mean() for m, t, k in zip(maps, h, marked, strict=True)]).mean()
    logits = model(batch.inputs)
    torch.testing.assert_close(RES(slack=2.0)(model, batch, logits), distance)
    assert RES(slack=0.0)(model, batch, logits) > distance + 0.1


def test_a_steep_slope_makes_the_projection_of_equation_3():
    relevant = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    relevant[..., :2, :] = 1
    inputs = torch.where(relevant.bool(), 0.8, 0.3).double()
    inputs[0, 0, 0, 0], inputs[0, 0, 3, 3] = 0.31, 1.0  # one relevant pixel too low, one irrelevant too high
    batch_ = make_batch(inputs, relevant)
    loss = RES(imputation=None, slack=0.0, slope=1e12)(adapt(Shown()), batch_, torch.zeros(1, 2))
    distance = (inputs - relevant).abs().mean()
    # a = 0.31 agrees with all but the high irrelevant pixel; relevant ones at a itself have tanh(0) = 0.
    assert float(loss.detach() - distance) == pytest.approx((2 + 1) / 16)


def make_batch(inputs, relevant):
    from rightreasons.core import Batch

    target = torch.zeros(len(inputs), dtype=torch.long)
    return Batch(inputs, target, relevant=relevant, irrelevant=1 - relevant)


def test_a_right_map_costs_next_to_nothing_and_a_wrong_one_much():
    relevant = torch.zeros(2, 1, 8, 8, dtype=torch.float64)
    relevant[..., 2:6, 2:6] = 1
    loss, model, logits = RES(imputation=None, slack=0.0), adapt(Shown()), torch.zeros(2, 2)
    right = loss(model, make_batch(relevant, relevant), logits)
    wrong = loss(model, make_batch(1 - relevant, relevant), logits)
    # At the threshold tanh is 0: each relevant pixel still differs by 1.
    assert float(right.detach()) == pytest.approx(16 / 64 + (1 - math.tanh(5)) * 48 / 64)
    assert wrong > 1.9


def test_gaussian_imputation_is_one_inside_zero_far_away_and_ignores_the_border():
    mask = torch.zeros(1, 1, 12, 12, dtype=torch.float64)
    mask[..., :6] = 1
    h = gaussian_imputation(mask, 1 - mask, kernel_size=5)
    expected = torch.tensor(plain_blur(mask[0, 0].tolist(), 5), dtype=torch.float64)
    torch.testing.assert_close(h[0, 0], expected)
    assert torch.allclose(h[..., :4], torch.ones(()).double())
    assert torch.allclose(h[..., 8:], torch.zeros(()).double())
    assert 0.5 < h[0, 0, 0, 5] < 0.9


def test_where_all_is_annotated_imputation_is_the_smoothed_difference_of_the_paper():
    mask = (torch.rand(2, 1, 9, 9, dtype=torch.float64) > 0.5).double()
    h = gaussian_imputation(mask, 1 - mask)
    against = gaussian_imputation(1 - mask, mask)
    torch.testing.assert_close(h, (1 + h - against) / 2)
    assert not gaussian_imputation(torch.zeros_like(mask), mask).any()


@pytest.mark.parametrize(("side", "size"), [(8, 3), (28, 3), (64, 9), (224, 29)])
def test_the_window_grows_with_the_image(side, size):
    mask = torch.zeros(1, 1, side, side, dtype=torch.float64)
    mask[..., side // 2, side // 2] = 1
    assert int((gaussian_imputation(mask, mask) > 0).sum()) == size**2


def test_learned_imputation_starts_as_the_gaussian_one(batch):
    h = LearnedImputation(5)(batch.relevant, batch.irrelevant)
    torch.testing.assert_close(h, gaussian_imputation(batch.relevant, batch.irrelevant, kernel_size=5))


def test_learned_imputation_is_trained_and_stays_between_zero_and_one(model, batch):
    loss = RES(imputation="learned")
    assert isinstance(loss.imputation, LearnedImputation)
    optimizer = torch.optim.Adam(loss.imputation.parameters(), lr=0.2)
    values = []
    for _ in range(10):
        value = loss(model, batch, model(batch.inputs))
        optimizer.zero_grad()
        value.backward()
        assert all(p.grad.abs().sum() > 0 for p in loss.imputation.parameters())
        optimizer.step()
        values.append(float(value.detach()))
        h = loss.imputation(batch.relevant, batch.irrelevant)
        assert h.min() >= 0
        assert h.max() <= 1 + 1e-12
    assert values[-1] < values[0] - 1e-4


@pytest.mark.parametrize("make", [LearnedImputation.shallow, LearnedImputation.deep])
def test_the_papers_kernels_at_the_papers_resolution(make):
    mask = torch.zeros(1, 1, 224, 224)
    mask[..., 64:160, 64:160] = 1
    imputation = make()
    h = imputation(mask, 1 - mask)
    assert h.shape == mask.shape
    assert h[..., 112, 112] > 0.9
    assert h[..., 5, 5] < 0.1
    (h * torch.rand(224, 224)).sum().backward()
    assert all(p.grad.abs().sum() > 0 for p in imputation.parameters())
    # Brought back from 7 x 7: within one of its cells' inner quarter the map is linear, so second differences vanish.
    line = h.detach()[0, 0, 112, 17:47]
    coarse = line[2:] - 2 * line[1:-1] + line[:-2]
    assert coarse.abs().max() < 1e-5


def test_gradients_of_learned_kernels_agree_with_differences(model, batch):
    imputation = LearnedImputation((3, 5), stride=2).double()
    relevant = batch.relevant[:1, :, :6, :6]
    mix = torch.randn_like(relevant)

    def value(*kernels):
        weights = dict(zip(("kernels.0", "kernels.1"), kernels, strict=True))
        return (torch.func.functional_call(imputation, weights, (relevant, relevant)) * mix).sum()

    assert torch.autograd.gradcheck(value, tuple(imputation.kernels))


def test_a_module_of_ones_own_receives_both_masks(model, batch):
    class Halved(nn.Module):
        def forward(self, relevant, irrelevant):
            self.seen = relevant, irrelevant
            return (1 + relevant - irrelevant) / 2

    own = Halved()
    found = RES(imputation=own)(model, batch, model(batch.inputs))
    assert torch.equal(own.seen[0], batch.relevant)
    assert torch.equal(own.seen[1], batch.irrelevant)
    # On annotated pixels (1 + F - C) / 2 is F.
    torch.testing.assert_close(found, RES(imputation=None)(model, batch, model(batch.inputs)))
    with pytest.raises(ValueError, match="imputation to return shape"):
        RES(imputation=Cropped())(model, batch, model(batch.inputs))


class Cropped(nn.Module):
    def forward(self, relevant, irrelevant):
        return relevant[..., 1:]


def test_the_layers_behind_the_map_learn_too(batch):
    """The channel weights of the map are on the graph, so the layer behind it has a gradient."""
    model = adapt(network("relu"))
    value = RES()(model, batch, model(batch.inputs))
    gradients = torch.autograd.grad(value, [model.network[6].weight, model.network[0].weight])
    assert all(g.abs().sum() > 0 for g in gradients)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "settings",
    [
        {"imputation": "box"},
        {"slack": -0.1},
        {"slope": 0.0},
        {"slope": math.inf},
        {"kernel_size": 4},
        {"kernel_size": 0},
        {"imputation": "learned", "kernel_size": -3},
        {"imputation": None, "kernel_size": 3},
        {"imputation": nn.Identity(), "kernel_size": 3},
    ],
)
def test_wrong_settings_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        RES(**settings)


@pytest.mark.parametrize("settings", [{"kernel_size": 4}, {"kernel_size": ()}, {"stride": 0}])
def test_wrong_kernels_are_refused(settings):
    with pytest.raises(ValueError, match="expected"):
        LearnedImputation(**settings)
    with pytest.raises(ValueError, match="less than the kernel size"):
        LearnedImputation(4, padding=4)
    mask = torch.zeros(1, 1, SIDE, SIDE)
    with pytest.raises(ValueError, match="at least 32 pixels"):
        LearnedImputation.shallow()(mask, mask)


def test_settings_can_be_replaced_and_keep_the_learned_kernels():
    loss = RES(imputation="learned", kernel_size=3)
    assert "LearnedImputation(kernel_size=(3,), stride=1, padding=None)" in repr(loss)
    assert replace(loss, slack=0.1).imputation is loss.imputation
