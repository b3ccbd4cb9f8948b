"""What watches a run: means of the loss's parts, the check that they are finite, the bar, and Ctrl-C."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from rightreasons.core import TrainingDiverged


class Meter:
    """Means of named parts over an epoch, each step weighted by the images that the part is a mean of.

    Reading a number from an accelerator waits for it, so numbers are read every few steps; each step's are kept until
    then, and a part that is not finite is still found at its own step. The epoch's time is kept as well.

    Args:
        epoch: Which epoch, from 1, for messages.
        every: How many steps to wait before numbers are read.
        state: What :meth:`state` gave in the part of the epoch before an interruption.
    """

    def __init__(self, epoch: int, every: int, state: Mapping[str, Any] | None = None) -> None:
        self._epoch = epoch
        self._every = every
        self._sums: dict[str, float] = dict(state["sums"]) if state else {}
        self._images: dict[str, int] = dict(state["images"]) if state else {}
        self._waiting: list[tuple[int, dict[str, int], list[Tensor]]] = []
        self._names: tuple[str, ...] = ()
        self._before: dict[str, float] = dict(state.get("times", {})) if state else {}
        self._since = time.perf_counter(), time.process_time()
        self.latest: dict[str, float] = {}

    def add(self, parts: Mapping[str, Tensor], *, images: Mapping[str, int], step: int) -> None:
        """Take in the parts of one step.

        Args:
            parts: Their values.
            images: How many images each part is a mean of; for a term, the annotated ones.
            step: Which step, from 1, for messages.

        Raises:
            TrainingDiverged: A part is not finite.
        """
        self._names = tuple(parts)
        self._waiting.append((step, dict(images), [value.detach() for value in parts.values()]))
        if len(self._waiting) >= self._every:
            self.read()

    def read(self) -> None:
        """Read the numbers that wait.

        Raises:
            TrainingDiverged: A part is not finite.
        """
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        values = torch.stack([value for _, _, row in waiting for value in row]).view(len(waiting), -1).tolist()
        for (step, images, _), row in zip(waiting, values, strict=True):
            self.latest = dict(zip(self._names, row, strict=True))
            self._refuse_not_finite(step)
            for name, value in self.latest.items():
                self._sums[name] = self._sums.get(name, 0.0) + images[name] * value
                self._images[name] = self._images.get(name, 0) + images[name]

    def _refuse_not_finite(self, step: int) -> None:
        bad = [name for name, value in self.latest.items() if not math.isfinite(value)]
        if bad:
            # The total is named last: where a part is at fault, the part is the news.
            name = sorted(bad, key=lambda part: part == "loss")[0]
            raise TrainingDiverged(
                f"{name} is {self.latest[name]} at step {step} (epoch {self._epoch}). "
                "Try a lower learning rate or a lower weight of the explanation loss"
            )

    def means(self, total: Callable[[list[float]], list[float]] = list) -> dict[str, float]:
        """The mean of each part so far; 0 for one that no image has counted in.

        Args:
            total: Adds a list of numbers up, place by place, over all processes.
        """
        self.read()
        names = list(self._sums)
        found = total([*(self._sums[name] for name in names), *(float(self._images[name]) for name in names)])
        sums, images = found[: len(names)], found[len(names) :]
        return {name: value / max(count, 1.0) for name, value, count in zip(names, sums, images, strict=True)}

    def share(self, names: Iterable[str], total: Callable[[list[float]], list[float]] = list) -> dict[str, float]:
        """How many images these parts are means of, as a share of those of the loss, where it is not all of them.

        A term counts annotated images alone, and where a step holds few of them it says little. The smallest share of
        all parts; ``total`` as in :meth:`means`.
        """
        every, *found = total([float(self._images.get(name, 0)) for name in ("loss", *names)])
        return {"annotated_share": min(found) / every} if found and min(found) < every else {}

    def state(self) -> dict[str, Any]:
        """What a checkpoint inside an epoch must hold."""
        self.read()
        return {"sums": self._sums, "images": self._images, "times": self.times()}

    def times(self) -> dict[str, float]:
        """``seconds`` of this epoch and ``cpu_seconds`` of this process, those before an interruption included."""
        gone = (now - since for now, since in zip((time.perf_counter(), time.process_time()), self._since, strict=True))
        return {
            name: self._before.get(name, 0.0) + own for name, own in zip(("seconds", "cpu_seconds"), gone, strict=True)
        }


class Bar:
    """A progress bar over the steps of a run, with epoch, parts and rate; silent when not shown."""

    def __init__(self, *, epochs: int, total: int, done: int, shown: bool) -> None:
        self._epochs = epochs
        self._bar = tqdm(total=total, initial=done, unit="step", disable=not shown, dynamic_ncols=True)

    def epoch(self, number: int) -> None:
        """Say which epoch runs, from 1."""
        self._bar.set_description(f"epoch {number}/{self._epochs}", refresh=False)

    def step(self, parts: Mapping[str, float]) -> None:
        """One step further; the parts are written only when the bar is drawn anyway."""
        if self._bar.update():
            self._bar.set_postfix({name: f"{value:.3g}" for name, value in parts.items()}, refresh=False)

    def close(self) -> None:
        """Leave the last line standing."""
        self._bar.close()


def can_defer() -> bool:
    """Whether Ctrl-C is Python's own and arrives in this thread, so that it may be put off."""
    return (
        threading.current_thread() is threading.main_thread()
        and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    )


@contextmanager
def deferred_interrupt(active: bool) -> Iterator[Callable[[], None]]:
    """Put Ctrl-C off until the function that is handed out is called, or the block ends; a second one acts at once.

    Raises:
        KeyboardInterrupt: There, not in the middle of an update.
    """
    pressed = False

    def note(number: int, frame: FrameType | None) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def check() -> None:
        if pressed:
            raise KeyboardInterrupt

    if not active:
        yield check
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    check()
