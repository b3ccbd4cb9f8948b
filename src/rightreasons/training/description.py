"""Methods and settings in words that are the same in every process, and differ where a run would."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from types import CellType, CodeType, FunctionType, MethodType

import numpy as np
import torch
from torch import Tensor, nn

from rightreasons.core.protocols import LATER
from rightreasons.core.tensors import content

_DEEPEST = 5
"""Objects inside objects are told up to this depth: a user's own may lead back to themselves."""


def described(value: object, depth: int = 0) -> str:
    """A value in words: fields of dataclasses, arguments of partials, hashes of tensors and of unnamed functions.

    The weights of a module are left out, since they change in training.
    """
    name = type(value).__qualname__
    if depth > _DEEPEST:
        return name
    if isinstance(value, Tensor) or (isinstance(value, np.ndarray) and value.dtype.kind in "biuf"):
        return _array(torch.as_tensor(value))
    if isinstance(value, partial):
        return f"partial({_each((value.func, *value.args), value.keywords, depth)})"
    if isinstance(value, MethodType):
        return f"{described(value.__self__, depth + 1)}.{value.__func__.__name__}"
    if isinstance(value, FunctionType):
        return _function(value, depth)
    if isinstance(value, nn.Module):
        return f"{name}({', '.join(_module(value, depth))})"
    if is_dataclass(value) and not isinstance(value, type):
        return f"{name}({_each((), dict(_settings(value)), depth)})"
    return _plain(value, depth)


def _settings(method: object) -> Iterator[tuple[str, object]]:
    """What a ``repr`` shows, and tensors, which are kept out of it for their size alone.

    Fields that came later are left out at their defaults, at which a method is what it was before.
    """
    for item in fields(method):  # type: ignore[arg-type]
        value = getattr(method, item.name)
        later = item.metadata.get(LATER, False) and value == item.default
        if not later and (item.repr or isinstance(value, Tensor | np.ndarray)):
            yield item.name, value


def _plain(value: object, depth: int) -> str:
    """A container by its members, an object without a ``repr`` of its own by its attributes, else the ``repr``."""
    if isinstance(value, Mapping):
        return f"{{{_each((), {str(key): member for key, member in value.items()}, depth)}}}"
    if isinstance(value, set | frozenset):
        return f"{{{', '.join(sorted(described(member, depth + 1) for member in value))}}}"
    if isinstance(value, Sequence) and not isinstance(value, str | bytes | range):
        return f"({_each(tuple(value), {}, depth)})"
    if type(value).__repr__ is object.__repr__:
        return f"{type(value).__qualname__}({_each((), getattr(value, '__dict__', {}), depth)})"
    text = value.__qualname__ if isinstance(value, type) else repr(value)
    return re.sub(r" at 0x[0-9a-f]+", "", text)


def _each(members: Sequence[object], named: Mapping[str, object], depth: int) -> str:
    plain = [described(member, depth + 1) for member in members]
    return ", ".join(plain + [f"{name}={described(member, depth + 1)}" for name, member in named.items()])


def _array(values: Tensor) -> str:
    shape = "x".join(map(str, values.shape)) or "scalar"
    return f"tensor {shape} {str(values.dtype).removeprefix('torch.')} {_short(content(values))}"


def _function(function: FunctionType, depth: int) -> str:
    """Its name; where that does not say which it is, also a hash of its code, its defaults and what it closes over."""
    name = function.__qualname__
    if "<" not in name and function.__module__ != "__main__":
        return name
    cells = zip(function.__code__.co_freevars, function.__closure__ or (), strict=True)
    closed = {name: cell.cell_contents for name, cell in cells if cell != CellType()}
    inside = _each(function.__defaults__ or (), {**(function.__kwdefaults__ or {}), **closed}, depth)
    code = _short("\n".join(_code(function.__code__)).encode())
    return f"{name} {code}({inside})"


def _code(code: CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names}"
    for constant in code.co_consts:
        yield from _code(constant) if isinstance(constant, CodeType) else [described(constant)]


def _module(module: nn.Module, depth: int) -> Iterator[str]:
    """The settings of a module and of those inside; of buffers only those that no training changes."""
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        for name, value in vars(part).items():
            if not name.startswith("_") and name != "training":
                yield f"{prefix}{name}={described(value, depth + 1)}"
    if next(module.parameters(), None) is None:
        yield from (f"{name}={_array(value)}" for name, value in module.named_buffers())


def _short(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:12]
