import math
import sys
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from rightreasons.attribution import IntegratedGradients, Saliency
from rightreasons.core import Attribution, BadModel
from rightreasons.data import ArrayDataset, Subset, swapped
from rightreasons.experiments import Bound, Comparison, ProofSettings, build_data, explain, figures, load_run, prove
from rightreasons.experiments.prove import has_decoy
from rightreasons.metrics import Estimate
from rightreasons.models import adapt
from tests.experiments.conftest import QUICK

SMALL = ProofSettings(explained=40, examples=3, resamples=200)
NAN = float("nan")


@pytest.fixture(scope="module")
def test_images():
    return build_data(QUICK.data, seed=0).test


@pytest.fixture(scope="module")
def proof(plain_and_revised, test_images):
    before, after = plain_and_revised
    return prove(before.model, after.model, test_images, SMALL)


def predicted(model, data):
    """One image after the other."""
    with torch.no_grad():
        return [int(model(data[i].inputs).argmax()) for i in range(len(data))]


def test_accuracies_are_those_of_a_plain_loop(proof, plain_and_revised, test_images):
    truth = test_images.target.tolist()
    rows = [predicted(run.model, test_images) for run in plain_and_revised]
    first, second = (sum(p == t for p, t in zip(row, truth, strict=True)) / len(truth) for row in rows)
    accuracy = proof["Accuracy"]
    assert (accuracy.before.value, accuracy.after.value) == pytest.approx((first, second))
    assert accuracy.difference.value == pytest.approx(second - first)
    assert accuracy.difference.low < accuracy.difference.value < accuracy.difference.high
    worst = min(sum(p == t == k for p, t in zip(rows[0], truth, strict=True)) / truth.count(k) for k in range(10))
    assert proof["Worst class"].before.value == pytest.approx(worst)
    names = []
    for row in rows:
        hits = [sum(p == t == k for p, t in zip(row, truth, strict=True)) / truth.count(k) for k in range(10)]
        names.append(test_images.classes[hits.index(min(hits))])
    assert proof["Worst class"].of == f"{names[0]} before, {names[1]} after"
    assert figures(proof)["comparisons"]["Worst class"]["of"] == proof["Worst class"].of


def test_the_decoy_swap_counts_predictions_that_follow_the_decoy(proof, plain_and_revised, test_images):
    other = swapped(test_images, SMALL.seed)
    for run, found in zip(plain_and_revised, (proof["Decoy swap"].before, proof["Decoy swap"].after), strict=True):
        pairs = zip(predicted(run.model, test_images), predicted(run.model, other), strict=True)
        assert found.value == pytest.approx(sum(a != b for a, b in pairs) / len(test_images))
    assert proof["Decoy swap"].higher_is_better is False


def test_a_model_that_reads_the_decoy_alone_is_caught(test_images):
    """It looks up the corner's grey: right in training, by chance in the test, and it follows every swap."""

    class Cheat(nn.Module):
        def forward(self, x):
            corners = torch.stack([x[..., :2, :2], x[..., :2, -2:], x[..., -2:, :2], x[..., -2:, -2:]])
            grey = corners.flatten(2).min(2).values.max(0).values
            return -(grey.unsqueeze(1) - (255 - 25 * torch.arange(10)) / 255).abs() * 100

    class Honest(nn.Module):
        def forward(self, x):
            return x[..., 3:5, 3:5].mean((1, 2, 3)).unsqueeze(1) * torch.arange(10)

    settings = replace(SMALL, explainers={"Saliency": Saliency("sum_log_probabilities")})
    found = prove(adapt(Cheat()), adapt(Honest()), test_images, settings)
    assert found["Decoy swap"].before.value > 0.85
    assert found["Decoy swap"].after.value == 0
    assert found["Decoy swap"].judgement == "better"
    assert found["Artifact relevance (Saliency)"].before.value > 0.5
    assert found["Artifact relevance (Saliency)"].after.value == 0


def test_the_examples_hold_what_each_model_says(proof, plain_and_revised, test_images):
    method = SMALL.explainers["Saliency"]
    for example in proof.examples:
        image = test_images[example.index]
        for run, view in zip(plain_and_revised, (example.before, example.after), strict=True):
            with torch.no_grad():
                confidence, best = run.model(image.inputs).softmax(1)[0].max(0)
            assert (view.prediction, view.confidence) == (int(best), pytest.approx(float(confidence)))
            heat = method(run.model, image.inputs, best.view(1)).detach()[0, 0]
            torch.testing.assert_close(view.heatmaps["Saliency"], heat)
        assert example.truth == int(image.target)
        assert example.image.equal(image.inputs[0])
        assert example.irrelevant.equal(image.irrelevant[0, 0])


