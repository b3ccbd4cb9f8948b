"""Every attribution on the classifiers that are made for one batch: contrasts, text beside images, tokens."""

from __future__ import annotations

from dataclasses import fields
from typing import get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from rightreasons.attribution import ATTRIBUTIONS, ScoreCAM
from rightreasons.attribution.score import Score
from rightreasons.core import Batch
from rightreasons.metrics import METRICS, RandomLogit
from rightreasons.metrics.faithfulness import Faithfulness, Responses
from rightreasons.metrics.faithfulness.responses import READINGS
from rightreasons.models import adapt, condition, contrast
from tests.contracts.test_attributions import METHODS, every_method, make, network_for
from tests.contracts.test_losses import batch_of
from tests.contracts.test_metrics import SETTINGS as METRIC_SETTINGS
from tests.contracts.test_metrics import every_metric
from tests.networks import CLASSES, SIDE, images, network

# What they show is the same for every class.
NO_CLASS = {"eigen_cam", "attention_rollout"}
# Linear in the logits, so that the map of a lead is the lead of the maps.
LINEAR = {
    *("saliency", "input_x_gradient", "smooth_grad", "integrated_gradients", "expected_gradients", "smoothed", "cam"),
    *("gradient_shap", "deep_lift", "deep_shap"),
    *("occlusion", "feature_ablation", "lime", "kernel_shap"),
}


def has(kind: type, setting: str) -> bool:
    return setting in {field.name for field in fields(kind)}


def in_chunks(method: str):
    """The method, two images at once where that is a setting."""
    return make(method, **({"max_batch": 2} if has(ATTRIBUTIONS[method], "max_batch") else {}))


# Every score that a method can explain; the probability is one of those that need no gradient.
SCORED = [
    (method, score)
    for method in METHODS
    if has(ATTRIBUTIONS[method], "score")
    for score in (*get_args(Score), *(["probability"] if make(method).__module__.count("perturbation") else []))
]


class Two(nn.Module):
    """A network that knows two of the classes only."""

    def __init__(self, network: nn.Module, target: int, other: int) -> None:
        super().__init__()
        self.network, self.classes = network, [target, other]

    def forward(self, x):
        return self.network(x)[:, self.classes]


@every_method
def test_a_contrast_explains_the_lead_of_the_target_over_the_other_class(method):
    attribution = in_chunks(method)
    model, (inputs, target) = adapt(network_for(method, "relu")), images(4)
    other = (target + 1) % CLASSES
    lead = attribution(contrast(model, other), inputs, target).detach()
    assert type(lead) is Tensor
    plain = attribution(model, inputs, target).detach()
    assert not torch.allclose(lead, plain, rtol=1e-3) or method in NO_CLASS
    if method in LINEAR:
        torch.testing.assert_close(lead, plain - attribution(model, inputs, other).detach(), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("method", "score"), SCORED)
def test_a_contrast_is_a_network_of_two_classes(method, score):
    """Its probability is sigmoid(lead), the softmax over the two."""
    attribution = make(method, score=score)
    net, (inputs, _) = network_for(method, "relu"), images(2)
    lead = attribution(contrast(adapt(net), 0), inputs, torch.tensor([2, 2]))
    # The network of two explains both logits, the contrast their difference.
    if score != "logit":
        two = attribution(adapt(Two(net, 2, 0)), inputs, torch.tensor([0, 0]))
        torch.testing.assert_close(lead, two, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("net", ["relu", "pooled"])
def test_ablation_and_score_cam_take_the_lead_on_every_way(net):
    """Of pooled maps the scores without each come from the weights; of a black image those of black once."""
    inputs, target = images(3)
    inputs[1] = 0
    for method in (make("ablation_cam", score="log_probability"), ScoreCAM(score="log_probability")):
        lead = method(contrast(adapt(network(net)), (target + 1) % 3), inputs, target)
        for k in range(3):
            two = Two(network(net), int(target[k]), int(target[k] + 1) % 3)
            alone = method(adapt(two), inputs[k : k + 1], torch.tensor([0]))
            torch.testing.assert_close(lead[k : k + 1], alone, rtol=1e-8, atol=1e-12)


@every_method
def test_a_class_an_image_equals_one_image_at_a_time(method):
    attribution = make(method)
    model, (inputs, target) = adapt(network_for(method, "relu")), images(4)
    other = (target + torch.tensor([1, 2, 1, 2])) % CLASSES
    together = in_chunks(method)(contrast(model, other), inputs, target)
    apart = [attribution(contrast(model, int(other[i])), inputs[i : i + 1], target[i : i + 1]) for i in range(4)]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-9, atol=1e-12)


