"""Maps against a class that begin at images of that class: where these come from, and what is told of them."""

from __future__ import annotations

from dataclasses import replace

import pytest
import safetensors.torch
import torch

from rightreasons.core.tensors import weights_digest
from rightreasons.data import Subset
from rightreasons.data.arrays import ArrayDataset, Rescaled
from rightreasons.experiments import (
    Conduct,
    MethodConfig,
    Question,
    Record,
    RevealSettings,
    open_subject,
    reveal_all,
    reveal_images,
    reveal_picture,
)
from rightreasons.experiments import baselines as named_baselines
from rightreasons.experiments.baselines import InRange, NamedBaselines
from rightreasons.experiments.parts import Keep, learnt_parts
from rightreasons.experiments.reveal.methods import build_explainers
from rightreasons.reports.sheets import picture_figure, reveal_sheet
from tests.experiments.conftest import RESOURCES
from tests.experiments.kept import kept_in

BOTH = RevealSettings(("integrated_gradients", "deep_lift"), images=5, against="3", baseline="nearest")


@pytest.fixture(scope="module")
def subject(plain_and_revised):
    return open_subject(plain_and_revised[0].out, Question(), RESOURCES)


@pytest.fixture
def kept(tmp_path, monkeypatch):
    """A folder for networks, which are trained as shortly as can be."""
    folder = tmp_path / "kept"
    monkeypatch.setattr(named_baselines, "learnt_parts", kept_in(folder))
    return folder


def nearest_of(subject, image, label):
    """Plainly: the training image of the class with the smallest distance."""
    training = subject.training()
    bank = training.batch((training.target == label).nonzero()[:, 0]).inputs
    return min(bank, key=lambda other: float((other - image).square().sum()))


def leads(subject, images, target, other):
    logits = subject.model(images).detach().double()
    return logits[torch.arange(len(images)), target] - logits[:, other]


@pytest.mark.parametrize("name", ["nearest", "generated"])
def test_the_maps_sum_to_the_lead_of_the_image_over_that_of_its_baseline(subject, kept, tmp_path, name):
    methods = (MethodConfig("integrated_gradients", {"steps": 300}), "deep_lift")
    found = reveal_images(subject, replace(BOTH, methods=methods, baseline=name), tmp_path / "maps", device="cpu")
    start, target = found.starts[name], found.probabilities.argmax(dim=1)
    expected = leads(subject, found.batch.inputs, target, 3) - leads(subject, start.images, target, 3)
    assert expected.abs().max() > 0.1
    for title, tolerance in (("DeepLIFT", 1e-4), ("Integrated gradients", 2e-2)):
        sums = found.heatmaps[title].double().sum(dim=(1, 2, 3))
        torch.testing.assert_close(sums, expected, rtol=0, atol=tolerance)
    assert start.taken.tolist() == (subject.model(start.images).argmax(dim=1) == 3).tolist()
    record = Record.read(tmp_path / "maps" / "reveal.json")
    assert record.config["baseline"] == name
    assert record.results["baselines"] == {name: {"taken": start.taken.tolist()}}
    held = safetensors.torch.load_file(tmp_path / "maps" / "heatmaps.safetensors")
    assert torch.equal(held[f"baseline.{name}"], start.images)


def test_the_nearest_is_a_training_image_of_the_class(subject, tmp_path):
    found = reveal_images(subject, BOTH, tmp_path, device="cpu")
    for image, start in zip(found.batch.inputs, found.starts["nearest"].images, strict=True):
        assert torch.equal(start, nearest_of(subject, image, 3))
    told = Record.read(tmp_path / "reveal.json").config["explainers"]
    assert told["deep_lift"]["baseline"] == told["integrated_gradients"]["baseline"]
    assert told["deep_lift"]["baseline"].startswith("ClassBaseline(references=torch.float32 (1438, 1, 8, 8) ")
    assert len(told["deep_lift"]["baseline"]) < 150


def test_the_generator_is_trained_once_and_told_in_the_record(subject, kept, tmp_path):
    settings = replace(BOTH, baseline="generated")
    first = build_explainers(subject, settings)
    before = {path: path.stat().st_mtime_ns for path in kept.iterdir()}
    assert sorted(path.name.partition("-")[0] for path in before) == ["autoencoder", "generator"]
    again = build_explainers(subject, settings)
    assert {path: path.stat().st_mtime_ns for path in kept.iterdir()} == before
    assert first.settings == again.settings
    assert first.settings["deep_lift"]["baseline"].startswith("GeneratedBaseline(generator=VAE ")
    assert first.methods["deep_lift"].baseline is first.methods["integrated_gradients"].baseline
    # The generator of counterfactuals stays less near, and is another one.
    class_ = named_baselines.Amortized
    farther = learnt_parts(class_, subject.model, subject.training(), Keep(kept, 1))["generator"]
    assert len(list(kept.iterdir())) == 3
    assert weights_digest(farther)[:16] not in first.settings["deep_lift"]["baseline"]


def test_a_generated_image_is_of_the_range_and_the_class_that_is_asked_for():
    seen = []

    class Network(torch.nn.Module):
        def forward(self, images, classes):
            seen.append((images, classes, self.training))
            return (classes / 10).view(-1, 1, 1, 1).expand_as(images)

    images = torch.tensor([-1.0, 3.0]).view(2, 1, 1, 1).expand(2, 1, 4, 4)
    network = Network()
    made = InRange(network, (-1.0, 3.0))(images, torch.tensor([5, 10]))
    ((shown, classes, training),) = seen
    assert (shown[0] == 0).all()
    assert (shown[1] == 1).all()
    assert classes.tolist() == [5, 10]
    assert not training
    assert network.training
    assert made[:, 0, 0, 0].tolist() == [1.0, 3.0]


