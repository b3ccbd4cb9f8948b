import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rightreasons.core import BadModel, CorruptData, MissingAnnotation, NotWritten, ResumeRefused
from rightreasons.data import Rescaled
from rightreasons.experiments import ModelConfig, Record, RunConfig, build_data, load_run, parse_run, read_toml, train
from rightreasons.experiments import run as module
from rightreasons.experiments.run import accelerator_for
from rightreasons.training import evaluate
from tests.experiments.conftest import QUICK, RESOURCES

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copied(plain_and_revised, tmp_path):
    """A finished run that a test may harm."""
    return Path(shutil.copytree(plain_and_revised[1].out, tmp_path / "run"))


def weights(model):
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


def files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_run_leaves_weights_record_config_and_checkpoint(plain_and_revised):
    run = plain_and_revised[1]
    assert sorted(files(run.out)) == ["checkpoint.safetensors", "config.toml", "model.safetensors", "record.json"]
    assert parse_run(read_toml(run.out / "config.toml")) == QUICK == run.config
    assert [line["epoch"] for line in run.record.history] == [1, 2, 3, 4]
    assert {"loss", "cross_entropy", "rrr", "test_accuracy", "seconds"} <= set(run.record.history[0])
    assert run.record.kind == "train"
    assert not run.model.training


def test_the_recorded_scores_are_those_of_the_model(plain_and_revised):
    run = plain_and_revised[1]
    found = evaluate(run.model, build_data(QUICK.data, seed=0).test)
    hits = found.predictions == found.target
    scores = run.record.results["test"]
    assert scores["accuracy"] == pytest.approx(hits.double().mean().item())
    of_class = [hits[found.target == k].double().mean().item() for k in range(10)]
    assert scores["worst_class"] == pytest.approx(min(of_class))
    assert scores["worst_class_name"] == str(of_class.index(min(of_class)))
    assert scores["images"] == 359
    assert run.record.history[-1]["test_accuracy"] == pytest.approx(scores["accuracy"])


def test_a_finished_run_is_not_run_again(plain_and_revised, monkeypatch):
    run = plain_and_revised[1]
    before = files(run.out)
    monkeypatch.setattr(module, "fit", lambda *_, **__: pytest.fail("it was run again"))
    again = train(QUICK, run.out, RESOURCES)
    assert weights(again.model).equal(weights(run.model))
    assert again.record.history == run.record.history
    assert files(run.out) == before


def test_a_run_is_loaded_from_its_folder_or_its_record(plain_and_revised):
    run = plain_and_revised[1]
    for path in (run.out, str(run.out), run.out / "record.json"):
        again = load_run(path)
        assert weights(again.model).equal(weights(run.model))
        assert (again.config, again.out) == (QUICK, run.out)


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others(plain_and_revised, tmp_path):
    run = plain_and_revised[1]
    assert weights(train(QUICK, tmp_path / "again", RESOURCES).model).equal(weights(run.model))
    assert not weights(train(replace(QUICK, seed=1), tmp_path / "other", RESOURCES).model).equal(weights(run.model))


@pytest.mark.parametrize(
    ("config", "told"),
    [
        (replace(QUICK, seed=5), "seed was 0 and is now 5"),
        (replace(QUICK, training=replace(QUICK.training, epochs=9)), "training.epochs was 4 and is now 9"),
        (replace(QUICK, terms={}), "terms.rrr.loss was 'rrr' and is now None"),
        (replace(QUICK, model=ModelConfig("mlp", {"hidden": [9]})), r"hidden was \[20\] and is now \[9\]"),
    ],
)
def test_another_run_in_the_same_folder_is_never_overwritten(copied, config, told):
    before = files(copied)
    with pytest.raises(ResumeRefused, match=f"holds another run: .*{told}.* Name another folder"):
        train(config, copied, RESOURCES)
    assert files(copied) == before


def test_an_unfinished_run_is_not_overwritten_either(copied):
    (copied / "record.json").unlink()
    before = files(copied)
    with pytest.raises(ResumeRefused, match="seed was 0 and is now 5"):
        train(replace(QUICK, seed=5), copied, RESOURCES)
    assert files(copied) == before


def test_a_run_without_its_record_is_finished_from_its_checkpoint(copied, plain_and_revised):
    (copied / "record.json").unlink()
    (copied / "model.safetensors").unlink()
    run = train(QUICK, copied, RESOURCES)
    assert weights(run.model).equal(weights(plain_and_revised[1].model))
    assert Record.read(copied / "record.json").key == plain_and_revised[1].record.key


