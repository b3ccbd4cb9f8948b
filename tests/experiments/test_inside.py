"""What is told of feature maps and attention, against plain versions."""

import pytest
import safetensors.torch
import torch
from torch import nn

from rightreasons.core import BadModel
from rightreasons.data.arrays import ArrayDataset
from rightreasons.experiments import FeatureSettings, look_inside, offered
from rightreasons.experiments.inside import BlockView, ChannelWeights, LayerView
from rightreasons.experiments.inside.asked import cell_of
from rightreasons.experiments.subject import Subject
from rightreasons.models import BlockAttention, adapt, attach

CLASSES = ("<b>ä</b>", '"猫"', "plain & dog")


def subject(block="cbam", images=20, size=(12, 16)):
    torch.manual_seed(0)
    pictures = torch.randint(0, 256, (images, 3, *size), dtype=torch.uint8)
    data = ArrayDataset(pictures, torch.arange(images) % 3, classes=CLASSES, name="<noise>")
    body = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 6, 3, padding=1))
    body[3].bias.data[2] = body[0].bias.data[5] = -100.0
    body[3].weight.data[4] = 0.0
    network = attach(body, {"name": block, "reduction": 2} if block else "", 3, channels=6, hidden=4)
    return Subject(adapt(network.eval()), data, None)


def layer(values, *, rectified=True):
    return LayerView("l", "Conv2d", torch.tensor(values, dtype=torch.float32), rectified)


def test_activity_order_dead_and_below_zero():
    # Two images, four channels of one row of two places.
    one = layer(
        [
            [[[1.0, -1.0]], [[0.0, 0.0]], [[-5.0, -6.0]], [[0.0, 2.0]]],
            [[[1.0, -3.0]], [[0.0, 0.0]], [[-5.0, 0.0]], [[0.0, 2.0]]],
        ]
    )
    torch.testing.assert_close(one.activity, torch.tensor([[1.0, 0.0, 5.5, 1.0], [2.0, 0.0, 2.5, 1.0]]))
    assert one.order.tolist() == [2, 0, 3, 1]
    assert one.signed
    told = one.told(2)
    assert (told["dead"], told["never_positive"], told["shown"]) == ([1], [2], [2, 0])
    assert (told["channels"], told["size"], told["least"], told["largest"]) == (4, [1, 2], -6.0, 2.0)


def test_a_channel_is_dead_only_if_it_is_the_same_in_all_images():
    assert layer([[[[3.0, 3.0]]], [[[4.0, 4.0]]]]).dead.tolist() == [False]
    assert layer([[[[3.0, 3.0]]], [[[3.0, 3.0]]]]).dead.tolist() == [True]
    # A single value cannot differ from anything.
    assert layer([[[[3.0]]]]).dead.tolist() == [False]
    assert not layer([[[[3.0, 0.0]]]]).signed
    assert layer([[[[-3.0, -1.0]]]]).never_positive.tolist() == [True]
    # A normalization behind the layer may raise what is below zero.
    assert layer([[[[-3.0, -1.0]]]], rectified=False).told(1)["never_positive"] is None


def test_values_that_are_not_finite_do_not_come_first():
    one = layer([[[[float("nan"), 1.0]], [[2.0, 2.5]], [[float("inf"), 1.0]]]])
    assert one.order.tolist() == [1, 0, 2]


def test_channels_are_raised_and_damped_against_the_mean():
    weights = ChannelWeights(torch.tensor([0.2, 0.9, 0.5, 0.8, 0.1]))
    assert [c for c, _ in weights.raised] == [1, 3]
    assert [c for c, _ in weights.damped] == [4, 0]
    assert weights.told["above_mean"] == 2
    even = ChannelWeights(torch.full((4,), 0.5))
    assert even.raised == even.damped == []


def test_a_pixel_asks_for_the_place_in_which_it_lies():
    assert cell_of((0, 0), (28, 28), (7, 7)) == (0, 0)
    assert cell_of((27, 13), (28, 28), (7, 7)) == (3, 6)
    assert cell_of((15, 11), (12, 16), (3, 4)) == (2, 3)
    with pytest.raises(ValueError, match=r"a pixel from 0,0 to 15,11 \(column,row\), got 3,12"):
        cell_of((3, 12), (12, 16), (3, 4))


def test_position_attention_is_shown_from_a_place_and_as_received():
    position = torch.rand(1, 6, 6).softmax(dim=2)
    told = BlockAttention("PositionAttention", (2, 3), {"position": position}, 0.5, torch.zeros(1))
    block = BlockView("b", told, (8, 12), [(11, 7), (0, 5)])
    first, second, received = block.places(0)
    assert (first.cell, second.cell, received.cell) == ((1, 2), (1, 0), None)
    assert torch.equal(first.values.flatten(), position[0, 5])
    assert torch.equal(second.values.flatten(), position[0, 3])
    taken = torch.stack([position[0, :, place].mean() for place in range(6)]).view(2, 3)
    torch.testing.assert_close(received.values, taken)
    assert first.even == received.even == pytest.approx(1 / 6)
    assert block.channels(0) is None
    row, column = received.told["largest_at"]
    assert taken[row, column] == taken.max()


