from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from rightreasons.core import BadModel, CorruptData, NotWritten
from rightreasons.experiments import (
    CompareSettings,
    DataConfig,
    ModelConfig,
    Question,
    Record,
    RevealSettings,
    RunConfig,
    TermConfig,
    TrainingConfig,
    build_data,
    build_model,
    compare,
    describe,
    load_run,
    open_subject,
    reveal_images,
    train,
)
from rightreasons.experiments.study import control_arms, explainers_of, through
from tests.experiments.conftest import QUICK, RESOURCES
from tests.pictures import SIDE, image_folder, network_file

FEW = CompareSettings(explained=20)


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A user's project: photos, a network, weights before and after, a finished run."""
    folder = tmp_path_factory.mktemp("own")
    photos, net = image_folder(folder / "photos"), network_file(folder / "net.py")
    model = ModelConfig(f"{net}:build")
    for seed, name in enumerate(("before.pt", "after.pt")):
        network = build_model(model, (3, SIDE, SIDE), 2, seed=seed).network
        torch.save(network.state_dict(), folder / name)
    config = RunConfig(data=DataConfig(str(photos)), model=model, training=TrainingConfig(epochs=2, batch_size=8))
    train(config, folder / "run", RESOURCES)
    train(replace(config, terms={"res": TermConfig("res")}), folder / "revised", RESOURCES)
    return folder


def asked(own, **more):
    return Question(DataConfig(str(own / "photos")), ModelConfig(f"{own}/net.py:build"), **more)


def test_two_runs_are_compared_on_the_test_images_of_the_second(plain_and_revised, tmp_path):
    before, after = plain_and_revised
    found = compare((before.out, after.out), Question(), FEW, out=tmp_path / "proof", resources=RESOURCES)
    assert found.proof.images == 359
    assert found.proof["Accuracy"].before.value == before.record.results["test"]["accuracy"]
    assert found.proof["Accuracy"].after.value == after.record.results["test"]["accuracy"]
    assert set(found.runs) == {"before", "after"}
    assert found.trained_through == "Saliency"
    assert next(iter(found.proof.explainers)) == "Saliency"
    record = Record.read(tmp_path / "proof" / "proof.json")
    assert record.kind == "prove"
    assert record.results["comparisons"]["Accuracy"]["after"][0] == found.proof["Accuracy"].after.value


def test_two_files_of_weights_are_compared_on_the_users_images(own, tmp_path):
    paths = (own / "before.pt", own / "after.pt")
    found = compare(paths, asked(own), FEW, out=tmp_path, resources=RESOURCES)
    assert found.proof.images == 30
    assert found.runs == {}
    assert found.trained_through is None
    assert {"Saliency", "Integrated gradients", "Grad-CAM"} == set(found.proof.explainers)
    turned = compare(paths[::-1], asked(own), FEW, out=tmp_path, resources=RESOURCES)
    assert turned.proof["Accuracy"].before.value == found.proof["Accuracy"].after.value


def test_a_file_of_weights_and_a_run(own, tmp_path):
    question = Question(model=ModelConfig(f"{own}/net.py:build"))
    found = compare((own / "before.pt", own / "run"), question, FEW, out=tmp_path, resources=RESOURCES)
    assert found.proof.images == 6
    assert set(found.runs) == {"after"}


def test_controls_are_trained_for_two_runs(plain_and_revised, tmp_path):
    before, after = (run.out for run in plain_and_revised)
    settings = CompareSettings(explained=20, controls=True)
    found = compare((before, after), Question(), settings, out=tmp_path, resources=RESOURCES)
    assert [c.name for c in found.proof.controls] == ["zero mask", "random mask", "wrong mask"]
    assert found.proof["Accuracy"].bound is not None
    zero = load_run(tmp_path / "controls" / "zero-mask")
    assert zero.config.data.masks == "zero"
    assert zero.record.results["test"]["accuracy"] == found.proof.controls[0].accuracy.value


def test_there_is_no_wrong_mask_without_a_patch():
    patched = RunConfig(data=DataConfig(decoy="decoy/rrr"), terms={"rrr": TermConfig("rrr")})
    assert list(control_arms(patched)) == ["zero mask", "random mask", "wrong mask"]
    assert list(control_arms(replace(patched, data=DataConfig("photos")))) == ["zero mask", "random mask"]
    assert list(control_arms(replace(patched, data=DataConfig(decoy="decoy/color")))) == ["zero mask", "random mask"]


def test_controls_need_a_revised_run(own, plain_and_revised, tmp_path):
    settings = CompareSettings(controls=True)
    plain = plain_and_revised[0].out
    with pytest.raises(ValueError, match="second with an explanation loss"):
        compare((plain, plain), Question(), settings, out=tmp_path, resources=RESOURCES)
    with pytest.raises(ValueError, match="second with an explanation loss"):
        compare((own / "before.pt", own / "after.pt"), asked(own), settings, out=tmp_path, resources=RESOURCES)


