from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from rightreasons.core import Batch
from rightreasons.data import load
from rightreasons.experiments import (
    Compared,
    Comparison,
    Control,
    DataConfig,
    ModelConfig,
    Proof,
    Record,
    Revealed,
    Run,
    RunConfig,
    StudyResult,
    TermConfig,
    as_dict,
    read_study,
)
from rightreasons.experiments.proof import Example, View
from rightreasons.metrics import Estimate
from rightreasons.models import MLP, adapt
from rightreasons.reports import (
    Protocol,
    Story,
    comparison_page,
    data_sheet,
    proof_page,
    render,
    reveal_sheet,
    study_page,
    verdict,
)
from rightreasons.reports.sheets import pictures

NAN = float("nan")
CLASSES = ("<script>alert(1)</script>", "[bold] & ☂", "two words")


def estimate(value, margin=0.01):
    return Estimate(value, value - margin, value + margin, 100)


def comparison(name, before, after, bound=None, higher=True):
    difference = Estimate(after - before, after - before - 0.02, after - before + 0.02, 100)
    return Comparison(name, "Told.", estimate(before), estimate(after), difference, higher, bound and estimate(bound))


def view(prediction, channels=None):
    heat = torch.linspace(-1, 1, 36).view(6, 6)
    return View(prediction, 0.75, {"Saliency": heat, "Grad-CAM": heat.abs()})


def example(index, channels, truth, before, after, mask=True):
    image = torch.linspace(0, 1, channels * 36).view(channels, 6, 6)
    irrelevant = torch.zeros(6, 6).index_fill_(0, torch.tensor([0, 1]), 1.0) if mask else None
    return Example(index, image, truth, irrelevant, view(before), view(after))


@pytest.fixture
def proof():
    return Proof(
        data="photos <b>",
        classes=CLASSES,
        images=1234,
        explained=40,
        explainers={"Saliency": True, "Grad-CAM": False},
        comparisons=(
            comparison("Accuracy", 0.51, 0.96, 0.961),
            comparison("Decoy swap", 0.6, 0.01, higher=False),
            comparison("Artifact relevance (Saliency)", 0.7, 0.02, higher=False),
        ),
        controls=(
            Control("zero mask", estimate(0.5), Estimate(0.46, 0.4, 0.5, 100), True),
            Control("random mask", estimate(0.95), Estimate(0.01, -0.02, 0.04, 100), False),
        ),
        examples=(example(3, 1, 0, 1, 0), example(7, 3, 2, 2, 2), example(9, 3, 1, 0, 1, mask=False)),
    )


@pytest.fixture
def runs():
    config = RunConfig(data=DataConfig("digits", decoy="decoy/rrr"), terms={"rrr": TermConfig("rrr")})
    history = [
        {"epoch": e, "loss": 1 / e, "cross_entropy": 0.5 / e, "rrr": 0.1 * e, "seconds": 1.0, "test_accuracy": 0.3 * e}
        for e in (1.0, 2.0, 3.0)
    ]
    environment = {"device": "cpu", "machine": "Linux, 2 cores", "torch": "2"}
    model = adapt(MLP((1, 6, 6), 3))

    def run(own):
        record = Record("train", as_dict(own), {}, history=history, environment=environment)
        return Run(model, record, own, Path("out"))

    return {"before": run(replace(config, terms={})), "after": run(config), "clean bound": run(config)}


def page_of(proof, runs, **changes):
    story = Story("A title", Protocol("id", "Told.", "somewhere"), **changes)
    return proof_page(proof, runs, story)


def test_the_verdict_holds_the_numbers_in_plain_words(proof):
    told = verdict(proof)
    for number in ("51.0 %", "96.0 %", "96.1 %", "60.0 %", "1.0 %"):
        assert number in told


def test_the_verdict_without_bound_and_decoy(proof):
    told = verdict(replace(proof, comparisons=(comparison("Accuracy", 0.5, 0.6),), controls=()))
    assert told == ("The model as it was is right on 50.0 % of the test images, the revised one on 60.0 %.")


def test_every_measure_and_control_of_the_proof_is_on_the_page(proof, runs):
    content = page_of(proof, runs)
    assert [row.name for row in content.headline] == [row.name for row in proof.comparisons]
    for shown, row in zip(content.headline, proof.comparisons, strict=True):
        assert (shown.before, shown.after, shown.difference) == (row.before, row.after, row.difference)
        assert (shown.bound, shown.higher_is_better, shown.judgement) == (
            row.bound,
            row.higher_is_better,
            row.judgement,
        )
    assert [(row.name, row.passed) for row in content.controls] == [
        ("clean bound", True),
        ("zero mask", True),
        ("random mask", False),
    ]


@pytest.mark.parametrize(("after", "passed"), [(0.96, True), (0.946, True), (0.9459, False), (0.5, False), (1.0, True)])
def test_the_revised_model_must_come_within_one_and_a_half_points_of_the_bound(proof, runs, after, passed):
    row = page_of(replace(proof, comparisons=(comparison("Accuracy", 0.4, after, 0.961),)), runs).controls[0]
    assert row.passed is passed
    assert "1.5 points" in row.expectation


def test_examples_show_both_models_in_the_words_of_the_classes(proof, runs):
    first, second, third = page_of(proof, runs).examples
    assert first.image.shape == (6, 6)
    assert second.image.shape == (6, 6, 3)
    np.testing.assert_array_equal(second.image[..., 1], proof.examples[1].image[1].numpy())
    before, after = first.panels
    assert (before.run, before.prediction, before.correct) == ("before", CLASSES[1], False)
    assert (after.run, after.prediction, after.correct) == ("after", CLASSES[0], True)
    assert before.heatmaps["Saliency"].signed
    assert not before.heatmaps["Grad-CAM"].signed
    assert third.mask is None


