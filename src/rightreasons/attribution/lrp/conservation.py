"""Whether relevance is conserved, operator by operator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rightreasons.core import NotConserved

__all__ = ["Conservation", "Ledger", "NotConserved"]


@dataclass(frozen=True)
class Conservation:
    """Where the logits of a batch ended up; sums over the batch.

    ``logits`` = ``pixels`` + ``absorbed`` but for rounding and for what is ``missing``.

    Attributes:
        logits: The relevance that was handed back.
        pixels: The part that reached the image.
        absorbed: The part that biases, constants, stabilizers and the softmax of an attention took.
        missing: The largest share of the relevance at one operator that is neither handed on nor accounted for.
        operator: That operator.
    """

    logits: float
    pixels: float
    absorbed: float
    missing: float
    operator: str


class Ledger:
    """What each operator was given, handed on and took."""

    def __init__(self) -> None:
        self._rows: list[tuple[str, float, float, float, float]] = []

    def enter(self, operator: str, given: Tensor, handed: Sequence[Tensor], taken: Tensor | None) -> None:
        """Note one operator; without ``taken`` it promises nothing, and what is not handed on counts as taken."""
        with torch.no_grad():
            size, before = float(given.double().abs().sum()), float(given.double().sum())
            after = sum(float(r.double().sum()) for r in handed)
            self._rows.append((operator, size, before, after, before - after if taken is None else float(taken)))

    def check(self, tolerance: float) -> None:
        """Refuse what is not conserved.

        Raises:
            NotConserved: By the operator's name.
        """
        missing, operator = self._worst()
        if not missing <= tolerance:
            raise NotConserved(
                f"relevance is not conserved at the operator {operator}: {missing:.2g} of it is missing, more than the "
                f"tolerance of {tolerance:g}"
            )

    def summary(self, pixels: float) -> Conservation:
        """The whole account."""
        missing, operator = self._worst()
        absorbed = sum(row[4] for row in self._rows)
        return Conservation(self._rows[0][2], pixels, absorbed, missing, operator)

    def _worst(self) -> tuple[float, str]:
        shares = [
            (abs(before - after - taken) / size if size else abs(after + taken), operator)
            for operator, size, before, after, taken in self._rows
        ]
        # NaN is the worst of all, and max() would not find it.
        return max(shares, key=lambda share: (share[0] != share[0], share[0]))
