"""Token embeddings as inputs: every attribution of the catalogue explains them, padding left out."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from rightreasons.attribution import (
    ATTRIBUTIONS,
    LRP,
    DeepLIFT,
    DeepSHAP,
    GradCAM,
    IntegratedGradients,
    KernelSHAP,
)
from rightreasons.core import BadModel, Classifier
from rightreasons.models import adapt, contrast, embed
from tests.contracts.test_attributions import METHODS, SETTINGS, make

CLASSES, WIDTH, WORDS = 3, 8, 20
IDS = torch.tensor([[2, 5, 6, 7, 3, 0], [2, 9, 8, 3, 0, 0], [2, 9, 4, 8, 6, 3]])
TARGET = torch.tensor([0, 1, 2])
PADDING = IDS == 0

# They explain networks of another form.
NOT_OF_TOKENS = {"cam"}
# A layer's maps: values where its activation is, also where nobody reads it.
OF_A_LAYER = {name for name, method in ATTRIBUTIONS.items() if hasattr(method, "coarse")} - NOT_OF_TOKENS
# They estimate from random masks, or optimize one: padding has a value of chance.
BY_CHANCE = {"rise", "lime", "kernel_shap", "meaningful_perturbation"}
# Noise or references drawn for all places, so that more places mean other draws.
DRAWN = {"smooth_grad", "smoothed", *(name for name in METHODS if "references" in SETTINGS.get(name, {}))}
# One region a token; and tokens that are hidden, not blurred into each other.
OF_TOKENS = {
    "feature_ablation": {"cells": 16},
    "meaningful_perturbation": {"score": "logit", "baseline": 0.0, "sparsity": 1e-4},
}


class Texts(nn.Module):
    """Stock layers of torch; knows padding by its number."""

    def __init__(self) -> None:
        super().__init__()
        self.places = nn.Embedding(12, WIDTH)
        self.words = nn.Embedding(WORDS, WIDTH)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 16, 0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, CLASSES)
        for parameter in self.encoder.parameters():
            nn.init.normal_(parameter, std=0.4)

    def forward(self, ids):
        return self.read(ids, ids == 0)

    def read(self, ids, hidden):
        x = self.words(ids) + self.places(torch.arange(ids.shape[1]))
        x = self.encoder(x, src_key_padding_mask=hidden)
        shown = hidden.logical_not()[..., None].to(x.dtype)
        return self.head((x * shown).sum(1) / shown.sum(1))


class WithMask(Texts):
    """The same, called with a mask and by names."""

    def forward(self, input_ids, attention_mask, kind=None):
        return self.read(input_ids, attention_mask == 0)


def network(kind: type[Texts] = Texts) -> Texts:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind().double().eval()


def attribution(method: str):
    settings = {"layer": "encoder.layers.1.norm1"} if method in OF_A_LAYER else {}
    if "references" in SETTINGS.get(method, {}):
        generator = torch.Generator().manual_seed(1)
        settings["references"] = torch.randn(4, WIDTH, 1, IDS.shape[1], generator=generator, dtype=torch.float64)
    return make(method, **settings, **OF_TOKENS.get(method, {}))


every_method = pytest.mark.parametrize("method", [name for name in METHODS if name not in NOT_OF_TOKENS])


@every_method
def test_every_method_gives_one_value_a_token_and_padding_none(method):
    model = embed(network(), IDS)
    values = attribution(method)(model, model.inputs, TARGET).detach()
    assert values.shape == IDS.shape
    assert torch.isfinite(values).all()
    assert values.abs().sum() > 0
    if method not in BY_CHANCE | OF_A_LAYER:
        assert (values[PADDING] == 0).all()


@every_method
def test_a_text_among_others_has_the_map_it_has_alone(method):
    net = network()
    together = attribution(method)(embed(net, IDS), embed(net, IDS).inputs, TARGET)
    apart = [embed(net, row[None]) for row in IDS]
    singles = [attribution(method)(m, m.inputs, TARGET[i : i + 1]) for i, m in enumerate(apart)]
    torch.testing.assert_close(together, torch.cat(singles), rtol=1e-8, atol=1e-11)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in NOT_OF_TOKENS | OF_A_LAYER | BY_CHANCE | DRAWN])
def test_longer_padding_gives_the_same_map(method):
    net = network()
    longer = nn.functional.pad(IDS, (0, 3))
    few, many = (attribution(method)(m, m.inputs, TARGET).detach() for m in (embed(net, IDS), embed(net, longer)))
    torch.testing.assert_close(many[:, : IDS.shape[1]], few, rtol=1e-8, atol=1e-11)
    assert (many[:, IDS.shape[1] :] == 0).all()


def test_the_network_runs_as_ever_on_its_own_embeddings():
    net = network()
    model = embed(adapt(net), IDS)
    assert isinstance(model, Classifier)
    assert model.embedding == "words"
    assert model.network is net
    assert not model.inputs.requires_grad
    torch.testing.assert_close(model.inputs, net.words(IDS).detach())
    torch.testing.assert_close(model(model.inputs), net(IDS))
    trace = model.trace(model.inputs, ["encoder.layers.0"])
    assert trace.inputs.requires_grad
    assert trace.activations["encoder.layers.0"].shape == (*IDS.shape, WIDTH)
    torch.testing.assert_close(trace.logits, net(IDS))
    assert torch.equal(model.rows(torch.tensor([2, 0, 2])).tokens, IDS[[2, 0, 2]])


def test_other_embeddings_are_what_the_network_meets():
    net = network()
    model = embed(net, IDS)
    (slopes,) = torch.autograd.grad(model(model.inputs).sum(), net.head.weight)
    changed = model.inputs.clone()
    changed[:, 1] = net.words.weight[11]
    other = IDS.clone()
    other[:, 1] = 11
    torch.testing.assert_close(model(changed), net(other))
    assert slopes.abs().sum() > 0


def test_a_mapping_takes_its_masks_along():
    net, plain = network(WithMask), network()
    ids = IDS.clone()
    ids[PADDING] = 7  # known by the mask only
    kind = torch.zeros(3, dtype=torch.long)
    model = embed(net, {"attention_mask": (~PADDING).long(), "input_ids": ids, "kind": kind})
    assert torch.equal(model.tokens, ids)
    torch.testing.assert_close(model(model.inputs), plain(IDS))
    turned = torch.tensor([1, 2, 0])
    torch.testing.assert_close(model.rows(turned)(model.inputs[turned]), plain(IDS)[turned])
    assert (IntegratedGradients(steps=4)(model, model.inputs, TARGET)[PADDING] == 0).all()


def test_several_texts_at_once_by_kernel_shap_equal_one_at_a_time():
    net = network(WithMask)
    call = {"input_ids": IDS, "attention_mask": (~PADDING).long()}
    model = embed(net, call)
    method = KernelSHAP(cells=6, samples=30, max_batch=7)
    together = method(model, model.inputs, TARGET)
    for i in range(3):
        one = embed(net, {name: values[i : i + 1] for name, values in call.items()})
        torch.testing.assert_close(together[i : i + 1], method(one, one.inputs, TARGET[i : i + 1]))


def test_one_class_against_another():
    model = embed(network(), IDS)
    other = (TARGET + 1) % CLASSES
    method = IntegratedGradients(steps=8)
    lead = method(contrast(model, other), model.inputs, TARGET)
    expected = method(model, model.inputs, TARGET) - method(model, model.inputs, other)
    torch.testing.assert_close(lead, expected)


class Decoder(nn.Module):
    """One causal attention over padding on the left: its first queries see no key at all."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.parts = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, 3 * WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, ids):
        x = self.words(ids)
        query, key, value = self.parts(x)[:, None].chunk(3, -1)
        seen = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril() & (ids != 0)[:, None, None]
        return self.head(
            (x + nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=seen)[:, 0])[:, -1]
        )


