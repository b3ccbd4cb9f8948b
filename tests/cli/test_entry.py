import re
import subprocess
import sys
from importlib.metadata import entry_points
from typing import get_type_hints

import pytest

import rightreasons
from tests.cli.conftest import cli, control_characters, shell

COMMANDS = (
    "demo",
    "data",
    "masks",
    "train",
    "reveal",
    "features",
    "counterfactual",
    "evaluate",
    "revise",
    "prove",
    "table",
)


def test_the_console_script_is_the_entry_point():
    (script,) = entry_points(group="console_scripts", name="rightreasons")
    assert script.value == "rightreasons.cli.main:main"


def test_help_imports_no_torch_and_answers_within_a_second():
    code = (
        "import sys, time; start = time.perf_counter(); sys.argv = ['rightreasons', {!r}]\n"
        "from rightreasons.cli.main import main\n"
        "try:\n    main()\nexcept SystemExit as done:\n    assert done.code == 0\n"
        "heavy = {{'torch', 'numpy', 'sklearn', 'accelerate', 'PIL'}} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "assert time.process_time() < 1, time.process_time()\n"
    )
    for argument in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", code.format(argument)], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == rightreasons.__version__


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_helps_with_examples(command):
    said = cli(command, "--help")
    assert said.code == 0
    assert "Examples" in said.out
    assert said.out.count(f"rightreasons {command}") >= 2


@pytest.mark.parametrize("command", COMMANDS)
def test_the_examples_are_commands_that_parse(command):
    """Every option that an example shows exists."""
    import importlib
    import shlex

    module = importlib.import_module(f"rightreasons.cli.{command}")
    known = cli(command, "--help").out
    for line in module.EXAMPLES.splitlines():
        for word in shlex.split(line.partition(f"rightreasons {command}")[2].partition("(")[0]):
            assert not word.startswith("--") or word in known, line


def test_without_a_command_the_help_is_shown():
    said = cli()
    assert "demo" in said.out + said.err


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["trian"], "trian"),
        (["train", "--epoch", "3"], "--epochs"),
        (["train", "--epochs", "many"], "--epochs"),
        (["train", "--lr", "fast"], "--lr"),
        (["train", "--seed", "1.5"], "--seed"),
        (["train", "--epochs"], "--epochs"),
        (["train", "runs/plain"], "runs/plain"),
        (["prove", "runs/plain"], "AFTER"),
        (["revise"], "RUN"),
        (["data"], "NAME"),
        (["reveal", "--target", "wished"], "--target"),
        (["--seed", "3", "train"], "--seed"),
    ],
)
def test_wrong_usage_exits_with_2_and_names_the_option(arguments, told):
    said = cli(*arguments)
    assert said.code == 2
    assert told.lower() in said.err.lower()
    assert "Traceback" not in said.err


def test_output_in_a_file_has_no_control_characters(tmp_path):
    said = shell(
        "train", "--data", "digits", "--model", "mlp", "--epochs", "2", "--out", tmp_path / "run", FORCE_COLOR=""
    )
    assert said.code == 0, said
    assert control_characters(said.out + said.err) == []
    assert str(tmp_path / "run") in said.out
    assert said.err == ""


def test_a_narrow_terminal_and_no_color_and_ascii():
    """Also the table, whose borders such a terminal lacks."""
    said = shell("data", "digits", COLUMNS="60", NO_COLOR="1", PYTHONIOENCODING="ascii", LC_ALL="C", PYTHONUTF8="0")
    assert said.code == 0, said
    assert max(map(len, said.out.splitlines())) <= 60
    assert said.out.isascii()
    assert control_characters(said.out) == []


def test_the_help_of_a_loss_names_those_that_a_command_can_make():
    """Losses that ask for tensors, such as concept directions, are for Python alone."""
    from typing import get_args

    from rightreasons.cli.options import Loss
    from rightreasons.supervision import LOSSES

    told = get_args(Loss)[1].help.removeprefix("Explanation loss: ").rstrip(".").replace(" or ", ", ").split(", ")
    assert sorted(told) == sorted(LOSSES)


def test_the_help_of_a_recipe_names_all_of_them():
    from typing import get_args

    from rightreasons.cli.options import Recipe
    from rightreasons.training import RECIPES

    assert all(f"{name} (" in get_args(Recipe)[1].help for name in RECIPES)


def test_the_help_of_counterfactual_names_all_methods():
    from typing import get_args

    from rightreasons.cli.counterfactual import counterfactual
    from rightreasons.counterfactuals import COUNTERFACTUALS

    told = get_args(get_type_hints(counterfactual, include_extras=True)["method"])[1].help
    assert sorted(re.findall(r"[a-z_]{3,}", told)) == sorted(COUNTERFACTUALS)


def test_the_help_of_models_and_data_names_the_catalogue():
    from typing import get_args

    from rightreasons.cli.options import DATA_NAMES, Data, Model
    from rightreasons.data import DATASETS
    from rightreasons.models import MODELS

    assert DATA_NAMES.split(", ") == list(DATASETS)
    assert get_args(Data)[1].help.startswith(DATA_NAMES)
    assert get_args(Model)[1].help.startswith(", ".join(MODELS))