def test_artifact_relevance_is_the_mean_share_inside_the_patch(plain_and_revised, test_images):
    before, after = plain_and_revised
    few = Subset(test_images, range(25))
    found = prove(before.model, after.model, few, replace(SMALL, explained=25))
    method, shares = SMALL.explainers["Saliency"], []
    for i in range(25):
        image = few[i]
        with torch.no_grad():
            target = before.model(image.inputs).argmax(1)
        heat = method(before.model, image.inputs, target).detach().abs()
        shares.append(float((heat * image.irrelevant).sum() / heat.sum()))
    assert found["Artifact relevance (Saliency)"].before.value == pytest.approx(sum(shares) / 25, rel=1e-5)


def test_the_same_model_twice_shows_no_change(plain_and_revised, test_images):
    model = plain_and_revised[0].model
    same = prove(model, model, test_images, SMALL)
    assert {c.judgement for c in same.comparisons} == {"no clear change"}
    assert {c.difference.value for c in same.comparisons} == {0}
    # Scores of 0 and 1 say little about what never happened; other scores leave no doubt.
    assert all(c.difference.low == -c.difference.high <= 0 for c in same.comparisons)
    assert 0 < same["Accuracy"].difference.high < same["Worst class"].difference.high
    relevance = same["Artifact relevance (Saliency)"].difference
    assert (relevance.low, relevance.high) == (0, 0)


def test_the_same_question_gets_the_same_answer_and_another_seed_other_images(proof, plain_and_revised, test_images):
    before, after = plain_and_revised
    again = prove(before.model, after.model, test_images, SMALL)
    assert figures(again) == figures(proof)
    assert [e.index for e in again.examples] == [e.index for e in proof.examples]
    other = prove(before.model, after.model, test_images, replace(SMALL, seed=1))
    assert [e.index for e in other.examples] != [e.index for e in proof.examples]
    assert (proof.explained, proof.images, len(proof.examples)) == (40, 359, 3)


def test_models_keep_their_weights_and_modes(plain_and_revised, test_images):
    before, after = (load_run(run.out).model for run in plain_and_revised)
    kept = [p.clone() for p in before.parameters()]
    before.train()
    prove(before, after, Subset(test_images, range(20)), SMALL)
    assert before.training
    before.eval()
    assert all(a.equal(b) and b.grad is None for a, b in zip(kept, before.parameters(), strict=True))


def test_the_bound_is_measured_on_its_own_data(plain_and_revised, test_images):
    before, after = plain_and_revised
    clean = build_data(replace(QUICK.data, decoy="", decoy_size=None), seed=0).test
    found = prove(before.model, after.model, test_images, SMALL, bound=Bound(after.model, clean))
    hits = sum(p == t for p, t in zip(predicted(after.model, clean), clean.target.tolist(), strict=True))
    assert found["Accuracy"].bound.value == pytest.approx(hits / len(clean))
    assert found["Decoy swap"].bound is None


def test_a_control_passes_where_the_revised_model_clearly_leads(plain_and_revised, test_images):
    before, after = plain_and_revised
    torch.manual_seed(0)
    chance = adapt(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).eval()
    found = prove(before.model, after.model, test_images, SMALL, controls={"same": after.model, "chance": chance})
    same, lost = found.controls
    assert (same.name, same.passed, same.lead.value) == ("same", False, 0)
    assert (lost.name, lost.passed) == ("chance", True)
    assert lost.lead.value == pytest.approx(found["Accuracy"].after.value - lost.accuracy.value)


def test_images_without_decoy_or_masks_are_compared_by_predictions_alone(plain_and_revised):
    before, after = plain_and_revised
    clean = build_data(replace(QUICK.data, decoy="", decoy_size=None), seed=0).test
    found = prove(before.model, after.model, clean, SMALL)
    assert [c.name for c in found.comparisons] == ["Accuracy", "Worst class", "Macro F1"]
    assert found.examples[0].irrelevant is None
    assert not has_decoy(clean)