@pytest.mark.parametrize("method", [LRP("epsilon"), DeepLIFT(), DeepSHAP(torch.zeros(2, WIDTH, 1, 6).double())])
def test_a_query_that_sees_no_key_hands_nothing_on(method):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Decoder().double()
    ids = torch.tensor([[0, 0, 0, 5, 6, 7], [2, 9, 4, 8, 6, 3]])
    model = embed(net, ids)
    values = method(model, model.inputs, TARGET[:2]).detach()
    assert torch.isfinite(values).all()
    assert (values[0, :3] == 0).all()
    assert values[0, 3:].abs().min() > 0
    if isinstance(method, DeepLIFT):
        alone = embed(net, ids[:1, 3:])
        torch.testing.assert_close(values[:1, 3:], method(alone, alone.inputs, TARGET[:1]).detach())


def test_relevance_is_conserved_down_to_the_tokens():
    model = embed(network(), IDS)
    account = LRP("epsilon").conservation(model, model.inputs, TARGET)
    assert account.missing < 1e-12
    values = LRP("epsilon", check=True)(model, model.inputs, TARGET).detach()
    assert account.pixels == pytest.approx(float(values.sum()))
    assert account.pixels + account.absorbed == pytest.approx(account.logits)


def test_the_first_layer_that_meets_the_tokens_is_the_embedding():
    class Two(nn.Module):
        """One before the words that meets places, and one behind that meets the words again."""

        def __init__(self) -> None:
            super().__init__()
            self.again, self.places, self.words = nn.Embedding(WORDS, 4), nn.Embedding(12, 4), nn.Embedding(WORDS, 4)

        def forward(self, ids):
            x = self.places(torch.arange(ids.shape[1]).expand_as(ids)) + self.words(ids) * 2
            return (x * self.again(ids)).sum(1)

    net = Two()
    assert embed(net, IDS).embedding == "words"
    model = embed(net, IDS, embedding="again")
    torch.testing.assert_close(model.inputs, net.again(IDS).detach())
    torch.testing.assert_close(model(model.inputs * 2), 2 * net(IDS))


