"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
import torch
from typer.main import get_group

from rightreasons.cli.main import app
from rightreasons.data import Subset, load
from rightreasons.experiments import parse_run
from rightreasons.experiments.build import build_fit_settings
from rightreasons.models import LeNet

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
BLOCKS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


def test_the_library_example_repairs_the_model():
    names: dict[str, object] = {}
    exec(BLOCKS[0], names)
    accuracy = names["proof"]["Accuracy"]
    assert accuracy.after.value > accuracy.before.value + 0.05
    assert accuracy.judgement == "better"


def test_the_example_of_an_own_loop_gives_the_weights_a_gradient():
    network = LeNet()
    names: dict[str, object] = {"network": network}
    exec(BLOCKS[1], names)
    masks = torch.zeros(2, 4, 1, 28, 28)
    masks[0, ..., 10:18, 10:18] = 1
    masks[1, ..., :4, :4] = 1
    loss = names["step"](torch.rand(4, 1, 28, 28), torch.arange(4), masks[0], masks[1])
    loss.backward()
    assert all(p.grad is not None for p in network.parameters())


def test_the_examples_of_revealing_and_judging_run():
    torch.manual_seed(0)
    data = Subset(load("digits", "test"), torch.arange(6))
    network = LeNet(data.shape, padding=2)
    names: dict[str, object] = {"network": network, "images": data.batch(torch.arange(6)).inputs, "data": data}
    exec(BLOCKS[2], names)
    for name in ("heatmap", "against", "slower"):
        assert names[name].shape == (6, 1, 8, 8)
    assert not torch.allclose(names["heatmap"], names["against"])
    exec(BLOCKS[3], names)
    assert {"saliency", "grad_cam", "lrp"} < set(names["table"].names)


def test_the_schedules_that_it_names_are_settings_of_a_run():
    named = re.findall(r"`((?:training|data)\.\w+ = [^`]+)`", README)
    runs = [build_fit_settings(parse_run(tomllib.loads(line)).training, 0) for line in named]
    assert {run.schedule for run in runs} == {"", "cosine", "plateau"}
    assert max(run.patience for run in runs) == 5


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_commands_that_it_names_have_these_options(page):
    commands = get_group(app).commands
    for name, rest in re.findall(r"rightreasons ([a-z]+)((?: [^\n`|]*)?)", page.read_text(encoding="utf-8")):
        if name in commands:
            known = {option for parameter in commands[name].params for option in parameter.opts} | {"--help"}
            for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", rest):
                assert option in known, f"rightreasons {name}{rest}"


def test_its_links_lead_somewhere():
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", README):
        assert (ROOT / link).exists(), link


@pytest.mark.parametrize("name", ["DEMO_TIME", "SEEDS_TABLE", "COST_TABLE"])
def test_no_figure_is_missing(name):
    assert name not in README
