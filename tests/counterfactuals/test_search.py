import pytest
import torch

from rightreasons.core import ANY_OTHER, Batch
from rightreasons.counterfactuals import Limits, Search, misclassified, random_other, runner_up
from rightreasons.counterfactuals.search import best_rows, lead_of
from rightreasons.models import adapt
from tests.counterfactuals.linear import linear, two_classes


def test_the_lead_is_that_over_the_largest_other_logit():
    logits = torch.tensor([[1.0, 4.0, 2.5], [1.0, 4.0, 2.5], [1.0, 4.0, 2.5]])
    target = torch.tensor([2, 1, ANY_OTHER])
    predicted = torch.tensor([1, 1, 1])
    torch.testing.assert_close(lead_of(logits, target, predicted), torch.tensor([-1.5, 1.5, -1.5]))


def test_one_row_of_each_original_wins_the_first_of_equals():
    merit = torch.tensor([1.0, 5.0, 5.0, 2.0, 9.0])
    image = torch.tensor([0, 0, 0, 1, 2])
    rows = best_rows(merit, image, torch.tensor([0.0, 3.0, 8.0, 0.0]))
    assert rows.tolist() == [1, 4]


def a_search(**limits):
    model, inputs, target, direction = two_classes()
    search = Search(model, inputs, target, lambda a, b: (b - a).flatten(1).norm(dim=1), Limits(**limits))
    return search, direction.view(1, 1, 4, 4)


def offered(search, *images):
    candidates, image = torch.cat(images), torch.zeros(len(images), dtype=torch.long)
    return search.offer(candidates, image, search.logits(candidates, image)).tolist()


def test_a_valid_image_comes_before_one_that_is_not_and_the_nearest_is_kept():
    search, direction = a_search()
    unit = direction / direction.square().sum()
    near, far, short = (search.inputs[:1] + scale * unit for scale in (1.1, 1.5, 0.9))
    assert offered(search, short, far) == [False, True]
    assert torch.equal(search.images[:1], far)
    assert offered(search, short) == [False]
    assert torch.equal(search.images[:1], far)
    assert offered(search, near) == [True]
    assert torch.equal(search.images[:1], near)
    assert search.valid.tolist() == [True, False]
    assert float(search.length[0]) == pytest.approx(1.1 * float(unit.norm()))
    search.improved = False
    assert offered(search, far) == [True]
    assert not search.improved


def test_a_valid_image_far_away_comes_before_a_probable_one_that_is_not():
    search, direction = a_search()
    unit = direction / direction.square().sum()
    assert offered(search, search.inputs[:1] + 30 * unit, search.inputs[:1] + 0.99 * unit) == [True, False]
    torch.testing.assert_close(search.images[:1], search.inputs[:1] + 30 * unit)
    assert search.valid[0]


def test_of_invalid_images_that_of_the_most_probable_target_is_kept():
    search, direction = a_search()
    unit = direction / direction.square().sum()
    offered(search, search.inputs[:1] + 0.2 * unit, search.inputs[:1] + 0.8 * unit, search.inputs[:1] - unit)
    torch.testing.assert_close(search.images[:1], search.inputs[:1] + 0.8 * unit)


def test_the_lead_that_is_asked_for_decides_what_is_valid():
    for lead, expected in ((0.0, True), (0.2, False)):
        search, direction = a_search(lead=lead)
        image = search.inputs[:1] + 1.1 * direction / direction.square().sum()
        assert offered(search, image) == [expected]


def test_rows_are_counted_for_the_original_they_belong_to():
    search, _ = a_search(max_batch=2)
    image = torch.tensor([0, 1, 1, 1])
    search.logits(search.inputs[image], image)
    search.differentiate(search.inputs, search.all, lambda logits, image: logits[:, 1])
    found = search.result()
    assert found.queries.tolist() == [3, 5]
    assert found.gradients.tolist() == [1, 1]