def test_maps_that_are_all_zero_are_counted_and_not_hidden(test_images):
    torch.manual_seed(0)
    fine = adapt(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).eval()
    dead = adapt(nn.Sequential(nn.Flatten(), nn.Linear(64, 10))).eval()
    nn.init.zeros_(dead.network[1].weight)
    found = prove(fine, dead, test_images, replace(SMALL, explainers={"Saliency": Saliency()}))
    assert found["Empty heatmaps (Saliency)"].after.value == 1
    assert "Artifact relevance (Saliency)" not in [c.name for c in found.comparisons]


def test_one_class_without_test_images_is_not_defined_rather_than_zero():
    images = torch.zeros(6, 1, 4, 4, dtype=torch.uint8)
    data = ArrayDataset(images, torch.zeros(6, dtype=torch.int64), classes=("a", "b"), name="one")
    torch.manual_seed(0)
    model = adapt(nn.Sequential(nn.Flatten(), nn.Linear(16, 2))).eval()
    found = prove(model, model, data, SMALL)
    assert math.isfinite(found["Accuracy"].before.value)
    assert found["Worst class"].judgement in ("no clear change", "not judged")


def test_models_that_do_not_fit_the_images_are_refused(plain_and_revised):
    data = ArrayDataset(
        torch.zeros(6, 1, 4, 4, dtype=torch.uint8), torch.zeros(6, dtype=torch.int64), classes=("a",), name="small"
    )
    with pytest.raises(BadModel, match=r"cannot take images of shape \(1, 4, 4\)"):
        prove(plain_and_revised[0].model, plain_and_revised[1].model, data)


@pytest.mark.parametrize("wrong", [{"explained": 0}, {"examples": -1}, {"resamples": 0}, {"explainers": {}}])
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(ValueError, match="expected"):
        ProofSettings(**wrong)


@pytest.mark.parametrize(
    ("interval", "higher", "told"),
    [
        ((0.1, 0.2), True, "better"),
        ((0.1, 0.2), False, "worse"),
        ((-0.2, -0.1), True, "worse"),
        ((-0.2, -0.1), False, "better"),
        ((-0.1, 0.1), True, "no clear change"),
        ((0.0, 0.1), True, "no clear change"),
        ((-0.1, 0.0), False, "no clear change"),
        ((NAN, NAN), True, "not judged"),
    ],
)
def test_the_judgement_is_what_the_interval_says(interval, higher, told):
    nothing = Estimate(0.0, 0.0, 0.0, 1)
    difference = Estimate(sum(interval) / 2, *interval, 1)
    assert Comparison("x", "", nothing, nothing, difference, higher).judgement == told


def test_an_unknown_comparison_lists_those_that_exist(proof):
    with pytest.raises(KeyError, match="Accuracy, Worst class"):
        proof["Acuracy"]


def test_the_figures_hold_every_comparison_and_control(proof):
    found = figures(proof)
    assert list(found["comparisons"]) == [c.name for c in proof.comparisons]
    accuracy = found["comparisons"]["Accuracy"]
    before = proof["Accuracy"].before
    assert accuracy["before"] == [before.value, before.low, before.high, before.count]
    assert accuracy["bound"] is None
    assert found["controls"] == {}


@dataclass(frozen=True)
class Number(Attribution):
    """The number of the explained class, everywhere."""

    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = False

    def attribute(self, model, inputs, target, *, graph):
        return torch.ones_like(inputs) * target.view(-1, 1, 1, 1)


def test_the_explained_class_is_the_predicted_one_or_the_true_one(plain_and_revised, test_images):
    model = plain_and_revised[0].model
    few = Subset(test_images, range(300))
    by_model = explain(model, few, {"number": Number()})
    assert by_model.target.tolist() == predicted(model, few)
    assert by_model.heatmaps["number"].shape == (300, 1, 8, 8)
    assert by_model.heatmaps["number"][:, 0, 0, 0].equal(by_model.target.float())
    by_truth = explain(model, few, {"number": Number()}, target="true")
    assert by_truth.target.equal(few.target)
    torch.testing.assert_close(by_truth.probabilities.sum(1), torch.ones(300))


def test_maps_do_not_depend_on_how_images_are_batched(plain_and_revised, test_images, monkeypatch):
    model, few = plain_and_revised[0].model, Subset(test_images, range(30))
    methods = {"ig": IntegratedGradients(steps=8)}
    whole = explain(model, few, methods)
    monkeypatch.setattr(sys.modules["rightreasons.experiments.explain"], "CHUNK", 7)
    torch.testing.assert_close(explain(model, few, methods).heatmaps["ig"], whole.heatmaps["ig"])
