"""The product in one test: a model cheats, RRR repairs it, the controls fail, and the page says so."""

from dataclasses import replace

import pytest

from rightreasons.experiments import Resources, read_study, run_study
from rightreasons.reports import study_page, write


@pytest.fixture(scope="module")
def story(tmp_path_factory):
    """The study that needs no network, with fewer epochs."""
    study = read_study("digits")
    run = replace(study.run, training=replace(study.run.training, epochs=25, lr=0.02, batch_size=128))
    out = tmp_path_factory.mktemp("story")
    result = run_study(replace(study, run=run), out, controls=True, resources=Resources("cpu", progress=False))
    page = write(study_page(result, rerun=("rightreasons demo --study digits",)), out / "index.html")
    return result, page.read_text()


def test_the_plain_model_cheats(story):
    proof = story[0].proof
    accuracy = proof["Accuracy"]
    assert accuracy.before.value < accuracy.bound.value - 0.08
    assert proof["Decoy swap"].before.value > 0.1


def test_rrr_repairs_it(story):
    proof = story[0].proof
    accuracy = proof["Accuracy"]
    assert accuracy.after.value > accuracy.bound.value - 0.03
    assert accuracy.judgement == "better"
    assert proof["Decoy swap"].after.value < 0.01


def test_an_explainer_that_was_not_trained_through_agrees(story):
    result, _ = story
    assert result.trained_through == "Saliency"
    for explainer in result.proof.explainers:
        relevance = result.proof[f"Artifact relevance ({explainer})"]
        assert relevance.judgement == "better"
        assert relevance.after.value < 0.1 * relevance.before.value
    assert len(result.proof.explainers) >= 2


def test_masks_that_should_not_help_do_not(story):
    controls = story[0].proof.controls
    assert [control.name for control in controls] == ["zero mask", "random mask", "wrong mask"]
    assert all(control.passed for control in controls)


def test_the_page_says_so(story):
    result, page = story
    accuracy = result.proof["Accuracy"]
    for estimate in (accuracy.before, accuracy.after, accuracy.bound):
        assert f"{100 * estimate.value:.1f} %" in page.replace("\N{NO-BREAK SPACE}", " ")
    for text in (
        result.study.title,
        "decoy/rrr",
        "zero mask",
        "wrong mask",
        "clean bound",
        "rightreasons demo --study",
    ):
        assert text in page
    assert page.count("<img") > 20
    assert "http://" not in page.replace("http://www.w3.org", "")
