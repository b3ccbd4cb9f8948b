"""The command over a whole data set: stopped and taken up again, by several processes, and one picture alone."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from tests.cli.conftest import ROOT, cli, png, width_of
from tests.pictures import picture

METHODS = ("--method", "saliency", "--method", "integrated_gradients")
ALL = ("--images", "all", "--shard-size", "10", *METHODS)


def found(folder):
    """What a reader takes away, byte by byte."""
    files = [folder / "index.jsonl", folder / "index.csv", *sorted((folder / "shards").iterdir())]
    return {path.name: path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def uninterrupted(digits_runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("whole") / "maps"
    said = cli("reveal", digits_runs / "plain", *ALL, "--device", "cpu", "--out", out)
    assert said.code == 0, said
    return said, out


def test_a_whole_data_set_gets_shards_an_index_and_a_page(uninterrupted):
    said, out = uninterrupted
    assert "359 images" in said.out
    assert "Integrated gradients" in said.out
    assert len(list((out / "shards").iterdir())) == 36
    lines = (out / "index.jsonl").read_text().splitlines()
    assert [json.loads(line)["position"] for line in lines] == list(range(359))
    assert "<!doctype html>" in (out / "index.html").read_text()


def test_a_finished_command_does_nothing_twice(uninterrupted, digits_runs):
    said, out = uninterrupted
    before = {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()}
    assert cli("reveal", digits_runs / "plain", *ALL, "--device", "cpu", "--out", out) == said
    assert {path: path.stat().st_mtime_ns for path in (out / "shards").iterdir()} == before


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_the_same_command_goes_on_and_ends_in_the_same_bytes(uninterrupted, digits_runs, tmp_path, kind):
    out = tmp_path / "maps"
    usual = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "rightreasons", "reveal", str(digits_runs / "plain"), *ALL, "--device", "cpu"]
    process = subprocess.Popen(
        [*command, "--out", str(out)],
        cwd=ROOT,
        env={**usual, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while process.poll() is None and not list(out.glob("shards/0000[3-9]-of-*.safetensors")):
        time.sleep(0.002)
    process.send_signal(kind)
    told, err = process.communicate(timeout=60)
    done = sorted(path.name for path in out.glob("shards/*-of-*"))
    assert 4 <= len(done) < 36
    assert not (out / "index.jsonl").exists()
    if kind == signal.SIGINT:
        assert (process.returncode, told) == (130, "")
        assert err == f"interrupted after {len(done)} shards; the same command goes on after them\n"
    kept = {name: (out / "shards" / name).stat().st_mtime_ns for name in done}
    said = cli("reveal", digits_runs / "plain", *ALL, "--device", "cpu", "--out", out)
    assert said.code == 0, said
    assert {name: (out / "shards" / name).stat().st_mtime_ns for name in done} == kept
    assert found(out) == found(uninterrupted[1])


@pytest.mark.slow
def test_two_processes_share_the_shards_and_find_the_same(uninterrupted, digits_runs, tmp_path):
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    run = ["-m", "rightreasons", "reveal", str(digits_runs / "plain"), *ALL, "--out", str(tmp_path)]
    done = subprocess.run(
        [*command, *run],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("written to") == 1
    assert found(tmp_path) == found(uninterrupted[1])


def test_every_method_and_one_picture(project):
    said = cli("train", "--data", "photos", "--model", "net.py:build", "--epochs", 1, "--device", "cpu", "--out", "run")
    assert said.code == 0, said
    said = cli("reveal", "run", "--images", "all", "--method", "all", "--half", "--device", "cpu", "--out", "maps")
    assert said.code == 0, said
    assert "left out cam: CAM explains networks that end in global average pooling" in said.out
    assert "photos/left/" in (project / "maps" / "index.csv").read_text()
    png(project / "mine.png", picture(1, 99))
    arguments = ("--image", "mine.png", *METHODS, "--against", "left", "--overlay")
    said = cli("reveal", "run", *arguments, "--out", "figures/mine.png")
    assert said.code == 0, said
    assert "mine.png" in said.out
    assert width_of("figures/mine.png") > 600
    assert cli("reveal", "run", "--image", "mine.png", "--out", "figures").code == 0
    assert width_of("figures/figure.png") < width_of("figures/mine.png")


def test_more_images_than_a_sheet_holds_are_streamed(digits_runs, tmp_path):
    said = cli("reveal", digits_runs / "plain", "--images", 61, "--device", "cpu", "--out", tmp_path)
    assert said.code == 0, said
    assert len((tmp_path / "index.jsonl").read_text().splitlines()) == 61
    assert not (tmp_path / "sheet.png").exists()


def test_parquet_and_a_file_of_methods(digits_runs, tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "reveal.toml").write_text('[[method]]\nname = "smooth_grad"\nsamples = 2\n')
    arguments = ("--config", tmp_path / "reveal.toml", "--format", "parquet", "--images", "all")
    said = cli("reveal", digits_runs / "plain", *arguments, "--device", "cpu", "--out", tmp_path / "maps")
    assert said.code == 0, said
    assert "SmoothGrad" in said.out
    assert "Saliency" not in said.out
    assert [path.name for path in (tmp_path / "maps" / "shards").iterdir()] == ["00000-of-00001.parquet"]


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--images", "some"], "expected a number of images or all, got 'some'"),
        (["--half"], "--half belongs to shards, which --images all writes"),
        (["--shard-size", "5", "--images", "60"], "--shard-size belongs to shards"),
        (["--shard-size", "0"], "--shard-size belongs to shards"),
        (["--overlay"], "--overlay belongs to a picture"),
        (["--images", "all", "--shard-size", "-1"], "at least one image a shard, got -1"),
        (["--images", "all", "--shard-size", "0"], "at least one image a shard, got 0"),
        (["--against", "ten"], "no class 'ten' to explain against. There are: 0, 1"),
        (["--image", "none.png"], "no picture none.png"),
        (["--image", "."], ". is a folder, and one picture is explained at a time"),
        (["--image", "photos/left/0.png", "--target", "true"], "nobody knows the true class"),
        (["--config", "none.toml"], "no configuration file none.toml"),
        (["--images", "all", "--method", "grad_cam"], "layer"),
    ],
)
def test_a_mistake_is_one_line(project, digits_runs, arguments, told):
    assert told in cli("reveal", digits_runs / "plain", *arguments, "--device", "cpu").mistake


def test_another_configuration_in_the_folder_is_one_line(uninterrupted, digits_runs):
    _, out = uninterrupted
    before = found(out)
    told = cli("reveal", digits_runs / "revised", *ALL, "--device", "cpu", "--out", out).mistake
    assert "weights was" in told
    assert "Name another folder with --out, or give --overwrite" in told
    assert found(out) == before


def test_a_few_images_are_not_explained_by_several_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert "--images all can be launched in several" in cli("reveal", "a").mistake
