from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.core import BadModel
from rightreasons.core.hooks import substituted


def test_what_runs_behind_a_layer_sees_the_substitute_and_the_substitute_stays_as_it_was():
    net = nn.Sequential(nn.Linear(2, 3), nn.ReLU(inplace=True), nn.Linear(3, 1))
    inputs, other = torch.randn(4, 2), -torch.ones(4, 3)
    with substituted(net, "0", other):
        torch.testing.assert_close(net(inputs), net[2](torch.zeros(4, 3)))
    assert (other == -1).all()
    expected = net[2]((2 * net[0](inputs)).relu())
    with substituted(net, "0", lambda output: 2 * output):
        torch.testing.assert_close(net(inputs), expected)
    assert not net[0]._forward_hooks


def test_more_rows_than_ran_below_may_be_handed_on():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    rows = torch.randn(7, 3)
    with substituted(net, "0", rows):
        torch.testing.assert_close(net(torch.randn(1, 2)), net[1](rows))


def test_an_error_inside_takes_the_substitution_back():
    net = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    with pytest.raises(RuntimeError), substituted(net, "0", torch.randn(1, 5)):
        net(torch.randn(1, 2))
    assert not net[0]._forward_hooks
    with pytest.raises(BadModel, match="no layer named"), substituted(net, "head", torch.randn(1, 3)):
        pass


def test_a_layer_that_returns_no_tensor_is_refused():
    net = nn.Sequential(nn.LSTM(2, 3))
    with pytest.raises(BadModel, match="returns tuple"), substituted(net, "0", torch.randn(1, 3)):
        net(torch.randn(1, 2))
