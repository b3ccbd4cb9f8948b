"""Right where a method that works by module type is silently wrong: the catalogue on networks as people write them."""

from __future__ import annotations

import gc
from functools import cache

import psutil
import pytest
import torch
from torch import nn

from rightreasons.attribution import LRP, DeepLIFT, IntegratedGradients, KernelSHAP
from rightreasons.core import BadModel
from rightreasons.models import adapt
from tests.attribution.written import WAYS, Written, photographs, resnet18, vision_transformer
from tests.contracts.test_attributions import ASKS_FOR, METHODS, REFUSES_TRAINING, SETTINGS, make
from tests.networks import images, network

every_method = pytest.mark.parametrize("method", METHODS)
# Methods for networks of one form are held to it elsewhere.
general = pytest.mark.parametrize("method", [method for method in METHODS if method not in ASKS_FOR])
WITH_REFERENCES = [method for method in METHODS if "references" in SETTINGS.get(method, {})]


def written(way: type[Written], dtype: torch.dtype = torch.float64) -> nn.Module:
    torch.manual_seed(0)
    plain = Written().to(dtype).eval()
    form = way().to(dtype).eval()
    form.load_state_dict(plain.state_dict())
    return form


@cache
def expected(method: str) -> torch.Tensor:
    return make(method)(adapt(written(Written), "conv4"), *images()).detach()


@general
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_same_function_in_other_words_has_the_same_map(method, way):
    heatmap = make(method)(adapt(written(way), "conv4"), *images()).detach()
    assert expected(method).abs().sum() > 0
    torch.testing.assert_close(heatmap, expected(method), rtol=1e-9, atol=1e-9)


def shown(method: str, photos: torch.Tensor):
    """The method with settings for these pictures."""
    return make(method, **({"references": photos.flip(0)} if method in WITH_REFERENCES else {}))


def refusal(method: str, net: nn.Module, side: int) -> str | None:
    """What it says where it refuses; any other error is a failure."""
    photos, target = photographs(side)
    try:
        heatmap = shown(method, photos)(adapt(net), photos, target)
    except BadModel as error:
        return str(error)
    assert heatmap.shape == (2, 1, side, side)
    assert torch.isfinite(heatmap).all()
    assert heatmap.abs().sum() > 0
    return None


def one_sentence(said: str | None) -> bool:
    return said is not None and "\n" not in said and 20 < len(said) < 400


@every_method
def test_a_residual_network_as_shipped_is_explained(method):
    said = refusal(method, resnet18(), 64)
    assert one_sentence(said) if ASKS_FOR.get(method) == "transformer" else said is None


@every_method
def test_a_vision_transformer_as_shipped_is_explained_or_refused(method):
    said = refusal(method, vision_transformer(), 32)
    # A class activation map asks for a pooled head.
    assert one_sentence(said) if method == "cam" else said is None


@pytest.mark.parametrize(("build", "side"), [(resnet18, 64), (vision_transformer, 32)])
def test_what_promises_a_sum_keeps_it(build, side):
    model, (photos, target) = adapt(build()), photographs(side)
    with torch.no_grad():
        change = (model(photos) - model(torch.zeros_like(photos))).gather(1, target[:, None])[:, 0]
        for method in (DeepLIFT(check=True, tolerance=1e-9), KernelSHAP(cells=3, samples=50)):
            torch.testing.assert_close(method(model, photos, target).sum(dim=(1, 2, 3)), change, rtol=1e-8, atol=1e-10)
        error = IntegratedGradients(steps=64).completeness_error(model, photos, target)
        assert (error.abs() < 0.05 * change.abs().clamp(min=1e-2)).all()
    LRP("epsilon", check=True, tolerance=1e-6)(model, photos, target)
    account = LRP("epsilon").conservation(model, photos, target)
    assert account.pixels + account.absorbed == pytest.approx(account.logits, rel=1e-6)


@general
def test_a_compiled_network_is_explained_through_its_original(method):
    compiled = torch.compile(written(Written), backend="eager")
    heatmap = make(method)(adapt(compiled, "conv4"), *images()).detach()
    torch.testing.assert_close(heatmap, expected(method), rtol=1e-9, atol=1e-9)