class WithText(nn.Module):
    """A network of images and one number each, which weights the maps."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, inputs, text):
        return self.network(inputs * (1 + text)[:, None, None, None])


@every_method
def test_text_beside_an_image_goes_where_the_image_goes(method):
    attribution = make(method)
    network, (inputs, target) = WithText(network_for(method, "relu")), images(4)
    text = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
    model = adapt(network)
    together = in_chunks(method)(condition(model, text), inputs, target)
    assert together.shape == (4, 1, SIDE, SIDE)
    apart = [
        attribution(condition(model, {"text": text[i : i + 1]}), inputs[i : i + 1], target[i : i + 1]) for i in range(4)
    ]
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-9, atol=1e-12)
    alone = attribution(adapt(network.network), inputs[:1], target[:1])
    torch.testing.assert_close(together[:1], alone, rtol=1e-9, atol=1e-12)  # text 0 leaves the image as it is
    if method != "eigen_cam":
        assert not torch.allclose(together[1:], attribution(adapt(network.network), inputs[1:], target[1:]), rtol=1e-3)


def metric_in_chunks(name: str):
    kind = METRICS[name]
    return kind(**METRIC_SETTINGS.get(name, {}), **({"max_batch": 7} if has(kind, "max_batch") else {}))


def made_for_one_batch(kind: str, batch: Batch):
    """A contrast of every image, or a text beside each; for some of the images."""
    if kind == "contrast":
        other = (batch.target + torch.tensor([1, 2, 1, 2])) % CLASSES
        return lambda rows: contrast(adapt(network("relu")), other[rows])
    text = torch.linspace(0.0, 1.0, 4, dtype=torch.float64)
    return lambda rows: condition(adapt(WithText(network("relu"))), text[rows])


@every_metric
@pytest.mark.parametrize("kind", ["contrast", "text"])
def test_a_metric_meets_each_image_with_what_belongs_to_it(name, kind):
    batch, rows = batch_of(4), [slice(i, i + 1) for i in range(4)]
    of = made_for_one_batch(kind, batch)
    heatmap = make("saliency")(of(slice(None)), batch.inputs, batch.target).detach()
    together = metric_in_chunks(name)(of(slice(None)), batch, heatmap)
    apart = [metric_in_chunks(name)(of(row), batch[row], heatmap[row]) for row in rows]
    assert together.isfinite().all()
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize("score", [None, *READINGS])
@pytest.mark.parametrize("name", [name for name, kind in METRICS.items() if issubclass(kind, Faithfulness)])
def test_faithfulness_to_a_contrast_is_that_to_a_network_of_two_classes(name, score):
    """Of a logit, that of the lead: the network of two has it where the other's logit is zero."""
    net, batch = network("relu"), batch_of(4)
    batch.target.fill_(1)
    heatmap = make("saliency")(contrast(adapt(net), 2), batch.inputs, batch.target).detach()
    metric = METRICS[name](**({} if score is None else {"score": score}))
    found = metric(contrast(adapt(net), 2), batch, heatmap)
    one = Batch(batch.inputs, torch.zeros_like(batch.target))
    two = nn.Sequential(Two(net, 1, 2), Leading())
    torch.testing.assert_close(found, metric(adapt(two), one, heatmap), equal_nan=True)
    if score not in ("correct", None):
        assert not torch.allclose(found, metric(adapt(net), batch, heatmap), rtol=1e-3) or name == "monotonicity"


