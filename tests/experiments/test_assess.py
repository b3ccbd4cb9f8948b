"""The assessment tells a model that lives on the decoy from one that cannot see it, and maps from misses."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rightreasons.data import ArrayDataset, Rescaled, Subset
from rightreasons.experiments import Splits, build_data, parse_run
from rightreasons.experiments.table.assess import UNSEEN, as_in_training, assessment, decoy_class, probe, sample
from rightreasons.models import adapt

RUN = parse_run({"data": {"name": "digits", "decoy": "decoy/rrr", "decoy_size": 2}})


class Grey(nn.Module):
    """The grey of the brightest corner; its last layer is the nearest class of 255 - 25 * class."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(1, 10)
        greys = (255 - 25 * torch.arange(10)) / 255
        with torch.no_grad():
            # -(g - grey)^2 without the part that all classes share.
            self.head.weight.copy_(2 * greys[:, None])
            self.head.bias.copy_(-greys.square())

    def forward(self, inputs):
        corners = torch.stack([inputs[:, 0, r, c] for r in (0, 7) for c in (0, 7)], dim=1)
        return self.head(corners.amax(dim=1, keepdim=True))


class Middle(nn.Module):
    """Sees the middle alone, where there is never a decoy."""

    def __init__(self):
        super().__init__()
        self.head = nn.Linear(16, 10)

    def forward(self, inputs):
        return self.head(inputs[:, 0, 2:6, 2:6].flatten(1))


@pytest.fixture(scope="module")
def splits():
    return build_data(RUN.data, seed=0)


def test_who_lives_on_the_decoy_is_found_out_by_every_figure(splits):
    found = assessment(adapt(Grey()), splits, RUN)
    assert found["images"] == len(splits.test)
    assert found["swap"] > 0.9
    assert found["probe"] > 0.6 > 3 * found["probe_chance"]
    assert found["chance"] == pytest.approx(4 / 64)
    # Nearly all of it lies in one pixel of the patch, which is a sixteenth of the image.
    assert found["saliency"] > 0.8 / found["chance"]
    assert found["saliency_share"] == pytest.approx(found["saliency"] * found["chance"], rel=1e-4)
    assert found["unseen"] > 0.8 / found["chance"]
    assert found["unseen_explainer"] == "integrated_gradients"
    assert "iou" not in found


@pytest.mark.parametrize("unseen", UNSEEN)
def test_who_cannot_see_the_decoy_is_cleared_by_every_figure(splits, unseen):
    torch.manual_seed(0)
    found = assessment(adapt(Middle()), splits, RUN, unseen=unseen, images=200)
    assert found["images"] == 200
    assert (found["swap"], found["saliency"], found["unseen"]) == (0.0, 0.0, 0.0)
    assert found["probe"] < 0.25
    assert found["unseen_explainer"] == unseen


def test_without_a_linear_layer_at_the_end_there_is_no_probe(splits):
    class Other(nn.Module):
        def forward(self, inputs):
            return inputs.flatten(1)[:, :10]

    assert probe(adapt(Other()), splits, RUN) == {}


def test_the_probe_is_fitted_to_held_out_or_training_images_never_to_those_of_the_test(splits):
    few = Subset(splits.train, torch.arange(4))
    model = adapt(Grey())
    # Four images show at most four of the ten decoys.
    assert probe(model, Splits(few, None, splits.test), RUN)["probe"] < 0.5
    assert probe(model, Splits(splits.train, few, splits.test), RUN)["probe"] < 0.5
    assert probe(model, Splits(few, splits.train, splits.test), RUN)["probe"] > 0.6


def test_the_probe_is_tested_on_decoys_as_they_are_in_training():
    config = parse_run({"data": {"name": "digits", "decoy": "decoy/cdep", "decoy_size": 2}})
    # In the test each class bears the grey of another one.
    assert probe(adapt(Grey()), build_data(config.data, seed=0), config)["probe"] > 0.6


