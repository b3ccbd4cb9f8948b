"""The learning rate over a run, and when to stop: from the step, and from what the validation images say."""

from __future__ import annotations

import math
from dataclasses import dataclass

from rightreasons.training.settings import FitSettings


@dataclass(frozen=True)
class Watched:
    """What validation has told so far.

    Attributes:
        best: The best value, ``None`` before there is one.
        epoch: After which epoch it was found, from 1.
        since_best: Epochs since then.
        since_cut: Epochs since then, or since the rate was last cut.
        factor: What the learning rate is multiplied by.
    """

    best: float | None = None
    epoch: int = 0
    since_best: int = 0
    since_cut: int = 0
    factor: float = 1.0

    def seen(self, value: float, epoch: int, settings: FitSettings) -> Watched:
        """What is known after this epoch; any improvement counts, and a value that is not finite is none.

        A plateau is told as Keras tells it: ``schedule_patience`` epochs in a row without an improvement, since the
        best one or the last cut. (torch's ``ReduceLROnPlateau`` waits one more; Keras asks for 1e-4 by default.)
        """
        sign = -1 if settings.monitor == "loss" else 1
        if math.isfinite(value) and (self.best is None or sign * value > sign * self.best):
            return Watched(value, epoch, factor=self.factor)
        cut = settings.schedule == "plateau" and self.since_cut + 1 >= settings.schedule_patience
        return Watched(
            self.best,
            self.epoch,
            since_best=self.since_best + 1,
            since_cut=0 if cut else self.since_cut + 1,
            factor=self.factor * settings.schedule_factor if cut else self.factor,
        )

    def stops(self, settings: FitSettings) -> bool:
        """Whether no further epoch is to be trained."""
        return 0 < settings.patience <= self.since_best


def rate(settings: FitSettings, watched: Watched, step: int, steps: int) -> float:
    """The learning rate of a step.

    ``cosine`` is lr (1 + cos(pi step / steps)) / 2. Source: Loshchilov and Hutter 2017, arXiv:1608.03983, Eq. 5,
    without restarts, towards 0.

    Args:
        settings: Which schedule.
        watched: What ``plateau`` follows from.
        step: Which step, from 0.
        steps: Those of all epochs.
    """
    if settings.schedule == "cosine":
        return settings.lr * (1 + math.cos(math.pi * step / steps)) / 2
    return settings.lr * watched.factor
