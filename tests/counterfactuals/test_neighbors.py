import pytest
import torch

from rightreasons.core import ANY_OTHER
from rightreasons.counterfactuals import NearestNeighbor
from tests.counterfactuals.linear import linear


def case(references=60):
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(3, 16, generator=generator, dtype=torch.float64)
    model = linear(weight - weight.mean(dim=1, keepdim=True))
    bank = torch.rand(references, 1, 4, 4, generator=generator, dtype=torch.float64)
    inputs = torch.rand(5, 1, 4, 4, generator=generator, dtype=torch.float64)
    logits = model(inputs)
    return model, inputs, logits.argsort(dim=1)[:, 1], bank, model(bank).detach()


def brute(inputs, bank, good):
    """The nearest of the good ones, one by one."""
    best = []
    for image, fits in zip(inputs, good, strict=True):
        lengths = [
            float((image - other).norm()) if fit else float("inf") for other, fit in zip(bank, fits, strict=True)
        ]
        best.append(lengths.index(min(lengths)))
    return torch.tensor(best)


def good(logits, target):
    top = logits.topk(2, dim=1)
    sure = top.values[:, 0] - top.values[:, 1] >= 0.01
    return (top.indices[:, 0] == target[:, None]) & sure


def test_it_is_the_nearest_reference_that_the_model_gives_the_target():
    model, inputs, target, bank, logits = case()
    assert good(logits, target).sum(dim=1).min() > 5
    found = NearestNeighbor(bank)(model, inputs, target)
    assert found.valid.all()
    assert torch.equal(found.images, bank[brute(inputs, bank, good(logits, target))])


def test_any_other_class_is_the_nearest_of_all_that_are_not_the_predicted():
    model, inputs, _, bank, logits = case()
    predicted = model(inputs).argmax(dim=1)
    found = NearestNeighbor(bank)(model, inputs, torch.full((5,), ANY_OTHER))
    differs = logits.argmax(dim=1) != predicted[:, None]
    assert torch.equal(found.images, bank[brute(inputs, bank, differs)])


def test_labels_save_queries_and_change_nothing_where_the_model_agrees():
    model, inputs, target, bank, logits = case()
    plain = NearestNeighbor(bank)(model, inputs, target)
    told = NearestNeighbor(bank, logits.argmax(dim=1))(model, inputs, target)
    assert torch.equal(plain.images, told.images)
    assert told.queries.sum() <= plain.queries.sum()


def test_a_reference_that_the_model_gets_wrong_is_passed_over():
    model, inputs, target, bank, logits = case()
    labels = logits.argmax(dim=1)
    nearest = brute(inputs, bank, good(logits, target))
    wrong = inputs.clone()  # the original itself, labeled as the target
    found = NearestNeighbor(torch.cat([bank, wrong]), torch.cat([labels, target]))(model, inputs, target)
    assert found.valid.all()
    assert torch.equal(found.images, bank[nearest])


def test_a_class_without_examples_gives_the_original_not_valid():
    model, inputs, target, bank, _ = case()
    labels = torch.full((len(bank),), 9)
    found = NearestNeighbor(bank, labels)(model, inputs, target)
    assert not found.valid.any()
    assert torch.equal(found.images, inputs)
    assert found.queries.tolist() == [1] * 5


def test_only_so_many_neighbors_are_shown():
    model, inputs, target, bank, _ = case()
    found = NearestNeighbor(bank, neighbors=1)(model, inputs, target)
    assert found.queries.max() <= 2


@pytest.mark.parametrize("queries", [2, 3, 7, 8, 12, 16, 20])
def test_a_small_budget_is_spent_on_the_nearest(queries):
    model, inputs, target, bank, logits = case()
    found = NearestNeighbor(bank, max_queries=queries)(model, inputs, target)
    fits = good(logits, target)
    order = torch.cdist(inputs.flatten(1), bank.flatten(1)).argsort(dim=1)
    first = fits.gather(1, order).int().argmax(dim=1)
    assert torch.equal(found.valid, first < queries - 1)
    assert found.queries.max() <= queries


def test_the_line_to_it_ends_behind_the_boundary():
    model, inputs, target, bank, _ = case()
    real, blend = (NearestNeighbor(bank, halvings=h)(model, inputs, target) for h in (0, 6))
    lengths = [(f.images - inputs).flatten(1).norm(dim=1) for f in (real, blend)]
    assert blend.valid.all()
    assert (lengths[1] <= lengths[0]).all()
    assert lengths[1].mean() < 0.8 * lengths[0].mean()
    share = lengths[1] / lengths[0]
    line = torch.lerp(inputs, real.images, share.view(-1, 1, 1, 1))
    torch.testing.assert_close(blend.images, line)


@pytest.mark.wrong_types
def test_settings_are_checked():
    _, inputs, _, bank, _ = case()
    with pytest.raises(ValueError, match="expected references"):
        NearestNeighbor(bank[:0])
    with pytest.raises(ValueError, match=r"references of pixels from 0\.0 to 1\.0, got other values in image 2"):
        NearestNeighbor(bank + torch.arange(60).eq(2).view(-1, 1, 1, 1))
    with pytest.raises(ValueError, match="one label a reference, 60, got 3"):
        NearestNeighbor(bank, torch.zeros(3, dtype=torch.long))
    with pytest.raises(ValueError, match="neighbors"):
        NearestNeighbor(bank, neighbors=0)
    with pytest.raises(ValueError, match="halvings"):
        NearestNeighbor(bank, halvings=-1)
    model = linear(torch.randn(3, 16, dtype=torch.float64))
    with pytest.raises(ValueError, match="references of the images' shape"):
        NearestNeighbor(bank[..., :2])(model, inputs, (model(inputs).argmax(dim=1) + 1) % 3)
