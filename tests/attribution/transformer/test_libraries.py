"""Networks of Hugging Face and timm as they ship, with random weights."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest
import torch
from torch import nn

from rightreasons.attribution import LRP, AttentionRollout, CheferRelevance, InputXGradient, IntegratedGradients
from rightreasons.attribution.transformer import attended
from rightreasons.core import BadModel
from rightreasons.models import adapt, embed

METHODS = {
    "input x gradient": InputXGradient(),
    "integrated gradients": IntegratedGradients(steps=8),
    "rollout": AttentionRollout(),
    "chefer": CheferRelevance(),
    "lrp": LRP("epsilon", check=True),
}
every_method = pytest.mark.parametrize("method", METHODS)
kinds = pytest.mark.parametrize("kind", ["eager", "sdpa"])
IDS = torch.tensor([[2, 5, 6, 7, 3, 0, 0], [2, 9, 8, 3, 0, 0, 0], [2, 9, 8, 4, 6, 3, 0]])
TEXTS = {"input_ids": IDS, "attention_mask": (IDS != 0).long(), "token_type_ids": torch.zeros_like(IDS)}
TARGET = torch.arange(3)
SIZES = {"hidden_size": 8, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16, "num_labels": 3}


@pytest.fixture(scope="module")
def transformers():
    return pytest.importorskip("transformers")


def drawn(make) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make().double().eval()
        for parameter in net.parameters():
            nn.init.normal_(parameter, std=0.3)
        return net


def bert(transformers, kind: str, **settings) -> nn.Module:
    config = transformers.BertConfig(
        vocab_size=12, max_position_embeddings=10, attn_implementation=kind, **{**SIZES, **settings}
    )
    return drawn(lambda: transformers.BertForSequenceClassification(config))


def vit(transformers, kind: str) -> nn.Module:
    config = transformers.ViTConfig(image_size=12, patch_size=4, num_channels=2, attn_implementation=kind, **SIZES)
    return drawn(lambda: transformers.ViTForImageClassification(config))


def pictures() -> torch.Tensor:
    return torch.rand(3, 2, 12, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@kinds
def test_bert_runs_by_its_embeddings_as_by_its_tokens(transformers, kind):
    net = bert(transformers, kind)
    model = embed(net, TEXTS)
    assert model.embedding == "bert.embeddings.word_embeddings"
    assert torch.equal(model.tokens, IDS)
    torch.testing.assert_close(model(model.inputs), net(**TEXTS).logits)
    by_name = net(inputs_embeds=model.inputs, attention_mask=TEXTS["attention_mask"]).logits
    torch.testing.assert_close(model(model.inputs), by_name)


@every_method
@kinds
def test_bert_is_explained_and_its_padding_has_none(transformers, kind, method):
    model = embed(bert(transformers, kind), TEXTS)
    values = METHODS[method](model, model.inputs, TARGET).detach()
    assert values.shape == IDS.shape
    assert (values[IDS == 0] == 0).all()
    assert (values[IDS != 0] != 0).all()
    shorter = embed(model.network, {name: tensor[:, :-1] for name, tensor in TEXTS.items()})
    torch.testing.assert_close(METHODS[method](shorter, shorter.inputs, TARGET).detach(), values[:, :-1])


@every_method
def test_bert_is_the_same_eager_or_fused(transformers, method):
    one, other = (embed(bert(transformers, kind), TEXTS) for kind in ("eager", "sdpa"))
    torch.testing.assert_close(
        METHODS[method](one, one.inputs, TARGET), METHODS[method](other, other.inputs, TARGET), rtol=1e-7, atol=1e-10
    )


@kinds
def test_relevance_through_bert_is_conserved(transformers, kind):
    model = embed(bert(transformers, kind), TEXTS)
    account = LRP("epsilon").conservation(model, model.inputs, TARGET)
    assert account.missing < 1e-10
    assert account.pixels + account.absorbed == pytest.approx(account.logits)


@kinds
def test_chefers_relevance_and_relevance_propagation_of_bert_can_be_trained_through(transformers, kind):
    model = embed(bert(transformers, kind, num_hidden_layers=1), TEXTS)
    for method in (LRP("epsilon"), CheferRelevance()):
        parameters = [
            p for n, p in model.network.named_parameters() if n.endswith(("query.weight", "classifier.weight"))
        ]
        generator = torch.Generator().manual_seed(0)
        direction = [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters]

        def loss(method=method):
            return method(model, model.inputs, TARGET).square().sum()

        slopes = torch.autograd.grad(loss(), parameters)
        found = sum(float((g * d).sum()) for g, d in zip(slopes, direction, strict=True))
        values = []
        with torch.no_grad():
            for step in (1e-6, -2e-6):
                for p, d in zip(parameters, direction, strict=True):
                    p += step * d
                values.append(float(loss()))
        assert found == pytest.approx((values[0] - values[1]) / 2e-6, rel=1e-5)


@every_method
def test_a_vision_transformer_is_the_same_eager_or_fused(transformers, method):
    one, other = (METHODS[method](adapt(vit(transformers, kind)), pictures(), TARGET) for kind in ("eager", "sdpa"))
    assert one.shape == (3, 1, 12, 12)
    # Written out, its softmax runs in single precision.
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)


def test_the_maps_are_those_that_the_network_reports(transformers):
    net = bert(transformers, "eager")
    model = embed(net, TEXTS)
    reported = net(**TEXTS, output_attentions=True).attentions
    found = attended(model, model.inputs).maps
    assert len(found) == len(reported) == 2
    for one, other in zip(found, reported, strict=True):
        torch.testing.assert_close(one, other)


def test_attention_within_windows_is_refused(transformers):
    config = transformers.SwinConfig(
        image_size=16, patch_size=2, num_channels=2, embed_dim=4, depths=[1, 1], num_heads=[1, 2], window_size=4
    )
    net = drawn(lambda: transformers.SwinForImageClassification(config))
    inputs = torch.rand(2, 2, 16, 16, dtype=torch.float64)
    with pytest.raises(BadModel, match="within windows"):
        AttentionRollout()(adapt(net), inputs, TARGET[:2])
    assert LRP("epsilon", check=True)(adapt(net), inputs, TARGET[:2] * 0).shape == (2, 1, 16, 16)


class _Member(type):
    """A class that has whatever is asked of it."""

    def __getattr__(cls, name: str):
        return name


class _Anything(ModuleType):
    """A module that has whatever is asked of it."""

    def __getattr__(self, name: str):
        if name.startswith("__"):
            raise AttributeError(name)
        return _Member(name, (), {})


@pytest.fixture
def timm(monkeypatch):
    """Timm without torchvision, which cannot be imported beside a torch for CPUs; its networks do not use it."""
    pytest.importorskip("importlib.metadata").distribution("timm")
    names = ["", ".transforms", ".transforms.functional", ".ops", ".ops.misc", ".datasets", ".models", ".io", ".utils"]
    for name in (*names, ".datasets.folder", ".models.feature_extraction", ".transforms.v2", ".version"):
        module = _Anything(f"torchvision{name}")
        module.__path__ = []
        module.__version__ = "0.0"
        monkeypatch.setitem(sys.modules, module.__name__, module)
        parent, _, child = module.__name__.rpartition(".")
        if parent:
            setattr(sys.modules[parent], child, module)
    return pytest.importorskip("timm")


@pytest.mark.peers
@pytest.mark.parametrize("fused", [True, False])
def test_timms_vision_transformer(timm, fused):
    net = timm.create_model("vit_tiny_patch16_224", num_classes=3).eval()
    for block in net.blocks:
        block.attn.fused_attn = fused
    inputs = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0))
    model = adapt(net)
    assert [tuple(m.shape) for m in attended(model, inputs).maps] == [(1, 3, 197, 197)] * 12
    for method in METHODS.values():
        if not isinstance(method, IntegratedGradients):
            heatmap = method(model, inputs, TARGET[:1]).detach()
            assert heatmap.shape == (1, 1, 224, 224)
            assert heatmap.abs().sum() > 0
    account = LRP("epsilon").conservation(model, inputs, TARGET[:1])
    assert account.missing < 1e-4