def test_a_run_without_its_weights_is_finished_from_its_checkpoint(copied, plain_and_revised):
    (copied / "model.safetensors").unlink()
    with pytest.raises(BadModel, match=r"no finished run: model\.safetensors is missing"):
        load_run(copied)
    assert weights(train(QUICK, copied, RESOURCES).model).equal(weights(plain_and_revised[1].model))


def test_a_failed_start_leaves_nothing_and_does_not_block_the_folder(tmp_path):
    with pytest.raises(MissingAnnotation):
        train(replace(QUICK, data=replace(QUICK.data, decoy="", decoy_size=None)), tmp_path / "runs" / "run", RESOURCES)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    with pytest.raises(MissingAnnotation):
        train(replace(QUICK, data=replace(QUICK.data, decoy="", decoy_size=None)), tmp_path / "run", RESOURCES)
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    short = replace(QUICK, training=replace(QUICK.training, epochs=1))
    assert train(short, tmp_path / "run", RESOURCES).config == short


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path, plain_and_revised, monkeypatch):
    fitted, real = [], module.fit
    command = [sys.executable, "-m", "tests.experiments.one_run", str(tmp_path)]
    killed = subprocess.run(command, cwd=ROOT, check=False, capture_output=True, timeout=120)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "record.json").exists()
    monkeypatch.setattr(module, "fit", lambda *a, **m: fitted.append(real(*a, **m)) or fitted[-1])
    run = train(QUICK, tmp_path, RESOURCES)
    assert fitted[0].resumed_from == 2 * 12, "after two epochs of twelve steps"
    assert [line["epoch"] for line in run.record.history] == [1, 2, 3, 4]
    torch.testing.assert_close(weights(run.model), weights(plain_and_revised[1].model))


@pytest.mark.parametrize("text", ["", "{", "[]", '{"kind": "train", "config": {}, "results": {}}'])
def test_a_damaged_record_is_told(copied, text):
    (copied / "record.json").write_text(text)
    with pytest.raises(CorruptData, match=r"record\.json"):
        load_run(copied)


def test_a_record_of_something_else_is_no_run(copied):
    values = json.loads((copied / "record.json").read_text())
    (copied / "record.json").write_text(json.dumps({**values, "kind": "prove"}))
    with pytest.raises(CorruptData, match="not the record of a training run"):
        load_run(copied)


def test_weights_of_another_network_are_told_by_name(copied, tmp_path):
    other = train(replace(QUICK, terms={}, model=ModelConfig("mlp", {"hidden": [9]})), tmp_path / "other", RESOURCES)
    shutil.copy(other.weights, copied / "model.safetensors")
    with pytest.raises(BadModel, match=r"not those of this MLP; of another shape: 1\.weight"):
        load_run(copied)


def test_weights_to_start_from_are_started_from(plain_and_revised, tmp_path):
    plain = plain_and_revised[0]
    model = replace(QUICK.model, weights=str(plain.weights))
    none = replace(QUICK, model=model, training=replace(QUICK.training, epochs=0))
    assert weights(train(none, tmp_path / "run", RESOURCES).model).equal(weights(plain.model))


@pytest.mark.parametrize("place", ["file", "file/below", "/proc/nowhere"])
def test_a_folder_that_cannot_be_made_is_told_before_any_work(tmp_path, place, monkeypatch):
    (tmp_path / "file").write_text("kept")
    monkeypatch.setattr(module, "build_run", lambda *_, **__: pytest.fail("work was begun"))
    with pytest.raises(NotWritten, match="cannot make the folder"):
        train(QUICK, tmp_path / place, RESOURCES)
    assert (tmp_path / "file").read_text() == "kept"


def test_a_folder_without_permission_is_told_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setattr(module.os, "access", lambda path, mode: False)
    with pytest.raises(NotWritten, match=r"cannot write into the folder .*: permission denied"):
        train(QUICK, tmp_path / "run", RESOURCES)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_device_that_is_not_there_is_told():
    with pytest.raises(ValueError, match="expected device auto, cpu or cuda, got 'gpu'"):
        accelerator_for("gpu")
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="torch sees no GPU"):
            accelerator_for("cuda")


def test_pixels_are_trained_in_the_range_that_was_asked_for():
    data = build_data(replace(QUICK.data, pixels=(0.0, 255.0)), seed=0).train
    assert isinstance(data, Rescaled)
    assert data.batch(torch.arange(10)).inputs.max() > 200
    assert isinstance(RunConfig().data.pixels, tuple)