class Leading(nn.Module):
    """The same two probabilities, from the lead of the first and zero."""

    def forward(self, logits):
        return logits - logits[:, 1:]


def test_the_probability_of_a_contrast_is_the_sigmoid_of_its_lead():
    model, batch = adapt(network("relu")), batch_of(4)
    leads = contrast(model, 2)
    lead = model(batch.inputs)[:, 1] - model(batch.inputs)[:, 2]
    torch.testing.assert_close(leads(batch.inputs)[:, 1].as_subclass(Tensor), lead)
    assert type(leads(batch.inputs.float().double())[1:].to(torch.float32)) is type(leads(batch.inputs))
    saliency = make("saliency", score="log_probability")
    slope = make("saliency")(leads, batch.inputs, torch.ones_like(batch.target))
    found = saliency(leads, batch.inputs, torch.ones_like(batch.target))
    torch.testing.assert_close(found, slope * torch.sigmoid(-lead).view(-1, 1, 1, 1))
    assert F.logsigmoid(lead).exp().allclose(lead.sigmoid())


def test_a_contrasted_class_is_found_where_it_leads_the_other_one():
    """The third class, of the largest logit, does not count."""
    inputs = torch.tensor([[1.0, 0.0, 5.0], [0.0, 1.0, 5.0]]).view(2, 1, 1, 3)
    batch = Batch(inputs, torch.zeros(2, dtype=torch.long))
    assert Responses(contrast(adapt(nn.Flatten()), 1), batch).clean("correct").tolist() == [1, 0]
    assert Responses(adapt(nn.Flatten()), batch).clean("correct").tolist() == [0, 0]


@pytest.mark.parametrize("steps", range(4))
@pytest.mark.parametrize("after", [1, 2])
def test_the_random_logit_of_a_contrast_is_not_the_class_contrasted_with(steps, after):
    model, batch = adapt(network("relu")), batch_of(3)
    leads = contrast(model, (batch.target + after) % 3)
    heatmap = make("saliency")(leads, batch.inputs, batch.target).detach()
    found = RandomLogit(make("saliency"), "cosine", seed=steps)(leads, batch, heatmap)
    last = make("saliency")(leads, batch.inputs, (batch.target + 3 - after) % 3).detach()
    torch.testing.assert_close(found, F.cosine_similarity(heatmap.flatten(1), last.flatten(1)).abs())


def test_of_two_classes_a_contrast_leaves_no_other():
    net = nn.Sequential(nn.Flatten(), nn.Linear(288, 2)).double()
    batch = Batch(images(2)[0], torch.tensor([0, 1]))
    leads = contrast(adapt(net), torch.tensor([1, 0]))
    heatmap = make("saliency")(leads, batch.inputs, batch.target).detach()
    assert RandomLogit(make("saliency"))(leads, batch, heatmap).isnan().all()


def test_text_for_another_batch_is_refused():
    model, (inputs, _) = condition(adapt(WithText(nn.Identity())), torch.zeros(3)), images(4)
    with pytest.raises(ValueError, match="made for another batch"):
        model(inputs)
    with pytest.raises(ValueError, match="as many rows"):
        condition(model, [torch.zeros(3), torch.zeros(2)])


@pytest.mark.wrong_types
def test_a_contrast_that_cannot_be_is_refused():
    model, (inputs, target) = adapt(network_for("saliency", "relu")), images(4)
    saliency = make("saliency")
    with pytest.raises(ValueError, match="one other class an image"):
        saliency(contrast(model, target[:2]), inputs, target)
    with pytest.raises(ValueError, match="expected 0 to 2"):
        saliency(contrast(model, 3), inputs, target)
    with pytest.raises(ValueError, match="one class number an image"):
        contrast(model, torch.zeros(4))
