"""Each mistake of a user is answered by one line on stderr and exit 2; see ``Said.mistake``."""

import resource
import shutil
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.cli.conftest import DIGITS, cli, png, shell
from tests.pictures import SIDE, image_folder

PHOTOS = ("--data", "photos", "--model", "net.py:build", "--epochs", 1, "--device", "cpu", "--out", "run")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["train", *DIGITS, "--model", "resnet"], "There are: mlp, lenet, baseline_cnn"),
        (["train", *DIGITS, "--model", "nowhere.py:build"], "no file nowhere.py"),
        (["train", *DIGITS, "--model", "no.such.package:build"], "cannot import no.such.package"),
        (["train", *DIGITS, "--loss", "rr"], "Did you mean 'rrr'?"),
        (["train", *DIGITS, "--loss", "rrr", "--attribution", "saliance"], "Did you mean 'saliency'?"),
        (["train", *DIGITS, "--loss", "counterexamples", "--attribution", "saliency"], "takes no attribution"),
        (["train", *DIGITS, "--loss", "rrr"], "RRR needs masks of irrelevant pixels and the batch has none"),
        (["train", *DIGITS, "--loss", "rrr", "--weight", "balanced"], "balanc"),
        (["train", *DIGITS, "--loss", "rrr", "--weight", "-1"], "weight"),
        (["train", *DIGITS, "--loss", "rrr", "--weight", "nan"], "weight"),
        (["train", *DIGITS, "--loss", "rrr", "--weight", "0"], "a weight of 0 leaves rrr without effect: give it a"),
        (["train", *DIGITS, "--decoy", "decoy/rr"], "There are: decoy/rrr, decoy/typology"),
        (["train", *DIGITS, "--optimizer", "lion"], "adam, adamw, sgd"),
        (["train", *DIGITS, "--lr", "0"], "learning rate above 0"),
        (["train", *DIGITS, "--epochs", "-1"], "epochs of at least 0"),
        (["train", *DIGITS, "--batch-size", "0"], "batch_size of at least 1"),
        (["train", *DIGITS, "--device", "tpu"], "expected device auto, cpu or cuda"),
        (["train", *DIGITS, "--weight", "3"], "--weight and --attribution belong to a --loss"),
        (["train", *DIGITS, "--attribution", "saliency"], "--weight and --attribution belong to a --loss"),
        (["train", *DIGITS, "--weights", "missing.pt"], "no weights file missing.pt"),
        (["train", *DIGITS, "--layer", "conv9"], "no layer named 'conv9'. There are: 0, 1, 2"),
        (["train", *DIGITS, "--data", "nowhere"], "no data set and no folder of images is named 'nowhere'"),
        (["train", *DIGITS, "--data", ""], "no data set and no folder of images is named ''"),
        (["train", *DIGITS, "--data-folder", "photos"], "the digits come with scikit-learn"),
        (["train", "--config", "missing.toml"], "no configuration file missing.toml"),
        (["train", "--config", "photos"], "photos"),
        (["data", "nowhere"], "Data sets: mnist, fashion_mnist, digits"),
        pytest.param(["data", "photos", "--channels", "2"], "1 or 3 channels", marks=pytest.mark.wrong_types),
        (["data", "photos", "--resize", "-3"], "at least one pixel"),
        (["data", "photos", "--out", "sheet.docx"], "docx"),
        (["data", "mnist", "--data-folder", "photos"], "photos"),
        (["demo", "--study", "nope"], "There are: decoy-rrr"),
        (["reveal"], "expected the folder of a run, or a network and its weights"),
        (["reveal", "photos"], "record.json is missing"),
        (["reveal", "missing"], "no run or weights at missing"),
        (["reveal", "--data", "digits"], "--model and --weights"),
        (["reveal", "--decoy", "decoy/rrr"], "--decoy belongs to images that --data names"),
        (["reveal", "net.py", "--data", "digits", "--model", "mlp"], "net.py"),
        (["revise", "photos"], "photos holds no finished run"),
        (["revise", "missing"], "missing holds no finished run"),
        (["prove", "a.pt", "b.pt"], "no run or weights at b.pt"),
    ],
)
def test_a_mistake_is_one_line(project, arguments, told):
    assert told in cli(*arguments).mistake


