"""Attention maps against the formula, and what has none."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from rightreasons.attribution.attention import multi_head_attention, scaled_dot_product_attention
from rightreasons.attribution.transformer import AttentionRollout, attended
from rightreasons.core import BadModel
from rightreasons.core.hooks import captured
from rightreasons.models import adapt
from tests.attribution.transformer.networks import CLASSES, NETWORKS, TimmViT, images, network

every_network = pytest.mark.parametrize("name", NETWORKS)

LAYERS = {
    "torchvision": ["layers.encoder_layer_0", "layers.encoder_layer_1"],
    "stock encoder": ["encoder.layers.0", "encoder.layers.1"],
    "stock encoder, tokens first": ["encoder.layers.0", "encoder.layers.1"],
} | {name: ["blocks.0", "blocks.1"] for name in ("timm fused", "timm unfused", "timm with registers")}


def projection(block):
    """The weight and bias of queries, keys and values in one, and the number of heads."""
    for name in ("self_attention", "self_attn"):
        if hasattr(block, name):
            module = getattr(block, name)
            return module.in_proj_weight, module.in_proj_bias, module.num_heads
    return block.attn.qkv.weight, block.attn.qkv.bias, block.attn.num_heads


def probabilities_by_hand(block, tokens):
    """Image by image and head by head from what the attention is shown, (T, D)."""
    weight, bias, heads = projection(block)
    width = weight.shape[1]
    queries, keys = (tokens @ weight[i : i + width].T + bias[i : i + width] for i in (0, width))
    size = width // heads
    each = []
    for head in range(heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.exp(queries[:, part] @ keys[:, part].T / math.sqrt(size))
        each.append(scores / scores.sum(1, keepdim=True))
    return torch.stack(each)


@every_network
def test_maps_are_the_probabilities_layer_by_layer(name):
    net, (inputs, _) = network(name), images()
    found = attended(adapt(net), inputs)
    torch.testing.assert_close(found.logits, net(inputs))
    first_norms = {"torchvision": "ln_1"} | dict.fromkeys(["stock encoder, tokens first"], "norm1")
    with captured(net, [f"{layer}.{first_norms.get(name, 'norm1')}" for layer in LAYERS[name]]) as normed:
        net(inputs)
    shown = list(normed.values())
    if name == "stock encoder":  # normalizes behind the attention: a block sees what the one ahead returns
        with captured(net, ["patch", "encoder.layers.0"]) as activations:
            net(inputs)
        shown = [activations["patch"].flatten(2).mT, activations["encoder.layers.0"]]
    if name == "stock encoder, tokens first":
        shown = [tokens.transpose(0, 1) for tokens in shown]
    assert len(found.maps) == 2
    for maps, layer, tokens in zip(found.maps, LAYERS[name], shown, strict=True):
        block = net.get_submodule(layer)
        expected = torch.stack([probabilities_by_hand(block, one) for one in tokens])
        torch.testing.assert_close(maps, expected)


@every_network
@pytest.mark.parametrize("gradients", [True, False])
def test_no_fast_path_hides_the_maps(name, gradients):
    net, (inputs, _) = network(name).requires_grad_(False), images()
    with torch.set_grad_enabled(gradients):
        found = attended(adapt(net), inputs)
    assert [m.shape[:2] for m in found.maps] == [(3, 2), (3, 2)]
    assert found.logits.requires_grad == gradients
    assert not inputs.requires_grad


def test_a_recorded_pass_is_run_again():
    from rightreasons.models import record

    model, (inputs, target) = adapt(network("timm fused")), images()
    recorded = record(model, inputs.requires_grad_())
    torch.testing.assert_close(AttentionRollout()(recorded, inputs, target), AttentionRollout()(model, inputs, target))


class Once(nn.Module):
    """One attention in a network of patches."""

    def __init__(self, attend) -> None:
        super().__init__()
        self.attend = attend

    def forward(self, x):
        tokens = x.flatten(2).mT
        return self.attend(tokens).mean(1) @ torch.ones(2, CLASSES, dtype=x.dtype)


def folded(x):
    """Batch and heads in one axis, as torch.bmm asks for."""
    heads = x.unflatten(-1, (2, 1)).transpose(1, 2).flatten(0, 1)
    weights = torch.softmax(torch.bmm(heads, heads.mT), 2)
    return torch.bmm(weights, heads).unflatten(0, (-1, 2)).transpose(1, 2).flatten(2)


FOLLOWED = {
    "no heads": lambda x: (x @ x.mT).softmax(-1) @ x,
    "folded heads": folded,
    "einsum": lambda x: torch.einsum("bij,bjd->bid", F.softmax(torch.einsum("bid,bjd->bij", x, x), dim=-1), x),
    "in single precision": lambda x: F.softmax(x @ x.mT, dim=-1, dtype=torch.float32).to(x.dtype) @ x,
    "grouped queries": lambda x: (
        F.scaled_dot_product_attention(
            x.unflatten(-1, (2, 1)).transpose(1, 2),
            x[:, None, :, :1],
            x[:, None, :, 1:],
            enable_gqa=True,
        )
        .transpose(1, 2)
        .flatten(2)
    ),
}


@pytest.mark.parametrize("form", FOLLOWED)
def test_other_ways_to_write_an_attention(form):
    net, (inputs, _) = Once(FOLLOWED[form]), images()
    found = attended(adapt(net), inputs)
    assert len(found.maps) == 1
    assert found.maps[0].shape == (3, 1 if form in ("no heads", "einsum", "in single precision") else 2, 96, 96)
    torch.testing.assert_close(found.logits, net(inputs))
    (slopes,) = torch.autograd.grad(found.logits.sum(), found.raw)
    assert slopes.abs().sum() > 0


def heads_ahead(x, heads=2):
    """Heads in the first axis and images behind them, folded into one as torch.bmm asks for."""
    split = torch.cat((x * torch.tensor([1.0, 3.0]).to(x)).split(2 // heads, 2), 0)
    return torch.cat((torch.bmm(split, split.mT).softmax(-1) @ split).chunk(heads), 2)


def heads_ahead_unfolded(x):
    split = torch.stack((x * torch.tensor([1.0, 3.0]).to(x)).split(1, 2))
    return torch.cat(((split @ split.mT).softmax(-1) @ split).unbind(0), 2)


REFUSED = {
    "heads ahead of images in one axis": (heads_ahead, "heads ahead of its images"),
    "heads ahead of images": (heads_ahead_unfolded, "heads ahead of its images"),
    "none": (lambda x: x, "no softmax attention"),
    "a gate": (lambda x: x.softmax(-1) * x, "no softmax attention"),
    "few to many": (lambda x: F.scaled_dot_product_attention(x[:, :4], x, x), "from few tokens to many"),
    "windows": (
        lambda x: (
            F.scaled_dot_product_attention(*[x.unflatten(1, (4, -1)).flatten(0, 1)[:, None]] * 3)
            .unflatten(0, (-1, 4))
            .flatten(1, 3)
        ),
        "within windows",
    ),
    "two resolutions": (
        lambda x: F.scaled_dot_product_attention(*[F.scaled_dot_product_attention(x, x, x)[:, ::2]] * 3),
        "at several resolutions",
    ),
    "an unknown operator between": (
        lambda x: (torch.roll((x @ x.mT)[:, None].softmax(-1), 1, 1) @ x[:, None])[:, 0],
        "unknown operator",
    ),
}


@pytest.mark.parametrize("form", REFUSED)
def test_what_has_no_maps_of_one_form_is_refused_in_one_sentence(form):
    attend, message = REFUSED[form]
    with pytest.raises(BadModel, match=message) as error:
        attended(adapt(Once(attend)), images()[0])
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("attend", [heads_ahead, heads_ahead_unfolded])
@pytest.mark.parametrize("training", [False, True])
def test_as_many_heads_as_images_do_not_hide_their_order(attend, training):
    net, (inputs, _) = Once(attend).train(training), images(2)
    with pytest.raises(BadModel, match="heads ahead of its images"):
        attended(adapt(net), inputs)
    assert net.training == training
    assert attended(adapt(Once(heads_ahead)), inputs[:1]).maps[0].shape == (1, 2, 96, 96)


@pytest.mark.parametrize("count", [2, 4])
def test_folded_heads_are_those_of_their_image(count):
    inputs, net = images(count)[0], Once(FOLLOWED["folded heads"])
    alone = [attended(adapt(net), image[None]).maps[0] for image in inputs]
    torch.testing.assert_close(attended(adapt(net), inputs).maps[0], torch.cat(alone))


def test_alike_heads_and_images_raise_nothing():
    inputs = images(1)[0].expand(4, -1, -1, -1)
    with torch.no_grad():
        assert attended(adapt(Once(folded)), inputs * 0).maps[0].shape == (4, 2, 96, 96)


def test_a_kernel_of_a_whole_layer_is_refused():
    layer = nn.MultiheadAttention(2, 2, batch_first=True).double().eval()

    def attend(x):
        weights = (layer.in_proj_weight, layer.in_proj_bias, layer.out_proj.weight, layer.out_proj.bias)
        return torch._native_multi_head_attention(x, x, x, 2, 2, *weights)[0]

    with torch.no_grad(), pytest.raises(BadModel, match="hides its attention map"):
        attended(adapt(Once(attend)), images()[0])


MASKS = {
    "none": {},
    "bool": {"attn_mask": torch.ones(5, 5).tril().bool()},
    "bool, one query sees nothing": {"attn_mask": torch.ones(5, 5).tril(-1).bool()},
    "float": {"attn_mask": torch.linspace(-1, 1, 25, dtype=torch.float64).view(5, 5)},
    "one an image": {"attn_mask": torch.ones(2, 1, 5, 5).triu().bool()},
    "causal": {"is_causal": True},
    "scaled": {"scale": 0.3},
}


@pytest.mark.parametrize("form", MASKS)
def test_the_plain_formula_is_torchs_function(form):
    generator = torch.Generator().manual_seed(0)
    parts = [torch.randn(2, 3, 5, 4, generator=generator, dtype=torch.float64) for _ in range(3)]
    for part in parts:
        part.requires_grad_()
    found, expected = (
        function(*parts, **MASKS[form]) for function in (scaled_dot_product_attention, F.scaled_dot_product_attention)
    )
    torch.testing.assert_close(found, expected)
    slopes = [torch.autograd.grad(values.square().sum(), parts) for values in (found, expected)]
    torch.testing.assert_close(*slopes)


MODULES = {
    "plain": {},
    "batch first": {"batch_first": True},
    "no bias": {"bias": False},
    "learned key": {"add_bias_kv": True},
    "key of zeros": {"add_zero_attn": True},
    "other widths": {"kdim": 5, "vdim": 7},
}
PADDING = torch.tensor([[False, False, True]] * 3)


def float_mask(hidden):
    return torch.zeros(hidden.shape, dtype=torch.float64).masked_fill(hidden, -math.inf)


MODULE_MASKS = {
    "none": {},
    "padding": {"key_padding_mask": PADDING},
    "padding as numbers": {"key_padding_mask": float_mask(PADDING)},
    "future": {"attn_mask": torch.ones(3, 3).triu(1).bool()},
    "one a head": {"attn_mask": torch.linspace(-1, 1, 54, dtype=torch.float64).view(6, 3, 3)},
    "both": {"key_padding_mask": PADDING, "attn_mask": torch.ones(3, 3).triu(1).bool()},
}


class Expanding(torch.overrides.TorchFunctionMode):
    def __torch_function__(self, func, types, args=(), kwargs=None):
        known = func is F.multi_head_attention_forward
        return (multi_head_attention if known else func)(*args, **(kwargs or {}))


@pytest.mark.parametrize("form", MODULES)
@pytest.mark.parametrize("mask", MODULE_MASKS)
@pytest.mark.parametrize("weights", [{}, {"need_weights": False}, {"average_attn_weights": False}])
def test_multi_head_attention_written_out_is_torchs_module(form, mask, weights):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        module = nn.MultiheadAttention(8, 2, **MODULES[form]).double().eval()
        settings = MODULES[form]
        parts = [torch.randn(3, 3, n).double() for n in (8, settings.get("kdim", 8), settings.get("vdim", 8))]
    expected = module(*parts, **MODULE_MASKS[mask], **weights)
    with Expanding():
        found = module(*parts, **MODULE_MASKS[mask], **weights)
        alone = module(*(part[:, 0] for part in parts)) if mask == "none" and not module.batch_first else None
    torch.testing.assert_close(found, expected)
    if alone is not None:
        torch.testing.assert_close(alone, module(*(part[:, 0] for part in parts)))


def test_masks_of_truth_values_hide_what_is_true():
    """The module makes numbers of its masks; a call of the function hands them on as they are."""
    parts = torch.randn(3, 3, 2, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = torch.randn(24, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    masks = {"attn_mask": torch.ones(3, 3).triu(1).bool(), "key_padding_mask": torch.tensor([[False] * 3, [0, 1, 0]])}
    masks["key_padding_mask"] = masks["key_padding_mask"].bool()
    rest = (8, 2, weight, None, None, None, False, 0.0, weight[:8], None)
    for names in (["attn_mask"], ["key_padding_mask"], list(masks)):
        given = {name: masks[name] for name in names}
        expected = F.multi_head_attention_forward(*parts, *rest, training=False, **given)
        torch.testing.assert_close(multi_head_attention(*parts, *rest, training=False, **given), expected)


def test_static_keys_are_refused():
    x, weight, bias = torch.zeros(2, 1, 4), torch.zeros(12, 4), torch.zeros(12)
    with pytest.raises(BadModel, match="static keys"):
        multi_head_attention(
            x, x, x, 4, 2, weight, bias, None, None, False, 0.0, torch.zeros(4, 4), None, static_k=torch.zeros(2, 2, 2)
        )


def test_fused_and_unfused_are_the_same_network():
    fused, unfused = network("timm fused"), TimmViT(fused=False).double().eval()
    unfused.load_state_dict(fused.state_dict())
    inputs, _ = images()
    for one, other in zip(attended(adapt(fused), inputs).maps, attended(adapt(unfused), inputs).maps, strict=True):
        torch.testing.assert_close(one, other)


def test_dropout_in_training_mode_comes_behind_the_maps():
    for name in ("torchvision", "stock encoder"):
        net, (inputs, _) = network(name).train(), images()
        for module in net.modules():
            if isinstance(module, nn.MultiheadAttention):
                module.dropout = 0.9
        found = attended(adapt(net), inputs)
        for maps in found.maps:
            torch.testing.assert_close(maps.sum(-1), torch.ones_like(maps[..., 0]))
        first, second = (attended(adapt(net), inputs).logits for _ in range(2))
        assert not torch.allclose(first, second)
