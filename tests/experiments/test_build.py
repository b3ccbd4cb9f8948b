from dataclasses import replace

import pytest
import torch

from rightreasons.attribution import ExpectedGradients, GradCAM, IntegratedGradients
from rightreasons.core import BadModel, CorruptData, NotDifferentiable
from rightreasons.data import ImageFolder, load
from rightreasons.experiments import (
    DataConfig,
    ModelConfig,
    RunConfig,
    TermConfig,
    TrainingConfig,
    build_attribution,
    build_data,
    build_loss,
    build_model,
)
from rightreasons.experiments.build import build_fit_settings, check_names, title_of
from rightreasons.supervision import RES, RRR, Counterexamples
from tests.pictures import SIDE, image_folder, network_file

DIGITS = DataConfig(name="digits", decoy="decoy/rrr", decoy_size=2)


def every(data):
    return data.batch(torch.arange(len(data)))


def test_a_decoy_on_the_digits_by_name_in_the_range_that_was_asked_for():
    splits = build_data(replace(DIGITS, pixels=(0.0, 255.0), foreground=0.5), seed=0)
    train, test = every(splits.train), every(splits.test)
    assert (len(train), len(test), splits.validation) == (1438, 359, None)
    assert splits.train.pixel_range == splits.test.pixel_range == (0.0, 255.0)
    assert train.irrelevant.sum((1, 2, 3)).eq(4).all()
    greys = (train.inputs * train.irrelevant).amax((1, 2, 3))
    torch.testing.assert_close(greys, 255.0 - 25.0 * train.target)
    misled = (test.inputs * test.irrelevant).amax((1, 2, 3)) != 255.0 - 25.0 * test.target
    assert misled.double().mean() > 0.8
    assert (train.relevant * train.irrelevant).sum() == 0
    assert train.relevant.sum() > 0


def test_training_and_test_images_do_not_share_their_decoys():
    """One seed for both would put the patch of the first test image where that of the first training image is."""
    splits = build_data(DIGITS, seed=0)
    first, second = every(splits.train)[:359], every(splits.test)
    at_the_top = [batch.irrelevant[:, 0, 0].amax(1) for batch in (first, second)]
    assert 0.35 < (at_the_top[0] == at_the_top[1]).double().mean() < 0.65


def test_a_seed_decides_the_decoys_and_nothing_else_does():
    one, again, other = (build_data(DIGITS, seed=seed).train.fingerprint() for seed in (0, 0, 1))
    assert one == again != other


def test_a_validation_share_is_held_out_with_its_decoys():
    splits = build_data(replace(DIGITS, validation=0.1), seed=0)
    assert len(splits.train) + len(splits.validation) == 1438
    held = every(splits.validation)
    torch.testing.assert_close((held.inputs * held.irrelevant).amax((1, 2, 3)), (255.0 - 25.0 * held.target) / 255)


def test_only_a_share_keeps_its_masks():
    batch = every(build_data(replace(DIGITS, annotated=0.25), seed=0).train)
    assert batch.annotated.sum() == round(0.25 * 1438)
    assert batch.irrelevant[~batch.annotated].sum() == 0


@pytest.mark.parametrize("masks", ["zero", "random", "wrong"])
def test_controls_change_the_masks_and_not_the_images(masks):
    true, control = (every(build_data(replace(DIGITS, masks=kind), seed=0).train) for kind in ("true", masks))
    assert control.inputs.equal(true.inputs)
    assert not control.irrelevant.equal(true.irrelevant)
    assert control.irrelevant.sum() == (0 if masks == "zero" else true.irrelevant.sum())


def test_a_fifth_of_a_folder_is_held_out(tmp_path):
    splits = build_data(DataConfig(name=f"{image_folder(tmp_path / 'photos')}/"), seed=0)
    assert (len(splits.train), len(splits.test)) == (24, 6)
    assert splits.train.shape == (3, SIDE, SIDE)
    assert every(splits.train).irrelevant.sum() == 24 * 9


def test_a_folder_of_its_own_to_test_on_is_used_whole(tmp_path):
    train, test = image_folder(tmp_path / "train"), image_folder(tmp_path / "test", ("right",), each=5)
    splits = build_data(DataConfig(name=str(train), test=str(test), resize=8, channels=1), seed=0)
    assert (len(splits.train), len(splits.test)) == (30, 5)
    assert splits.test.classes == ("left", "right")
    assert splits.test.target.eq(1).all()
    assert splits.test.shape == (1, 8, 8)


