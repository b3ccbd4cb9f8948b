"""A configuration with some of its values replaced."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rightreasons.experiments.config import RunConfig, as_dict, parse_run

ANY = "*"
"""In a key: every one of the terms."""


def merged(base: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """``given`` over ``base``, table by table.

    Settings belong to what a table names: where ``given`` has another ``name``, those of ``base`` are left behind.
    """
    renamed = "name" in given and given["name"] != base.get("name")
    found = {key: value for key, value in base.items() if not (renamed and key == "settings")}
    for key, value in given.items():
        under = found.get(key)
        deeper = isinstance(value, Mapping) and isinstance(under, Mapping)
        found[key] = merged(under, value) if deeper else value  # type: ignore[arg-type]
    return found


def with_value(config: RunConfig, key: str, value: Any) -> RunConfig:
    """The configuration with another value at a key such as ``data.annotated`` or ``terms.*.weight``.

    Raises:
        ValueError: The configuration has no such key, or does not take the value.
    """
    values = as_dict(config)
    _put(values, key.split("."), value, key)
    return parse_run(values)


def has_key(config: RunConfig, key: str) -> bool:
    """Whether the tables on the way to a key are there."""
    try:
        _put(as_dict(config), key.split("."), None, key)
    except ValueError:
        return False
    return True


def _put(values: dict[str, Any], parts: list[str], value: Any, key: str) -> None:
    if len(parts) == 1:
        values[parts[0]] = value
        return
    names = list(values) if parts[0] == ANY else [parts[0]]
    if not names or not all(isinstance(values.get(name), Mapping) for name in names):
        raise ValueError(f"no {key!r} to set: there is no table {parts[0]!r} among {', '.join(values) or 'nothing'}")
    for name in names:
        _put(values[name], parts[1:], value, key)