def test_a_loss_without_effect_is_one_line(project, digits_runs):
    Path("run.toml").write_text('[terms.guide]\nloss = "gradia"\nweight = 0\n')
    for arguments in (["train", "--config", "run.toml", *DIGITS], ["revise", digits_runs / "plain", "--weight", "0"]):
        told = cli(*arguments, "--out", "idle").mistake
        assert "without effect" in told
        assert "leave the loss out" in told
        assert not Path("idle").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--method", "saliance"], "Did you mean 'saliency'?"),
        (["--method", "grad_cam"], "layer"),
        (["--layer", "conv9"], "no layer named 'conv9'. There are: 0, 1"),
        (["--images", "0"], "expected at least one image (--images), got 0"),
        (["--images", "-4"], "expected at least one image (--images), got -4"),
        (["--model", "mlp"], "has its own network"),
        (["--weights", "x.pt"], "has its own network"),
        (["--data", "photos"], "was trained on the classes 0, 1"),
        (["--data", "photos", "--resize", "0"], "unknown class 'left'"),
    ],
)
def test_a_mistake_about_a_run_is_one_line(project, digits_runs, arguments, told):
    found = cli("reveal", digits_runs / "plain", *arguments).mistake
    assert told in found or "unknown class 'left'" in found


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--explained", "0"], "at least 1 explained image"),
        (["--controls", "--out", "file"], "a file stands there"),
        (["--layer", "conv9"], "no layer named 'conv9'"),
    ],
)
def test_a_mistake_about_a_proof_is_one_line(project, digits_runs, arguments, told):
    (project / "file").write_text("kept")
    assert told in cli("prove", digits_runs / "plain", digits_runs / "revised", *arguments).mistake
    assert (project / "file").read_text() == "kept"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("def build(:", "SyntaxError"),
        ("hello there", "SyntaxError"),
        ("import torhc\n", "No module named 'torhc'"),
        ("def build(shape, classes):\n    return [shape]", "expected a torch.nn.Module"),
        ("def make(shape, classes):\n    pass", "has no function 'build'"),
        ("def build(depth):\n    pass", "depth"),
        ("def build(shape, classes):\n    raise RuntimeError('two\\nlines')", "two lines"),
        ("from torch import nn\ndef build():\n    return nn.Linear(3, 2)", "cannot take images of shape (3, 12, 12)"),
        (
            "from torch import nn\nclass N(nn.Module):\n    def forward(self, x):\n        return {'out': x}\n"
            "def build():\n    return N()",
            "the network returns dict",
        ),
        (
            "from torch import nn\nclass N(nn.Conv2d):\n    pass\ndef build():\n    return N(3, 2, 3)",
            "expected logits of shape (B, classes)",
        ),
        (
            "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(432, 1))",
            "label out of range: expected 0 to 0, got 1",
        ),
        ("from torch import nn\ndef build():\n    return nn.Flatten()", "weight"),
    ],
)
@pytest.mark.wrong_types
def test_a_network_that_is_none_or_does_not_fit(project, text, told):
    (project / "net.py").write_text(text)
    assert told in cli("train", *PHOTOS).mistake


def corrupt(folder):
    path = folder / "left" / "3.png"
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("harm", "told"),
    [
        (lambda p: shutil.rmtree(p / "left") or shutil.rmtree(p / "right"), "no classes in photos"),
        (lambda p: shutil.rmtree(p / "left") or (p / "left").mkdir(), "no images in photos/left"),
        (corrupt, "photos/left/3.png"),
        (lambda p: (p / "left" / "3.png").write_text("no image"), "photos/left/3.png (it is no image file)"),
        (lambda p: (p / "left" / "3.png").write_text(""), "photos/left/3.png"),
        (lambda p: png(p / "left" / "3.png", np.zeros((9, 9, 3), np.uint8)), "photos/left/3.png is 9x9"),
        (lambda p: png(p / "left/irrelevant/3.png", np.zeros((9, 9), np.uint8)), "mask photos/left/irrelevant/3.png"),
        (lambda p: png(p / "left/irrelevant/99.png", np.zeros((9, 9), np.uint8)), "mask without image"),
        (lambda p: (p / "left" / "deeper").mkdir(), "unexpected folder photos/left/deeper"),
        (lambda p: shutil.copytree(p / "left" / "relevant", p / "relevant"), "photos/relevant is not a class"),
        (lambda p: shutil.copytree(p / "left", p / "left.png") and None, ""),
    ],
)
def test_a_folder_of_images_that_is_damaged(project, harm, told):
    harm(project / "photos")
    if told:
        assert told in cli("train", *PHOTOS).mistake
    else:
        assert cli("train", *PHOTOS).code == 0


