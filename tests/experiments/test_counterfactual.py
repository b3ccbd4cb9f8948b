"""Counterfactuals of a subject: which images, what is measured, what is written."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from torch import nn

from rightreasons.core import BadModel
from rightreasons.counterfactuals import LatentSearch, NearestNeighbor, PrototypeGuided, Wachter
from rightreasons.data.arrays import ArrayDataset, Rescaled, Subset
from rightreasons.experiments import CounterfactualSettings, Question, Record, Resources, counterfactuals, parts
from rightreasons.experiments.counterfactual import (
    Keep,
    ask,
    build_counterfactual,
    class_autoencoders,
    learnt_parts,
    needed_parts,
    picture_files,
    reached_class,
    searching,
)
from rightreasons.experiments.subject import Subject, open_subject
from rightreasons.models import adapt
from tests.experiments.conftest import RESOURCES

CLASSES = ("dark", "middle", "bright")


def brightness_case(low=0.0, high=1.0):
    """Three classes by the mean brightness of 8 x 8 pixels; the labels of every third image are wrong."""
    generator = torch.Generator().manual_seed(0)
    level = torch.randint(20, 236, (90, 1, 1, 1), generator=generator)
    noise = torch.randint(-15, 16, (90, 1, 8, 8), generator=generator)
    pictures = (level + noise).clamp(0, 255).to(torch.uint8)
    told = torch.bucketize(pictures.double().mean(dim=(1, 2, 3)) / 255, torch.tensor([1 / 3, 2 / 3]).double())
    labels = torch.where(torch.arange(90) % 3 == 0, (told + 1) % 3, told)
    data = Rescaled(ArrayDataset(pictures, labels, classes=CLASSES, name="levels"), low, high)
    layer = nn.Linear(64, 3)
    slopes = 40 * torch.tensor([0.0, 1.0, 2.0]) / (high - low)
    layer.weight.data = (slopes[:, None] / 64).repeat(1, 64)
    layer.bias.data = torch.tensor([0.0, -40 / 3, -40.0]) - slopes * low
    return Subject(adapt(nn.Sequential(nn.Flatten(), layer).eval()), data, None)


def answered(out, subject=None, **settings):
    asked = CounterfactualSettings(**settings)
    return counterfactuals(subject or brightness_case(), asked, out, Resources("cpu"))


def test_the_images_are_drawn_from_those_for_which_the_question_makes_sense():
    subject = brightness_case()
    for settings in ({"target": "bright"}, {"target": "2"}, {"misclassified": True}, {"target": "true"}, {}):
        asked = ask(subject.data, subject.model, CounterfactualSettings(images=12, **settings))
        said = subject.model(asked.inputs).argmax(dim=1)
        assert len(set(asked.names)) == 12
        assert torch.equal(asked.predicted, said)
        assert (asked.target != said).all()
        assert torch.equal(asked.truth, subject.data.target[asked.index])
        if settings.get("misclassified") or settings.get("target") == "true":
            assert torch.equal(asked.target, asked.truth)
        elif settings:
            assert (asked.target == 2).all()
    wrong = ask(subject.data, subject.model, CounterfactualSettings("wachter", "any", images=30, misclassified=True))
    assert (wrong.predicted != wrong.truth).all()
    again = ask(subject.data, subject.model, CounterfactualSettings(images=12))
    other = ask(subject.data, subject.model, CounterfactualSettings(images=12, seed=1))
    assert asked.names == again.names != other.names


def test_fewer_than_asked_for_are_all_of_them_and_none_is_a_mistake():
    subject = brightness_case()
    wrong = int((subject.model(subject.data.batch(torch.arange(90)).inputs).argmax(1) != subject.data.target).sum())
    asked = ask(subject.data, subject.model, CounterfactualSettings(images=1000, misclassified=True))
    assert len(asked.names) == wrong == 30
    perfect = Subject(subject.model, ArrayDataset(*bright_only(), classes=CLASSES, name="bright"), None)
    with pytest.raises(ValueError, match="no image of bright is left to ask about: the model gets none wrong"):
        ask(perfect.data, perfect.model, CounterfactualSettings(misclassified=True))
    with pytest.raises(ValueError, match="takes all of them for 'bright' already"):
        ask(perfect.data, perfect.model, CounterfactualSettings(target="bright"))


def bright_only():
    return torch.full((4, 1, 8, 8), 240, dtype=torch.uint8), torch.full((4,), 2)


def test_named_images_keep_their_order_and_a_target_that_is_the_prediction_is_named():
    subject = brightness_case()
    said = subject.model(subject.data.batch(torch.arange(90)).inputs).argmax(1)
    dark, bright = (int((said == label).nonzero()[0]) for label in (0, 2))
    asked = ask(subject.data, subject.model, CounterfactualSettings(index=(bright, dark), target="middle"))
    assert asked.names == (f"image {bright}", f"image {dark}")
    with pytest.raises(ValueError, match=rf"another class than the model gives already, got 'dark' for image {dark}$"):
        ask(subject.data, subject.model, CounterfactualSettings(index=(bright, dark), target="dark"))
    with pytest.raises(ValueError, match="positions from 0 to 89, got 90"):
        ask(subject.data, subject.model, CounterfactualSettings(index=(90,)))
    with pytest.raises(ValueError, match=r"no class 'gray' to reach\. There are: dark, middle, bright; or runner-up"):
        ask(subject.data, subject.model, CounterfactualSettings(target="gray"))


@pytest.mark.parametrize("pixels", [(0.0, 1.0), (-1.0, 1.0)])
def test_what_is_measured_agrees_with_the_images(tmp_path, pixels):
    subject = brightness_case(*pixels)
    answers = answered(tmp_path, subject, images=6, settings={"steps": 40})
    asked, found = answers.asked, answers.found
    assert found.valid.all()
    change = (found.images - asked.inputs) / (pixels[1] - pixels[0])
    torch.testing.assert_close(answers.distances.l2, change.flatten(1).norm(dim=1), rtol=1e-4, atol=1e-5)
    ends = torch.stack([subject.model(images).softmax(dim=1) for images in (asked.inputs, found.images)]).detach()
    torch.testing.assert_close(answers.way[[0, -1]], ends, rtol=1e-4, atol=1e-5)
    # Of brightness the least change is an even one, by which the mean reaches the boundary.
    mean = ((asked.inputs - pixels[0]) / (pixels[1] - pixels[0])).mean(dim=(1, 2, 3))
    border = torch.where(torch.minimum(asked.predicted, asked.target) == 0, 1 / 3, 2 / 3)
    torch.testing.assert_close(answers.distances.l2, 8 * (mean - border).abs(), atol=0.03, rtol=0.02)
    assert answers.contrasts.isnan().all()
    assert "no training images" in answers.baseline


def test_the_record_says_what_was_found(tmp_path):
    answers = answered(tmp_path, images=5, target="any", method="growing_spheres")
    record = Record.read(tmp_path / "counterfactual.json")
    assert record.kind == "counterfactual"
    assert record.config["method"] == "growing_spheres"
    assert record.config["data"].startswith("levels")
    assert len(record.results["images"]) == 5
    for row, told in enumerate(record.results["images"]):
        assert told["name"] == answers.asked.names[row]
        assert told["target"] == "any"
        assert (told["becomes"] != told["predicted"]) == told["valid"]
        assert told["queries"] == int(answers.found.queries[row])
        assert told["way"]["predicted"][0] > told["way"]["other"][0]
    summary = record.results["summary"]
    assert summary["validity"]["value"] == pytest.approx(answers.found.valid.double().mean())
    assert summary["l2"]["low"] <= summary["l2"]["value"] <= summary["l2"]["high"]


def test_an_unreachable_target_is_not_valid_and_the_best_found_is_kept(tmp_path):
    subject = brightness_case()
    subject.model.network[1].bias.data[2] -= 1000
    answers = answered(tmp_path, subject, images=3, target="bright", settings={"steps": 20})
    assert not answers.found.valid.any()
    told = json.loads((tmp_path / "counterfactual.json").read_text())["results"]
    assert [image["valid"] for image in told["images"]] == [False] * 3
    assert (answers.way[-1, :, 2] >= answers.way[0, :, 2]).all()
    assert told["summary"]["validity"]["value"] == 0
    assert told["summary"]["l2"]["value"] is None, "distances are those of valid ones"


def test_training_images_are_looked_among_and_maps_start_from_them(plain_and_revised, tmp_path):
    run, _ = plain_and_revised
    subject = open_subject(run.out, Question(), RESOURCES)
    settings = CounterfactualSettings("nearest_neighbor", "true", images=4)
    answers = counterfactuals(subject, settings, tmp_path, RESOURCES)
    assert answers.found.valid.any()
    assert torch.isfinite(answers.contrasts).all()
    assert answers.baseline == "the nearest training image of the other class"
    assert (answers.distances.l2 > 0).all()


def test_a_class_without_a_training_image_is_named(plain_and_revised):
    from rightreasons.experiments.counterfactual.searching import _check

    run, _ = plain_and_revised
    subject = open_subject(run.out, Question(), RESOURCES)
    asked = ask(subject.data, subject.model, CounterfactualSettings(target="3", images=2))
    method = NearestNeighbor(asked.inputs, torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="no training image of class '3', so nearest_neighbor has none to show"):
        _check(method, asked, subject.data.classes)
    with pytest.raises(ValueError, match=r"expected pixels from 0 to 0.5, got other values in image \d+"):
        _check(Wachter(high=0.5), asked, subject.data.classes)


def test_of_a_class_without_a_training_image_only_what_needs_one_is_refused(tmp_path):
    subject = brightness_case()
    dim = (subject.data.target != 2).nonzero()[:, 0]
    subject = replace(subject, training=lambda: Subset(brightness_case().data, dim))
    with pytest.raises(ValueError, match="no training image of class 'bright', so nearest_neighbor has none to show"):
        answered(tmp_path / "out", subject, target="bright", method="nearest_neighbor", images=2)
    assert not (tmp_path / "out").exists()
    answers = answered(tmp_path / "bright", subject, target="bright", images=3, settings={"steps": 40})
    assert answers.found.valid.all()
    assert answers.contrasts.isnan().all(), "there is no image of the class at which a map could begin"
    other = answered(tmp_path / "any", subject, target="any", images=3, method="nearest_neighbor")
    assert other.found.valid.all(), "images of other classes are enough for any other class"


@pytest.mark.parametrize("method", ["prototype_guided", "nearest_neighbor", "latent_search", "wachter"])
def test_a_setting_of_the_wrong_kind_is_told_before_anything_is_trained(tmp_path, monkeypatch, method):
    monkeypatch.setattr(searching, "learnt_parts", lambda *_: pytest.fail("trained"))
    subject = replace(brightness_case(), training=lambda: brightness_case().data)
    told = rf"counterfactual '{method}': expected lead to be a number, got 'far'"
    with pytest.raises(ValueError, match=told):
        answered(tmp_path / "out", subject, method=method, settings={"lead": "far"})


def test_a_method_that_needs_training_images_says_so(tmp_path):
    for method in ("nearest_neighbor", "amortized"):
        with pytest.raises(ValueError, match=f"{method} needs training images, and none are known"):
            answered(tmp_path / "out", method=method)
    assert not (tmp_path / "out").exists()
    with pytest.raises(ValueError, match="counterfactual 'wachter' has no setting 'stepz'"):
        answered(tmp_path / "out", settings={"stepz": 3})


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"method": "wachtr"}, "Did you mean 'wachter'"),
        ({"images": 0}, "at least one image"),
        ({"index": (1,), "misclassified": True}, "one way to name images, got index and misclassified"),
        ({"pictures": ("a.png",), "target": "true"}, "nobody knows the true class"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, told):
    with pytest.raises(ValueError, match=told):
        CounterfactualSettings(**settings)


def test_of_any_class_it_is_the_one_that_was_reached_or_came_nearest():
    after = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.1, 0.7], [0.2, 0.1, 0.7]])
    found = reached_class(after, torch.tensor([0, 0, 0]), torch.tensor([-1, -1, 1]))
    assert found.tolist() == [1, 2, 1]


def test_folders_of_pictures_are_read_by_name(tmp_path):
    for name in ("b.png", "a.jpg", "notes.txt"):
        (tmp_path / name).write_bytes(b"")
    assert [file.name for file in picture_files((str(tmp_path), "c.png"))] == ["a.jpg", "b.png", "c.png"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="holds no picture"):
        picture_files((str(tmp_path / "empty"),))


def test_trained_networks_are_kept_and_found_again(tmp_path):
    from rightreasons.counterfactuals import Amortized, LatentSearch, PrototypeGuided

    subject = brightness_case()
    assert needed_parts(Wachter) == ()
    assert needed_parts(PrototypeGuided) == ("encoder",)
    for class_ in (PrototypeGuided, LatentSearch, Amortized):
        first, again = (learnt_parts(class_, subject.model, subject.data, Keep(tmp_path, 1)) for _ in range(2))
        assert set(first) == set(needed_parts(class_))
        for name, network in first.items():
            for one, other in zip(network.parameters(), again[name].parameters(), strict=True):
                assert torch.equal(one, other)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_class_without_images_has_no_autoencoder_and_is_named(tmp_path):
    data = brightness_case().data
    some = Subset(data, (data.target != 1).nonzero()[:, 0])
    with pytest.raises(ValueError, match="no training image of class 'middle' for its autoencoder"):
        class_autoencoders(some, torch.device("cpu"), Keep(tmp_path / "kept", 1))
    assert not (tmp_path / "kept").exists()


def test_the_range_of_the_pixels_comes_from_the_data_unless_it_is_set():
    subject = brightness_case(-1.0, 1.0)
    for given, expected in (({}, (-1.0, 1.0)), ({"low": -2.0}, (-2.0, 1.0))):
        settings = CounterfactualSettings(settings=given)
        method = build_counterfactual(settings, subject.model, subject.data, None, None)
        assert (method.low, method.high) == expected
    assert math.isclose(method.width, 3.0)


@pytest.mark.parametrize("class_", [PrototypeGuided, LatentSearch])
@pytest.mark.parametrize("learns_from", [0, 2, None])
def test_an_autoencoder_that_makes_the_same_of_every_image_is_trained_from_the_next_seed(
    tmp_path, monkeypatch, learns_from, class_
):
    seeds, data = [], brightness_case().data
    fit = parts.fit_autoencoder

    def fitted(network, images, settings, **more):
        seeds.append(settings.seed)
        fit(network, images, settings, **more)
        if settings.seed != learns_from:
            for weight in (network.code if class_ is PrototypeGuided else network.moments).parameters():
                weight.data.zero_()

    monkeypatch.setattr(parts, "fit_autoencoder", fitted)
    ask = partial(learnt_parts, class_, brightness_case().model, data, Keep(tmp_path, 1))
    if learns_from is None:
        with pytest.raises(BadModel, match=r"5 autoencoders .*\(90 images of bright, dark, middle\) all make the same"):
            ask()
    else:
        ask()
        assert seeds == list(range(learns_from + 1))
