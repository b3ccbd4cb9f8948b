import math

import pytest
import torch

from rightreasons.attribution import GradCAM, Saliency
from rightreasons.core import Batch
from rightreasons.models import adapt
from rightreasons.supervision import GRADIA, HAICS, RES


def maps_of(model, batch, attribution):
    """Each map over its own largest absolute value, as nested lists."""
    maps = attribution(model, batch.inputs, batch.target).detach()
    return [[[float(v) / float(m.abs().max()) for v in row] for row in m[0]] for m in maps]


def pixels(batch, mask):
    return [[[float(v) for v in row] for row in m[0]] for m in getattr(batch, mask)]


def cells(batch):
    height, width = batch.inputs.shape[-2:]
    return [(row, column) for row in range(height) for column in range(width)]


@pytest.mark.parametrize("attribution", [GradCAM(), Saliency()])
def test_gradia_is_the_mean_absolute_difference(attribution, model, batch):
    maps, relevant = maps_of(model, batch, attribution), pixels(batch, "relevant")
    per_image = [
        sum(abs(m[r][c] - f[r][c]) for r, c in cells(batch)) / len(cells(batch))
        for m, f in zip(maps, relevant, strict=True)
    ]
    found = GRADIA(attribution)(model, batch, model(batch.inputs))
    torch.testing.assert_close(float(found.detach()), sum(per_image) / len(batch))


@pytest.mark.parametrize("attribution", [GradCAM(), Saliency()])
def test_haics_is_the_cross_entropy_on_annotated_pixels(attribution, model, batch):
    eps = 1e-3
    batch.irrelevant[0, 0, 4, 3] = 1  # marked as both: does not count
    batch.relevant[1, 0, 5, 3] = 0.25
    batch.irrelevant[2, 0, 6, 3] = 0.125  # in part irrelevant, wholly relevant
    maps = maps_of(model, batch, attribution)
    relevant, irrelevant = pixels(batch, "relevant"), pixels(batch, "irrelevant")
    per_image = []
    for m, f, c in zip(maps, relevant, irrelevant, strict=True):
        terms, weight = [], 0.0
        for row, column in cells(batch):
            want, forbid, value = f[row][column], c[row][column], min(max(m[row][column], 0), 1)
            if want == forbid:
                continue
            value = value * (1 - eps)
            terms.append(-want * math.log(value + eps) - forbid * math.log(1 - value))
            weight += want + forbid
        per_image.append(sum(terms) / weight)
    found = HAICS(attribution, eps=eps)(model, batch, model(batch.inputs))
    torch.testing.assert_close(float(found.detach()), sum(per_image) / len(batch))


def test_with_a_small_eps_haics_is_torchs_binary_cross_entropy(model, batch):
    maps = torch.tensor(maps_of(model, batch, GradCAM()), dtype=torch.float64)[:, None]
    relevant = (maps > 0.5).double()
    everywhere = Batch(batch.inputs, batch.target, relevant=relevant, irrelevant=1 - relevant)
    found = HAICS(eps=1e-9)(model, everywhere, model(batch.inputs))
    torch.testing.assert_close(found, torch.nn.functional.binary_cross_entropy(maps, relevant), rtol=1e-6, atol=0)


class Shown(torch.nn.Module):
    """A network whose Grad-CAM is its (one-channel, non-negative) input."""

    def __init__(self):
        super().__init__()
        self.same = torch.nn.Conv2d(1, 1, 1, bias=False, dtype=torch.float64)
        torch.nn.init.ones_(self.same.weight)

    def forward(self, x):
        score = self.same(x).sum(dim=(1, 2, 3))
        return torch.stack((score, -score), dim=1)


def test_known_extremes():
    relevant = torch.zeros(2, 1, 4, 4, dtype=torch.float64)
    relevant[:, :, 1:3, 1:3] = 1
    target, model, logits = torch.zeros(2, dtype=torch.long), adapt(Shown()), torch.zeros(2, 2)
    right = Batch(relevant.clone(), target, relevant=relevant, irrelevant=1 - relevant)
    wrong = Batch(1 - relevant, target, relevant=relevant, irrelevant=1 - relevant)
    assert float(GRADIA()(model, right, logits).detach()) == 0
    assert float(GRADIA()(model, wrong, logits).detach()) == 1
    assert float(HAICS()(model, right, logits).detach()) == pytest.approx(0, abs=1e-12)
    assert float(HAICS(eps=1e-3)(model, wrong, logits).detach()) == pytest.approx(-math.log(1e-3))


@pytest.mark.parametrize("loss", [HAICS(), RES(imputation=None, slack=0.0)])
def test_a_faint_mark_counts_faintly(loss):
    """A pixel with F = 0.05 and C = 0: a pull as strong as its mark, towards relevance."""
    relevant = torch.tensor([[[[1.0, 0.05, 0.0, 0.0]]]], dtype=torch.float64)
    irrelevant = torch.tensor([[[[0.0, 0.0, 1.0, 1.0]]]], dtype=torch.float64)
    model, target = adapt(Shown()), torch.zeros(1, dtype=torch.long)

    def slope_at_the_second_pixel(mask):
        maps = torch.tensor([[[[1.0, 0.02, 0.1, 0.2]]]], dtype=torch.float64, requires_grad=True)
        value = loss(model, Batch(maps, target, relevant=mask, irrelevant=irrelevant), torch.zeros(1, 2))
        return float(torch.autograd.grad(value, maps)[0][0, 0, 0, 1])

    faint, full = slope_at_the_second_pixel(relevant), slope_at_the_second_pixel(relevant.ceil())
    assert full < faint < 0
    # The image's weights add up to 3.05 and to 4.
    assert faint == pytest.approx(0.05 * full * 4 / 3.05, rel=1e-6)


def test_only_the_shape_of_a_map_counts_not_its_scale(model, batch):
    for loss in (GRADIA, HAICS):
        value = loss()(model, batch, model(batch.inputs))
        with torch.no_grad():
            model.network[8].weight *= 3
        torch.testing.assert_close(loss()(model, batch, model(batch.inputs)), value)


@pytest.mark.parametrize("eps", [0.0, -1e-3, 0.5])
def test_eps_must_be_small_and_positive(eps):
    with pytest.raises(ValueError, match="expected eps between 0 and"):
        HAICS(eps=eps)
