"""The floors and the rules of docs/architecture.md, held against the source."""

import ast
import re
import tomllib
from itertools import pairwise
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "rightreasons"
FILES = sorted(SOURCE.rglob("*.py"))
FORBIDDEN_IMPORTS = {"torchvision", "timm", "captum", "cv2", "matplotlib", "pytorch_grad_cam", "zennit"}
FORBIDDEN_NAMES = {"utils", "util", "helpers", "helper", "common", "misc"}
DESIGN = (
    *("cli", "studio", "reports", "experiments", "training", "supervision", "metrics", "counterfactuals", "concepts"),
    *("attribution", "attacks", "models", "data", "core"),
)
MOST_LINES = 40
MOST_PARAMETERS = 6


def documented_floors():
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"^```\n(cli\n.*?)^```", text, re.MULTILINE | re.DOTALL)
    return [re.split(r"\s{2,}", line)[0] for line in block.splitlines()]


def contract():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (only,) = settings["tool"]["importlinter"]["contracts"]
    return only


def floor_of(path):
    """The floor of a file; ``None`` for the package's own two files."""
    parts = path.relative_to(SOURCE).parts
    return parts[0] if len(parts) > 1 else None


def functions(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]


def imported(path):
    """Whole names of the modules that a file imports at run time, with the line."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    checking = [n for n in ast.walk(tree) if isinstance(n, ast.If) and ast.unparse(n.test) == "TYPE_CHECKING"]
    skipped = {id(node) for block in checking for node in ast.walk(block)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.Import):
            yield from ((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno} is a relative import"
            yield node.module, node.lineno


def test_the_document_and_the_contract_hold_the_same_floors_in_the_same_order():
    assert documented_floors() == contract()["layers"]
    assert contract()["exhaustive"] is True


def test_every_folder_is_a_floor_and_every_floor_a_folder():
    named = {name.strip() for line in contract()["layers"] for name in line.split("|")}
    assert named == {path.name for path in SOURCE.iterdir() if path.is_dir() and (path / "__init__.py").exists()}


def test_imports_point_down_only():
    """The contract's own check, without its tool: also imports inside functions."""
    height = {name.strip(): -i for i, line in enumerate(contract()["layers"]) for name in line.split("|")}
    for path in FILES:
        own = floor_of(path)
        for name, line in imported(path) if own else ():
            parts = name.split(".")
            if parts[0] == "rightreasons" and len(parts) > 1 and parts[1] != own:
                assert height[parts[1]] < height[own], f"{path}:{line} imports {name}"


def test_the_design_has_the_same_order():
    """Floors of later issues may be missing here; those that are here stand in the design's order."""
    present = [name.strip() for line in contract()["layers"] for name in line.split("|")]
    assert all(DESIGN.index(a) < DESIGN.index(b) for a, b in pairwise(present))


def test_libraries_that_are_extras_or_peers_are_imported_nowhere_at_the_top():
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in tree.body:
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else [getattr(node, "module", None)]
            if isinstance(node, ast.Import | ast.ImportFrom):
                assert not {str(name).split(".")[0] for name in names} & FORBIDDEN_IMPORTS, path


def test_torchvision_timm_and_captum_are_imported_nowhere():
    for path in FILES:
        for name, line in imported(path):
            assert name.split(".")[0] not in FORBIDDEN_IMPORTS, f"{path}:{line} imports {name}"


@pytest.mark.parametrize("folder", ["src", "tests", "benchmarks", "examples"])
def test_no_file_is_named_for_what_it_is_not(folder):
    for path in (ROOT / folder).rglob("*"):
        assert path.stem.lower() not in FORBIDDEN_NAMES, path


def test_no_function_is_long():
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno} {node.name} has {code_lines(path, node)} lines"
        for path in FILES
        for node in functions(path)
        if code_lines(path, node) > MOST_LINES
    ]
    assert not long


def code_lines(path, function):
    """Lines of the file that the body takes, without the docstring, blank lines and comments."""
    body = function.body[1:] if ast.get_docstring(function) else function.body
    if not body:
        return 0
    text = path.read_text(encoding="utf-8").splitlines()[body[0].lineno - 1 : function.end_lineno]
    return sum(1 for line in text if line.strip() and not line.strip().startswith("#"))


def test_functions_take_few_positional_parameters():
    """Commands are exempt: their parameters are the options of the command line."""
    for path in FILES:
        if floor_of(path) == "cli":
            continue
        for node in functions(path):
            own = [a.arg for a in (*node.args.posonlyargs, *node.args.args) if a.arg not in ("self", "cls")]
            assert len(own) <= MOST_PARAMETERS, f"{path}:{node.lineno} {node.name}({', '.join(own)})"


def test_nothing_is_seeded_when_modules_are_imported():
    for path in FILES:
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Expr | ast.Assign):
                assert "manual_seed" not in ast.unparse(node), path


def test_a_users_mistake_is_never_an_assert():
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        assert not [n.lineno for n in ast.walk(tree) if isinstance(n, ast.Assert)], path


def test_no_exception_is_swallowed():
    for path in FILES:
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.ExceptHandler):
                assert node.type is not None, f"{path}:{node.lineno} catches everything"
                assert not all(isinstance(n, ast.Pass) for n in node.body), f"{path}:{node.lineno} swallows"
