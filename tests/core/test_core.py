from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.core import Batch, Catalogue, UnknownName
from rightreasons.core.hooks import captured, modes_kept, preserved
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


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_a_peak_too_small_to_divide_by_counts_as_zero(dtype):
    tiny = torch.finfo(dtype).tiny
    heatmap = torch.tensor([tiny / 8, -tiny / 4, tiny, -2 * tiny], dtype=dtype).view(2, 1, 1, 2).requires_grad_()
    found = unit_maximum(heatmap)
    assert found.flatten().tolist() == [0, 0, 0.5, -1]
    found.square().mean().backward()
    assert heatmap.grad.isfinite().all()
    assert not heatmap.grad[0].any()
    assert resized(torch.ones(1, 1, 2, 2), (4, 6)).shape == (1, 1, 4, 6)


def test_preserved_sees_a_sub_module_in_training_mode():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).eval()
    net[1].train()
    before = net[1].running_mean.clone()
    with preserved(net):
        net(torch.randn(5, 2) + 3)
    assert net[1].running_mean.equal(before)


def test_modes_come_back_one_by_one():
    net = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).train()
    net[1].eval()
    with modes_kept(net):
        net.eval()
    assert [module.training for module in net.modules()] == [True, True, False]


def test_a_catalogue_keeps_the_contract_of_a_mapping():
    shapes = Catalogue("shape", cube=int)
    assert shapes.get("cone") is None
    assert shapes.get("cone", float) is float
    with pytest.raises(UnknownName) as caught:
        shapes["cone"]
    assert isinstance(caught.value, KeyError)
    assert str(caught.value) == "unknown shape 'cone'. There are: cube"


def test_batches_are_compared_by_identity():
    one, other = (Batch(torch.zeros(2, 1, 2, 2), torch.arange(2)) for _ in range(2))
    assert one == one
    assert one != other
    assert len({one, other}) == 2