def test_curves_show_every_run_and_each_loss(proof, runs):
    accuracy, loss = page_of(proof, runs).curves
    assert accuracy.series == {name: pytest.approx([0.3, 0.6, 0.9]) for name in runs}
    assert loss.series == {"after": pytest.approx([0.1, 0.2, 0.3])}
    assert "rrr" in loss.name


def test_without_runs_the_page_says_what_is_not_known(proof):
    content = page_of(proof, {})
    assert (content.curves, content.config, content.device) == ((), "", "not recorded")
    assert "A title" in render(content)


def test_names_of_the_user_are_escaped(proof, runs):
    page = render(page_of(proof, runs, notes=("<i>note</i>",), rerun=("rightreasons <x>",)))
    for text in ("<script>alert", "photos <b>", "<i>note", "rightreasons <x>"):
        assert text not in page
    for text in ("&lt;script&gt;alert", "[bold] &amp; ☂", "&lt;i&gt;note"):
        assert text in page


def test_the_page_of_a_study_names_its_protocol_and_published_numbers(proof, runs):
    study = read_study("decoy-rrr")
    content = study_page(StudyResult(study, runs, proof, "Saliency"), rerun=("again",), notes=("said",))
    assert content.protocol.id == "decoy/rrr"
    assert [p.value for p in content.protocol.published] == ["51.55 %", "96.07 %", "96.11 %"]
    assert (content.title, content.notes, content.rerun) == (study.title, ("said",), ("again",))
    assert content.trained_through == "Saliency"
    assert "1,234 test images; 40 drawn" in content.data_note
    assert "arXiv:1703.03717" in render(content)


def test_the_page_of_two_models_of_the_users_own(proof, runs):
    content = comparison_page(Compared(proof, {}, None, own_test=False), rerun=("again",))
    assert content.protocol.id == "photos <b>"
    assert content.trained_through is None
    assert content.headline[0].after == proof["Accuracy"].after
    assert "[terms.rrr]" in comparison_page(Compared(proof, runs, "Saliency", own_test=True), rerun=()).config


def test_a_measure_that_is_not_defined_is_shown_as_such(proof, runs):
    nothing = Estimate(NAN, NAN, NAN, 0)
    row = Comparison("Worst class", "Told.", nothing, nothing, nothing, True)
    page = render(page_of(replace(proof, comparisons=(proof["Accuracy"], row)), runs))
    assert "not defined" in page
    assert "nan" not in page.lower().replace("finance", "")


def test_a_sheet_of_what_was_revealed(tmp_path):
    data = load("digits", "test")
    batch = data.batch(torch.arange(3))
    found = Revealed(
        batch=batch,
        index=torch.arange(3),
        names=("0", "1", "2"),
        classes=data.classes,
        probabilities=torch.eye(10)[batch.target],
        heatmaps={"Saliency": torch.randn(3, 1, 8, 8), "Grad-CAM": torch.rand(3, 1, 8, 8)},
        signed={"Saliency": True, "Grad-CAM": False},
        shares={},
        pixel_range=(0.0, 1.0),
    )
    sheet = reveal_sheet(found)
    fewer = reveal_sheet(replace(found, heatmaps={"Saliency": found.heatmaps["Saliency"]}))
    assert sheet.width > fewer.width
    assert sheet.height == fewer.height
    other = reveal_sheet(replace(found, probabilities=torch.eye(10)[(batch.target + 1) % 10]))
    assert np.asarray(other).tobytes() != np.asarray(sheet).tobytes()
    named = reveal_sheet(replace(found, names=("zero/0.png", "1", "2")))
    assert np.asarray(named).tobytes() != np.asarray(sheet).tobytes()


def test_a_sheet_of_data_has_a_column_for_each_kind_of_mask():
    from rightreasons.data import decoy

    plain = load("digits", "test")
    marked = decoy(plain, "decoy/rrr", split="test", size=2)
    both = decoy(plain, "decoy/rrr", split="test", size=2, foreground=0.5)
    widths = [data_sheet(data).width for data in (plain, marked, both)]
    assert widths[0] < widths[1] < widths[2]
    assert np.asarray(data_sheet(plain)).tobytes() == np.asarray(data_sheet(plain)).tobytes()


@pytest.mark.parametrize(("channels", "shape"), [(1, (4, 5)), (3, (4, 5, 3))])
def test_pictures_lie_between_zero_and_one_whatever_the_range(channels, shape):
    inputs = torch.linspace(-1, 1, 2 * channels * 20).view(2, channels, 4, 5)
    first, last = pictures(Batch(inputs, torch.zeros(2, dtype=torch.int64)), (-1.0, 1.0))
    assert first.shape == shape
    assert (first.min(), last.max()) == (0, 1)
    assert last.min() == pytest.approx(0.5, abs=0.02), "zero lies in the middle of this range"


def test_a_config_with_an_own_model_is_shown_resolved(proof, runs):
    after = replace(runs["after"], config=RunConfig(model=ModelConfig("net.py:build", {"depth": 3})))
    text = page_of(proof, {**runs, "after": after}).config
    assert 'name = "net.py:build"' in text
    assert "depth = 3" in text


def test_a_control_that_did_not_fail_is_said_at_the_top(proof):
    lead = Estimate(0.02, -0.01, 0.05, 100)
    failed = Control("zero mask", Estimate(0.5, 0.4, 0.6, 100), lead, passed=False)
    passed = replace(failed, name="wrong mask", passed=True)
    told = verdict(replace(proof, controls=(failed, passed)))
    assert "does not clearly lead the control zero mask." in told
    assert "wrong mask" not in told