def test_more_classes_than_the_model_has(project):
    assert cli("train", *PHOTOS).code == 0
    image_folder(project / "more", ("left", "right", "up"))
    assert "unknown class 'up'" in cli("reveal", "run", "--data", "more").mistake
    fixed = "from torch import nn\ndef build():\n    return nn.Sequential(nn.Flatten(), nn.Linear(432, 2))"
    (project / "two.py").write_text(fixed)
    told = cli("train", "--data", "more", "--model", "two.py:build", "--epochs", 1, "--out", "other").mistake
    assert told == "label out of range: expected 0 to 1, got 2: the network has 2 outputs, and needs one for each class"


def test_images_of_another_size_than_the_model_takes(project):
    assert cli("train", *PHOTOS).code == 0
    told = cli("reveal", "run", "--data", "photos", "--resize", 20).mistake
    assert "cannot take images of shape (3, 20, 20)" in told


def test_weights_of_another_network_and_files_that_are_none(project):
    assert cli("train", *PHOTOS).code == 0
    for name, content in (("text.pt", b"hello"), ("empty.pt", b""), ("cut.safetensors", b"\x10\0\0\0"), ("a.bin", b"")):
        (project / name).write_bytes(content)
        told = cli("reveal", name, "--model", "net.py:build", "--data", "photos").mistake
        assert name in told
    torch.save({"a": torch.zeros(2), "0.weight": torch.zeros(1)}, "other.pt")
    told = cli("reveal", "other.pt", "--model", "net.py:build", "--data", "photos").mistake
    assert "missing: 0.bias, 3.weight, 3.bias; unexpected: a; of another shape: 0.weight (1,)" in told
    torch.save(torch.nn.Linear(2, 2), "whole.pt")
    told = cli("reveal", "whole.pt", "--model", "net.py:build", "--data", "photos").mistake
    assert "torch.save(network.state_dict(), ...)" in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[dataa]\n", "unknown key 'dataa' in run. There are: seed, data, model, training, terms"),
        ("[data]\nnames = 'x'\n", "unknown key 'names' in data. There are: name, test, decoy"),
        ("[training]\nepochs = 'many'\n", "expected int for training.epochs, got 'many'"),
        ("seed = \n", "run.toml is no TOML"),
        ("\x00", "run.toml is no TOML"),
        ("terms = 3\n", "expected a table for terms"),
        ("[model]\nname = 'mlp'\nsettings = { depth = 3 }\n[data]\nname='digits'\n", "depth"),
        ("[model]\nname = 'mlp'\nsettings = { hidden = 'many' }\n[data]\nname='digits'\n", "mlp"),
        ("[terms.'a b']\nloss = 'rrr'\n[data]\nname='digits'\n[model]\nname='mlp'\n", "'a b'"),
        ("[terms.loss]\nloss = 'rrr'\n[data]\nname='digits'\n[model]\nname='mlp'\n", "'loss'"),
        ("[training.augmentation]\nspin = 3\n", "augmentation has no setting 'spin'"),
        ("[data]\nname = 'digits'\nvalidation = 2.0\n[model]\nname='mlp'\n", "share between 0 and 1"),
        ("[data]\nname = 'digits'\nannotated = -1.0\n[model]\nname='mlp'\n", "-1"),
    ],
)
@pytest.mark.wrong_types
def test_a_configuration_that_is_wrong(project, text, told):
    (project / "run.toml").write_text(text)
    assert told in cli("train", "--config", "run.toml", "--device", "cpu", "--out", "run").mistake


def test_another_run_in_the_same_folder(tmp_path):
    assert cli("train", *DIGITS, "--out", tmp_path / "run").code == 0
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    told = cli("train", *DIGITS, "--seed", 4, "--out", tmp_path / "run").mistake
    assert "holds another run: seed was 0 and is now 4. Name another folder" in told
    assert cli("revise", tmp_path / "run", "--loss", "counterexamples", "--out", tmp_path / "run").code == 2
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_an_explainer_that_cannot_be_trained_through(project, monkeypatch):
    from rightreasons.attribution import GradCAM
    from rightreasons.experiments import build

    class Photograph(GradCAM):
        differentiable = False

    monkeypatch.setattr(build, "build_attribution", lambda *_: Photograph())
    told = cli("train", *PHOTOS, "--loss", "rrr", "--attribution", "grad_cam").mistake
    assert "Photograph is not differentiable" in told