def test_runs_on_other_pixels_or_classes_are_not_compared(own, plain_and_revised, tmp_path):
    other = replace(QUICK, data=replace(QUICK.data, pixels=(0.0, 255.0)), terms={})
    run = train(replace(other, training=replace(QUICK.training, epochs=1)), tmp_path / "bytes", RESOURCES)
    with pytest.raises(ValueError, match="on one pixel range"):
        compare((plain_and_revised[0].out, run.out), Question(), FEW, out=tmp_path, resources=RESOURCES)
    with pytest.raises(ValueError, match="was trained on the classes left, right"):
        compare((own / "run", plain_and_revised[0].out), Question(), FEW, out=tmp_path, resources=RESOURCES)


def test_the_explainer_that_was_trained_through_comes_first_and_is_named(own):
    revised = load_run(own / "revised")
    data = build_data(revised.config.data, seed=0).test
    assert next(iter(explainers_of(revised.config, data, revised.model))) == "Grad-CAM"
    assert through(revised.config, data) == "Grad-CAM"
    counter = replace(revised.config, terms={"c": TermConfig("counterexamples")})
    assert through(counter, data) is None
    assert through(None, data) is None


@pytest.mark.parametrize(
    ("path", "question", "told"),
    [
        ("nothing", Question(), "no run or weights at"),
        ("photos", Question(), r"no finished run: record\.json is missing"),
        ("before.pt", Question(model=ModelConfig("mlp")), "name them with --data"),
        ("before.pt", Question(DataConfig("digits")), "--model and --weights"),
        (None, Question(), "the folder of a run, or a network and its weights: --model and --weights"),
        (None, Question(DataConfig("digits"), ModelConfig("mlp")), "--model and --weights"),
        ("before.pt", Question(DataConfig("digits"), ModelConfig("mlp", weights="x.pt")), "expected one file"),
        ("before.pt", Question(DataConfig("digits"), ModelConfig("mlp")), "not those of this MLP; missing: 1.weight"),
        ("net.py", Question(DataConfig("digits"), ModelConfig("mlp")), r"expected weights in a \.safetensors"),
        ("run", Question(layer="conv9"), "no layer named 'conv9'. There are: 0, 1, 2, 3"),
        ("run", Question(DataConfig("digits")), "was trained on the classes left, right"),
        ("run", Question(DataConfig("nowhere")), "is named 'nowhere'"),
    ],
)
def test_what_cannot_be_opened_is_told(own, path, question, told):
    with pytest.raises((BadModel, ValueError), match=told):
        open_subject(own / path if path else None, question, RESOURCES)


def test_a_run_sees_other_images_in_the_form_it_was_trained_on(own, tmp_path):
    config = load_run(own / "run").config
    small = replace(config, data=replace(config.data, channels=1, resize=8, pixels=(-1.0, 1.0)))
    train(small, tmp_path / "small", RESOURCES)
    subject = open_subject(tmp_path / "small", Question(DataConfig(str(own / "photos"))), RESOURCES)
    assert subject.data.shape == (1, 8, 8)
    assert subject.data.pixel_range == (-1.0, 1.0)
    assert len(subject.data) == 30


def test_a_layer_that_is_named_is_explained(own):
    assert open_subject(own / "run", Question(layer="1"), RESOURCES).model.layer == "1"
    assert open_subject(own / "run", Question(), RESOURCES).model.layer == "0"


def test_revealed_files_hold_the_maps_and_what_was_asked(own, tmp_path):
    subject = open_subject(own / "run", Question(), RESOURCES)
    settings = RevealSettings(("saliency", "grad_cam"), images=4)
    found = reveal_images(subject, settings, tmp_path / "maps", device="cpu")
    held = safetensors.torch.load_file(tmp_path / "maps" / "heatmaps.safetensors")
    assert set(held) == {"saliency", "grad_cam", "index", "target"}
    assert held["saliency"].shape == (4, 1, SIDE, SIDE)
    assert held["saliency"].equal(found.heatmaps["Saliency"])
    assert held["index"].equal(found.index)
    assert held["target"].equal(found.probabilities.argmax(1))
    record = Record.read(tmp_path / "maps" / "reveal.json")
    assert record.kind == "reveal"
    assert record.config["run"] == load_run(own / "run").record.key
    assert record.results["index"] == held["index"].tolist()
    assert found.signed == {"Saliency": True, "Grad-CAM": False}


