"""Instances of methods with settings that a person wrote, and what is said where they do not fit."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import is_dataclass
from functools import partial
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from jaxtyping import AbstractArray

T = TypeVar("T")

PLAIN = (str, bool, int, float, list, tuple, Mapping)
"""What a file or a command line can hold; other values are checked by the class itself."""

WORDS: Mapping[object, tuple[str, str]] = {
    bool: ("true or false", "true or false"),
    int: ("a whole number", "whole numbers"),
    float: ("a number", "numbers"),
    str: ("a text", "texts"),
    Path: ("a path", "paths"),
}
"""One value of the kind, and several."""


def called(class_: Callable[..., T], settings: Mapping[str, Any], told: str) -> T:
    """An instance with these settings; ``told`` says in an error what it is.

    Raises:
        ValueError: A setting that it does not have, or of the wrong kind, or a value that it refuses.
    """
    check_settings(class_, settings, told)
    try:
        return class_(**settings)
    except ValueError as error:
        # Errors of our own kinds say themselves what they are about.
        if type(error) is not ValueError or str(error).startswith(told):
            raise
        raise ValueError(f"{told}: {error}") from error
    except TypeError as error:
        raise ValueError(f"{told} cannot be made with {dict(settings)}: {error}") from error


def check_settings(class_: Callable[..., object], settings: Mapping[str, Any], told: str) -> None:
    """Refuse settings that it does not have, or of the wrong kind, without making it.

    Raises:
        ValueError: The message names the setting, the kind that is expected and the value.
    """
    known = list(inspect.signature(class_).parameters)
    unknown = [key for key in settings if key not in known]
    if unknown:
        raise ValueError(f"{told} has no setting {unknown[0]!r}. There are: {', '.join(known)}")
    hints = _hints(class_)
    for name, value in settings.items():
        expected = misfit(value, hints.get(name, Any))
        if expected:
            raise ValueError(f"{told}: expected {name} to be {expected}, got {value!r}")


def misfit(value: object, hint: Any) -> str:
    """What a plain value should have been, in words; empty where it fits or where its kind cannot be told."""
    if not isinstance(value, PLAIN):
        return ""
    kinds = [kind for kind in _alternatives(hint) if _is_told(kind)]
    # Of several kinds one may be known by the class alone; a text or a number is none of these.
    if not kinds or any(_fits(value, kind) for kind in kinds):
        return ""
    chosen = [str(one) for kind in kinds if get_origin(kind) is Literal for one in get_args(kind)]
    words = dict.fromkeys(_words(kind) for kind in kinds if get_origin(kind) is not Literal)
    return " or ".join([*words, *([f"one of {', '.join(chosen)}"] if chosen else [])])


def _hints(class_: Callable[..., object]) -> dict[str, Any]:
    made = class_.func if isinstance(class_, partial) else class_
    # Only the class of a dataclass knows where each of its fields was written.
    return get_type_hints(made.__init__ if inspect.isclass(made) and not is_dataclass(made) else made)


def _alternatives(hint: Any) -> list[Any]:
    """The members of a union; nothing is no kind of a value."""
    if get_origin(hint) in (Union, UnionType):
        return [each for part in get_args(hint) for each in _alternatives(part)]
    return [] if hint is NoneType else [hint]


def _is_told(kind: Any) -> bool:
    """Whether it can be told of a plain value that it is not of this kind."""
    return kind in WORDS or get_origin(kind) in (Literal, tuple, list, Sequence, Mapping, dict) or _is_array(kind)


def _is_array(kind: Any) -> bool:
    return inspect.isclass(kind) and issubclass(kind, AbstractArray)


def _fits(value: Any, kind: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in parts
    if origin in (Mapping, dict):
        return isinstance(value, Mapping)
    if origin in (tuple, list, Sequence):
        return isinstance(value, list | tuple) and _parts_fit(value, origin, parts)
    if isinstance(value, bool):
        return kind is bool
    return isinstance(value, {float: (int, float), Path: (str, Path)}.get(kind, kind)) and not _is_array(kind)


def _parts_fit(values: Sequence[Any], origin: Any, parts: tuple[Any, ...]) -> bool:
    if origin is tuple and parts[-1] is not Ellipsis:
        return len(values) == len(parts) and not any(map(misfit, values, parts))
    return not any(misfit(value, parts[0]) for value in values)


def _words(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Mapping, dict):
        return "a table"
    if origin in (tuple, list, Sequence):
        count = "" if origin is not tuple or parts[-1] is Ellipsis else f"{len(parts)} "
        of = " or ".join(WORDS[part][1] if part in WORDS else "values" for part in _alternatives(parts[0]))
        return f"a list of {count}{of}"
    return WORDS[kind][0] if kind in WORDS else "images or labels, which come from data alone"
