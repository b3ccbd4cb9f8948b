import pytest
import torch

from rightreasons.core import ANY_OTHER
from rightreasons.counterfactuals import PertinentNegative, PertinentPositive
from tests.counterfactuals.linear import linear, two_classes

LEAD = 0.01


def elastic(change, sparsity):
    return float(change.square().sum() + sparsity * change.abs().sum())


def least_net(direction, gap, sparsity):
    """The least elastic net with ``direction . change = gap`` and changes of at least zero, by its multiplier."""
    low, high = 0.0, 100.0
    for _ in range(100):
        multiplier = (low + high) / 2
        change = ((multiplier * direction - sparsity) / 2).clamp(min=0)
        low, high = (multiplier, high) if float(change @ direction) < gap else (low, multiplier)
    return change


def test_a_pertinent_negative_only_adds_and_is_the_least_elastic_net():
    model, inputs, target, direction = two_classes(gap=0.5)
    method = PertinentNegative(weight=2.0, rounds=5, steps=40, step_size=0.1)
    found = method(model, inputs, target)
    assert found.valid.all()
    change = (found.images - inputs).flatten(1)
    assert change.min() >= 0
    best = elastic(least_net(direction, 0.5 + LEAD, 0.1), 0.1)
    assert best <= elastic(change[0], 0.1) <= 1.05 * best
    assert float(method.distance(inputs, found.images)[0]) == pytest.approx(elastic(change[0], 0.1))


def test_away_from_the_background_may_be_down():
    """On a white background, ink is dark."""
    method = PertinentNegative(background=1.0)
    images = torch.tensor([0.2, 0.6, -0.5]).view(1, 1, 1, 3)
    inputs = torch.tensor([0.4, 0.4, 0.4]).view(1, 1, 1, 3)
    torch.testing.assert_close(method.allowed(images, inputs).flatten(), torch.tensor([0.2, 0.4, 0.0]))


def test_a_pertinent_positive_keeps_the_least_that_is_enough():
    """Class 1 leads by the first pixel plus a tenth of the second, less 0.3; the others say nothing."""
    weight = torch.zeros(2, 16, dtype=torch.float64)
    weight[1, 0], weight[1, 1] = 1.0, 0.1
    model = linear(weight, torch.tensor([0.0, -0.3], dtype=torch.float64))
    inputs = torch.full((1, 1, 4, 4), 0.8, dtype=torch.float64)
    found = PertinentPositive(weight=2.0, rounds=4, steps=40, step_size=0.1)(model, inputs, torch.tensor([1]))
    kept = found.images.flatten()
    assert found.valid.all()
    assert float(kept[0]) == pytest.approx(0.3 + LEAD, abs=0.03)
    assert kept[2:].abs().max() < 1e-6
    with pytest.raises(ValueError, match="expected the predicted class as target, got another class for image 0"):
        PertinentPositive()(model, inputs, torch.tensor([0]))
    with pytest.raises(ValueError, match="another class for image 0"):
        PertinentPositive()(model, inputs, torch.tensor([ANY_OTHER]))


def test_a_weight_of_a_pertinent_positive_is_judged_by_its_last_image():
    """Too small a weight lets the image fade until it is no longer enough; it grows, though its first images were."""
    weight = torch.zeros(2, 16, dtype=torch.float64)
    weight[1, 0] = 1.0
    model = linear(weight, torch.tensor([0.0, -0.3], dtype=torch.float64))
    inputs = torch.full((1, 1, 4, 4), 0.8, dtype=torch.float64)
    few = {"steps": 100, "step_size": 0.05, "weight": 1e-3}
    one, four = (PertinentPositive(rounds=rounds, **few)(model, inputs, torch.tensor([1])) for rounds in (1, 6))
    assert four.valid.all()
    nets = [float(PertinentPositive().distance(inputs, found.images)[0]) for found in (one, four)]
    assert nets[1] < nets[0]
    assert nets[1] <= 1.1 * elastic(torch.tensor(0.3 + LEAD), 0.1)


def test_the_autoencoder_draws_the_change_to_what_it_reproduces():
    model, inputs, target, direction = two_classes(gap=0.5)
    allowed = torch.zeros(1, 1, 4, 4, dtype=torch.float64)
    allowed.view(-1)[direction.topk(3).indices] = 1

    def only_there(images):
        return torch.where(allowed.bool(), images, 0.5)

    settings = {"rounds": 2, "steps": 25, "step_size": 0.02}
    free = PertinentNegative(**settings)(model, inputs, target).images - inputs
    drawn = PertinentNegative(autoencoder=only_there, plausibility=20.0, **settings)(model, inputs, target)
    change = drawn.images - inputs
    assert drawn.valid.all()
    assert (change * (1 - allowed)).abs().sum() < 0.5 * (free * (1 - allowed)).abs().sum()


class Blurring(torch.nn.Sequential):
    """An autoencoder of bytes, in the range and precision that it was trained in; counts its largest batch."""

    def __init__(self):
        super().__init__(torch.nn.Conv2d(1, 1, 3, padding=1), torch.nn.BatchNorm2d(1), torch.nn.Dropout(0.5))
        self.largest = 0

    def forward(self, images):
        assert images.dtype == torch.float32
        assert images.min() >= -1e-6
        assert images.max() <= 1 + 1e-6
        self.largest = max(self.largest, len(images))
        return super().forward(images)


def test_an_autoencoder_works_on_unit_images_in_its_own_precision_and_is_left_as_it_was():
    model, inputs, target, _ = two_classes(gap=0.5)
    torch.manual_seed(0)
    blurring = Blurring().train()
    state = {name: value.clone() for name, value in blurring.state_dict().items()}
    three = (torch.cat([inputs, inputs[:1]]), torch.cat([target, target[:1]]))
    settings = {"rounds": 1, "steps": 5, "autoencoder": blurring, "plausibility": 2.0}
    found = PertinentNegative(max_batch=2, **settings)(model, *three)
    assert blurring.training
    assert blurring.largest == 2
    assert all(torch.equal(value, blurring.state_dict()[name]) for name, value in state.items())
    weight, bias = model.network[-1].weight.data, model.network[-1].bias.data
    wide = linear(weight / 2, bias + weight.sum(dim=1) / 2, 4)
    scaled = PertinentNegative(low=-1.0, **settings)(wide, 2 * inputs - 1, target)
    torch.testing.assert_close(scaled.images, 2 * found.images[:2] - 1)


def test_settings_are_checked():
    for name, value in (("sparsity", -1.0), ("weight", 0.0), ("rounds", 0), ("steps", 0), ("background", 2.0)):
        with pytest.raises(ValueError, match=f"expected .*{name}"):
            PertinentNegative(**{name: value})
    with pytest.raises(ValueError, match="an autoencoder and a plausibility"):
        PertinentNegative(plausibility=1.0)
