import math
from itertools import pairwise

import pytest
import torch

from rightreasons.core import ANY_OTHER
from rightreasons.metrics import boundary, cout, distances, im1, im1_anchors, im2, neighbor_ratio, validity
from rightreasons.models import adapt


def steps(*weights, scale=1.0, bias=None):
    """Logits that are sums of the four pixels with these weights."""
    layer = torch.nn.Linear(4, len(weights)).double()
    layer.weight.data = scale * torch.tensor(weights, dtype=torch.float64)
    layer.bias.data = torch.zeros(len(weights)).double() if bias is None else torch.tensor(bias).double()
    return adapt(torch.nn.Sequential(torch.nn.Identity(), torch.nn.Flatten(), layer).eval())


def image(*pixels):
    return torch.tensor(pixels, dtype=torch.float64).view(1, 1, 2, 2)


ZERO, ONE = torch.tensor([0]), torch.tensor([1])


def test_validity_is_the_word_of_the_judge():
    model, other = steps([1, 0, 0, 0], [0, 1, 0, 0]), steps([0, 0, 1, 0], [0, 0, 0, 1])
    images = torch.cat([image(1, 0, 0, 1), image(0, 1, 1, 0)])
    target = torch.tensor([1, 1])
    assert validity(model, images, target).tolist() == [False, True]
    assert validity(other, images, target).tolist() == [True, False]
    anything = torch.full((2,), ANY_OTHER)
    assert validity(model, images, anything, original=torch.tensor([0, 0])).tolist() == [False, True]
    with pytest.raises(ValueError, match="expected original"):
        validity(model, images, anything)


def test_the_judge_is_asked_in_evaluation_mode_and_left_as_it_was():
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Dropout(0.9), torch.nn.Linear(4, 2)).double().train()
    model = adapt(network, layer="0")
    answers = [validity(model, torch.ones(20, 1, 2, 2).double(), torch.ones(20, dtype=torch.long)) for _ in range(2)]
    assert torch.equal(*answers)
    assert len(set(answers[0].tolist())) == 1
    assert network.training


def test_distances_of_a_known_change():
    found = distances(image(0, 0, 0, 0), image(0.3, -0.4, 0.01, 0))
    expected = {"l0": 2.0, "l1": 0.71, "l2": math.sqrt(0.2501), "linf": 0.4, "sparsity": 0.5}
    expected["tv"] = 0.7 + 0.01 + abs(0.01 - 0.3) + 0.4
    assert {name: float(getattr(found, name)) for name in expected} == pytest.approx(expected)
    nothing = distances(image(0.2, 0.1, 0, 1), image(0.2, 0.1, 0, 1))
    values = [float(getattr(nothing, name)) for name in ("l0", "l1", "l2", "linf", "tv", "sparsity")]
    assert values == [0, 0, 0, 0, 0, 1]


def test_distances_are_in_units_of_the_range_and_a_pixel_is_all_its_channels():
    wide = distances(2 * image(0, 0, 0, 0) - 1, 2 * image(0.3, -0.4, 0.01, 0) - 1, pixel_range=(-1.0, 1.0))
    plain = distances(image(0, 0, 0, 0), image(0.3, -0.4, 0.01, 0))
    torch.testing.assert_close(wide.l2, plain.l2)
    torch.testing.assert_close(wide.tv, plain.tv)
    color = torch.zeros(1, 3, 2, 2)
    color[0, :, 0, 0] = 0.5
    assert float(distances(torch.zeros(1, 3, 2, 2), color).l0) == 1
    assert float(distances(torch.zeros(1, 3, 2, 2), color).sparsity) == 0.75


def of_level(level):
    """Reproduces images of one gray alone."""
    return lambda images: torch.full_like(images, level)


LEVELS = [of_level(0.0), of_level(0.5), of_level(1.0)]


def test_im1_compares_two_autoencoders():
    images = torch.cat(
        [image(0.5, 0.5, 0.5, 0.5), image(0, 0, 0, 0), image(0.25, 0.25, 0.25, 0.25), image(0.4, 0, 1, 1)]
    )
    target, original = torch.tensor([1, 1, 1, 2]), torch.tensor([0, 0, 0, 1])
    found = im1(images, target, original, LEVELS)
    assert float(found[0]) == 0, "the target itself"
    assert float(found[1]) == pytest.approx(0.25 / 1e-7), "the original class itself"
    assert float(found[2]) == pytest.approx(1, rel=1e-5)
    x = images[3].flatten()
    assert float(found[3]) == pytest.approx(float(((x - 1) ** 2).mean() / (((x - 0.5) ** 2).mean() + 1e-7)))
    with pytest.raises(ValueError, match="got 3 and class 5"):
        im1(images, target, torch.tensor([0, 0, 0, 5]), LEVELS)