def test_places_that_cannot_be_written(project, digits_runs):
    (project / "file").write_text("kept")
    for out in ("file", "file/below", "/proc/none"):
        assert "cannot make the folder" in cli("train", *DIGITS, "--out", out).mistake
        assert "cannot make the folder" in cli("reveal", digits_runs / "plain", "--out", out).mistake
        told = cli("demo", "--study", "digits", "--device", "cpu", "--out", out).mistake
        assert "cannot make the folder" in told
    assert (project / "file").read_text() == "kept"


def test_a_run_that_is_half_finished(digits_runs, tmp_path):
    half = shutil.copytree(digits_runs / "plain", tmp_path / "half")
    (half / "record.json").unlink()
    told = "holds no finished run: record.json is missing; it was begun: the command that began it goes on"
    assert told in " ".join(cli("reveal", half).mistake.split())
    (half / "record.json").write_text('{"kind": "tr')
    assert "record.json is no record of a run" in cli("reveal", half).mistake
    shutil.copy(digits_runs / "plain" / "record.json", half)
    (half / "model.safetensors").write_bytes(b"cut")
    assert "model.safetensors is not a file of weights, or is damaged" in cli("reveal", half).mistake


def test_a_damaged_checkpoint_is_told_and_kept(digits_runs, tmp_path):
    half = shutil.copytree(digits_runs / "plain", tmp_path / "half")
    (half / "record.json").unlink()
    (half / "checkpoint.safetensors").write_bytes(b"cut")
    told = cli("train", "--config", half / "config.toml", "--device", "cpu", "--out", half).mistake
    assert "checkpoint.safetensors is damaged" in told


def test_a_full_disk_leaves_the_old_checkpoint(tmp_path, monkeypatch):
    """The first epoch's checkpoint is written, then the disk is full, then there is room again."""
    options = ("--data", "digits", "--model", "mlp", "--epochs", 2, "--device", "cpu")
    cli("train", *options, "--out", tmp_path / "whole")
    fitting = sys.modules["rightreasons.training.fit"]
    save, kept = fitting.save_checkpoint, []

    def fill_the_disk(path, *arguments, **more):
        if kept:
            resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        save(path, *arguments, **more)
        kept.append(path.read_bytes())

    limits, old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    monkeypatch.setattr(fitting, "save_checkpoint", fill_the_disk)
    try:
        said = cli("train", *options, "--out", tmp_path / "run")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    monkeypatch.undo()
    assert "checkpoint.safetensors: File too large; the file that stood there before is untouched" in said.mistake
    assert [(tmp_path / "run" / "checkpoint.safetensors").read_bytes()] == kept
    assert cli("train", *options, "--out", tmp_path / "run").code == 0
    name = "model.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_defect_of_ours_keeps_its_traceback(monkeypatch):
    from rightreasons.experiments import build

    def broken(*_, **__):
        raise KeyError("ours")

    monkeypatch.setattr(build, "load", broken)
    with pytest.raises(KeyError, match="ours"):
        cli("data", "digits")


def test_the_traceback_of_a_mistake_is_shown_on_request():
    with pytest.raises(ValueError, match="no data set"):
        cli("--traceback", "data", "nowhere")
    assert "no data set" in cli("data", "nowhere").mistake


def test_a_mistake_in_a_process_of_its_own(tmp_path):
    """Nothing but the line, also from the libraries; and a folder that may not be written into."""
    said = shell("train", *DIGITS, "--out", "/proc/none")
    assert "cannot make the folder /proc/none" in said.mistake
    assert said.out == ""


def test_a_picture_of_one_pixel(project):
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save("photos/left/3.png")
    assert "photos/left/3.png is 1x1" in cli("data", "photos").mistake
    assert SIDE > 1


@pytest.mark.parametrize("words", [["demo"], ["prove", "a", "b"], ["reveal", "a"]])
def test_only_training_is_launched_in_several_processes(words, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "runs in one process" in cli(*words).mistake
