"""Fields of JSON files that other people's tools wrote, checked one by one."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rightreasons.core import CorruptData, DataUnavailable
from rightreasons.data.masks.raster import Point


def read_json(path: Path | str) -> Any:
    """What a JSON file holds.

    Raises:
        DataUnavailable: There is no such file.
        CorruptData: It is no JSON; the message names file and line.
    """
    file = Path(path)
    if not file.is_file():
        raise DataUnavailable(f"expected a file of annotations, found no file {file}")
    try:
        return json.loads(file.read_text(encoding="utf-8-sig"))
    except (json.JSONDecodeError, UnicodeDecodeError, RecursionError) as error:
        raise CorruptData(f"{file} is no JSON: {error}") from error


def table(value: Any, told: str) -> Mapping[str, Any]:
    """The value, if it is an object with fields.

    Raises:
        CorruptData: It is something else; ``told`` says of what.
    """
    if not isinstance(value, Mapping):
        raise CorruptData(f"expected {told} with named fields, got {_short(value)}")
    return value


def rows(value: Any, told: str) -> Sequence[Any]:
    """The value, if it is a list.

    Raises:
        CorruptData: It is something else.
    """
    if not isinstance(value, list):
        raise CorruptData(f"expected a list of {told}, got {_short(value)}")
    return value


def number(value: Any, told: str) -> float:
    """The value, if it is a finite number.

    Raises:
        CorruptData: It is something else.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CorruptData(f"expected a number for {told}, got {_short(value)}")
    return float(value)


def whole(value: Any, told: str) -> int:
    """The value, if it is a whole number.

    Raises:
        CorruptData: It is something else.
    """
    if not number(value, told).is_integer():
        raise CorruptData(f"expected a whole number for {told}, got {value}")
    return int(value)


def side(value: Any, told: str) -> int:
    """The value, if it can be the height or the width of an image.

    Raises:
        CorruptData: It is something else.
    """
    if not 0 < whole(value, told) < 1 << 16:
        raise CorruptData(f"expected {told} of 1 to 65535 pixels, got {value}")
    return int(value)


def points(value: Any, told: str) -> list[Point]:
    """The corners of an outline, given as x, y, x, y, ...

    Raises:
        CorruptData: They are no pairs of numbers, or fewer than three.
    """
    flat = [number(item, told) for item in rows(value, f"numbers for {told}")]
    if len(flat) % 2 or len(flat) < 6:
        raise CorruptData(f"expected at least three corners x, y for {told}, got {len(flat)} numbers")
    return list(zip(flat[::2], flat[1::2], strict=True))


def text(value: Any, told: str) -> str:
    """The value, if it is a text that is not empty.

    Raises:
        CorruptData: It is something else.
    """
    if not isinstance(value, str) or not value:
        raise CorruptData(f"expected a text for {told}, got {_short(value)}")
    return value


def _short(value: Any) -> str:
    if isinstance(value, Mapping | list):
        return f"a {'table' if isinstance(value, Mapping) else 'list'} of {len(value)}"
    told = repr(value)
    return told if len(told) <= 40 else f"{told[:37]}..."
