"""Checks of a method's settings, with their names in the message."""

from __future__ import annotations

import math
from numbers import Integral


def check_counts(least: int = 1, /, **settings: int) -> None:
    """Refuse settings that are not whole numbers of at least so much.

    Raises:
        ValueError: By name.
    """
    for name, value in settings.items():
        if isinstance(value, bool) or not isinstance(value, Integral) or value < least:
            raise ValueError(f"expected {name} to be a whole number of at least {least}, got {value!r}")


def check_positive(**settings: float) -> None:
    """Refuse settings that are not finite and above 0.

    Raises:
        ValueError: By name.
    """
    for name, value in settings.items():
        if not (math.isfinite(value) and value > 0):
            raise ValueError(f"expected {name} above 0, got {value!r}")


def check_not_negative(**settings: float) -> None:
    """Refuse settings that are below 0 or not finite.

    Raises:
        ValueError: By name.
    """
    for name, value in settings.items():
        if not (math.isfinite(value) and value >= 0):
            raise ValueError(f"expected {name} of at least 0, got {value!r}")