class Siamese(nn.Module):
    """Two texts and one embedding layer."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.head = nn.Linear(WIDTH, CLASSES)

    def forward(self, other, input_ids):
        there, here = self.words(other).mean(1), self.words(input_ids)
        return self.head(here.mean(1) * there)


def test_only_the_call_that_meets_the_tokens_is_explained():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Siamese().double()
    call = {"other": IDS.flip(0).roll(1, 1), "input_ids": IDS}
    model = embed(net, call)
    torch.testing.assert_close(model(model.inputs), net(**call))
    there = net.words(call["other"]).mean(1).detach()
    torch.testing.assert_close(model(2 * model.inputs), net.head(2 * model.inputs.mean(1) * there))
    values = IntegratedGradients(steps=2)(model, model.inputs, TARGET)
    each = (net.head.weight[TARGET] * there)[:, None] * model.inputs / IDS.shape[1]
    torch.testing.assert_close(values, each.sum(-1))
    # A text beside itself: which of the calls is explained does not hang on what else is in the batch.
    same = embed(net, {"other": torch.cat([IDS[:1], IDS[:1]]), "input_ids": IDS[:2]})
    part = same.rows(torch.tensor([0]))
    torch.testing.assert_close(part(3 * part.inputs), same(3 * same.inputs)[:1])


def test_shifted_tokens_run_as_ever():
    class Shifted(Siamese):
        def forward(self, ids):
            return super().forward(ids.roll(1, 1), ids)

    net = Shifted().double()
    model = embed(net, IDS)
    torch.testing.assert_close(model(model.inputs), net(IDS))
    there = net.words(IDS.roll(1, 1)).mean(1)
    torch.testing.assert_close(model(model.inputs * 2), net.head(2 * model.inputs.mean(1) * there))


def test_what_the_embeddings_do_not_stand_for_is_refused():
    with pytest.raises(BadModel, match="more than once"):
        embed(Siamese(), {"other": IDS, "input_ids": IDS})

    class Noisy(nn.Embedding):
        """Leaves some of its numbers beside its output."""

        def forward(self, ids):
            self.calls = getattr(self, "calls", 0) + 1
            return super().forward(ids)

    class Remembers(Bag):
        def __init__(self) -> None:
            super().__init__()
            self.words = Noisy(WORDS, 4)

        def forward(self, ids):
            return self.words(ids).mean(1) * self.words.calls

    with pytest.raises(BadModel, match="other logits") as error:
        embed(Remembers(), IDS)
    assert "\n" not in str(error.value)


def test_a_contrast_hands_the_embeddings_on():
    model = embed(network(), IDS)
    assert contrast(model, 1).inputs is model.inputs
    assert not hasattr(contrast(adapt(network()), 1), "inputs")


@pytest.mark.parametrize("method", ["deep_shap", "expected_gradients", "gradient_shap"])
def test_references_of_tokens_are_embeddings(method):
    model = embed(network(), IDS)
    references = model.inputs.flip(0).roll(1, 1)
    rows = references.mT.unsqueeze(2)
    found, expected = (make(method, references=r)(model, model.inputs, TARGET) for r in (references, rows))
    torch.testing.assert_close(found, expected)
    assert found.abs().sum() > 0
    with pytest.raises(ValueError, match=r"texts' shape \(6, 8\), got \(5, 8\)"):
        make(method, references=references[:, :5])(model, model.inputs, TARGET)


def test_what_deep_shap_misses_is_known_of_tokens_too():
    model = embed(network(), IDS)
    for references in (model.inputs[:1], model.inputs[:1].mT.unsqueeze(2)):
        short = model.rows(torch.tensor([1]))
        method = DeepSHAP(references, check=True, tolerance=1e-8)
        assert method.completeness_error(short, short.inputs, TARGET[1:2]).abs().max() < 1e-10


def test_a_training_mode_and_hooks_are_left_alone():
    net = network().train()
    embed(net, IDS)
    assert all(module.training for module in net.modules())
    assert not any(module._forward_hooks for module in net.modules())


@pytest.mark.wrong_types
def test_what_cannot_be_embedded_is_refused():
    net = network()
    for tokens in ({}, {"input_ids": [[1, 2]]}, torch.zeros(3, 4), torch.zeros(3, dtype=torch.long)):
        with pytest.raises(ValueError, match="expected"):
            embed(net, tokens)
    with pytest.raises(ValueError, match="rows in each"):
        embed(net, {"input_ids": IDS, "attention_mask": IDS[:2]})
    with pytest.raises(BadModel, match=r"no nn\.Embedding"):
        embed(nn.Flatten(), IDS)
    with pytest.raises(BadModel, match="no layer named"):
        embed(net, IDS, embedding="tokens")
    with pytest.raises(BadModel, match="called with these token numbers"):
        embed(net, IDS, embedding="places")
    model = embed(net, IDS)
    with pytest.raises(BadModel, match="made for another batch"):
        model(model.inputs[:2])
    with pytest.raises(BadModel, match="does not run in a pass"):
        model.trace(model.inputs, ["encoder.layers.0.self_attn.out_proj"])
    with pytest.raises(BadModel, match="name a layer"):
        GradCAM()(embed(Bag().double(), IDS), model.inputs[..., :4], TARGET)


class Bag(nn.Module):
    """No layer of tokens behind the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 4)

    def forward(self, ids):
        return self.words(ids).mean(1)
