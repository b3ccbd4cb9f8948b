"""What lies inside a network: outputs of layers, and the weights that attention blocks use."""

import re
from pathlib import Path

import pytest
import torch
from torch import nn

from rightreasons.core import BadModel
from rightreasons.models import (
    BLOCKS,
    AttentionBlock,
    LeNet,
    adapt,
    attach,
    attended,
    check_layers,
    inside,
    layer_outputs,
    layers_with_maps,
)
from tests.networks import images, network


def body():
    return nn.Sequential(nn.Conv2d(2, 4, 3), nn.ReLU(inplace=True), nn.AvgPool2d(2), nn.Conv2d(4, 6, 3))


def net(block="cbam"):
    with torch.random.fork_rng():
        torch.manual_seed(3)
        settings = {"name": block, "reduction": 2} if block else ""
        found = attach(body(), settings, 3, channels=6, hidden=8).double().eval()
        for weights in found.block.parameters():
            weights.data += 0.4 * torch.randn_like(weights)
    return found


def by_name(outputs):
    return {output.name: output for output in outputs}


@pytest.mark.parametrize("block", list(BLOCKS))
def test_the_weights_are_those_of_the_pass_and_the_output_is_as_ever(block):
    made, (inputs, _) = net(block), images()
    before = made(inputs)
    found = inside(adapt(made), inputs, ["backbone.3", "block"])
    assert torch.equal(found.logits, before)
    features, told = made.backbone(inputs).detach(), found.attention["block"]
    assert torch.equal(found.maps["backbone.3"], features)
    assert torch.equal(found.maps["block"], made.block(features))
    expected = made.block.attention(features)
    assert set(told.weights) == set(expected)
    assert all(torch.equal(told.weights[name], expected[name]) for name in expected)
    assert not any(values.requires_grad for values in (*told.weights.values(), told.change))
    assert (told.kind, told.size) == (type(made.block).__name__, (3, 3))
    assert told.scale == (made.block.scale.item() if block == "position_attention" else None)
    added = (made.block(features) - features).detach()
    for row in range(3):
        ratio = added[row].square().sum().sqrt() / features[row].square().sum().sqrt()
        torch.testing.assert_close(told.change[row], ratio)


def test_nothing_is_left_behind():
    made, (inputs, _) = net().train(), images()
    kept = {name: value.clone() for name, value in made.state_dict().items()}
    inside(adapt(made), inputs, ["block"])
    with pytest.raises(RuntimeError), attended(made):
        raise RuntimeError
    assert made.training
    assert all(value.equal(kept[name]) for name, value in made.state_dict().items())
    assert not any(part._forward_hooks or "attention" in vars(part) for part in made.modules())


def test_weights_are_read_from_the_forward_pass_and_not_computed_again():
    """A block whose attention differs from call to call shows what its own pass used."""

    class Counting(AttentionBlock):
        calls = 0

        def attention(self, features):
            self.calls += 1
            return {"channel": torch.full(features.shape[:2], float(self.calls))}

        def forward(self, features):
            return features * self.attention(features)["channel"][:, :, None, None]

    made = attach(body(), Counting(), 3, channels=6).double().eval()
    found = inside(adapt(made), images()[0], ["block"])
    assert made.block.calls == 1
    assert found.attention["block"].weights["channel"].eq(1).all()


def test_one_recording_inside_another_gives_the_block_back():
    made, (inputs, _) = net(), images()
    with torch.no_grad(), attended(made) as outer:
        with attended(made) as inner:
            made(inputs)
        assert "attention" in vars(made.block)
    assert torch.equal(outer["block"].weights["channel"], inner["block"].weights["channel"])
    assert "attention" not in vars(made.block)


