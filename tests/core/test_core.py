from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.core import Batch, Catalogue
from rightreasons.core.hooks import captured, preserved
from rightreasons.core.tensors import resized, unit_maximum


def test_a_batch_is_cut_with_everything_it_carries():
    batch = Batch(torch.rand(4, 1, 2, 2), torch.arange(4), relevant=torch.rand(4, 1, 2, 2), index=torch.arange(4))
    cut = batch[torch.tensor([True, False, True, False])]
    assert len(cut) == 2
    assert cut.index.tolist() == [0, 2]
    assert torch.equal(cut.relevant, batch.relevant[::2])
    assert cut.irrelevant is None
    assert batch.to("cpu").target.tolist() == [0, 1, 2, 3]


def test_annotated_rows():
    inputs, target, mask = torch.rand(2, 1, 2, 2), torch.arange(2), torch.zeros(2, 1, 2, 2)
    assert Batch(inputs, target).annotated_rows().tolist() == [False, False]
    assert Batch(inputs, target, irrelevant=mask).annotated_rows().tolist() == [True, True]
    drawn = torch.tensor([False, True])
    assert Batch(inputs, target, irrelevant=mask, annotated=drawn).annotated_rows().tolist() == [False, True]


def test_a_catalogue_is_read_only_and_lists_what_exists():
    shapes = Catalogue("shape", cube=int, ball=float)
    assert list(shapes) == ["cube", "ball"]
    assert shapes["cube"] is int
    assert "cone" not in shapes
    assert shapes.name_of(1.5) == "ball"
    with pytest.raises(ValueError, match=r"unknown shape 'cubes'. Did you mean 'cube'\? There are: cube, ball"):
        shapes["cubes"]
    with pytest.raises(TypeError):
        shapes["cone"] = str


def test_what_was_captured_survives_in_place_changes_behind_it():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True))
    with captured(net, ["0"]) as activations:
        net(torch.randn(4, 2))
    assert (activations["0"] < 0).any()
    assert not net[0]._forward_hooks


def test_preserved_buffers_are_the_same_objects_afterwards():
    net = nn.BatchNorm1d(2).train()
    mean, before = net.running_mean, net.running_mean.clone()
    with preserved(net):
        net(torch.randn(5, 2) + 3)
        assert not torch.equal(net.running_mean, before)
    assert net.running_mean is mean
    assert torch.equal(mean, before)


def test_a_map_of_zeros_stays_zero_under_normalization_and_its_gradient_is_finite():
    heatmap = torch.zeros(1, 1, 2, 2, requires_grad=True)
    unit_maximum(heatmap).sum().backward()
    assert torch.isfinite(heatmap.grad).all()
    assert unit_maximum(torch.tensor([[[[2.0, -4.0]]]])).tolist() == [[[[0.5, -1.0]]]]
    assert resized(torch.ones(1, 1, 2, 2), (4, 6)).shape == (1, 1, 4, 6)
