"""What a user may import: every public name is listed, resolves, and is told in a sentence."""

import importlib
import inspect
import pkgutil
import subprocess
import sys

import pytest

import rightreasons

FLOORS = sorted(module.name for module in pkgutil.iter_modules(rightreasons.__path__) if module.ispkg)
LIBRARY = [name for name in FLOORS if name != "cli"]


def test_the_top_level_lists_its_names_sorted_and_each_resolves():
    assert rightreasons.__all__ == sorted(set(rightreasons.__all__))
    for name in rightreasons.__all__:
        assert getattr(rightreasons, name) is not None
    assert dir(rightreasons) == rightreasons.__all__


def test_type_checkers_see_the_same_names():
    """They read the imports under ``TYPE_CHECKING``, which no run ever executes."""
    source = inspect.getsource(rightreasons)
    shown = [line.split(" as ")[1] for line in source.splitlines() if line.startswith("    from rightreasons.")]
    assert sorted(shown) == rightreasons.__all__


def test_the_top_level_hands_out_the_very_objects_of_the_floors():
    from rightreasons.attribution import Saliency
    from rightreasons.models import adapt

    assert rightreasons.Saliency is Saliency
    assert rightreasons.adapt is adapt


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Saliencies'"):
        rightreasons.Saliencies  # noqa: B018


def test_importing_the_package_imports_no_torch():
    code = "import sys, rightreasons; dir(rightreasons); assert 'torch' not in sys.modules; rightreasons.adapt"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("floor", LIBRARY)
def test_a_floor_lists_its_names_once_and_each_resolves(floor):
    module = importlib.import_module(f"rightreasons.{floor}")
    assert len(module.__all__) == len(set(module.__all__))
    order = sorted(module.__all__, key=lambda name: (not name.isupper(), not name[0].isupper(), name))
    assert module.__all__ == order, "constants, classes, functions, each sorted"
    for name in module.__all__:
        assert hasattr(module, name)
        assert not name.startswith("_")


@pytest.mark.parametrize("floor", LIBRARY)
def test_every_public_class_and_function_is_told_in_a_sentence(floor):
    module = importlib.import_module(f"rightreasons.{floor}")
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            first = (value.__doc__ or "").strip().split("\n\n")[0].strip()
            assert first.endswith((".", ":", "::")), f"{floor}.{name}: {first!r}"
            assert not first.startswith(f"{name}("), f"{floor}.{name} has only the docstring of a dataclass"


def test_the_package_is_typed():
    from importlib.resources import files

    assert files("rightreasons").joinpath("py.typed").is_file()
