"""Which explainers run, against which class, with which settings."""

from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
import torch
from torch import nn

from rightreasons.attribution import ATTRIBUTIONS, Saliency
from rightreasons.core import Attribution, BadModel
from rightreasons.data import Subset
from rightreasons.data.arrays import ArrayDataset
from rightreasons.experiments import (
    MethodConfig,
    RevealSettings,
    read_methods,
    reveal_images,
    summarize,
)
from rightreasons.experiments.reveal import methods as reveal_methods
from rightreasons.experiments.reveal.methods import build_explainers, class_number
from rightreasons.experiments.subject import Subject
from rightreasons.models import adapt, contrast
from tests.experiments.revealing import revealed
from tests.pictures import SIDE


def test_every_method_that_fits_runs_and_the_others_say_why(subject, tmp_path):
    network = nn.Sequential(nn.Flatten(), nn.Linear(3 * SIDE * SIDE, 2)).eval()
    flat = Subject(adapt(network), Subset(subject.data, range(3)), None)
    maps = revealed(flat, tmp_path, RevealSettings(("all",), images=None))
    assert set(maps.titles) | set(maps.unfit) == set(ATTRIBUTIONS)
    assert {"saliency", "occlusion", "lime", "lrp"} <= set(maps.titles)
    assert {"grad_cam", "cam"} <= set(maps.unfit)
    assert "layer" in maps.unfit["grad_cam"]
    assert all(set(line["methods"]) == set(maps.titles) for line in maps.lines())
    asked = RevealSettings(("saliency", "grad_cam", "occlusion"), images=None)
    with pytest.raises(BadModel, match=r"by grad_cam: .*layer.*\(it can by saliency, occlusion\)"):
        revealed(flat, tmp_path / "named", asked)
    assert not (tmp_path / "named").exists()


def test_a_defect_of_a_method_is_not_hidden_by_all(subject, monkeypatch):
    def broken(*_):
        raise TypeError("a defect")

    monkeypatch.setattr(Saliency, "__call__", broken)
    with pytest.raises(TypeError, match="a defect"):
        build_explainers(subject, RevealSettings(("all",)))


def test_one_class_against_another(subject, tmp_path):
    settings = RevealSettings(("saliency",), images=None, target="true", against="right")
    maps = revealed(subject, tmp_path, settings)
    batch = subject.data.batch(torch.arange(30))
    expected = Saliency()(contrast(subject.model, 1), batch.inputs, batch.target)
    found = torch.stack([maps.heatmap(line, "saliency") for line in maps.lines()])
    torch.testing.assert_close(found, expected.detach())
    few = reveal_images(subject, replace(settings, images=30), tmp_path / "few", device="cpu")
    assert (few.batch.target == 0).all()
    assert sorted(few.index.tolist()) == (batch.target == 0).nonzero().flatten().tolist()
    torch.testing.assert_close(few.heatmaps["Saliency"], found[few.index])


@pytest.mark.parametrize(("name", "number"), [("", None), ("right", 1), ("0", 0), ("1", 0)])
def test_a_class_by_name_or_else_by_number(name, number):
    assert class_number(name, ["1", "right"] if name == "1" else ["left", "right"]) == number


@pytest.mark.parametrize("name", ["up", "2", "-1"])
def test_a_class_that_does_not_exist(name):
    with pytest.raises(ValueError, match=r"There are: left, right; or its number, 0 to 1"):
        class_number(name, ("left", "right"))


@dataclass(frozen=True)
class Undefined(Attribution):
    """The first channel, with one value of the first image that is no number."""

    differentiable: ClassVar[bool] = False
    signed: ClassVar[bool] = True

    def attribute(self, model, inputs, target, *, graph):
        values = inputs[:, :1].clone()
        values[0, 0, 0, 0] = torch.nan
        return values


def test_a_map_that_is_not_finite_is_kept_and_told(subject, tmp_path, monkeypatch):
    monkeypatch.setattr(reveal_methods, "build_attribution", lambda *_: Undefined())
    monkeypatch.setattr(reveal_methods, "title_of", lambda *_: "Undefined")
    monkeypatch.setattr(type(ATTRIBUTIONS), "name_of", lambda *_: "saliency")
    maps = revealed(subject, tmp_path, RevealSettings(("saliency",), images=None))
    first, second, *_ = maps.lines()
    assert first["methods"]["saliency"] == dict.fromkeys(("sum", "max_abs", "irrelevant", "relevant"))
    assert None not in second["methods"]["saliency"].values()
    assert maps.heatmap(first, "saliency")[0, 0, 0].isnan()
    summary = summarize(maps.lines(), ["saliency"], images=30)
    assert summary.methods["saliency"].undefined == 5, "one a batch"


def test_images_without_masks_have_no_shares(tmp_path):
    data = ArrayDataset(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.arange(4) % 2, classes="ab", name="none")
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 2)).eval()
    maps = revealed(Subject(adapt(network), data, None), tmp_path, RevealSettings(images=None))
    (line, *_) = maps.lines()
    assert line["methods"]["saliency"]["irrelevant"] is line["methods"]["saliency"]["relevant"] is None
    assert line["name"] == ""


def test_methods_with_settings_from_a_file(subject, tmp_path):
    (tmp_path / "m.toml").write_text(
        '[[method]]\nname = "integrated_gradients"\nsteps = 4\n'
        '[[method]]\nname = "integrated_gradients"\nlabel = "ig9"\nsteps = 9\n'
    )
    methods = read_methods(tmp_path / "m.toml")
    assert methods[1] == MethodConfig("integrated_gradients", {"steps": 9}, "ig9")
    explainers = build_explainers(subject, RevealSettings(methods))
    assert [method.steps for method in explainers.methods.values()] == [4, 9]
    assert list(explainers.titles.values()) == ["Integrated gradients", "Integrated gradients (ig9)"]
    assert explainers.settings["ig9"]["steps"] == "9"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "expected tables"),
        ("seed = 3", "unknown key 'seed'"),
        ("[method]\nname = 'saliency'", "expected tables"),
        ("[[method]]\nsteps = 3", "expected a name"),
        ("[[method]]\nname = 'lime'\n[[method]]\nname = 'lime'", "two methods are called 'lime'"),
        ("[[method]]\nname = 'saliency'\nsteps = 3", "has no setting 'steps'"),
    ],
)
def test_a_wrong_file_of_methods_is_told(subject, tmp_path, text, told):
    (tmp_path / "m.toml").write_text(text)
    with pytest.raises(ValueError, match=told):
        build_explainers(subject, RevealSettings(read_methods(tmp_path / "m.toml")))
