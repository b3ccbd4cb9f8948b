import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.pictures import image_folder, network_file

ROOT = Path(__file__).parents[2]
DIGITS = ("--data", "digits", "--model", "mlp", "--epochs", "1", "--device", "cpu")


class Said(NamedTuple):
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def mistake(self):
        """The one line of a user's mistake; anything else fails the test."""
        lines = self.err.strip().splitlines()
        assert (self.code, len(lines)) == (2, 1), self
        assert lines[0].startswith("error: "), self
        assert "Traceback" not in self.err
        return lines[0].removeprefix("error: ")


def cli(*arguments):
    """The command line in this process."""
    from rightreasons.cli.main import app

    done = CliRunner().invoke(app, [str(a) for a in arguments])
    if done.exception is not None and not isinstance(done.exception, SystemExit):
        raise done.exception
    return Said(done.exit_code, done.stdout, done.stderr)


def shell(*arguments, cwd=None, module="rightreasons", **more):
    """The command line as a user starts it, in a process of its own; ``more`` goes into its environment."""
    # Compiled files are kept, or every process would compile all of torch anew.
    usual = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    environment = {**usual, "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-m", module, *(str(a) for a in arguments)]
    done = subprocess.run(command, cwd=cwd or ROOT, env=environment, capture_output=True, text=True, timeout=120)
    return Said(done.returncode, done.stdout, done.stderr)


def control_characters(text):
    """Those that are no line breaks."""
    return re.findall(r"[\x00-\x09\x0b-\x1f\x7f]", text)


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A user's folder, entered: photos/ with masks, net.py."""
    image_folder(tmp_path / "photos")
    network_file(tmp_path / "net.py")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def digits_runs(tmp_path_factory):
    """A plain run on decoyed digits and a revised one, made by the command line."""
    out = tmp_path_factory.mktemp("runs")
    config = out / "plain.toml"
    config.write_text(
        '[data]\nname = "digits"\ndecoy = "decoy/rrr"\ndecoy_size = 2\n[model]\nname = "mlp"\n[training]\nepochs = 2\n'
    )
    said = cli("train", "--config", config, "--device", "cpu", "--out", out / "plain")
    assert said.code == 0, said
    said = cli("revise", out / "plain", "--weight", 1, "--epochs", 2, "--device", "cpu", "--out", out / "revised")
    assert said.code == 0, said
    return out


def width_of(path):
    """Of an image file."""
    with Image.open(path) as image:
        return image.width


def png(path, array):
    """Write an image file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(array)).save(path)
