import pytest
import torch
import torch.nn.functional as F

from rightreasons.core import ANY_OTHER
from rightreasons.counterfactuals import Wachter, runner_up
from rightreasons.counterfactuals.gradient import cross_entropy
from rightreasons.models import adapt
from tests.counterfactuals.linear import two_classes
from tests.networks import images, network

LEAD = 0.01


@pytest.mark.parametrize("loss", ["margin", "cross_entropy"])
def test_the_euclidean_nearest_image_of_a_linear_model_is_found(loss):
    """It lies straight up the weights, (gap + lead) / |w| away."""
    model, inputs, target, direction = two_classes(gap=0.5)
    found = Wachter(loss=loss, steps=80, step_size=0.02, patience=80)(model, inputs, target)
    assert found.valid.all()
    change = (found.images - inputs).flatten(1)
    least = float((0.5 + LEAD) / direction.norm())
    assert least <= float(change.norm(dim=1).max()) <= 1.02 * least


def test_absolute_values_put_the_change_into_the_largest_weight():
    model, inputs, target, direction = two_classes(gap=0.5)
    found = Wachter(norm="l1", steps=120)(model, inputs, target)
    least = float((0.5 + LEAD) / direction.abs().max())
    length = float((found.images - inputs).abs().sum(dim=(1, 2, 3)).max())
    assert least < 0.5, "or the range of the pixel would bound it"
    assert least <= length <= 1.3 * least
    plain = float((Wachter()(model, inputs, target).images - inputs).abs().sum(dim=(1, 2, 3)).max())
    assert length < 0.7 * plain


def test_total_variation_makes_the_change_smoother():
    model, inputs, target, _ = two_classes(side=6)
    rough, smooth = (Wachter(tv=tv, steps=60)(model, inputs, target) for tv in (0.0, 0.3))
    assert smooth.valid.all()

    def variation(found):
        change = found.images - inputs
        return change.diff(dim=2).abs().sum() + change.diff(dim=3).abs().sum()

    assert variation(smooth) < 0.9 * variation(rough)


@pytest.mark.parametrize("norm", ["l2", "l1", "elastic"])
@pytest.mark.parametrize("tv", [0.0, 0.3])
def test_the_slope_is_that_of_the_distance(norm, tv):
    method = Wachter(norm=norm, tv=tv)
    # In eighths, so that neighbors are equal or clearly apart.
    inputs, images = (torch.randint(9, (2, 2, 3, 5, 4)) / 8).double()
    images.requires_grad_()
    (expected,) = torch.autograd.grad(method.distance(inputs, images).sum(), images)
    torch.testing.assert_close(method._slope(images.detach() - inputs), expected)
    assert torch.equal(method._slope(torch.zeros(1, 1, 3, 3)), torch.zeros(1, 1, 3, 3))


def test_the_distance_adds_up_as_written():
    inputs, images = torch.zeros(1, 1, 2, 2), torch.tensor([[[[0.3, 0.0], [0.0, -0.4]]]])
    found = [
        float(Wachter(norm=n, sparsity=0.5, tv=t).distance(inputs, images))
        for n, t in (("l2", 0.0), ("l1", 0.0), ("elastic", 0.0), ("l2", 0.1))
    ]
    assert found == pytest.approx([0.5, 0.7, 0.25 + 0.5 * 0.7, 0.5 + 0.1 * (0.3 + 0.4 + 0.3 + 0.4)])


def test_cross_entropy_of_any_other_class_is_that_of_all_but_the_predicted():
    logits = torch.tensor([[1.0, 3.0, 2.0]]).expand(2, 3)
    found = cross_entropy(logits, torch.tensor([2, ANY_OTHER]), torch.tensor([1, 1]))
    each = logits[0].softmax(dim=0)
    torch.testing.assert_close(found, torch.stack([-each[2].log(), -(each[0] + each[2]).log()]))
    torch.testing.assert_close(found[:1], F.cross_entropy(logits[:1], torch.tensor([2]))[None])


def test_an_image_that_gets_no_shorter_leaves_the_batch():
    model, inputs, target, _ = two_classes(gap=0.5)
    short, long = (Wachter(steps=80, patience=p)(model, inputs, target).gradients.max() for p in (5, 80))
    assert short < 40
    assert long == 80


def test_with_total_variation_a_batch_is_nearly_its_singles():
    """Signs of differences of equal neighbors would make rounding large: 11 of 12 results differed by up to a third."""
    model = adapt(network("relu").float().eval())
    inputs, _ = images(6)
    inputs = inputs.float()
    target = runner_up(model, inputs)
    method = Wachter(tv=0.1, steps=60)
    together = method(model, inputs, target)
    for row in range(6):
        one = slice(row, row + 1)
        apart = method(model, inputs[one], target[one])
        torch.testing.assert_close(apart.images, together.images[one], rtol=0, atol=0.02)


@pytest.mark.wrong_types
def test_settings_are_checked():
    for name, value in (
        *(("norm", "l3"), ("loss", "square"), ("steps", 0), ("step_size", 0.0), ("weight", -1.0), ("tv", -1.0)),
        *(("weight_change", 1.0), ("sparsity", float("nan")), ("patience", 1.5)),
    ):
        with pytest.raises(ValueError, match=f"expected {name}"):
            Wachter(**{name: value})
