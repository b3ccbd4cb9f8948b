"""Baselines of the class that a classifier is contrasted with."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.attribution import ClassBaseline, DeepLIFT, GeneratedBaseline, IntegratedGradients, KernelSHAP
from rightreasons.core import Batch
from rightreasons.metrics.faithfulness import Deletion
from rightreasons.models import adapt, contrast
from tests.networks import CLASSES, images

BANK, LABELS = images(12, seed=5)[0], torch.arange(12) % CLASSES
METHODS = [IntegratedGradients(steps=24), DeepLIFT()]
MISSING = {IntegratedGradients: 1e-6, DeepLIFT: 1e-9}


def with_baseline(method, baseline):
    return type(method)(**{**vars(method), "baseline": baseline})


def case():
    """A smooth network, so that the quadrature is exact."""
    inputs, target = images(5)
    torch.manual_seed(0)
    smooth = nn.Sequential(nn.Conv2d(2, 4, 5, stride=3), nn.Softplus(), nn.Flatten(), nn.Linear(36, CLASSES))
    return adapt(smooth.double().eval()), inputs.double(), target, (target + 1) % CLASSES


def nearest(image, label, count=1):
    """Plainly: the references of the class by their distance."""
    mine = [row for row in range(len(BANK)) if LABELS[row] == label]
    ranked = sorted(mine, key=lambda row: float((BANK[row].double() - image).square().sum()))
    return torch.stack([BANK[row].double() for row in ranked[:count]])


def test_it_is_the_nearest_reference_of_each_images_other_class():
    model, inputs, _, other = case()
    found = ClassBaseline(BANK, LABELS, count=2).facing(contrast(model, other), inputs)
    assert found.shape == (2, *inputs.shape)
    for row in range(len(inputs)):
        torch.testing.assert_close(found[:, row], nearest(inputs[row], int(other[row]), 2))
    one = ClassBaseline(BANK, LABELS).facing(contrast(model, 2), inputs)
    torch.testing.assert_close(one[0, 3], nearest(inputs[3], 2)[0])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
@pytest.mark.parametrize("count", [1, 3])
def test_the_values_sum_to_the_change_of_the_lead(method, count):
    model, inputs, target, other = case()
    asked = contrast(model, other)
    explained = with_baseline(method, ClassBaseline(BANK, LABELS, count))
    values = explained(asked, inputs, target).detach().sum(dim=(1, 2, 3))
    rows = torch.arange(len(inputs))
    for row in rows.tolist():
        starts = nearest(inputs[row], int(other[row]), count)
        each = model(torch.cat([inputs[row][None], starts])).detach()
        leads = each[:, target[row]] - each[:, other[row]]
        assert float(values[row]) == pytest.approx(float(leads[0] - leads[1:].mean()), abs=MISSING[type(method)])
    assert explained.completeness_error(asked, inputs, target).abs().max() < MISSING[type(method)]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_batch_equals_its_singles(method):
    model, inputs, target, other = case()
    explained = with_baseline(method, ClassBaseline(BANK, LABELS))
    together = explained(contrast(model, other), inputs, target)
    for row in range(len(inputs)):
        one = slice(row, row + 1)
        apart = explained(contrast(model, int(other[row])), inputs[one], target[one])
        torch.testing.assert_close(apart, together[one])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: type(method).__name__)
def test_a_generator_is_told_the_class_of_each_image(method):
    model, inputs, target, other = case()
    told = []

    def generator(these, classes):
        told.append(classes.clone())
        return these * 0.5 + 0.1 * classes.view(-1, 1, 1, 1)

    explained = with_baseline(method, GeneratedBaseline(generator))
    asked = contrast(model, other)
    values = explained(asked, inputs, target).detach().sum(dim=(1, 2, 3))
    assert torch.equal(told[0], other)
    start = inputs * 0.5 + 0.1 * other.view(-1, 1, 1, 1)
    rows = torch.arange(len(inputs))
    before, after = model(start).detach(), model(inputs).detach()
    lead = (after - before)[rows, target] - (after - before)[rows, other]
    torch.testing.assert_close(values, lead, atol=MISSING[type(method)], rtol=0)


def test_methods_and_metrics_that_hide_pixels_put_the_other_class_there():
    model, inputs, target, other = case()
    asked, baseline = contrast(model, other), ClassBaseline(BANK, LABELS)
    starts = torch.stack([nearest(image, int(label))[0] for image, label in zip(inputs, other, strict=True)])
    rows = torch.arange(len(inputs))
    before, after = (asked(images).detach()[rows, target] for images in (starts, inputs))
    values = KernelSHAP(cells=2, samples=16, baseline=baseline)(asked, inputs, target).detach().sum(dim=(1, 2, 3))
    torch.testing.assert_close(values, after - before, atol=1e-6, rtol=0)
    heatmap = torch.rand(len(inputs), 1, *inputs.shape[2:], dtype=torch.float64)
    metric = Deletion(steps=1, score="logit", baseline=baseline)
    area = metric(asked, Batch(inputs=inputs, target=target), heatmap)
    torch.testing.assert_close(area.double(), (before + after) / 2)


@pytest.mark.wrong_types
def test_what_makes_no_sense_is_refused():
    model, inputs, target, other = case()
    with pytest.raises(ValueError, match=r"expected a class for ClassBaseline: explain contrast\(model, other\)"):
        IntegratedGradients(baseline=ClassBaseline(BANK, LABELS))(model, inputs, target)
    with pytest.raises(ValueError, match="expected references of class 2, at least 1, got 0"):
        ClassBaseline(BANK, LABELS.clamp(max=1)).facing(contrast(model, 2), inputs)
    with pytest.raises(ValueError, match="one label a reference, 12, got 3"):
        ClassBaseline(BANK, LABELS[:3])
    with pytest.raises(ValueError, match="count above 0"):
        ClassBaseline(BANK, LABELS, 0)
    with pytest.raises(ValueError, match="generated images of shape"):
        GeneratedBaseline(lambda images, classes: images[:, :1]).of_class(inputs, other)
    with pytest.raises(ValueError, match="generator that can be called"):
        GeneratedBaseline(3)