def test_a_whole_data_set_gets_the_same_maps_as_some_of_its_images(subject, tmp_path):
    maps = reveal_all(subject, replace(BOTH, images=70), tmp_path / "all", conduct=Conduct("cpu"))
    lines = list(maps.lines())
    assert maps.record.config["baseline"] == "nearest"
    some = Subset(subject.data, torch.tensor([lines[row]["position"] for row in (2, 68)]))
    few = reveal_images(replace(subject, data=some), replace(BOTH, images=2), tmp_path / "few", device="cpu")
    for key, title in (("integrated_gradients", "Integrated gradients"), ("deep_lift", "DeepLIFT")):
        found = torch.stack([maps.heatmap(lines[row], key) for row in (2, 68)])
        torch.testing.assert_close(found, few.heatmaps[title], rtol=1e-4, atol=1e-5)


def test_methods_of_a_file_have_baselines_of_their_own(subject):
    methods = (
        MethodConfig("integrated_gradients", {"baseline": ["nearest", 0.5, "mean"]}),
        MethodConfig("kernel_shap", {"baseline": 0.25}),
        "deep_lift",
        "saliency",
    )
    made = build_explainers(subject, RevealSettings(methods, against="3", baseline="nearest")).methods
    several = made["integrated_gradients"].baseline
    assert several[0] is made["deep_lift"].baseline
    assert several[1] == 0.5
    assert repr(several[2]) == "MeanBaseline()"
    assert made["kernel_shap"].baseline == 0.25
    plain = build_explainers(subject, RevealSettings(("deep_lift", "saliency"), baseline="0.5"))
    assert plain.methods["deep_lift"].baseline == 0.5
    assert plain.starts(subject, torch.zeros(2, 1, 8, 8)) == {}


@pytest.mark.parametrize("several", [list, tuple])
def test_a_generator_among_several_baselines_is_seen(several):
    def generates(*names):
        return RevealSettings((MethodConfig("deep_lift", {"baseline": several(names)}),), against="3").generates

    assert generates(0.5, "generated")
    assert not generates(0.5, "nearest")


def test_all_methods_that_have_a_baseline_begin_there(subject):
    made = build_explainers(subject, replace(BOTH, methods=("all",)))
    begin = {name: method.baseline for name, method in made.methods.items() if hasattr(method, "baseline")}
    assert {"integrated_gradients", "deep_lift", "occlusion", "kernel_shap"} <= set(begin)
    assert all(baseline is made.baselines["nearest"] for baseline in begin.values())


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"against": ""}, "baseline 'nearest' is of the class that is explained against; name that class"),
        ({"baseline": "nearer"}, "expected a baseline to be a number or one of mean, blurred, nearest, generated"),
        ({"baseline": "nan"}, "expected a baseline to be a finite number, got 'nan'"),
        ({"baseline": "-inf"}, "expected a baseline to be a finite number, got '-inf'"),
        ({"methods": ("saliency",)}, "expected a method that begins at a baseline, such as integrated_gradients"),
        ({"methods": ("all",), "baseline": "nearer"}, "got 'nearer'"),
    ],
)
def test_a_baseline_that_makes_no_sense_is_refused(subject, change, told):
    with pytest.raises(ValueError, match=told):
        build_explainers(subject, replace(BOTH, **change))


@pytest.mark.parametrize("name", ["nearest", "generated"])
def test_missing_training_images_are_told_and_a_class_without_any_is_named(subject, kept, name):
    nobody = replace(subject, training=lambda: None)
    with pytest.raises(ValueError, match=f"baseline '{name}' needs training images, and none are known"):
        NamedBaselines(nobody, 3).of(name)
    training = subject.training()
    others = Subset(training, (training.target != 3).nonzero()[:, 0])
    with pytest.raises(ValueError, match=f"no training image of class '3' for baseline '{name}'"):
        NamedBaselines(replace(subject, training=lambda: others), 3).of(name)
    assert not kept.exists()


def test_sheet_and_figure_show_where_maps_begin(subject, tmp_path):
    plain = reveal_images(subject, replace(BOTH, baseline=""), tmp_path / "plain", device="cpu")
    found = reveal_images(subject, BOTH, tmp_path / "near", device="cpu")
    assert found.starts["nearest"].title == "nearest 3"
    assert reveal_sheet(found).width > reveal_sheet(plain).width
    assert reveal_sheet(found).height == reveal_sheet(plain).height
    one = picture_figure(replace(found, starts={}), title="one")
    assert picture_figure(found, title="one").width > one.width


def test_a_picture_of_ones_own_has_its_nearest(subject, tmp_path):
    from PIL import Image

    pixels = (subject.data[4].inputs[0, 0] * 255).round().to(torch.uint8)
    Image.fromarray(pixels.numpy()).save(tmp_path / "mine.png")
    found = reveal_picture(subject, tmp_path / "mine.png", BOTH, device="cpu")
    assert torch.equal(found.starts["nearest"].images[0], nearest_of(subject, found.batch.inputs[0], 3))


def test_pixels_in_another_range_are_looked_up_in_it(subject):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (30, 1, 8, 8), generator=generator, dtype=torch.uint8)
    data = Rescaled(ArrayDataset(pixels, torch.arange(30) % 10, classes=list("0123456789"), name="noise"), -1.0, 1.0)
    other = replace(subject, data=data, training=lambda: data)
    explainers = build_explainers(other, BOTH)
    inputs = data.batch(torch.tensor([3, 13])).inputs
    # Training images of the class themselves: each is its own nearest, and the map is empty.
    assert torch.equal(explainers.starts(other, inputs)["nearest"].images, inputs)