def test_a_block_that_runs_twice_or_weighs_by_something_else_is_refused():
    class Twice(nn.Module):
        def __init__(self, inside):
            super().__init__()
            self.inside = inside

        def forward(self, x):
            return self.inside(self.inside(x))

    class Own(AttentionBlock):
        def attention(self, features):
            return {}

        def forward(self, features):
            return features

    inputs = images()[0]
    for block, message in ((Twice(net().block), "'block.inside' runs more than once"), (Own(), "ask its attention")):
        made = attach(body(), block, 3, channels=6).double().eval()
        with pytest.raises(BadModel, match=message):
            inside(adapt(made), inputs, ["backbone.0"])
        assert not any(part._forward_hooks or "attention" in vars(part) for part in made.modules())


def test_layers_tell_what_they_give():
    model = adapt(LeNet().eval())
    outputs = by_name(layer_outputs(model, torch.rand(2, 1, 28, 28)))
    assert outputs["conv1"].shape == (20, 24, 24)
    assert outputs["conv1"].shows
    assert outputs["conv1"].told == "maps, 20 x 24 x 24"
    assert (outputs["relu"].runs, outputs["relu"].told) == (3, "runs 3 times in a pass")
    assert outputs["fc2"].told == "a vector of 10"
    assert {name for name, output in outputs.items() if output.shows} == {"conv1", "conv2"}
    assert not any(part._forward_hooks for part in model.modules())


def test_token_layers_are_told_from_maps():
    model = adapt(network("transformer"))
    outputs = layer_outputs(model, images()[0])
    forms = {name: output.form for name, output in by_name(outputs).items()}
    assert forms["patch"] == "maps"
    assert forms["blocks.0.norm1"] == forms["blocks.1"] == "tokens"
    assert layers_with_maps(model, outputs) == ["patch"]
    with pytest.raises(BadModel, match=r"'blocks.1' has no maps .* gives tokens, 10 x 8; choose among .*: patch"):
        check_layers(model, outputs, ["blocks.1"])


