"""The attention blocks against plain versions, the paper's counts, and training through them."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from rightreasons.attribution import GradCAM, Saliency
from rightreasons.core import BadModel
from rightreasons.models import (
    BLOCKS,
    CBAM,
    GlobalContext,
    PositionAttention,
    SqueezeExcite,
    adapt,
    attach,
    count_weights,
    feature_maps,
)
from tests.networks import CLASSES, SIDE, images

ALL = ["", *BLOCKS, {"name": "global_context", "gated": True, "reduction": 2}]
every_block = pytest.mark.parametrize("block", ALL, ids=lambda b: str(b) or "none")


def features(channels=6, seed=0):
    return torch.randn(2, channels, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def woken(module: nn.Module, seed=0) -> nn.Module:
    """Random weights, so that neither a scale of 0 nor a fresh normalization hides a part."""
    generator = torch.Generator().manual_seed(seed)
    for weight in module.parameters():
        weight.data = torch.randn(weight.shape, generator=generator, dtype=torch.float64) / math.sqrt(weight.shape[-1])
    return module.double().eval()


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def two_layers(first, second, values):
    hidden = [max(0.0, sum(w * v for w, v in zip(row, values, strict=True))) for row in first]
    return [sum(w * h for w, h in zip(row, hidden, strict=True)) for row in second]


def test_squeeze_excite_weighs_channels():
    block, x = woken(SqueezeExcite(6, 2)), features()
    first, second = (block.excite[i].weight.tolist() for i in (0, 2))
    for image, out in zip(x, block(x), strict=True):
        means = [float(channel.sum()) / 12 for channel in image]
        weights = [sigmoid(v) for v in two_layers(first, second, means)]
        torch.testing.assert_close(out.detach(), image * torch.tensor(weights, dtype=torch.float64).view(6, 1, 1))


def test_cbam_weighs_channels_then_places():
    block, x = woken(CBAM(6, 3, kernel=3)), features()
    first, second = (block.mlp[i].weight.tolist() for i in (0, 2))
    kernel = block.place.weight[0].tolist()
    for image, out in zip(x, block(x), strict=True):
        means, peaks = ([float(f(channel)) for channel in image] for f in (torch.mean, torch.max))
        both = (two_layers(first, second, values) for values in (means, peaks))
        scaled = image * torch.tensor([sigmoid(a + b) for a, b in zip(*both, strict=True)]).double().view(6, 1, 1)
        pooled = [[[float(f(scaled[:, r, c])) for c in range(4)] for r in range(3)] for f in (torch.mean, torch.max)]
        expected = torch.empty_like(scaled)
        for row in range(3):
            for column in range(4):
                near = [(i, j) for i in (-1, 0, 1) for j in (-1, 0, 1) if 0 <= row + i < 3 and 0 <= column + j < 4]
                score = sum(kernel[k][i + 1][j + 1] * pooled[k][row + i][column + j] for k in (0, 1) for i, j in near)
                expected[:, row, column] = scaled[:, row, column] * sigmoid(score)
        # The channel weights were taken through single precision.
        torch.testing.assert_close(out.detach(), expected, rtol=1e-5, atol=1e-6)


def test_position_attention_adds_a_mixture_of_all_places():
    block, x = woken(PositionAttention(6, 2)).requires_grad_(False), features()
    query, key, value = (getattr(block, name).weight[:, :, 0, 0] for name in ("query", "key", "value"))
    places = [(r, c) for r in range(3) for c in range(4)]
    for image, out in zip(x, block(x), strict=True):
        for row, column in places:
            asked = query @ image[:, row, column]
            likeness = [math.exp(float(asked @ (key @ image[:, r, c]))) for r, c in places]
            mixed = sum(s * (value @ image[:, r, c]) for s, (r, c) in zip(likeness, places, strict=True))
            expected = image[:, row, column] + block.scale * mixed / sum(likeness)
            torch.testing.assert_close(out[:, row, column], expected)


def test_position_attention_begins_as_the_identity_and_learns_its_scale():
    block, x = PositionAttention(8), torch.randn(2, 8, 3, 3)
    assert block(x).equal(x)
    (gradient,) = torch.autograd.grad(block(x).square().sum(), [block.scale])
    assert gradient.abs() > 0


def test_global_context_adds_one_transformed_mean_to_all_places():
    block, x = woken(GlobalContext(6, 2)).requires_grad_(False), features()
    place = block.place.weight.flatten()
    first, norm, _, second = block.transform
    for image, out in zip(x, block(x), strict=True):
        scores = [math.exp(float(place @ image[:, r, c])) for r in range(3) for c in range(4)]
        flat = image.flatten(1)
        context = sum(s * flat[:, i] for i, s in enumerate(scores)) / sum(scores)
        hidden = first.weight @ context
        centered = hidden - hidden.mean()
        hidden = centered / (centered.square().mean() + norm.eps).sqrt() * norm.weight + norm.bias
        torch.testing.assert_close(out, image + (second.weight @ hidden.clamp(min=0)).view(6, 1, 1))


def test_the_papers_own_global_context_is_squeeze_excite_with_a_residual():
    gated, plain, x = woken(GlobalContext(6, 2, gated=True)), woken(SqueezeExcite(6, 2)), features()
    plain.excite[0].weight.data, plain.excite[2].weight.data = gated.transform[0].weight, gated.transform[3].weight
    torch.testing.assert_close(gated(x), x + plain(x))
    assert set(gated.attention(x)) == {"channel"}


@pytest.mark.parametrize(
    ("channels", "block", "more"),
    [
        # Table 4, rows that agree with each other: ResNet50, EfficientNetB0 and MobileNetV2.
        (2048, "squeeze_excite", 24_375_562 - 23_851_274),
        (2048, "cbam", 24_375_660 - 23_851_274),
        (2048, {"name": "global_context", "gated": True}, 24_375_562 - 23_851_274),
        (1280, "cbam", 4_419_727 - 4_214_829),
        (1280, "position_attention", 4_471_243 - 2_423_242),
        # Printed with two digits exchanged: 4,419,692 and 2,682,042.
        (1280, "squeeze_excite", 4_419_629 - 4_214_829),
        (1280, "squeeze_excite", 2_628_042 - 2_423_242),
    ],
)
def test_blocks_add_as_many_weights_as_the_papers(channels, block, more):
    with torch.device("meta"):
        bare, attached = (attach(nn.Identity(), b, 10, channels=channels) for b in ("", block))
    assert count_weights(attached) - count_weights(bare) == more


@pytest.mark.parametrize("printed", [258_800, 204_863])
def test_no_reduction_gives_what_follows_from_the_misprints(printed):
    """2 C m weights, m biases or none, C biases or none."""
    assert all(2560 * m + a * m + b * 1280 != printed for m in range(1, 1281) for a in (0, 1) for b in (0, 1))


def test_the_papers_head():
    net = attach(nn.Identity(), None, 10, channels=1280)
    assert count_weights(net) == 1280 * 128 + 128 + 128 * 10 + 10
    assert [type(part).__name__ for part in net.head[2:]] == ["Linear", "ReLU", "Dropout", "Linear"]
    assert net.head[4].p == 0.5


def tiny(block) -> nn.Module:
    """A small backbone with that block, all its weights awake."""
    body = nn.Sequential(nn.Conv2d(2, 4, 3), nn.Softplus(), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3), nn.Softplus())
    if isinstance(block, str) and block:
        block = {"name": block, "reduction": 2}
    with torch.random.fork_rng():
        torch.manual_seed(5)
        net = attach(body, block, CLASSES, channels=6, hidden=8).double().eval()
    for part in net.block.parameters():
        part.data += 0.3 * torch.randn(part.shape, generator=torch.Generator().manual_seed(part.numel())).double()
    return net


@every_block
@pytest.mark.parametrize("method", [Saliency(), GradCAM()], ids=lambda m: type(m).__name__)
def test_explanations_train_through_every_block(block, method):
    """The heatmap's gradient to all weights, the block's among them, agrees with central differences."""
    net = tiny(block)
    model, (inputs, target) = adapt(net), images()
    generator = torch.Generator().manual_seed(5)
    mix = torch.randn(3, 1, SIDE, SIDE, generator=generator, dtype=torch.float64)

    def loss():
        heatmap = method(model, inputs, target)
        return (heatmap * mix).sum() + heatmap.square().sum()

    weights = list(model.parameters())
    gradients = torch.autograd.grad(loss(), weights, allow_unused=True, materialize_grads=True)
    # A bias that is added to a map alone has no part in its gradient.
    own = {id(weight) for name, weight in net.block.named_parameters() if not name.endswith("bias")}
    assert all(g.abs().sum() > 0 for g, w in zip(gradients, weights, strict=True) if id(w) in own)
    direction = [torch.randn(w.shape, generator=generator, dtype=w.dtype) for w in weights]
    found = sum(float((g * d).sum()) for g, d in zip(gradients, direction, strict=True))
    differences = []
    for step in (1e-6, 1e-7):
        values = []
        for sign in (1, -2, 1):
            for weight, way in zip(weights, direction, strict=True):
                weight.data += sign * step * way
            values.append(float(loss().detach()))
        differences.append((values[0] - values[1]) / (2 * step))
    assert any(found == pytest.approx(difference, rel=1e-6) for difference in differences), (found, differences)


@every_block
def test_what_the_head_meets_is_explained(block):
    model, (inputs, target) = adapt(tiny(block)), images()
    assert model.layer == "block"
    together = GradCAM()(model, inputs, target).detach()
    alone = torch.cat([GradCAM()(model, inputs[i : i + 1], target[i : i + 1]).detach() for i in range(3)])
    assert together.shape == (3, 1, SIDE, SIDE)
    torch.testing.assert_close(together, alone)


@every_block
def test_attention_is_looked_at_without_a_trace(block):
    net, (inputs, _) = tiny(block).train(), images()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    maps = net.attention(inputs)
    assert net.training
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())
    assert not any(part._forward_hooks for part in net.modules())
    shapes = {"channel": (3, 6), "spatial": (3, 1, 3, 3), "context": (3, 1, 3, 3), "position": (3, 9, 9)}
    assert {name: tuple(values.shape) for name, values in maps.items()} == {name: shapes[name] for name in maps}
    assert not any(values.requires_grad for values in maps.values())
    assert bool(maps) == bool(block)
    for name, values in maps.items():
        assert (values >= 0).all()
        if name in ("position", "context"):
            whole = values.sum(dim=-1) if name == "position" else values.sum(dim=(1, 2, 3))
            torch.testing.assert_close(whole, torch.ones_like(whole))


def test_attention_is_what_the_pass_used():
    net, (inputs, _) = tiny("cbam"), images()
    maps, x = net.attention(inputs), net.backbone(inputs)
    torch.testing.assert_close(net.block(x), x * maps["channel"][:, :, None, None] * maps["spatial"])


def test_maps_of_chosen_layers():
    net, (inputs, _) = tiny("cbam"), images()
    model = adapt(net)
    found = feature_maps(model, inputs, ["backbone.0", "block"])
    assert list(found) == ["backbone.0", "block"]
    assert found["backbone.0"].shape == (3, 4, 10, 10)
    torch.testing.assert_close(found["block"], net.block(net.backbone(inputs)).detach())
    assert not found["block"].requires_grad
    with pytest.raises(BadModel, match="no layer named 'blok'"):
        feature_maps(model, inputs, ["blok"])
    with pytest.raises(ValueError, match="expected the names of layers"):
        feature_maps(model, inputs, [])


def test_maps_of_a_layer_that_does_not_run_are_refused():
    net = tiny("")
    net.spare = nn.ReLU()
    with pytest.raises(BadModel, match="'spare' does not run"):
        feature_maps(adapt(net), images()[0], ["spare"])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SqueezeExcite(0), "expected channels and reduction"),
        (lambda: CBAM(8, 0), "expected channels and reduction"),
        (lambda: CBAM(8, kernel=4), "expected an odd kernel"),
        (lambda: attach(nn.Identity(), "sbam", 3, channels=8), "Did you mean 'cbam'"),
        (lambda: attach(nn.Identity(), {"reduction": 2}, 3, channels=8), "unknown attention block ''"),
        (lambda: attach(nn.Identity(), {"name": "cbam", "width": 2}, 3, channels=8), "block 'cbam' cannot be made"),
        (lambda: attach(nn.Identity(), "cbam", 3, channels=8, dropout=1.0), "expected classes"),
        (lambda: attach(nn.Identity(), "cbam", 3), "name them: channels="),
    ],
)
def test_what_cannot_be_made_is_said(make, message):
    with pytest.raises(ValueError, match=message):
        make()
