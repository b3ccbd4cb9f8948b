import pytest
import torch

from rightreasons.metrics import Infidelity, Responses
from tests.metrics.faithfulness.cases import curved_case, linear_case, score, without


def changes(x, change, side):
    """The changed images and what tells how the heatmap is read: (changed, weights of the pixels)."""
    generator = torch.Generator().manual_seed(5)
    if change == "gaussian":
        noise = 0.1 * torch.randn(12, 1, 12, 12, generator=generator, dtype=torch.float64)
        return [(x - n, n[0]) for n in noise]
    found = []
    places_along = 13 - side
    for corner in torch.randint(places_along**2, (12,), generator=generator).tolist():
        down, across = divmod(corner, places_along)
        places = [(down + i, across + j) for i in range(side) for j in range(side)]
        hidden = without(torch.zeros(1, 12, 12), torch.ones(1, 12, 12), places)[0]
        found.append((without(x, torch.zeros_like(x), places), hidden.double()))
    return found


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize(("change", "side"), [("square", 3), ("square", 11), ("gaussian", 3)])
def test_against_a_loop(change, side, scaled):
    model, batch, heatmap = curved_case()
    expected = []
    for x, h, t in zip(batch.inputs, heatmap[:, 0], batch.target.tolist(), strict=True):
        pairs = [
            (float((h * weights).sum()), score(model, x, t, "logit") - score(model, changed, t, "logit"))
            for changed, weights in changes(x, change, side)
        ]
        factor = sum(a * b for a, b in pairs) / sum(a * a for a, _ in pairs) if scaled else 1
        expected.append(sum((factor * a - b) ** 2 for a, b in pairs) / len(pairs))
    found = Infidelity(12, change, side=side, noise=0.1, scaled=scaled, seed=5)(model, batch, heatmap)
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_the_exact_contributions_of_a_linear_model_err_by_nothing():
    model, batch, heatmap = linear_case(baseline=0.3)
    metric = Infidelity(40, side=2, baseline=0.3)
    assert (metric(model, batch, heatmap) < 1e-28).all()
    assert (metric(model, batch, 2 * heatmap) > 1e-4).all()


def test_the_slopes_of_a_linear_model_err_by_nothing_under_noise():
    model, batch, _ = linear_case()
    slopes = model.network[1].weight.detach()[batch.target].view_as(batch.inputs).sum(dim=1, keepdim=True)
    assert (Infidelity(40, "gaussian")(model, batch, slopes) < 1e-28).all()


def test_the_best_scale_is_the_best():
    model, batch, heatmap = curved_case()
    scaled = Infidelity(40, scaled=True)(model, batch, heatmap)
    for factor in (-1.0, 0.0, 0.3, 0.9, 1.0, 1.5, 10.0):
        assert (Infidelity(40)(model, batch, factor * heatmap) >= scaled * (1 - 1e-9)).all()
    torch.testing.assert_close(Infidelity(40, scaled=True)(model, batch, -50 * heatmap), scaled)


def test_a_map_of_zeros_errs_by_the_whole_fall():
    model, batch, heatmap = curved_case()
    zeros = torch.zeros_like(heatmap)
    plain, scaled = (Infidelity(40, scaled=s)(model, batch, zeros) for s in (False, True))
    assert (plain > 0).all()
    assert torch.equal(plain, scaled)


def test_a_square_that_is_drawn_again_runs_once():
    model, batch, heatmap = curved_case()
    responses = Responses(model, batch)
    Infidelity(1000, side=11).with_responses(responses, heatmap)  # four places
    assert responses.passes == (4 + 1) * len(batch)