def test_im2_compares_the_class_with_the_whole():
    images = torch.cat([image(0.5, 0.5, 0.5, 0.5), image(0.2, 0.4, 0, 1)])
    found = im2(images, torch.tensor([1, 2]), LEVELS, of_level(0.5))
    assert float(found[0]) == 0
    assert float(found[1]) == pytest.approx(0.25 / (0.4 + 1e-7))


def test_the_anchors_of_im1_are_the_originals_and_real_images_of_the_target():
    inputs = torch.cat([image(0.1, 0.1, 0.1, 0.1)] * 3)
    target, original = torch.tensor([1, 1, 2]), torch.tensor([0, 0, 0])
    real = torch.cat([image(0.4, 0.4, 0.4, 0.4), image(0.6, 0.6, 0.6, 0.6)])
    found = im1_anchors(inputs, target, original, LEVELS, real=real, labels=torch.tensor([1, 1]))
    torch.testing.assert_close(found.original, im1(inputs, target, original, LEVELS))
    expected = im1(real, torch.tensor([1, 1]), torch.tensor([0, 0]), LEVELS)
    torch.testing.assert_close(found.real[:2], expected)
    assert torch.isnan(found.real[2]), "no real image of class 2"
    assert (found.real[:2] < found.original[:2]).all()


def test_cout_is_one_where_the_first_pixels_flip_and_minus_one_where_nothing_does():
    """The model is sure: class 1 where the first pixel is lit, else class 0."""
    model = steps([0, 0, 0, 0], [1, 0, 0, 0], scale=1e4, bias=[0.0, -5e3])
    inputs, images = image(0, 0, 0, 0), image(1, 0.2, 0, 0)
    assert float(cout(model, inputs, images, ONE, ZERO, steps=100)) == pytest.approx(0.75, abs=0.02)
    assert float(cout(model, inputs, image(0, 1, 1, 1), ONE, ZERO)) == pytest.approx(-1)
    assert float(cout(model, image(1, 0, 0, 0), image(1, 1, 0, 0), ONE, ZERO)) == pytest.approx(1)
    last = image(0.8, 1, 1, 1)  # what matters changes least
    assert float(cout(model, inputs, last, ONE, ZERO, steps=100)) == pytest.approx(-0.75, abs=0.02)
    with pytest.raises(ValueError, match="at least one step"):
        cout(model, inputs, images, ONE, ZERO, steps=0)


def test_cout_is_the_area_between_two_curves():
    model = steps([1, 0, 2, 0], [0, 3, 0, 1])
    inputs, images = image(0.9, 0.1, 0.5, 0.2), image(0.1, 0.8, 0.4, 0.6)
    order = (images - inputs).abs().flatten().argsort(descending=True)
    shown, gains = inputs.clone().flatten(), []
    for pixel in [None, *order.tolist()]:
        if pixel is not None:
            shown[pixel] = images.flatten()[pixel]
        p = model(shown.view(1, 1, 2, 2)).detach().softmax(dim=1)[0]
        gains.append(float(p[1] - p[0]))
    expected = sum((a + b) / 2 / 4 for a, b in pairwise(gains))
    assert float(cout(model, inputs, images, ONE, ZERO, steps=4)) == pytest.approx(expected)


def test_the_boundary_of_a_logistic_line():
    """Along the line class 1 has the probability sigmoid(20 (a - 0.4)): a slope of 5 at a = 0.4."""
    model = steps([0, 0, 0, 0], [20, 0, 0, 0], bias=[0.0, -8.0])
    found = boundary(model, image(0, 0, 0, 0), image(1, 0, 0, 0), ONE, ZERO, steps=200)
    assert float(found.crossing) == pytest.approx(0.4, abs=1e-3)
    assert float(found.overshoot) == pytest.approx(0.6, abs=1e-3)
    assert float(found.sharpness) == pytest.approx(5, rel=1e-3)


def test_without_a_crossing_there_is_no_overshoot():
    model = steps([0, 0, 0, 0], [20, 0, 0, 0], bias=[0.0, -8.0])
    pairs = torch.cat([image(0, 0, 0, 0), image(0.6, 0, 0, 0)]), torch.cat([image(0.3, 0, 0, 0), image(1, 0, 0, 0)])
    found = boundary(model, *pairs, torch.tensor([1, 1]), torch.tensor([0, 0]))
    assert torch.isnan(found.crossing).all()
    assert torch.isnan(found.overshoot).all()
    with pytest.raises(ValueError, match="at least one step"):
        boundary(model, *pairs, torch.tensor([1, 1]), torch.tensor([0, 0]), steps=0)