class Wrapped(nn.Module):
    def __init__(self, wrap) -> None:
        super().__init__()
        self.inner, self.wrap = written(Written), wrap

    def forward(self, x):
        return self.wrap(self.inner(x))


@general
@pytest.mark.parametrize("wrap", [lambda y: {"out": y}, lambda y: (y, y), lambda y: [y], lambda y: y[:, 0]])
def test_an_output_without_logits_is_refused_in_one_sentence(method, wrap):
    with pytest.raises(BadModel, match="expected logits") as error:
        make(method)(adapt(Wrapped(wrap), "inner.conv4"), *images())
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("method", sorted(REFUSES_TRAINING))
def test_batch_norm_in_training_mode_is_refused(method):
    photos, target = photographs(64)
    with pytest.raises(BadModel, match=r"eval\(\)"):
        shown(method, photos)(adapt(resnet18().train()), photos, target)


@every_method
def test_accumulated_gradients_are_never_touched(method):
    net = network(ASKS_FOR.get(method, "residual"))
    for number, parameter in enumerate(net.parameters()):
        parameter.grad = torch.full_like(parameter, float(number))
    before = {name: (p.grad, p.grad.clone(), p.grad._version) for name, p in net.named_parameters()}
    inputs, target = images()
    inputs.requires_grad_()
    inputs.grad = torch.full_like(inputs, 7.0)
    make(method)(adapt(net), inputs, target)
    for name, parameter in net.named_parameters():
        held, values, version = before[name]
        assert parameter.grad is held
        assert parameter.grad._version == version
        assert torch.equal(held, values)
    assert (inputs.grad == 7).all()


@every_method
def test_a_network_that_views_its_maps_is_explained_in_single_precision(method):
    """Channels last in memory, where it can be had, changes no value."""
    if method in ASKS_FOR:
        pytest.skip("explains networks of one form")
    inputs, target = images(dtype=torch.float32)
    settings = {"references": SETTINGS[method]["references"].float()} if method in WITH_REFERENCES else {}
    maps = [make(method, **settings)(adapt(written(way, torch.float32), "conv4"), inputs, target) for way in WAYS[:7:6]]
    torch.testing.assert_close(*maps, rtol=1e-3, atol=1e-4 * float(maps[0].detach().abs().max()))


@pytest.fixture
def count_new_tensors():
    """Counts the tensors that have been made since, and are held."""

    def count() -> int:
        gc.collect()
        return sum(issubclass(type(thing), torch.Tensor) for thing in gc.get_objects())

    gc.collect()
    gc.freeze()  # What is there already is not looked at again.
    yield count
    gc.unfreeze()


# One of each family by default: counting all live objects takes its time.
FAMILIES = {"saliency", "integrated_gradients", "guided_backprop", "lrp", "deep_lift", "grad_cam", "score_cam", "lime"}


@pytest.mark.parametrize(
    "method", [pytest.param(name, marks=[] if name in FAMILIES else [pytest.mark.slow]) for name in METHODS]
)
def test_a_call_leaves_no_tensor_behind(method, count_new_tensors):
    attribution, model, (inputs, target) = make(method), adapt(network(ASKS_FOR.get(method, "relu"))), images()
    attribution(model, inputs, target)
    before = count_new_tensors()
    for _ in range(3):
        attribution(model, inputs, target)
    assert count_new_tensors() == before


@pytest.mark.slow
@pytest.mark.parametrize("method", ["saliency", "grad_cam", "lrp"])
def test_memory_stays_flat_over_a_thousand_calls(method, count_new_tensors):
    attribution, model, (inputs, target) = make(method), adapt(network("relu")), images()
    process = psutil.Process()
    for _ in range(100):
        attribution(model, inputs, target)
    tensors, resident = count_new_tensors(), process.memory_info().rss
    for _ in range(1000):
        attribution(model, inputs, target)
    assert count_new_tensors() == tensors
    assert process.memory_info().rss - resident < 5 * 2**20
