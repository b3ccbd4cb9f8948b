"""Rollout and Chefer's relevance against plain loops, and whose view of the tokens is shown."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution import LRP, AttentionRollout, CheferRelevance
from rightreasons.attribution.layout import at_pixels, patch_grid
from rightreasons.attribution.transformer import Attended
from rightreasons.core import BadModel
from rightreasons.models import adapt
from tests.attribution.transformer.networks import (
    CLASSES,
    NETWORKS,
    SIZE,
    TOKENS,
    TimmViT,
    WrittenOut,
    images,
    network,
)
from tests.contracts.test_attributions import central_difference

METHODS = {
    "rollout": AttentionRollout(),
    "rollout of the largest": AttentionRollout(heads="max", discard=0.3),
    "chefer": CheferRelevance(),
    "lrp": LRP("epsilon"),
}
every_method = pytest.mark.parametrize("method", METHODS)
every_network = pytest.mark.parametrize("name", NETWORKS)


def hand_made(layers=3, batch=2, heads=2, tokens=4):
    """Maps of a head each, and logits that hang on every entry by a known slope."""
    generator = torch.Generator().manual_seed(1)
    shape = (layers, batch, heads, tokens, tokens)
    maps = [m.softmax(-1).requires_grad_() for m in torch.randn(shape, generator=generator, dtype=torch.float64)]
    slopes = torch.randn((*shape, CLASSES), generator=generator, dtype=torch.float64)
    logits = sum((m[..., None] * s).sum(dim=(1, 2, 3)) for m, s in zip(maps, slopes, strict=True))
    return Attended(logits, maps), slopes.numpy()


def rollout_by_hand(maps, fuse):
    """Abnar & Zuidema 2020, Eq. 1, one image, with loops."""
    tokens = maps[0].shape[-1]
    rollout = np.eye(tokens)
    for layer in maps:
        mixed = np.zeros((tokens, tokens))
        for i in range(tokens):
            for j in range(tokens):
                mixed[i, j] = 0.5 * fuse([head[i, j] for head in layer]) + (0.5 if i == j else 0.0)
            mixed[i] /= mixed[i].sum()
        rollout = mixed @ rollout
    return rollout


@pytest.mark.parametrize(("heads", "fuse"), [("mean", np.mean), ("max", np.max), ("min", np.min)])
def test_rollout_is_the_product_of_the_layers(heads, fuse):
    found, _ = hand_made()
    relations = AttentionRollout(heads=heads).relations(found, torch.tensor([0, 1]), graph=True)
    for image in range(2):
        expected = rollout_by_hand([m[image].detach().numpy() for m in found.raw], fuse)
        np.testing.assert_allclose(relations[image].detach().numpy(), expected)
    torch.testing.assert_close(relations.sum(-1), torch.ones(2, 4, dtype=torch.float64))


def test_rollout_discards_the_smallest_share_of_each_image():
    found, _ = hand_made(layers=1)
    fused = found.raw[0].detach().mean(1)
    relations = AttentionRollout(discard=0.5).relations(found, torch.tensor([0, 1]), graph=True)
    for image in range(2):
        kept = fused[image] * (fused[image] > fused[image].flatten().sort().values[7])
        expected = kept / 2 + torch.eye(4, dtype=kept.dtype) / 2
        torch.testing.assert_close(relations[image].detach(), expected / expected.sum(1, keepdim=True))


def test_chefers_relevance_grows_by_what_speaks_for_the_target():
    found, slopes = hand_made()
    target = torch.tensor([2, 0])
    relations = CheferRelevance().relations(found, target, graph=True)
    for image, label in enumerate(target.tolist()):
        relevance = np.eye(4)
        for layer, slope in zip(found.raw, slopes, strict=True):
            cam = layer[image].detach().numpy() * slope[image, ..., label]
            relevance = relevance + np.mean(np.maximum(cam, 0), axis=0) @ relevance
        np.testing.assert_allclose(relations[image].detach().numpy(), relevance - np.eye(4))


@every_method
def test_fused_attention_and_written_out_give_the_same_map(method):
    inputs, target = images()
    fused = network("timm fused")
    unfused = TimmViT(fused=False).double().eval()
    unfused.load_state_dict(fused.state_dict())
    one, other = (METHODS[method](adapt(net), inputs, target) for net in (fused, unfused))
    torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@every_method
def test_torchs_module_and_its_decomposition_give_the_same_map(method):
    net, (inputs, target) = network("torchvision"), images()
    expected = METHODS[method](adapt(net), inputs, target)
    for block in net.layers:
        block.self_attention = WrittenOut(block.self_attention)
    torch.testing.assert_close(METHODS[method](adapt(net), inputs, target), expected, rtol=1e-9, atol=1e-12)


@every_method
@every_network
def test_the_gradient_of_a_loss_on_the_map_agrees_with_central_differences(method, name):
    net, (inputs, target) = network(name), images(2)
    parameters = list(net.parameters())
    generator = torch.Generator().manual_seed(2)
    mix = torch.randn(2, 1, *SIZE, generator=generator, dtype=torch.float64)
    direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

    def loss():
        heatmap = METHODS[method](adapt(net), inputs, target)
        return (heatmap * mix).sum() + heatmap.square().sum()

    slopes = torch.autograd.grad(loss(), parameters, allow_unused=True, materialize_grads=True)
    found = sum(float((g * d).sum()) for g, d in zip(slopes, direction, strict=True))
    # Relevance has poles, near which a difference needs a small step.
    expected = [central_difference(loss, parameters, direction, step) for step in (1e-6, 1e-7)]
    assert any(found == pytest.approx(difference, rel=1e-6) for difference in expected), (found, expected)


@every_network
def test_relevance_is_conserved_through_stock_transformers(name):
    net, (inputs, target) = network(name), images()
    account = LRP("epsilon").conservation(adapt(net), inputs, target)
    assert account.missing < 1e-12
    assert account.pixels + account.absorbed == pytest.approx(account.logits, rel=1e-9)
    logits = net(inputs).detach().gather(1, target[:, None])
    assert account.logits == pytest.approx(float(logits.sum()))
    LRP("epsilon", check=True, tolerance=1e-9)(adapt(net), inputs, target)


READERS = {"torchvision": 0, "timm with registers": 0, "timm fused": "mean", "stock encoder": "mean"}


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("method", [AttentionRollout, CheferRelevance])
def test_the_token_that_the_logits_read_is_found(name, method):
    model, (inputs, target) = adapt(network(name)), images()
    found = method()(model, inputs, target)
    torch.testing.assert_close(found, method(token=READERS[name])(model, inputs, target))
    other = method(token=-1)(model, inputs, target)
    assert not torch.allclose(found, other, rtol=1e-2)


def test_a_class_token_beside_a_mean_is_not_taken_for_the_reader():
    class Pooled(TimmViT):
        def forward(self, x):
            x = self.patch(x).flatten(2).transpose(1, 2)
            x = torch.cat([self.prefix.expand(len(x), -1, -1), x], dim=1) + self.place
            return self.head(self.norm(self.blocks(x))[:, 1:].mean(dim=1))

    net, (inputs, target) = Pooled(prefixes=1).double().eval(), images()
    found = CheferRelevance()(adapt(net), inputs, target)
    each = [CheferRelevance(token=patch)(adapt(net), inputs, target) for patch in range(1, 7)]
    torch.testing.assert_close(found, torch.stack(each).mean(dim=0))


class Chooses(nn.Module):
    """A class token that attends to one patch, whose number is the brightest pixel."""

    def forward(self, x):
        tokens = F.pad(F.avg_pool2d(x[:, :1], 4).flatten(2).mT, (0, 0, 1, 0))
        mixed = F.scaled_dot_product_attention(torch.full_like(tokens, 400.0), tokens, tokens)
        return mixed[:, 0] * torch.tensor([1.0, 2.0, 3.0], dtype=x.dtype)


@pytest.mark.parametrize("method", [AttentionRollout(), CheferRelevance()])
@pytest.mark.parametrize("patch", range(TOKENS))
def test_patches_lie_where_they_were_cut(method, patch):
    """The image is 8 x 12 in patches of 4: a grid of 2 x 3, which is not square."""
    inputs = torch.full((1, 2, *SIZE), 0.1, dtype=torch.float64)
    row, column = 4 * (patch // 3), 4 * (patch % 3)
    inputs[..., row : row + 4, column : column + 4] = 1
    heatmap = method(adapt(Chooses()), inputs, torch.tensor([1]))[0, 0]
    top = int(heatmap.argmax())
    assert row <= top // SIZE[1] < row + 4
    assert column <= top % SIZE[1] < column + 4
    assert heatmap[row + 1 : row + 3, column + 1 : column + 3].min() > 0.4 * heatmap.max()


GRIDS = [
    (197, (224, 224), (14, 14)),
    (196, (224, 224), (14, 14)),
    (198, (224, 224), (14, 14)),
    (50, (224, 224), (7, 7)),
    (261, (224, 224), (16, 16)),
    (99, (224, 112), (14, 7)),
    (7, (8, 12), (2, 3)),
    (17, (12, 12), (4, 4)),  # rather one token ahead of patches of 3 pixels than eight ahead of patches of 4
    (12, (1, 12), (1, 12)),
    (13, (1, 12), (1, 12)),
    (1, (1, 1), (1, 1)),
    (5 * 5, (28, 28), (5, 5)),  # patches of 5 pixels, three left over
]


@pytest.mark.parametrize(("tokens", "size", "grid"), GRIDS)
def test_a_grid_is_found(tokens, size, grid):
    assert patch_grid(tokens, size) == grid


@pytest.mark.parametrize(("tokens", "size"), [(60, (224, 224)), (2, (8, 8)), (5, (1, 12))])
def test_no_grid_is_refused(tokens, size):
    with pytest.raises(BadModel, match="no grid of square patches"):
        patch_grid(tokens, size)


def test_tokens_ahead_of_the_patches_are_left_out():
    values = torch.arange(7.0)[None]
    torch.testing.assert_close(at_pixels(values, (2, 3)), torch.arange(1.0, 7.0).view(1, 1, 2, 3))


def test_rollout_is_the_same_for_every_class_and_chefers_relevance_is_not():
    model, (inputs, target) = adapt(network("torchvision")), images()
    other = (target + 1) % CLASSES
    torch.testing.assert_close(AttentionRollout()(model, inputs, target), AttentionRollout()(model, inputs, other))
    one, two = (CheferRelevance()(model, inputs, label) for label in (target, other))
    assert not torch.allclose(one, two, rtol=0.1)


def test_a_score_that_no_attention_reaches_is_refused():
    class Aside(TimmViT):
        def forward(self, x):
            super().forward(x)
            return x.mean(dim=(2, 3)) @ torch.ones(2, CLASSES, dtype=x.dtype)

    for method in (AttentionRollout(), CheferRelevance()):
        with pytest.raises(BadModel, match="does not depend on the attention"):
            method(adapt(Aside().double()), *images())

    class Cut(TimmViT):
        def forward(self, x):
            with torch.no_grad():
                return super().forward(x)

    with pytest.raises(BadModel, match="no gradient reaches"):
        CheferRelevance()(adapt(Cut().double()), *images())
    assert AttentionRollout(token=0)(adapt(Cut().double()), *images()).shape == (3, 1, *SIZE)


@pytest.mark.wrong_types
def test_wrong_settings_are_refused():
    for settings in ({"token": "first"}, {"token": True}, {"token": 1.0}, {"heads": "sum"}, {"discard": 1.0}):
        with pytest.raises(ValueError, match="expected"):
            AttentionRollout(**settings)
    with pytest.raises(ValueError, match="expected score"):
        CheferRelevance(score="loss")
    with pytest.raises(BadModel, match="expected a token below 7"):
        AttentionRollout(token=7)(adapt(network("torchvision")), *images())
