import pytest
import torch
from torch import nn

from rightreasons.core import BadModel
from rightreasons.data import DATASETS, ArrayDataset, FeatureDataset, swapped
from rightreasons.experiments import features
from rightreasons.experiments.build import build_data, check_names
from rightreasons.experiments.config import parse_run
from rightreasons.experiments.features import TrunkSettings, UpTo, with_features
from rightreasons.experiments.study import bound_arm
from rightreasons.experiments.table import read_table
from rightreasons.models import adapt
from rightreasons.models.pooled import PooledCNN


class Exploding(nn.Module):
    """Must not run."""

    def forward(self, inputs):
        raise AssertionError("ran")


def trunk():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 5, 4, stride=4), nn.ReLU(), Exploding())
    return adapt(network, "1", mean=(0.5,), std=(0.5,))


@pytest.fixture(autouse=True)
def own_trunk(monkeypatch, tmp_path):
    monkeypatch.setattr(features, "TRUNKS", {**features.TRUNKS, "tiny": trunk})
    monkeypatch.setenv("RIGHTREASONS_CACHE", str(tmp_path))


def items(split="train", *, folder=None, cache=None):
    pixels = torch.zeros(60, 1, 8, 8, dtype=torch.uint8)
    pixels[:, :, 2:6, 2:6] = 180
    return ArrayDataset(pixels, torch.arange(60) % 3, classes=["a", "b", "c"], name=f"items/{split}")


def run(**data):
    given = {"name": "items", "decoy": "decoy/texture", "decoy_size": 16, "classes": ["c", "a"], "validation": 0.25}
    return parse_run({"data": given | {"images": 10, "test_images": 8} | data})


@pytest.fixture
def own_data(monkeypatch):
    monkeypatch.setattr("rightreasons.experiments.build.DATASETS", {**DATASETS, "items": items})
    monkeypatch.setattr("rightreasons.experiments.build.load", lambda name, split, folder=None: items(split))


def test_what_lies_behind_the_layer_does_not_run_and_grey_is_shown_in_three_channels():
    model = trunk()
    grey = torch.rand(2, 1, 8, 8)
    expected = model.network[1](model.network[0]((grey.expand(-1, 3, -1, -1) - 0.5) / 0.5))
    torch.testing.assert_close(UpTo(model, "1")(grey), expected)
    assert UpTo(model, "1", side=16)(grey).shape == (2, 5, 4, 4)
    assert not model.network[1]._forward_hooks


def test_unknown_trunks_and_layers_are_refused():
    with pytest.raises(ValueError, match=r"no frozen trunk named 'resnet'\. There are: .*tiny"):
        TrunkSettings("resnet", "1")
    with pytest.raises(BadModel, match="no layer named '7'"):
        with_features(items(), TrunkSettings("tiny", "7"))
    with pytest.raises(ValueError, match="at least 0 pixels"):
        TrunkSettings("tiny", "1", side=-1)
    with pytest.raises(ValueError, match="features has no setting 'size'"):
        check_names(run(features={"trunk": "tiny", "layer": "1", "size": 4}))


def test_a_run_on_features(own_data):
    config = run(features={"trunk": "tiny", "layer": "1"}, degrade={"missing": 0.5}, annotated=0.5)
    splits = build_data(config.data, seed=0)
    parts = (splits.train, splits.validation, splits.test)
    assert [len(part) for part in parts] == [10, 10, 8]
    assert all(isinstance(part, FeatureDataset) and part.shape == (5, 4, 4) for part in parts)
    batch = splits.train.batch(torch.arange(10))
    assert batch.relevant.shape == (10, 1, 4, 4)
    assert int(batch.annotated.sum()) == 5
    changed = swapped(splits.test).batch(torch.arange(8))
    assert not torch.equal(changed.inputs, splits.test.batch(torch.arange(8)).inputs)
    assert torch.equal(changed.relevant, splits.test.batch(torch.arange(8)).relevant)


def test_without_features_the_images_are_there(own_data):
    splits = build_data(run().data, seed=0)
    assert splits.train.shape == (1, 16, 16)
    assert splits.train.classes == ("c", "a")
    assert torch.bincount(splits.test.target).tolist() == [4, 4]


def test_the_clean_bound_keeps_the_canvas(own_data):
    bound = bound_arm(run())
    assert bound.data.decoy == "decoy/texture-free"
    assert build_data(bound.data, seed=0).train.shape == (1, 16, 16)
    assert bound_arm(bound) is None


@pytest.mark.parametrize("name", ["res-noise", "res-noise-photos"])
def test_the_tables_compare_the_arms_of_the_paper(name, monkeypatch):
    plan = read_table(name)
    assert list(plan.arms) == ["GRADIA", "HAICS", "RES-G", "RES-L", "Energy", "RRR"]
    assert {row.column for row in plan.published} == {"iou_gain", "f1_gain"}
    assert plan.plain.data.images == 100
    assert {"RES-L, 10 masks", "RES-L, slack 0.0001", "HAICS, more noise"} <= {entry.name for entry in plan.entries()}


def test_the_pooled_network():
    network = PooledCNN((5, 8, 8), 3, widths=(4, 6), pools=1)
    maps = nn.Sequential(*list(network)[:5])(torch.rand(2, 5, 8, 8))
    assert maps.shape == (2, 6, 4, 4)
    assert network(torch.rand(2, 5, 8, 8)).shape == (2, 3)
    assert adapt(network).layer == "3"
    for wrong in ({"widths": ()}, {"kernel": 2}, {"widths": (4,), "pools": 1}):
        with pytest.raises(BadModel, match="expected"):
            PooledCNN((5, 8, 8), 3, **{"pools": 0, **wrong})
