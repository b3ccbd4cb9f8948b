import json
import math
import statistics
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType

from tests.training import two_processes as case


class SingleProcess:
    """The part of an accelerator that did not notice the others."""

    distributed_type = DistributedType.NO
    num_processes = 1
    device = torch.device("cpu")


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """What two processes found, started as a user would."""
    folder = tmp_path_factory.mktemp("two")
    # Accelerate starts processes on CPUs under this flag; with `--cpu` it would start a single one.
    command = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    command += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    command += ["-m", "tests.training.two_processes", str(folder)]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr[-3000:]
    return folder, [json.loads((folder / f"process{i}.json").read_text()) for i in (0, 1)]


def test_both_processes_took_part_and_agree(launched):
    folder, (first, second) = launched
    assert first["processes"] == second["processes"] == 2
    assert first["weights"] == second["weights"]
    assert first["gradient"] == second["gradient"]
    for one, other in zip(first["history"], second["history"], strict=True):
        assert {**one, "seconds": 0, "cpu_seconds": 0} == {**other, "seconds": 0, "cpu_seconds": 0}
    assert (folder / "checkpoint.safetensors").is_file()


def test_the_gradient_is_that_of_the_joint_batch(launched):
    """With a term that is differentiated twice, and as many annotated images in either half."""
    joint = torch.tensor(launched[1][0]["gradient"], dtype=torch.float64)
    torch.testing.assert_close(joint, case.gradient(), rtol=1e-6, atol=1e-9)


def test_accuracy_is_that_of_one_process_within_the_spread_of_seeds(launched):
    single = [case.train(seed, Accelerator(cpu=True))[1].history[-1]["test_accuracy"] for seed in (0, 1, 2)]
    double = launched[1][0]["history"][-1]["test_accuracy"]
    assert double > 0.9
    assert abs(double - statistics.mean(single)) <= max(3 * statistics.stdev(single), 0.02)


def test_a_process_without_annotations_does_not_stall_the_others(launched):
    assert math.isfinite(launched[1][0]["learned"])


@pytest.mark.wrong_types  # a stand-in for the accelerator
def test_processes_that_were_not_joined_are_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ValueError, match="2 processes were started together, but Accelerate joined 1"):
        case.train(0, SingleProcess())
