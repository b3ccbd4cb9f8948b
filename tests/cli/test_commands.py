import json
import re
import shutil
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from tests.cli.conftest import DIGITS, cli, width_of
from tests.pictures import SIDE, image_folder, network_file


def record(folder, name="record.json"):
    return json.loads((Path(folder) / name).read_text())


def numbers(folder):
    """All that a run came to, without times."""
    held = record(folder)
    return held["results"], [{**line, "seconds": 0, "cpu_seconds": 0} for line in held["history"]]


def test_the_loop_on_digits_ends_in_a_proof(digits_runs, tmp_path):
    plain, revised = digits_runs / "plain", digits_runs / "revised"
    said = cli("prove", plain, revised, "--explained", 50, "--device", "cpu", "--out", tmp_path / "proof")
    assert said.code == 0, said
    assert "Accuracy" in said.out
    assert "359 images" in said.out
    named = record(plain)["results"]["test"]["worst_class_name"], record(revised)["results"]["test"]["worst_class_name"]
    assert f"Worst class: {named[0]} before, {named[1]} after" in said.out
    page = (tmp_path / "proof" / "index.html").read_text()
    assert "Before and after" in page
    held = record(tmp_path / "proof", "proof.json")
    assert held["results"]["comparisons"]["Accuracy"]["before"][0] == record(plain)["results"]["test"]["accuracy"]
    assert record(revised)["config"]["model"]["weights"] == str(plain / "model.safetensors")


def test_revising_starts_from_the_run_or_anew(digits_runs, tmp_path):
    options = ("--weight", 1, "--epochs", 0, "--device", "cpu")
    plain = digits_runs / "plain"
    cli("revise", plain, *options, "--out", tmp_path / "on")
    cli("revise", plain, *options, "--fresh", "--out", tmp_path / "anew")
    on, anew, start = (
        safetensors.torch.load_file(folder / "model.safetensors")["1.weight"]
        for folder in (tmp_path / "on", tmp_path / "anew", plain)
    )
    assert on.equal(start)
    assert not anew.equal(start)


def test_another_seed_revises_on_the_same_decoys(digits_runs, tmp_path):
    cli("revise", digits_runs / "plain", "--seed", 7, "--epochs", 1, "--device", "cpu", "--out", tmp_path / "seven")
    config = record(tmp_path / "seven")["config"]
    assert (config["seed"], config["data"]["seed"]) == (7, 0)


def test_a_run_that_is_over_does_not_run_again_and_says_so(digits_runs, tmp_path):
    ask = ("revise", digits_runs / "plain", "--epochs", 1, "--device", "cpu", "--out", tmp_path / "r")
    told = "was finished before, and nothing ran"
    assert told not in cli(*ask).out
    assert told in cli(*ask).out


def test_a_revision_that_diverged_says_so_and_what_to_take(digits_runs, tmp_path):
    ask = ("revise", digits_runs / "plain", "--epochs", 1, "--device", "cpu")
    said = cli(*ask, "--weight", 1000, "--lr", 10, "--out", tmp_path / "lost")
    assert "it diverged: take a lower --weight, --weight balance with --fresh, or a lower --lr" in said.out
    assert "it diverged" not in cli(*ask, "--weight", 1, "--out", tmp_path / "found").out


@pytest.mark.parametrize("loss", ["rrr", "counterexamples"])
def test_revising_with_each_loss_for_networks_without_maps(digits_runs, tmp_path, loss):
    said = cli(
        "revise", digits_runs / "plain", "--loss", loss, "--epochs", 1, "--device", "cpu", "--out", tmp_path / "r"
    )
    assert said.code == 0, said
    assert f"last epoch's {loss}" in said.out


@pytest.mark.parametrize("loss", ["gradia", "haics", "res"])
def test_training_with_each_loss_that_aligns_maps(project, loss):
    said = cli("train", "--data", "photos", "--model", "net.py:build", "--epochs", 1, "--loss", loss, "--device", "cpu")
    assert said.code == 0, said
    assert (project / "runs" / "train" / "record.json").is_file()


def test_the_same_seed_gives_the_same_numbers_twice(tmp_path):
    for name, seed in (("one", 3), ("again", 3), ("other", 4)):
        assert cli("train", *DIGITS, "--seed", seed, "--out", tmp_path / name).code == 0
    assert numbers(tmp_path / "one") == numbers(tmp_path / "again")
    assert numbers(tmp_path / "one") != numbers(tmp_path / "other")