def test_the_last_crossing_counts():
    """A model that gives class 1 between 0.2 and 0.4 and from 0.7 on."""

    class Bands(torch.nn.Module):
        def forward(self, x):
            a = x[:, 0, 0, 0]
            lit = ((a > 0.2) & (a < 0.4)) | (a > 0.7)
            return torch.stack([torch.zeros_like(a), torch.where(lit, 5.0, -5.0).to(a)], dim=1)

    model = adapt(torch.nn.Sequential(torch.nn.Identity(), Bands()).double(), layer="0")
    found = boundary(model, image(0, 0, 0, 0), image(1, 0, 0, 0), ONE, ZERO)
    assert float(found.crossing) == pytest.approx(0.7, abs=1e-3)


def test_a_real_image_is_as_near_to_its_class_as_real_images_are():
    generator = torch.Generator().manual_seed(0)
    cloud = torch.rand(400, 1, 2, 2, generator=generator)
    labels = torch.arange(400) % 2
    real, real_labels = cloud[300:], labels[300:]
    args = (cloud[:300], labels[:300])
    ratio = neighbor_ratio(real, real_labels, *args, real=real, real_labels=real_labels)
    assert float(ratio.mean()) == pytest.approx(1, abs=1e-5)
    far = neighbor_ratio(real + 5, real_labels, *args, real=real, real_labels=real_labels, k=3)
    assert (far > 10).all()
    # An image of the references says nothing, and only where it is one of the target's class.
    near = torch.cat([cloud[:4], cloud[:4] + 1e-6])
    own = neighbor_ratio(near, labels[:4].repeat(2), *args, real=real, real_labels=real_labels)
    assert own.isnan().tolist() == [True] * 4 + [False] * 4
    assert (own[4:] < 0.05).all()
    other = neighbor_ratio(cloud[:4], 1 - labels[:4], *args, real=real, real_labels=real_labels)
    assert other.isfinite().all()
    nobody = neighbor_ratio(real[:1], torch.tensor([7]), *args, real=real, real_labels=real_labels)
    assert torch.isnan(nobody).all()
    with pytest.raises(ValueError, match="at least one neighbor"):
        neighbor_ratio(real, real_labels, *args, real=real, real_labels=real_labels, k=0)


def test_logits_that_are_no_numbers_say_nothing():
    broken = adapt(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)))
    broken.network[1].bias.data.fill_(torch.nan)
    target = torch.tensor([0, 1, ANY_OTHER])
    assert not validity(broken, torch.rand(3, 1, 2, 2), target, original=torch.tensor([1, 0, 1])).any()


def test_autoencoders_work_in_their_own_precision_and_mode():
    torch.manual_seed(0)
    autoencoders = [torch.nn.Sequential(torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.Dropout(0.9)) for _ in range(3)]
    images, target, original = torch.rand(4, 1, 5, 5), torch.tensor([0, 1, 0, 1]), torch.tensor([1, 0, 1, 0])
    expected = im1(images, target, original, autoencoders)
    assert torch.equal(im1(images, target, original, autoencoders), expected)
    double = im1(images.double(), target, original, autoencoders)
    torch.testing.assert_close(double, expected.double(), rtol=1e-4, atol=1e-6)
    whole = im2(images.double(), target, autoencoders[:2], autoencoders[2])
    torch.testing.assert_close(
        whole, im2(images, target, autoencoders[:2], autoencoders[2]).double(), rtol=1e-4, atol=0
    )
    assert all(autoencoder.training for autoencoder in autoencoders)


def test_a_very_near_neighbor_is_measured_exactly():
    generator = torch.Generator().manual_seed(0)
    bank = torch.rand(60, 1, 28, 28, generator=generator)
    images, labels = bank[:8].clone(), torch.zeros(60, dtype=torch.long)
    images[:, 0, 0, 0] += 3e-4
    real = torch.rand(20, 1, 28, 28, generator=generator)
    found = neighbor_ratio(images, labels[:8], bank, labels, real=real, real_labels=labels[:20])
    usual = torch.cdist(real.flatten(1).double(), bank.flatten(1).double()).amin(dim=1).mean()
    torch.testing.assert_close(found.double(), torch.full((8,), 3e-4).double() / usual, rtol=1e-3, atol=0)
