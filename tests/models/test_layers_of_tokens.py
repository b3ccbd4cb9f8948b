"""Class activation maps of token embeddings: which axis of a layer holds the tokens."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.attribution import GradCAM, HiResCAM
from rightreasons.core import BadModel
from rightreasons.models import adapt, embed
from tests.contracts.test_attributions import make
from tests.models.test_embed import CLASSES, IDS, OF_A_LAYER, TARGET, WIDTH, WORDS


class Convolved(nn.Module):
    """Words, a convolution along them, and what is read of it."""

    def __init__(self, width: int = WIDTH, kernel: int = 3, padding: int = 1) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 4)
        self.conv = nn.Conv1d(4, width, kernel, padding=padding)
        self.relu = nn.ReLU()
        self.head = nn.Linear(width, CLASSES)

    def forward(self, ids):
        return self.head(self.relu(self.conv(self.words(ids).mT)).mean(2))


@pytest.mark.parametrize("width", [5, 6, 7, 8])
@pytest.mark.parametrize("method", [m for m in sorted(OF_A_LAYER) if m not in ("across_layers",)])
def test_a_convolution_along_the_words_is_no_layer_of_tokens(width, method):
    """The same network by two-dimensional convolutions over a row of words is the judge."""
    net = Convolved(width).double()

    class Row(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(4, width, (1, 3), padding=(0, 1)).double()
            self.conv.weight.data, self.conv.bias.data = net.conv.weight.data[:, :, None], net.conv.bias.data

        def forward(self, row):
            return net.head(net.relu(self.conv(row)).mean((2, 3)))

    model = embed(net, IDS)
    explained = make(method, layer="conv")
    expected = explained(adapt(Row()), model.inputs.mT.unsqueeze(2), TARGET)[:, 0, 0]
    torch.testing.assert_close(explained(model, model.inputs, TARGET), expected)


def test_a_layer_of_words_is_known_by_its_shape():
    layers = {6: None, 7: None, 5: "features", 9: "features"}
    for width, found in layers.items():
        model = embed(Convolved(width).double(), IDS)
        if found is None:
            with pytest.raises(BadModel, match="cannot be told"):
                GradCAM("relu")(model, model.inputs, TARGET)
            continue
        expected = HiResCAM("conv")(model, model.inputs, TARGET)
        torch.testing.assert_close(HiResCAM("relu")(model, model.inputs, TARGET).relu(), expected.relu())
    short = embed(Convolved(8, 5, 0).double(), IDS)
    with pytest.raises(BadModel, match="one place for each of the 6 tokens"):
        GradCAM("relu")(short, short.inputs, TARGET)
    assert GradCAM("conv")(short, short.inputs, TARGET).shape == IDS.shape


class Pictured(nn.Module):
    """A text as an image of its embeddings, as Kim 2014 convolves it."""

    def __init__(self, across: int) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 4)
        self.conv = nn.Conv2d(1, 5, (3, across), padding=(1, 0))
        self.head = nn.Linear(5, CLASSES)

    def forward(self, ids):
        return self.head(self.conv(self.words(ids)[:, None]).mean((2, 3)))


def test_maps_that_run_down_the_words():
    net = Pictured(4).double()
    model = embed(net, IDS)
    maps = net.conv(model.inputs[:, None])[..., 0]
    expected = torch.einsum("bk,bkt->bt", net.head.weight[TARGET], maps) / 6
    torch.testing.assert_close(HiResCAM("conv")(model, model.inputs, TARGET), expected)
    with pytest.raises(BadModel, match="one row of places"):
        GradCAM("conv")(embed(Pictured(2).double(), IDS), model.inputs, TARGET)