def test_a_finished_run_is_told_again_and_not_run_again(tmp_path):
    first = cli("train", *DIGITS, "--out", tmp_path / "run")
    created = record(tmp_path / "run")["created"], (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns
    again = cli("train", *DIGITS, "--out", tmp_path / "run")
    assert again.code == 0
    assert again.out.startswith(first.out.partition("written to")[0])
    assert "was finished before, and nothing ran" in again.out
    assert "written to" not in again.out
    assert created == (
        record(tmp_path / "run")["created"],
        (tmp_path / "run" / "model.safetensors").stat().st_mtime_ns,
    )


def test_a_configuration_file_and_flags_that_override_it(tmp_path):
    config = tmp_path / "run.toml"
    config.write_text('seed = 5\n[data]\nname = "digits"\n[model]\nname = "mlp"\n[training]\nepochs = 1\nlr = 0.5\n')
    for name, flags in (("as told", ()), ("zero", ("--seed", 0, "--lr", 0.1))):
        assert cli("train", "--config", config, *flags, "--device", "cpu", "--out", tmp_path / name).code == 0
    told, zero = (record(tmp_path / name)["config"] for name in ("as told", "zero"))
    assert (told["seed"], told["training"]["lr"]) == (5, 0.5)
    assert (zero["seed"], zero["training"]["lr"]) == (0, 0.1)


def test_the_written_configuration_runs_to_the_same_numbers(tmp_path):
    cli("train", *DIGITS, "--seed", 2, "--out", tmp_path / "one")
    said = cli("train", "--config", tmp_path / "one" / "config.toml", "--device", "cpu", "--out", tmp_path / "two")
    assert said.code == 0, said
    assert numbers(tmp_path / "one") == numbers(tmp_path / "two")


def test_own_images_and_own_network_from_training_to_proof(project):
    model = ("--model", "net.py:build", "--device", "cpu")
    said = cli("train", "--data", "photos/", *model, "--epochs", 2, "--batch-size", 8, "--out", "runs/plain")
    assert said.code == 0, said
    said = cli("revise", "runs/plain", "--loss", "res", "--epochs", 1, "--device", "cpu", "--out", "runs/res")
    assert said.code == 0, said
    said = cli("reveal", "runs/res", "--method", "grad_cam", "--method", "saliency", "--images", 3, "--out", "maps")
    assert said.code == 0, said
    assert "Grad-CAM" in said.out
    assert len(re.findall(r"^(?:left|right)/\d+\.png ", said.out, re.MULTILINE)) == 3, said.out
    assert width_of("maps/sheet.png") > 2 * SIDE
    assert set(safetensors.torch.load_file("maps/heatmaps.safetensors")) == {"grad_cam", "saliency", "index", "target"}
    said = cli("prove", "runs/plain", "runs/res", "--controls", "--device", "cpu", "--out", "proof")
    assert said.code == 0, said
    assert "random mask" in said.out
    assert "wrong mask" not in said.out, "without a patch there is no size for it"
    said = cli("prove", "runs/plain", "runs/res", "--device", "cpu", "--out", "proof")
    assert said.code == 0, said
    assert "left" in Path("proof/index.html").read_text()


def test_own_weights_are_revealed_revised_and_proved(project):
    from rightreasons.models import build

    for seed, name in enumerate(("mine", "other")):
        torch.manual_seed(seed)
        torch.save(build("net.py:build", (3, SIDE, SIDE), 2).state_dict(), f"{name}.pt")
    model = ("--model", "net.py:build", "--data", "photos")
    said = cli(
        "reveal", *model, "--weights", "mine.pt", "--method", "grad_cam_plus_plus", "--images", 2, "--out", "maps"
    )
    assert said.code == 0, said
    assert cli("reveal", "mine.pt", *model, "--images", 2, "--out", "maps").code == 0
    weights = ("--weights", "mine.pt", "--loss", "gradia", "--epochs", 1, "--device", "cpu")
    said = cli("train", *model, *weights, "--out", "runs/revised")
    assert said.code == 0, said
    said = cli("prove", "mine.pt", "other.pt", *model, "--device", "cpu", "--out", "proof")
    assert said.code == 0, said
    said = cli("prove", "mine.pt", "runs/revised", "--model", "net.py:build", "--out", "proof2")
    assert said.code == 0, said


def test_a_network_in_a_package_by_its_dotted_name(project):
    (project / "shop").mkdir()
    (project / "shop" / "__init__.py").write_text("")
    network_file(project / "shop" / "nets.py")
    said = cli("train", "--data", "photos", "--model", "shop.nets:build", "--epochs", 1, "--out", "run")
    assert said.code == 0, said


def test_data_are_described_and_drawn(project):
    said = cli("data", "photos", "--out", "new/sheet.png")
    assert said.code == 0, said
    for word in ("24", "6", "left, right", "irrelevant", "fingerprint", "3 x 12 x 12"):
        assert word in said.out
    assert width_of("new/sheet.png") > SIDE
    line = next(
        line for line in cli("data", "photos", "--test", "photos").out.splitlines() if line.startswith("images ")
    )
    assert line.split()[1:] == ["30", "30"]
    assert "1 x 8 x 8" in cli("data", "photos", "--resize", 8, "--channels", 1).out


def test_how_many_masks_there_are_is_told(project):
    for mask in sorted(Path("photos").glob("*/*relevant/*.png"))[2:]:
        mask.unlink()
    lines = cli("data", "photos", "--test", "photos").out.splitlines()
    assert next(line for line in lines if line.startswith("annotated")).split()[1:] == ["2", "2"]
    assert next(line for line in lines if line.startswith("with a mark")).split()[3:] == ["2", "2"]


def test_a_home_folder_is_found_where_the_shell_did_not(project, monkeypatch):
    monkeypatch.setenv("HOME", str(project))
    said = cli("train", "--data", "~/photos", "--model", "~/net.py:build", "--epochs", 1, "--out=~/runs/home")
    assert said.code == 0, said
    assert (project / "runs" / "home" / "record.json").is_file()
    assert not (project / "~").exists()


def test_spaces_brackets_and_slashes_in_paths_and_classes(project):
    names = ("[bold]red[/bold] :smile:", "Größe ☂", "<script>alert(1)</script>"[:16])
    image_folder(project / "my photos [1]", tuple(name.replace("/", "_") for name in names), each=6)
    out = "runs/a [red] b/"
    said = cli("train", "--data", "./my photos [1]/", "--model", "net.py:build", "--epochs", 1, "--out", out)
    assert said.code == 0, said
    assert "written to runs/a [red] b" in said.out
    said = cli("data", "my photos [1]", "--out", "[x].png")
    assert "[bold]red" in said.out
    assert ":smile:" in said.out
    assert "[x].png" in said.out
    said = cli("prove", out, out, "--out", "proof [2]")
    assert said.code == 0, said
    assert "written to proof [2]: index.html" in said.out
    page = Path("proof [2]/index.html").read_text()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert" in page
    assert "Größe ☂" in page


def test_hidden_files_and_other_files_are_left_out(project, caplog):
    (project / "photos" / ".DS_Store").write_text("x")
    (project / "photos" / "left" / ".hidden.png").write_text("x")
    (project / "photos" / "left" / "notes.txt").write_text("x")
    (project / "photos" / "readme.txt").write_text("x")
    (project / "photos" / ".git").mkdir()
    said = cli("data", "photos")
    assert said.code == 0, said
    assert "notes.txt" in caplog.text
    assert "24" in said.out


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "P", "L", "1", "LA", "CMYK"])
def test_images_of_every_kind(project, mode):
    for path in (project / "photos").glob("*/*.png"):
        with Image.open(path) as image:
            grey = np.array(image.convert("L"))
            changed = Image.fromarray(grey.astype(np.uint16) * 257) if mode == "I;16" else image.convert(mode)
        changed.save(path.with_suffix(".tif") if mode == "CMYK" else path)
        if mode == "CMYK":
            path.unlink()
    said = cli("train", "--data", "photos", "--model", "net.py:build", "--epochs", 1, "--out", "run")
    assert said.code == 0, said
    assert "3 x 12 x 12" in cli("data", "photos").out


