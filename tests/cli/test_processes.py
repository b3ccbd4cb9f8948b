"""What needs processes of its own: Ctrl-C, SIGKILL and several processes at once."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
from safetensors import safe_open

from tests.cli.conftest import ROOT, cli

LONG = ("--data", "digits", "--model", "mlp", "--epochs", "12", "--batch-size", "16", "--device", "cpu", "--quiet")


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    out = tmp_path_factory.mktemp("whole")
    assert cli("train", *LONG, "--out", out / "run").code == 0
    return (out / "run" / "model.safetensors").read_bytes()


def started(out):
    """The training in a process of its own, once its first checkpoint is there."""
    usual = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-m", "rightreasons", "train", *LONG, "--out", str(out)]
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env={**usual, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (out / "checkpoint.safetensors").exists() and process.poll() is None:
        time.sleep(0.01)
    return process


@pytest.mark.parametrize("kind", [signal.SIGINT, signal.SIGKILL], ids=["ctrl-c", "killed"])
def test_the_same_command_goes_on_and_ends_in_the_same_weights(tmp_path, uninterrupted, kind):
    process = started(tmp_path / "run")
    process.send_signal(kind)
    out, err = process.communicate(timeout=60)
    assert not (tmp_path / "run" / "record.json").exists()
    if kind == signal.SIGINT:
        assert (process.returncode, out) == (130, "")
        assert err == "interrupted; the same command goes on where it stopped\n"
    said = cli("train", *LONG, "--out", tmp_path / "run")
    assert said.code == 0, said
    held = json.loads((tmp_path / "run" / "record.json").read_text())
    assert [line["epoch"] for line in held["history"]] == list(range(1, 13))
    assert (tmp_path / "run" / "model.safetensors").read_bytes() == uninterrupted


@pytest.mark.slow
@pytest.mark.parametrize(("start", "processes"), [("--multi_gpu", 2), ("--cpu", 1)])
def test_several_processes_speak_with_one_voice_and_write_one_record(tmp_path, start, processes):
    """With ``--cpu`` Accelerate itself starts a single process; either way there is one table and one record."""
    command = [sys.executable, "-m", "accelerate.commands.launch", start, "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    run = ["-m", "rightreasons", "train", "--data", "digits", "--model", "mlp", "--epochs", "5", "--lr", "0.01"]
    run += ["--out", str(tmp_path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, *run], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=180, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("accuracy") == 1
    assert done.stdout.count("written to") == 1
    held = json.loads((tmp_path / "record.json").read_text())
    assert held["results"]["test"]["accuracy"] > 0.5
    assert len(held["history"]) == 5
    with safe_open(tmp_path / "checkpoint.safetensors", framework="pt") as file:
        header = json.loads(file.metadata()["rightreasons"])
    assert header["description"]["processes"] == processes