def test_a_test_folder_with_another_class_is_refused(tmp_path):
    train, test = image_folder(tmp_path / "train"), image_folder(tmp_path / "test", ("left", "up"))
    with pytest.raises(CorruptData, match="unknown class 'up'"):
        build_data(DataConfig(name=str(train), test=str(test)), seed=0)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (DataConfig(name="minst"), "no data set and no folder of images is named 'minst'. Data sets: mnist"),
        (DataConfig(name=""), "no data set and no folder of images is named ''"),
        (DataConfig(name="digits", test="here"), "no test folder with digits"),
        (DataConfig(name="digits", decoy="decoy/nope"), "There are: decoy/rrr"),
        (DataConfig(name="digits", validation=1.5), "share between 0 and 1"),
        (replace(DIGITS, decoy_size=7), "size"),
    ],
)
def test_data_that_cannot_be_had_are_refused(config, told):
    with pytest.raises(ValueError, match=told):
        build_data(config, seed=0)


def test_files_of_a_data_set_and_a_folder_of_images_are_two_things(tmp_path):
    with pytest.raises(ValueError, match="expected no folder of data files"):
        build_data(DataConfig(name=str(image_folder(tmp_path / "photos"))), seed=0, folder=tmp_path)


def test_initial_weights_follow_from_the_seed_and_leave_the_dice_alone():
    before = torch.random.get_rng_state()
    one, again, other = (build_model(ModelConfig("mlp"), (1, 8, 8), 10, seed=seed) for seed in (0, 0, 1))
    assert torch.random.get_rng_state().equal(before)
    weights = [next(model.parameters()) for model in (one, again, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])


def test_a_network_of_the_users_own_by_file_and_by_package(tmp_path, monkeypatch):
    network_file(tmp_path / "my_net.py")
    by_file = build_model(ModelConfig(f"{tmp_path}/my_net.py:build"), (3, SIDE, SIDE), 2, seed=0)
    package = tmp_path / "package_of_mine"
    package.mkdir()
    (package / "__init__.py").write_text("")
    network_file(package / "net.py")
    monkeypatch.chdir(tmp_path)
    by_package = build_model(ModelConfig("package_of_mine.net:build"), (3, SIDE, SIDE), 2, seed=0)
    assert by_file.layer == by_package.layer == "0"
    assert all(a.equal(b) for a, b in zip(by_file.parameters(), by_package.parameters(), strict=True))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def build(:", "SyntaxError"),
        ("import torch\n\ndef build():\n    return undefined", "NameError"),
        ("raise RuntimeError('no')", "RuntimeError: no"),
        ("def build():\n    return 3", "returned int"),
        ("other = 1", "has no function 'build'"),
        ("build = 1", "has no function 'build'"),
        ("def build(depth):\n    pass", "depth"),
        ("", "has no function"),
    ],
)
@pytest.mark.wrong_types
def test_a_file_that_is_no_model_is_told_in_one_error(tmp_path, text, told):
    (tmp_path / "net.py").write_text(text)
    with pytest.raises(BadModel, match=told):
        build_model(ModelConfig(f"{tmp_path}/net.py:build"), (1, 8, 8), 2, seed=0)


def test_references_and_the_baseline_come_from_the_data():
    data = build_data(replace(DIGITS, pixels=(-1.0, 1.0)), seed=0).train
    references = build_attribution("expected_gradients", data).references
    assert references.shape == (100, 1, 8, 8)
    assert references.equal(build_attribution("expected_gradients", data).references)
    assert build_attribution("integrated_gradients", data).baseline == -1.0
    assert build_attribution("integrated_gradients", data, {"baseline": 0.0}).baseline == 0.0
    assert isinstance(build_attribution("grad_cam", data), GradCAM)


def test_titles_are_those_of_the_papers():
    data = load("digits")
    titles = [title_of(build_attribution(name, data)) for name in ("saliency", "grad_cam", "grad_cam_plus_plus")]
    assert titles == ["Saliency", "Grad-CAM", "Grad-CAM++"]
    assert title_of(IntegratedGradients()) == "Integrated gradients"
    assert isinstance(build_attribution("expected_gradients", data), ExpectedGradients)