def test_the_demo_in_a_process_of_this_test(tmp_path, monkeypatch):
    """Its smallest study, shortened; the whole story is in test_story."""
    from dataclasses import replace

    from rightreasons.experiments import study

    whole = study.read_study("digits")
    short = replace(whole, run=replace(whole.run, training=replace(whole.run.training, epochs=2)))
    monkeypatch.setattr(study, "read_study", lambda name: short)
    said = cli("demo", "--study", "digits", "--quiet", "--device", "cpu", "--out", tmp_path / "demo")
    assert said.code == 0, said
    assert f"The page: {tmp_path / 'demo' / 'index.html'}" in said.out.replace("\n", "")
    again = cli("demo", "--study", "digits", "--quiet", "--device", "cpu", "--out", tmp_path / "demo")
    assert again == said


def test_a_demo_without_network_falls_back_and_says_so(tmp_path, monkeypatch):
    from dataclasses import replace

    from rightreasons.core import DataUnavailable
    from rightreasons.experiments import build, study

    real, whole = study.read_study, study.read_study("digits")
    short = replace(whole, run=replace(whole.run, training=replace(whole.run.training, epochs=1)))
    monkeypatch.setattr(study, "read_study", lambda name: short if name == "digits" else real(name))
    loaded = build.load

    def unplugged(name, split, **more):
        if name != "digits":
            raise DataUnavailable(f"{name} cannot be had.")
        return loaded(name, split, **more)

    monkeypatch.setattr(build, "load", unplugged)
    said = cli("demo", "--device", "cpu", "--out", tmp_path / "demo")
    assert said.code == 0, said
    assert "cannot be had" in said.err
    assert "digits" in said.err
    assert "cannot be had" in (tmp_path / "demo" / "index.html").read_text()