class Last(nn.Module):
    """Channels last in the middle: a linear layer, a normalization and an activation behind a turned map."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.mix, self.act = nn.Conv2d(2, 7, 3), nn.LayerNorm(7), nn.Linear(7, 5), nn.ReLU()
        self.back, self.head = nn.Conv2d(5, 4, 1), nn.Linear(4, 3)

    def forward(self, x):
        x = self.act(self.mix(self.norm(self.conv(x).permute(0, 2, 3, 1))))
        return self.head(self.back(x.permute(0, 3, 1, 2)).mean(dim=(2, 3)))


@pytest.mark.parametrize("size", [(12, 12), (12, 20)])
def test_channels_last_are_told_from_channels_first(size):
    model = adapt(Last().eval())
    outputs = layer_outputs(model, torch.rand(1, 2, *size))
    forms = {name: output.form for name, output in by_name(outputs).items()}
    assert [forms[name] for name in ("norm", "mix", "act")] == ["maps, channels last"] * 3
    assert forms["conv"] == forms["back"] == "maps"
    with pytest.raises(BadModel, match=r"'act' .* gives maps with their channels last, .* conv, back"):
        check_layers(model, outputs, ["act"])


@pytest.mark.parametrize("inplace", [False, True])
def test_what_keeps_the_shape_keeps_the_form(inplace):
    """16 x 32 x 68: the first two sides stand to each other as those of the image do, by chance."""
    body = nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(inplace=inplace), nn.Dropout(), nn.Identity())
    model = adapt(nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2)).eval())
    outputs = by_name(layer_outputs(model, torch.rand(1, 1, 36, 72)))
    assert [outputs[name].form for name in ("0.0", "0.1", "0.2", "0.3", "0")] == ["maps"] * 5


class Added(nn.Module):
    """Convolution and ReLU; the same with a normalization between; the same with a sum in place between."""

    def __init__(self):
        super().__init__()
        self.first, self.second, self.third = (nn.Conv2d(k, 3, 3, padding=1) for k in (1, 3, 3))
        self.norm, self.act, self.head = nn.BatchNorm2d(3), nn.ReLU(inplace=True), nn.Linear(3, 2)

    def forward(self, x):
        x = self.act(input=self.act(self.first(x)))
        x = self.act(self.norm(self.second(x)))
        y = self.third(x)
        y += x
        return self.head(self.act(y).mean(dim=(2, 3)))


def test_a_relu_that_takes_an_output_as_it_is_is_told():
    model = adapt(Added().eval())
    outputs = by_name(layer_outputs(model, torch.rand(1, 1, 6, 6)))
    assert {name for name in ("first", "second", "norm", "third") if outputs[name].rectified} == {"first", "norm"}
    with torch.inference_mode():
        assert by_name(layer_outputs(model, torch.rand(1, 1, 6, 6)))["first"].rectified


def test_layers_are_listed_in_evaluation_mode_and_the_mode_is_kept():
    made = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)).train()
    made[1].eval()
    assert [output.name for output in layer_outputs(adapt(made), torch.rand(2, 1, 4, 4))] == ["0", "1", "2", "3"]
    assert [part.training for part in made] == [True, False, True, True]
    assert made[2].num_batches_tracked == 0


def test_a_layer_that_is_named_twice_is_refused_by_name():
    with pytest.raises(ValueError, match="expected each layer once, got 'block' 2 times"):
        inside(adapt(net()), images()[0], ["block", "backbone.0", "block"])


def test_convolutions_are_spread_over_depth_and_those_of_a_block_left_out():
    convolutions = [nn.Conv2d(2 if k == 0 else 3, 3, 3, padding=1) for k in range(12)]
    squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1))
    made = nn.Sequential(*convolutions, squeeze, nn.Flatten())
    model = adapt(nn.Sequential(made, nn.Linear(3, 2)).eval())
    outputs = layer_outputs(model, torch.rand(1, 2, 8, 8))
    assert layers_with_maps(model, outputs) == ["0.0", "0.3", "0.6", "0.8", "0.11"]
    assert layers_with_maps(model, outputs, most=1) == ["0.0"]
    with pytest.raises(ValueError, match="at least one convolution, got 0"):
        layers_with_maps(model, outputs, most=0)
    attached = adapt(net())
    assert layers_with_maps(attached, layer_outputs(attached, images()[0])) == ["backbone.0", "backbone.3", "block"]


def test_a_network_without_maps_says_so():
    model = adapt(nn.Sequential(nn.Flatten(), nn.Linear(288, 3)).double())
    outputs = layer_outputs(model, images()[0])
    with pytest.raises(BadModel, match="has no convolution or attention block with maps"):
        layers_with_maps(model, outputs)
    with pytest.raises(BadModel, match="gives a vector of 3; no layer of this network has any"):
        check_layers(model, outputs, ["1"])


def test_an_unknown_layer_is_told_with_near_ones():
    model = adapt(LeNet().eval())
    with pytest.raises(
        BadModel, match=r"no layer named 'conv3'. Did you mean 'conv2' or 'conv1'\? With maps there are: conv1"
    ):
        check_layers(model, layer_outputs(model, torch.rand(1, 1, 28, 28)), ["conv1", "conv3"])


def test_the_example_of_the_page_in_docs_runs(capsys):
    text = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
    _, block = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    exec(block, {"network": LeNet(), "images": torch.rand(1, 1, 28, 28)})
    assert "conv1 maps, 20 x 24 x 24" in capsys.readouterr().out


def test_the_example_of_blocks_in_docs_runs():
    text = (Path(__file__).parents[2] / "docs" / "features.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    exec(re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)[0], names)
    for name, kind, layer in (("network", "CBAM", "0"), ("attached", "PositionAttention", "backbone.0")):
        found = inside(adapt(names[name].eval()), torch.rand(2, 3, 32, 32), [layer])
        assert found.logits.shape == (2, 4)
        assert [block.kind for block in found.attention.values()] == [kind]
