from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from rightreasons.core import BadModel
from rightreasons.models import MLP, MODELS, AdaptedClassifier, BaselineCNN, LeNet, adapt, build, check_fits, record
from rightreasons.models.blocks import BLOCKS
from tests.networks import images, network


@pytest.mark.parametrize(
    ("net", "layer"),
    [("relu", "3"), ("batch_norm", "second.0"), ("residual", "conv2"), ("transformer", "blocks.1.norm1")],
)
def test_the_explained_layer_is_found_and_said(net, layer):
    model = adapt(network(net))
    assert model.layer == layer
    assert f"layer={layer!r}" in repr(model)


class Stage(nn.Module):
    """A residual block whose shortcut is registered last."""

    def __init__(self, middle: int, kernel: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, middle, 3, padding=1)
        self.conv2 = nn.Conv2d(middle, 8, kernel, padding=kernel // 2)
        self.shortcut = nn.Sequential(nn.Conv2d(2, 8, 1), nn.BatchNorm2d(8))


def test_a_shortcut_is_not_the_last_convolution():
    assert adapt(nn.Sequential(nn.Identity(), Stage(4, 3))).layer == "1.conv2"
    bottleneck = Stage(4, 1)
    bottleneck.shortcut = nn.Identity()
    assert adapt(nn.Sequential(bottleneck)).layer == "0.conv2"
    with pytest.raises(BadModel, match=r"or a block of them: 1"):
        adapt(nn.Sequential(nn.Identity(), Stage(4, 3)), "nope")


def test_adapting_twice_or_with_another_layer_shares_the_network():
    model = adapt(network("relu"))
    assert adapt(model) is model
    other = adapt(model, "0")
    assert (model.layer, other.layer) == ("3", "0")
    assert other.network is model.network


def test_preprocessing_belongs_to_the_model_and_not_to_its_weights():
    net, (inputs, _) = network("relu"), images()
    model = adapt(net, mean=(0.1, 0.2), std=(0.5, 2.0)).double()
    scaled = torch.stack([(inputs[:, 0] - 0.1) / 0.5, (inputs[:, 1] - 0.2) / 2.0], dim=1)
    torch.testing.assert_close(model(inputs), net(scaled))
    assert set(model.state_dict()) == {f"network.{name}" for name in net.state_dict()}


def test_outputs_with_logits_are_understood_and_others_refused():
    class Wrapped(nn.Module):
        def __init__(self, wrap) -> None:
            super().__init__()
            self.net, self.wrap = network("relu"), wrap

        def forward(self, x):
            return self.wrap(self.net(x))

    inputs, _ = images()
    assert adapt(Wrapped(lambda y: SimpleNamespace(logits=y)))(inputs).shape == (3, 3)
    with pytest.raises(BadModel, match="returns dict"):
        adapt(Wrapped(lambda y: {"out": y}))(inputs)
    with pytest.raises(BadModel, match="shape"):
        adapt(Wrapped(lambda y: y[..., None]))(inputs)


@pytest.mark.wrong_types
def test_what_is_no_module_is_refused():
    with pytest.raises(ValueError, match=r"torch\.nn\.Module, got str"):
        adapt("resnet")
    with pytest.raises(BadModel, match="no layer named 'nope'"):
        adapt(network("relu"), "nope")


def test_a_recorded_pass_is_used_again_for_the_same_tensor_only():
    calls = []
    net, (inputs, _) = network("relu"), images()
    net.register_forward_hook(lambda *_: calls.append(1))
    inputs.requires_grad_()
    recorded = record(adapt(net), inputs)
    assert len(calls) == 1
    assert recorded.trace(inputs, ["3"]).logits is recorded.logits
    assert recorded(inputs) is recorded.logits
    assert len(calls) == 1
    recorded.trace(inputs.clone(), ["3"])
    recorded.trace(inputs, ["0"])
    assert len(calls) == 3


def test_a_pass_may_be_recorded_for_its_activations_alone():
    """The way back to the image, which a loss on activations does not need, is then no part of the graph."""
    model, (inputs, _) = adapt(network("relu")), images()
    recorded = record(model, inputs, ["3"])
    trace = recorded.trace(inputs, ["3"])
    torch.testing.assert_close(trace.logits, model(inputs))
    assert trace.activations["3"].requires_grad  # by the weights
    assert not trace.inputs.requires_grad
    assert not inputs.requires_grad


def test_a_model_that_does_not_fit_the_data_says_so():
    model, (inputs, target) = adapt(network("relu").float()).train(), images(dtype=torch.float32)
    check_fits(model, inputs, target)
    assert model.training
    with pytest.raises(BadModel, match=r"shape \(2, 5, 5\)"):
        check_fits(model, inputs[..., :5, :5], target)
    with pytest.raises(ValueError, match="expected 0 to 2, got 3"):
        check_fits(model, inputs, target + 1)


@pytest.mark.parametrize("error", [AssertionError("expected 224"), TypeError("missing text"), IndexError])
def test_a_network_may_refuse_in_its_own_way(error):
    class Picky(nn.Module):
        def forward(self, x):
            raise error

    with pytest.raises(BadModel, match="cannot take images of shape"):
        check_fits(adapt(Picky()), *images(1))


def test_the_baseline_has_the_papers_number_of_parameters():
    assert sum(p.numel() for p in BaselineCNN().parameters()) == 225_610
    assert adapt(BaselineCNN()).layer == "3"


@pytest.mark.parametrize("name", list(MODELS))
def test_our_networks_take_the_shape_of_the_data(name):
    # The layers behind a frozen network take its maps.
    shape = (112, 8, 6) if name == "efficientnet_lite0_tail" else (3, 32, 20)
    net = build(name, shape, 4).eval()
    assert net(torch.rand(2, *shape)).shape == (2, 4)


def test_lenet_is_the_protocols():
    net = LeNet()
    assert (net.fc1.in_features, net.fc1.out_features, net.fc2.out_features) == (800, 256, 10)
    assert LeNet((1, 8, 8), 10, kernel=3, padding=1)(torch.rand(1, 1, 8, 8)).shape == (1, 10)
    with pytest.raises(BadModel, match="images of 8 pixels are too small"):
        LeNet((1, 8, 8))


def test_the_papers_mlp():
    net = MLP(initial_sd=0.1)
    assert [m.out_features for m in net if isinstance(m, nn.Linear)] == [50, 30, 10]
    assert float(net[1].weight.detach().std()) == pytest.approx(0.1, rel=0.05)


@pytest.mark.wrong_types
def test_a_users_network_is_found_by_file_and_by_package(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "from torch import nn\ndef net(classes):\n    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))\n"
        "number = 3\ndef odd():\n    return 3\n"
    )
    file = tmp_path / "mine.py"
    assert isinstance(build(f"{file}:net", (1, 4, 4), 2), nn.Sequential)
    (tmp_path / "a_package_of_mine.py").write_text(file.read_text())
    monkeypatch.chdir(tmp_path)
    assert isinstance(build("a_package_of_mine:net", (1, 4, 4), 2), nn.Sequential)
    assert "mine" not in sys.modules
    for name, message in {
        f"{file}:missing": "no function 'missing'",
        f"{file}:number": "no function 'number'",
        f"{file}:odd": "returned int",
        f"{tmp_path / 'gone.py'}:net": "no file",
        "no_such_package:net": "cannot import",
    }.items():
        with pytest.raises(BadModel, match=message):
            build(name, (1, 4, 4), 2)
    with pytest.raises(ValueError, match="Did you mean 'lenet'"):
        build("lenett", (1, 28, 28), 10)
    with pytest.raises(BadModel, match="unexpected keyword argument 'widths'"):
        build("mlp", (1, 28, 28), 10, settings={"widths": 3})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")  # torch's own, at import
def test_a_compiled_network_is_explained_through_its_original():
    net = network("relu")
    assert isinstance(adapt(torch.compile(net)), AdaptedClassifier)
    assert adapt(torch.compile(net)).network is net


def test_the_check_gives_every_module_its_mode_back():
    net = network("batch_norm").train()
    net.first[1].eval()
    model = adapt(net)
    before = [module.training for module in model.modules()]
    inputs, target = images(dtype=torch.float64)
    check_fits(model, inputs, target)
    assert [module.training for module in model.modules()] == before
    with pytest.raises(BadModel):
        check_fits(model, inputs[..., :5, :5], target)
    assert [module.training for module in model.modules()] == before


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"std": [0.2, 0.0]}, "deviations above 0"),
        ({"std": [-1.0]}, "deviations above 0"),
        ({"std": [float("inf")]}, "deviations above 0"),
        ({"mean": [float("nan")]}, "finite means"),
        ({"mean": []}, "one a channel, got 0 and 1"),
        ({"mean": [0.1, 0.2], "std": [1.0, 1.0, 1.0]}, "one a channel, got 2 and 3"),
    ],
)
def test_an_impossible_standardization_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        adapt(network("relu"), **settings)


def test_standardization_must_have_the_images_channels():
    net, (inputs, target) = network("relu"), images()
    assert adapt(net, mean=[0.1], std=[0.5, 0.7])(inputs).shape == (3, 3)
    with pytest.raises(BadModel, match="expected images of 2 channels, as mean and std have, got 1"):
        check_fits(adapt(net, mean=[0.1, 0.2]), inputs[:, :1], target)


@pytest.mark.parametrize("block", ["squeeze_excite", "cbam", "position_attention", "global_context"])
def test_no_layer_inside_an_attention_block_is_explained(block):
    made = BLOCKS[block](6)
    behind = nn.Sequential(nn.Conv2d(2, 6, 3), nn.ReLU(), made, nn.Flatten())
    assert adapt(behind).layer == "2"
    stage = Stage(4, 3)
    stage.shortcut = nn.Identity()
    stage.block, stage.downsample = BLOCKS[block](8), nn.Conv2d(2, 8, 1)
    assert adapt(nn.Sequential(nn.Identity(), stage)).layer == "1.block"
    ahead = nn.Sequential(nn.Conv2d(2, 6, 3), made, nn.Sequential(nn.Conv2d(6, 4, 3)), nn.Flatten())
    assert adapt(ahead).layer == "2.0"