def test_a_loss_with_an_explainer_of_its_own_or_the_named_one():
    data = load("digits")
    assert build_loss(TermConfig("rrr"), data) == RRR()
    loss = build_loss(TermConfig("rrr", attribution="grad_cam", attribution_settings={"layer": "conv"}), data)
    assert loss == RRR(GradCAM(layer="conv"))
    assert isinstance(build_loss(TermConfig("res", settings={"imputation": "gaussian"}), data), RES)


def test_noise_of_counterexamples_has_the_range_of_the_data():
    loss = build_loss(TermConfig("counterexamples"), build_data(replace(DIGITS, pixels=(0.0, 255.0)), seed=0).train)
    assert isinstance(loss, Counterexamples)
    assert (loss.low, loss.high) == (0.0, 255.0)


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (TermConfig("nope"), "nope.*There are: rrr"),
        (TermConfig("rrr", attribution="nope"), "nope.*There are: saliency"),
        (TermConfig("counterexamples", attribution="saliency"), "takes no attribution"),
        (TermConfig("rrr", settings={"nope": 1}), "has no setting 'nope'. There are: "),
        (TermConfig("rrr", attribution="saliency", attribution_settings={"nope": 1}), "has no setting 'nope'"),
    ],
)
def test_a_loss_that_cannot_be_built_is_refused(config, told):
    with pytest.raises(ValueError, match=told):
        build_loss(config, load("digits"))


def test_an_attribution_without_a_graph_is_refused_in_a_loss(monkeypatch):
    class Photograph(GradCAM):
        differentiable = False

    from rightreasons.experiments import build

    monkeypatch.setattr(build, "build_attribution", lambda *_: Photograph())
    with pytest.raises(NotDifferentiable, match="Photograph"):
        build_loss(TermConfig("rrr", attribution="grad_cam"), load("digits"))


@pytest.mark.parametrize(
    "config",
    [
        RunConfig(model=ModelConfig("resnet")),
        RunConfig(data=DataConfig(decoy="nope")),
        RunConfig(terms={"a": TermConfig("nope")}),
        RunConfig(terms={"a": TermConfig("rrr", attribution="nope")}),
        RunConfig(training=TrainingConfig(optimizer="lion")),
        RunConfig(training=TrainingConfig(lr=-1)),
        RunConfig(training=TrainingConfig(augmentation={"rotation": -1})),
    ],
)
def test_wrong_names_and_numbers_are_found_before_any_data_are_fetched(config):
    with pytest.raises(ValueError, match=r"There are|expected"):
        check_names(config)


def test_an_unknown_augmentation_is_named():
    with pytest.raises(ValueError, match=r"has no setting 'spin'\. There are: shift, rotation"):
        build_fit_settings(TrainingConfig(augmentation={"spin": 1}), 0)


@pytest.mark.wrong_types
@pytest.mark.parametrize(
    "config", [TermConfig("rrr", attribution="smooth_grad", attribution_settings={"samples": "many"})]
)
def test_a_setting_of_the_wrong_kind_is_told_with_its_owner(config):
    with pytest.raises(ValueError, match="smooth_grad"):
        build_loss(config, load("digits"))
    with pytest.raises(ValueError, match="augmentation: expected rotation to be a number, got 'far'"):
        build_fit_settings(TrainingConfig(augmentation={"rotation": "far"}), 0)


def test_an_augmentation_moves_images_and_masks_together():
    data = build_data(DIGITS, seed=0).train
    move = build_fit_settings(TrainingConfig(augmentation={"flip": True}), 0).augmentation
    batch = data.batch(torch.arange(50))
    moved = move(batch, torch.Generator().manual_seed(0))
    flipped = moved.inputs.sub(batch.inputs.flip(3)).abs().amax((1, 2, 3)) < 1e-5
    assert 10 < flipped.sum() < 40
    torch.testing.assert_close(moved.irrelevant[flipped], batch.irrelevant.flip(3)[flipped])


def test_folders_with_brackets_and_spaces_are_folders(tmp_path):
    folder = image_folder(tmp_path / "my [bold] photos ☂", ("red circle", "<script>"))
    assert build_data(DataConfig(name=str(folder)), seed=0).train.classes == ("<script>", "red circle")
    assert isinstance(ImageFolder(folder), ImageFolder)