def test_a_run_may_be_revealed_into_its_own_folder(digits_runs, tmp_path):
    run = shutil.copytree(digits_runs / "plain", tmp_path / "run")
    before = (run / "record.json").read_bytes()
    assert cli("reveal", run, "--images", 2, "--out", run).code == 0
    assert (run / "record.json").read_bytes() == before
    assert cli("reveal", run / "record.json", "--images", 2, "--out", run).code == 0


def test_numbers_of_a_class_without_test_images_are_told_as_not_defined(project):
    image_folder(project / "few", ("a", "b", "c"), each=2, masks=False)
    image_folder(project / "one", ("a", "b"), each=2, masks=False)
    arguments = ("--data", "few", "--test", "one", "--model", "net.py:build", "--epochs", 1, "--out", "run")
    first = cli("train", *arguments)
    assert first.code == 0, first
    again = cli("train", *arguments)
    assert again.code == 0
    assert again.out.startswith(first.out.partition("written to")[0])
    assert cli("prove", "run", "run", "--out", "proof").code == 0


def test_a_table_runs_what_is_missing_and_prints_what_is_recorded(tmp_path):
    options = ("--seeds", 1, "--no-controls", "--only", "plain", "--only", "clean bound", "--records", tmp_path / "r")
    tables = files("rightreasons.experiments").joinpath("tables")
    plan = tables.joinpath("digits.toml").read_text(encoding="utf-8")
    (tmp_path / "mini.toml").write_text(plan.replace("epochs = 150", "epochs = 1"))
    said = cli("table", tmp_path / "mini.toml", *options, "--out", tmp_path / "runs", "--device", "cpu")
    assert "mini, seed 0, plain" in said.out
    assert "clean bound" in said.out
    assert "2 of 2 rows stand on fewer than the protocol's 5 seeds" in " ".join((said.out + said.err).split())
    again = cli("table", tmp_path / "mini.toml", *options, "--out", tmp_path / "elsewhere", "--device", "cpu")
    assert "seed 0" not in again.out
    assert not (tmp_path / "elsewhere").exists()
    assert "no record of a run" in cli("table", "rrr", "--show", "--records", tmp_path / "none").mistake
    shown = ("--show", "--seeds", 1, "--records", tmp_path / "r", "--out", tmp_path / "runs", "--device", "cpu")
    assert cli("table", tmp_path / "mini.toml", *shown, "--page", tmp_path / "page.html").code == 0
    page = (tmp_path / "page.html").read_text()
    assert "no arm has a record" in page
    assert "Integrated gradients heat map of plain" in page


def test_training_by_a_recipe(tmp_path):
    said = cli("train", *DIGITS, "--decoy", "decoy/rrr", "--recipe", "group_dro", "--out", tmp_path / "dro")
    assert said.code == 0, said
    assert "worst group" in said.out
    assert record(tmp_path / "dro")["config"]["recipe"] == {"name": "group_dro", "settings": {}}
    (tmp_path / "run.toml").write_text('[recipe]\nname = "jtt"\n[recipe.settings]\nupweight = 2\n')
    for name, settings in (("jtt", {"upweight": 2}), ("group_dro", {})):
        cli("train", "--config", tmp_path / "run.toml", *DIGITS, "--recipe", name, "--out", tmp_path / name)
        if name == "jtt":
            assert record(tmp_path / name)["config"]["recipe"] == {"name": name, "settings": settings}
    photos = image_folder(tmp_path / "photos", each=10)
    net = ("--model", f"{network_file(tmp_path / 'net.py')}:build", "--epochs", 1, "--device", "cpu")
    for name in ("group_dro", "dfr"):
        told = cli("train", "--data", photos, *net, "--recipe", name, "--out", tmp_path / "no").mistake
        assert "No layout of a folder holds groups: squares_symmetric" in told
    # What the message says to do.
    marked = ("--data", photos, "--decoy", "decoy/rrr")
    said = cli("train", *marked, *net, "--recipe", "group_dro", "--out", tmp_path / "yes")
    assert said.code == 0, said
    assert "unknown recipe 'dro'" in cli("train", *DIGITS, "--recipe", "dro", "--out", tmp_path / "no").err