def test_overlap_with_the_true_masks_is_that_of_the_binarized_map():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        network[0].weight.fill_(1.0)
        network[0].bias.zero_()
        network[4].weight.copy_(torch.tensor([[1.0], [2.0]]))
    images = torch.randint(0, 256, (12, 1, 5, 5), dtype=torch.uint8)
    relevant = torch.rand(12, 1, 5, 5) < 0.4
    data = ArrayDataset(images, torch.arange(12) % 2, classes=["a", "b"], name="drawn", relevant=relevant)
    model = adapt(network)
    assert model.layer is not None
    found = assessment(model, Splits(data, None, data), parse_run({"data": {"name": "digits"}}))
    # The map is the image times a positive number, so half of its largest value is half of the brightest pixel.
    marked = images >= images.amax(dim=(2, 3), keepdim=True) / 2
    both = (marked & relevant).sum((1, 2, 3)).double()
    some, true = marked.sum((1, 2, 3)), relevant.sum((1, 2, 3))
    expected = {
        "iou": both / (some + true - both),
        "precision": both / some,
        "recall": both / true,
        "f1": 2 * both / (some + true),
    }
    for name, scores in expected.items():
        assert found[name] == pytest.approx(float(scores.mean()), abs=1e-6), name
    assert found["dead"] == 0.0
    assert {"swap", "probe", "saliency"}.isdisjoint(found)


def test_a_map_of_zeros_has_no_precision_and_is_counted():
    network = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1, 2))
    with torch.no_grad():
        network[4].weight.fill_(-1.0)
    images = torch.full((4, 1, 5, 5), 200, dtype=torch.uint8)
    masks = torch.ones(4, 1, 5, 5, dtype=torch.bool)
    data = ArrayDataset(images, torch.tensor([0, 1, 0, 1]), classes=["a", "b"], name="flat", relevant=masks)
    found = assessment(adapt(network), Splits(data, None, data), parse_run({"data": {"name": "digits"}}))
    assert found["dead"] == 1.0
    assert math.isnan(found["precision"])
    assert found["iou"] == 0.0


def test_the_same_images_are_drawn_for_every_arm(splits):
    one, other = (sample(splits.test, 50, 3) for _ in range(2))
    assert torch.equal(one.batch(torch.arange(50)).inputs, other.batch(torch.arange(50)).inputs)
    assert len(sample(splits.test, 10**6, 3)) == len(splits.test)
    assert not torch.equal(one.target, sample(splits.test, 50, 4).target)


def test_the_probe_reads_signs_as_they_are_in_training():
    config = parse_run({"data": {"name": "digits", "decoy": "decoy/cdep", "decoy_size": 2, "pixels": [0, 255]}})
    test = build_data(config.data, seed=0).test
    rows = torch.arange(60)
    part = as_in_training(Subset(test, rows), config)
    assert isinstance(part, Subset)
    assert isinstance(part.data, Rescaled)
    assert torch.equal(decoy_class(part), part.target)
    # The test's own grey is 25 * class, that of training 255 - 25 * class.
    for data, grey in ((Subset(test, rows), 25 * part.target), (part, 255 - 25 * part.target)):
        patch = data.data.data.patch(rows)
        values = data.batch(rows).inputs[patch].view(60, -1)
        assert torch.allclose(values, grey[:, None].float().expand_as(values), atol=1e-3)


def test_decoy_class_needs_a_decoy():
    data = ArrayDataset(
        torch.zeros(2, 1, 4, 4, dtype=torch.uint8), torch.tensor([0, 1]), classes=["a", "b"], name="bare"
    )
    with pytest.raises(ValueError, match="expected data with a decoy"):
        decoy_class(data)


def test_the_model_keeps_its_mode(splits):
    model = adapt(Middle()).train()
    assessment(model, splits, RUN, images=32)
    assert model.training
