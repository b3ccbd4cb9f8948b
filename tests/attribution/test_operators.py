"""Names of operators."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from rightreasons.attribution import GuidedBackprop
from rightreasons.attribution.operators import operator_of
from rightreasons.models import adapt
from tests.networks import images, network

CALLS = {
    "relu": [F.relu, torch.relu_, nn.ReLU(), lambda x: x.clamp(min=0), lambda x: x.clamp(0), lambda x: x.clamp_min(0)],
    "relu6": [nn.ReLU6(), nn.ReLU6(inplace=True), F.relu6, lambda x: x.clamp(0, 6), lambda x: F.hardtanh(x, 0, 6)],
    "hardtanh": [nn.Hardtanh(), F.hardtanh, lambda x: F.hardtanh(x, -6, 6)],
    "clamp": [lambda x: x.clamp(-1, 1), lambda x: x.clamp(max=0), lambda x: x.clamp(torch.zeros(2))],
}


class Named(TorchFunctionMode):
    """Writes down the operators that run."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_function__(self, func, types, args=(), kwargs=None):
        self.names.append(operator_of(func, args, kwargs or {})[0])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("name", "call"), [(name, call) for name, calls in CALLS.items() for call in calls])
def test_an_activation_has_one_name_however_it_is_written(name, call):
    x = torch.ones(2)
    with Named() as named:
        call(x)
    assert named.names[-1] == name


def test_a_relu6_that_never_reaches_6_is_guided_like_a_relu():
    net, (inputs, target) = network("relu"), images()
    expected = GuidedBackprop()(adapt(net), inputs, target)
    for i in (1, 4, 7):
        net[i] = nn.ReLU6()
    torch.testing.assert_close(GuidedBackprop()(adapt(net), inputs, target), expected)