@pytest.mark.parametrize("block", ["squeeze_excite", "cbam", "position_attention", "global_context"])
def test_the_record_tells_layers_blocks_and_images(tmp_path, block):
    case = subject(block)
    case.model.train()
    view = look_inside(case, FeatureSettings(images=3, maps=4), tmp_path, device="cpu")
    assert case.model.training
    results = view.record.results
    assert list(results["layers"]) == ["backbone.0", "backbone.3", "block"]
    assert results["layers"]["backbone.3"]["dead"] == [4]
    assert len(results["layers"]["backbone.0"]["shown"]) == 4
    assert view.record.config["layers"] == ("backbone.0", "backbone.3", "block")
    told = results["images"][0]["attention"]["block"]
    assert (told["channel"] is not None) == (block in ("squeeze_excite", "cbam"))
    assert len(told["places"]) == {"squeeze_excite": 0, "position_attention": 2}.get(block, 1)
    assert results["attention"]["block"]["scale"] == (0.0 if block == "position_attention" else None)
    raw = safetensors.torch.load_file(tmp_path / "features.safetensors")
    index = view.looked.index
    case.model.eval()
    with torch.no_grad():
        inputs = case.data.batch(index).inputs
        expected = case.model.network.backbone(inputs)
        assert torch.equal(view.probabilities, case.model(inputs).softmax(dim=1))
    torch.testing.assert_close(raw["maps.backbone.3"], expected)
    first = raw["maps.backbone.0"]
    below = [c for c in range(8) if first[:, c].max() <= 0]
    assert results["layers"]["backbone.0"]["never_positive"] == below
    assert 5 in below
    assert results["layers"]["backbone.3"]["never_positive"] is None
    for name, values in case.model.network.block.attention(expected).items():
        torch.testing.assert_close(raw[f"attention.block.{name}"], values.detach())


def test_many_images_are_as_if_each_were_alone(tmp_path):
    case = subject("position_attention")
    view = look_inside(case, FeatureSettings(index=tuple(range(11))), tmp_path, device="cpu")
    alone = look_inside(case, FeatureSettings(index=(10,)), tmp_path, device="cpu")
    torch.testing.assert_close(view.layers[1].maps[10:], alone.layers[1].maps)
    weights = view.blocks[0].attention.weights["position"]
    assert weights.shape == (11, 48, 48)
    torch.testing.assert_close(weights[10:], alone.blocks[0].attention.weights["position"])
    assert view.settings.queries == ((8, 6),)


def test_layers_are_offered_with_those_that_are_shown():
    found = {output.name: usual for output, usual in offered(subject(), "cpu")}
    assert [name for name, usual in found.items() if usual] == ["backbone.0", "backbone.3", "block"]
    assert "head.2" in found
    bare = Subject(adapt(nn.Sequential(nn.Flatten(), nn.Linear(576, 3)).eval()), subject().data, None)
    assert not any(usual for _, usual in offered(bare, "cpu"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": 0}, "1 to 24 images on a page, got 0"),
        ({"images": 25}, "1 to 24 images on a page, got 25"),
        ({"index": tuple(range(30))}, "1 to 24 images on a page, got 30"),
        ({"maps": 0}, "at least one map"),
        ({"index": (1,), "pictures": ("a.png",)}, "expected one way to name images"),
        ({"layers": ("conv1", "conv1")}, "each layer once, got 'conv1' 2 times"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        FeatureSettings(**settings)


@pytest.mark.parametrize(
    ("block", "settings", "message"),
    [
        ("cbam", {"queries": ((1, 1),)}, "asks a PositionAttention block, and the network has CBAM only"),
        ("", {"queries": ((1, 1),)}, "the network has no attention block"),
        ("position_attention", {"queries": ((16, 1),)}, "a pixel from 0,0 to 15,11"),
        ("cbam", {"index": (20,)}, "expected positions from 0 to 19, got 20"),
        ("cbam", {"layers": ("head.2",)}, "'head.2' has no maps of places"),
        ("cbam", {"layers": ("blok",)}, "no layer named 'blok'. Did you mean 'block'"),
    ],
)
def test_what_cannot_be_shown_is_refused_and_leaves_no_folder(tmp_path, block, settings, message):
    with pytest.raises((ValueError, BadModel), match=message):
        look_inside(subject(block), FeatureSettings(**settings), tmp_path / "out", device="cpu")
    assert not (tmp_path / "out").exists()
