"""Checks of settings: what they let through, and the name in the message."""

from __future__ import annotations

import numpy as np
import pytest

from rightreasons.core.settings import check_counts, check_not_negative, check_positive


@pytest.mark.wrong_types
def test_what_is_right_passes():
    check_counts(steps=1, rounds=np.int64(3))
    check_counts(0, halvings=0)
    check_positive(weight=0.1)
    check_not_negative(tv=0.0)


@pytest.mark.parametrize("value", [0, -1, True, 2.5, 10.0, float("inf"), float("nan"), "3"])
@pytest.mark.wrong_types
def test_no_count(value):
    with pytest.raises(ValueError, match="expected steps to be a whole number of at least 1, got"):
        check_counts(steps=value)


@pytest.mark.parametrize("value", [0.0, -1.0, float("inf"), float("nan")])
def test_not_above_zero(value):
    with pytest.raises(ValueError, match="expected weight above 0, got"):
        check_positive(weight=value)
    if value != 0:
        with pytest.raises(ValueError, match="expected weight of at least 0, got"):
            check_not_negative(weight=value)
