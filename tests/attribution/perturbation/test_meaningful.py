from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution.perturbation import RISE, MeaningfulPerturbation
from rightreasons.attribution.perturbation.baselines import ScaledBlur
from rightreasons.core import NotDifferentiable
from rightreasons.models import adapt, contrast
from rightreasons.supervision import RRR
from tests.attribution.perturbation.counting import linear
from tests.networks import SIDE, images, network


@pytest.mark.parametrize(
    ("sparsity", "smoothness", "rate"), [(0.001, 0.02, 0.03), (0.001, 0.3, 0.01), (0.02, 0.3, 0.05)]
)
def test_the_mask_against_a_plain_optimization_image_by_image(sparsity, smoothness, rate):
    inputs, target = images(2)
    model = adapt(network("softplus"))
    method = MeaningfulPerturbation(
        12, rate, cells=6, sparsity=sparsity, smoothness=smoothness, exponent=2.0, jitter=2, seed=4, score="logit"
    )
    found = method(model, inputs, target)
    shifts = torch.randint(-2, 3, (12, 2), generator=torch.Generator().manual_seed(4)).tolist()
    for i in range(2):
        x = inputs[i : i + 1]
        soft = ScaledBlur().of(x)[0]
        deleted = torch.full((1, 1, 6, 6), 0.5, dtype=torch.float64, requires_grad=True)
        optimizer = torch.optim.Adam([deleted], lr=rate)
        for down, across in shifts:
            large = F.interpolate(deleted, (SIDE, SIDE), mode="bilinear")
            seen = torch.roll((1 - large) * x + large * soft, (down, across), (2, 3))
            rough = ((deleted[:, :, 1:] - deleted[:, :, :-1]) ** 2).sum()
            rough = rough + ((deleted[..., 1:] - deleted[..., :-1]) ** 2).sum()
            loss = model(seen)[0, target[i]] + sparsity * deleted.sum() + smoothness * rough
            (deleted.grad,) = torch.autograd.grad(loss, deleted)
            optimizer.step()
            deleted.data.clamp_(0, 1)
        expected = F.interpolate(deleted.detach(), (SIDE, SIDE), mode="bilinear")
        torch.testing.assert_close(found[i : i + 1], expected, rtol=1e-7, atol=1e-9)


def test_it_deletes_what_the_score_needs_and_nothing_else():
    inputs = torch.rand(3, 2, SIDE, SIDE, dtype=torch.float64) + 0.5
    net = linear()
    net[1].weight.data.zero_()
    net[1].weight.data.view(-1, 2, SIDE, SIDE)[1, :, 2:6, 5:9] = 0.2
    method = MeaningfulPerturbation(steps=60, baseline=0.0, sparsity=5e-3)
    heatmap = method(adapt(net), inputs, torch.ones(3, dtype=torch.long))[:, 0]
    assert heatmap[:, 2:6, 5:9].mean() > 0.9
    assert heatmap[:, 8:, :].max() < 0.05
    assert heatmap.min() >= 0
    assert heatmap.max() <= 1


def test_the_jitter_is_four_pixels_of_224():
    drawn = torch.tensor(MeaningfulPerturbation()._shifts(100, 224))
    assert drawn.min() == -4
    assert drawn.max() == 4
    assert MeaningfulPerturbation(steps=3)._shifts(28, 28) == [(0, 0)] * 3


class First(nn.Module):
    """Reads the first token of a row alone."""

    def forward(self, row):
        return row[:, :3, 0, 0]


def test_a_row_of_tokens_is_not_rolled():
    method = MeaningfulPerturbation(steps=40, jitter=3, baseline=0.0, score="logit", cells=16, smoothness=0.0)
    heatmap = method(adapt(First()), torch.ones(2, 4, 1, 16, dtype=torch.float64), torch.tensor([0, 1]))[:, 0, 0]
    assert (heatmap[:, 0] == 1).all()
    assert heatmap[:, 1:].max() < 0.01
    assert MeaningfulPerturbation(steps=3)._shifts(1, 512) == [(0, 0)] * 3


def test_parts_of_a_batch_keep_the_class_that_each_is_contrasted_with():
    inputs, target = images(3)
    model, other = adapt(network("softplus")), (target + torch.tensor([1, 2, 1])) % 3
    method = MeaningfulPerturbation(steps=4, cells=6, baseline=0.0, score="logit", max_batch=2)
    together = method(contrast(model, other), inputs, target)
    apart = [method(contrast(model, int(other[i])), inputs[i : i + 1], target[i : i + 1]) for i in range(3)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-8, atol=1e-11)


def test_it_is_refused_by_a_loss_and_others_of_the_family_are_not():
    with pytest.raises(NotDifferentiable, match="MeaningfulPerturbation"):
        RRR(MeaningfulPerturbation())
    RRR(RISE(masks=10))


def test_a_network_whose_gradients_were_filled_keeps_them():
    inputs, target = images(2)
    model = adapt(network("relu"))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    MeaningfulPerturbation(steps=3)(model, inputs, target)
    assert all((p.grad == 1).all() for p in model.parameters())