def test_revealed_numbers_are_told_in_words(own, tmp_path):
    subject = open_subject(own / "run", Question(), RESOURCES)
    found = reveal_images(subject, RevealSettings(images=3), tmp_path, device="cpu")
    truth, prediction, confidence, share, _ = found.told(0)
    assert {truth, prediction} <= {"left", "right"}
    assert confidence == f"{100 * float(found.probabilities[0].max()):.0f} %"
    heat, mask = found.heatmaps["Saliency"][0].abs(), found.batch.irrelevant[0]
    assert share == f"{100 * float((heat * mask).sum() / heat.sum()):.0f} %"


def test_the_true_class_can_be_explained_and_a_seed_draws_the_images(own, tmp_path):
    subject = open_subject(own / "before.pt", asked(own), RESOURCES)
    draws = [
        reveal_images(subject, RevealSettings(images=5, seed=seed, target="true"), tmp_path, device="cpu")
        for seed in (0, 0, 1)
    ]
    assert draws[0].index.equal(draws[1].index)
    assert not draws[0].index.equal(draws[2].index)
    held = safetensors.torch.load_file(tmp_path / "heatmaps.safetensors")
    assert held["target"].equal(draws[2].batch.target)


def test_more_images_than_there_are_gives_all_of_them(own, tmp_path):
    subject = open_subject(own / "run", Question(), RESOURCES)
    assert len(reveal_images(subject, RevealSettings(images=99), tmp_path, device="cpu").index) == 6


@pytest.mark.parametrize("wrong", [{"images": 0}, {"methods": ()}])
def test_nothing_to_reveal_is_refused(wrong):
    with pytest.raises(ValueError, match=r"expected at least one (method|image)"):
        RevealSettings(**wrong)


@pytest.mark.wrong_types
def test_another_target_is_refused():
    with pytest.raises(ValueError, match="expected target predicted or true"):
        RevealSettings(target="wished")


def test_an_output_folder_that_is_a_file_is_told_before_any_work(own, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(NotWritten, match="a file stands there"):
        compare((own / "run", own / "run"), Question(), FEW, out=tmp_path / "file", resources=RESOURCES)


def test_a_data_set_is_described(own):
    told = describe(build_data(DataConfig(str(own / "photos")), seed=0).train)
    assert told["images"] == "24"
    assert told["size"] == f"3 x {SIDE} x {SIDE}"
    assert told["classes"] == "2: left, right"
    assert told["images a class"] == "12 to 12"
    assert told["masks"] == "relevant, irrelevant"
    assert len(told["fingerprint"]) == 16


def test_runs_do_not_depend_on_the_folder_they_were_started_in(own, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert load_run(own / "run").out == Path(own / "run")


def test_runs_that_hold_out_different_images_are_not_compared(own, tmp_path):
    config = load_run(own / "run").config
    train(replace(config, seed=5), tmp_path / "other", RESOURCES)
    with pytest.raises(ValueError, match="the runs hold out different images"):
        compare((tmp_path / "other", own / "revised"), Question(), FEW, out=tmp_path / "proof", resources=RESOURCES)


def test_a_folder_of_train_and_test_is_told_apart(own, tmp_path):
    for part in ("train", "test"):
        image_folder(tmp_path / "photos" / part)
    with pytest.raises(ValueError, match=r"--data .*photos/train --test .*photos/test"):
        build_data(DataConfig(str(tmp_path / "photos")), seed=0)


def test_a_users_file_may_import_its_neighbor(tmp_path):
    (tmp_path / "the_neighbor_of_mine.py").write_text("from torch import nn\nclass Net(nn.Flatten):\n    pass\n")
    (tmp_path / "own_net.py").write_text("from the_neighbor_of_mine import Net\ndef build():\n    return Net()\n")
    build_model(ModelConfig(f"{tmp_path}/own_net.py:build"), (1, 2, 2), 4, seed=0)
    with pytest.raises(BadModel, match=r"expected the function too, .*own_net\.py:function"):
        build_model(ModelConfig(f"{tmp_path}/own_net.py"), (1, 2, 2), 4, seed=0)


def test_images_that_changed_after_the_run_are_refused(tmp_path):
    photos, net = image_folder(tmp_path / "photos"), network_file(tmp_path / "net.py")
    config = RunConfig(data=DataConfig(str(photos)), model=ModelConfig(f"{net}:build"), training=TrainingConfig(1, 8))
    train(config, tmp_path / "run", RESOURCES)
    open_subject(tmp_path / "run", Question(), RESOURCES)
    first = sorted(next(p for p in photos.iterdir() if p.is_dir()).glob("*.png"))[0]
    first.with_name("added.png").write_bytes(first.read_bytes())
    with pytest.raises(CorruptData, match="have changed since"):
        open_subject(tmp_path / "run", Question(), RESOURCES)
