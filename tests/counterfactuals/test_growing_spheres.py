import math

import pytest
import torch

from rightreasons.core import ANY_OTHER
from rightreasons.counterfactuals import GrowingSpheres, Limits, Search
from rightreasons.counterfactuals.growing_spheres import halved, shell_radii, thinned
from rightreasons.counterfactuals.lines import bisected
from tests.counterfactuals.linear import two_classes


def generator():
    return torch.Generator().manual_seed(0)


def test_radii_in_few_dimensions_are_those_of_the_published_formula():
    found = shell_radii(500, 3, (0.5, 2.0), generator())
    u = torch.rand(500, generator=generator(), dtype=torch.float64)
    expected = (u * 2.0**3 + (1 - u) * 0.5**3) ** (1 / 3)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("dimensions", [784, 150_528])
@pytest.mark.parametrize("shell", [(0.0, 1.0), (0.1, 0.11), (20.0, 26.0), (300.0, 400.0)])
def test_radii_in_many_dimensions_stay_in_the_shell_where_powers_would_not(dimensions, shell):
    found = shell_radii(2000, dimensions, shell, generator())
    assert torch.isfinite(found).all()
    assert found.min() >= shell[0] * (1 - 1e-9)
    assert found.max() <= shell[1] * (1 + 1e-9)
    # Volume grows with the radius to the power of the dimensions, so nearly all lies at the rim.
    inside = (math.log(shell[1]) - found.log()).mean() * dimensions
    assert float(inside) == pytest.approx(1, rel=0.15)


def a_search():
    model, inputs, target, direction = two_classes(side=6)
    search = Search(model, inputs, target, GrowingSpheres().distance, Limits())
    return search, direction


def drive(steps):
    with torch.no_grad():
        for _ in steps:
            pass


def test_bisection_ends_just_behind_the_boundary():
    search, direction = a_search()
    candidates = search.inputs + 0.3 * direction.sign().view(1, 1, 6, 6)
    drive(bisected(search, candidates, search.all, 10))
    lead = search.lead(search.logits(candidates, search.all), search.all)
    assert (lead >= 0.01).all()
    whole = float(0.3 * direction.abs().sum())
    assert (lead <= 0.01 + whole * 2**-10).all()


def test_thinning_undoes_what_one_change_at_a_time_would():
    """The plain form: the smallest change first, undone where the model still gives the target."""
    search, direction = a_search()
    changes = torch.rand(36, generator=generator(), dtype=torch.float64) * 0.4 * direction.sign()
    candidates = search.inputs + changes.view(1, 1, 6, 6)
    plain = changes.clone()
    for pixel in changes.abs().argsort():
        without = plain.clone()
        without[pixel] = 0
        if float(without @ direction) - 1 >= 0.01:
            plain = without
    used = search.result().queries[0]
    drive(thinned(search, candidates, search.all))
    torch.testing.assert_close(candidates[0].flatten(), 0.5 + plain)
    assert search.result().queries[0] - used < 36


def test_halving_takes_the_largest_changes_first():
    search, direction = a_search()
    sizes = torch.rand(36, generator=generator(), dtype=torch.float64) * 0.4
    candidates = search.inputs + (sizes * direction.sign()).view(1, 1, 6, 6)
    plain = sizes * direction.sign()
    for pixel in sizes.argsort(descending=True):
        less = plain.clone()
        less[pixel] /= 2
        if float(less @ direction) - 1 >= 0.01:
            plain = less
    drive(halved(search, candidates, search.all))
    torch.testing.assert_close(candidates[0].flatten(), 0.5 + plain)


def test_it_finds_a_sparse_image_of_the_target_and_of_any_other_class():
    model, inputs, target, direction = two_classes(side=6)
    for wanted in (target, torch.full_like(target, ANY_OTHER)):
        found = GrowingSpheres()(model, inputs, wanted)
        assert found.valid.all()
        change = (found.images - inputs).flatten(1)
        assert ((change * direction) >= 0).all(), "what speaks against the target is undone"
        assert (change == 0).double().mean() > 0.4
        least = (1 + 0.01) / direction.norm()
        assert (change.norm(dim=1) < 3 * least).all()
        assert found.queries.max() <= 2000


def test_other_seeds_draw_other_images_and_none_draws_fresh_ones():
    model, inputs, target, _ = two_classes()
    first, other = (GrowingSpheres(seed=seed)(model, inputs, target).images for seed in (0, 1))
    assert not torch.equal(first, other)
    fresh = [GrowingSpheres(seed=None)(model, inputs, target).images for _ in range(2)]
    assert not torch.equal(*fresh)


def test_settings_are_checked():
    for wrong in (
        {"samples": 0},
        {"first_radius": 0.0},
        {"growth": 1.0},
        {"cells": ()},
        {"cells": (0,)},
        {"max_queries": 20},
    ):
        (name,) = wrong
        with pytest.raises(ValueError, match=f"expected .*{name}"):
            GrowingSpheres(**wrong)