def test_what_stands_beside_an_original_goes_with_it():
    class Scaled(torch.nn.Module):
        def forward(self, x, scale):
            return x.flatten(1)[:, :2] * scale[:, None]

    scale = torch.tensor([1.0, -3.0, 7.0])
    model = adapt(torch.nn.Sequential(torch.nn.Identity()), layer="0")
    model.network = Scaled()
    inputs = torch.rand(3, 1, 2, 2)
    search = Search(model.besides((scale,)), inputs, torch.zeros(3).long(), lambda a, b: (b - a).sum(dim=(1, 2, 3)))
    image = torch.tensor([2, 1])
    expected = scale[image, None] * inputs[image].flatten(1)[:, :2]
    torch.testing.assert_close(search.logits(inputs[image], image), expected)
    logits, slope = search.differentiate(inputs[image], image, lambda logits, image: logits.sum(dim=1))
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(slope.flatten(1)[:, 0], scale[image])


def test_the_gradient_is_that_of_the_objective():
    search, direction = a_search()
    _, slope = search.differentiate(search.inputs, search.all, lambda logits, image: (image + 1) * logits[:, 1])
    torch.testing.assert_close(slope, torch.cat([direction, 2 * direction]))


def classes(*rows):
    """A model whose logits are the first pixels themselves."""
    weight = torch.eye(3, 4)
    return linear(weight, side=2), torch.tensor(rows).view(-1, 1, 2, 2)


def test_the_runner_up_has_the_second_largest_logit():
    model, inputs = classes([0.1, 0.9, 0.5, 0.0], [0.6, 0.2, 0.7, 0.0])
    assert runner_up(model, inputs).tolist() == [2, 0]


def test_another_class_is_drawn_evenly_and_is_never_the_predicted_one():
    model, inputs = classes(*[[0.1, 0.9, 0.5, 0.0]] * 600)
    drawn = random_other(model, inputs)
    counts = torch.bincount(drawn, minlength=3).tolist()
    assert counts[1] == 0
    assert 240 < counts[0] < 360
    assert torch.equal(drawn, random_other(model, inputs))
    assert not torch.equal(drawn, random_other(model, inputs, seed=1))


def test_misclassified_images_come_with_their_true_class():
    model, inputs = classes([0.1, 0.9, 0.5, 0.0], [0.6, 0.2, 0.7, 0.0], [0.9, 0.2, 0.7, 0.0])
    found = misclassified(model, Batch(inputs, torch.tensor([1, 0, 2])))
    assert found.target.tolist() == [0, 2]
    assert torch.equal(found.inputs, inputs[1:])


def test_a_row_that_is_no_number_hides_none_of_its_siblings():
    class Sometimes(torch.nn.Module):
        def forward(self, images):
            logits = images.flatten(1)[:, :2]
            return torch.where(logits.amax(dim=1, keepdim=True) > 5, torch.nan, logits)

    inputs = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    search = Search(adapt(Sometimes()), inputs, torch.tensor([1]), lambda a, b: (a - b).flatten(1).norm(dim=1))
    rows = torch.tensor([[0.0, 9.0], [0.0, 1.0]]).view(2, 1, 1, 2)
    image = torch.zeros(2, dtype=torch.long)
    assert search.offer(rows, image, search.logits(rows, image)).tolist() == [False, True]
    assert bool(search.valid[0])
    assert torch.equal(search.images[0], rows[1])


def test_a_tie_is_no_flip():
    inputs = torch.rand(2, 1, 2, 2)
    model = adapt(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3)))
    for parameter in model.parameters():
        parameter.data.zero_()
    for target in (torch.tensor([2, 1]), torch.full((2,), ANY_OTHER)):
        search = Search(model, inputs, target, lambda a, b: (a - b).flatten(1).norm(dim=1), Limits(lead=0.0))
        assert not search.offer(inputs, search.all, search.start).any()
