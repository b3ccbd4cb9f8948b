"""Several pieces of work at once, each in a process of its own, so that none waits for another's lock or threads."""

from __future__ import annotations

import _thread
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Generic, TypeVar

from rightreasons.core import RightReasonsError

T = TypeVar("T")
R = TypeVar("R")

ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "GOMP_SPINCOUNT": "0"}
UNGUARDED = 87
"""Exit code of a process that came to start processes itself while it was loading the caller's script."""
GUARD = 'a script that asks for several jobs must be a file, and do so under if __name__ == "__main__"'
READY = b"ready"
PATIENCE = 20.0
"""Seconds that an interrupted process has to write its checkpoint."""


class NoProcess(RightReasonsError, RuntimeError):
    """A process that was to do work could not be started, or ended before it could take any; others would, too."""


@dataclass(frozen=True)
class Failed:
    """A piece of work that ended in an error.

    Attributes:
        reason: The message.
        no_data: Its data cannot be had, so that the others would fail alike.
    """

    reason: str
    no_data: bool = False


@dataclass(frozen=True)
class Event(Generic[T, R]):
    """What happens to a task.

    Attributes:
        task: Which.
        outcome: What came out; ``None`` when it begins.
    """

    task: T
    outcome: R | Failed | None = None


def worked(tasks: Sequence[T], work: Callable[[T], R], jobs: int) -> Generator[Event[T, R], None, None]:
    """Work the tasks off, ``jobs`` at a time; an error of one is its outcome, and the others go on.

    One at a time runs in this very process. Several run in processes that are started anew (``spawn``) with one thread
    each; ``work`` and the tasks must be picklable. Ctrl-C, or closing the iterator, interrupts all of them and waits
    until they have stopped.

    Raises:
        NoProcess: A process cannot be started, or ends before it begins to work.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # The caller's script is being loaded in one of our own processes: its parent tells why that went wrong.
        raise SystemExit(UNGUARDED)
    return _in_turn(tasks, work) if jobs == 1 else _at_once(tasks, work, jobs)


def _in_turn(tasks: Sequence[T], work: Callable[[T], R]) -> Generator[Event[T, R], None, None]:
    for task in tasks:
        yield Event(task)
        outcome: R | Failed
        try:
            outcome = work(task)
        except Exception as error:
            outcome = _failed(error)
        yield Event(task, outcome)


def _at_once(tasks: Sequence[T], work: Callable[[T], R], jobs: int) -> Generator[Event[T, R], None, None]:
    waiting = deque(tasks)
    workers: list[_Worker[T, R]] = []
    with _one_thread():
        try:
            while waiting or any(worker.busy for worker in workers):
                while waiting and len(workers) < jobs:
                    workers.append(_Worker(work))
                for worker in workers:
                    if waiting and not worker.busy:
                        yield Event(worker.begin(waiting.popleft()))
                for worker in _ready(workers):
                    task, outcome = worker.end()
                    if not worker.alive:
                        workers.remove(worker)
                    yield Event(task, outcome)
        finally:
            for worker in workers:
                worker.interrupt()
            for worker in workers:
                worker.stop()


@contextmanager
def _one_thread() -> Iterator[None]:
    """The environment that processes started inside inherit: libraries read it when they are loaded."""
    before = {name: os.environ.get(name) for name in ONE_THREAD}
    os.environ.update(ONE_THREAD)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class _Worker(Generic[T, R]):
    """A process that works one task after the other."""

    def __init__(self, work: Callable[[T], R]) -> None:
        context = multiprocessing.get_context("spawn")
        self.pipe, other = context.Pipe()
        # No event of multiprocessing: its semaphores would outlive a parent that is killed.
        self._told, serving = context.Pipe(duplex=False)
        self._serving = False
        self.process = context.Process(target=_serve, args=(other, serving, work), daemon=True)
        try:
            self.process.start()
        except (OSError, EOFError) as error:
            raise NoProcess(f"cannot start a process for a run: {error}; take fewer jobs, or --jobs 1") from error
        other.close()
        serving.close()
        self.task: T | None = None
        self.busy = False
        self.alive = True

    @property
    def serving(self) -> bool:
        """Whether it has said that it is ready to work; one that died before has not."""
        with suppress(EOFError, OSError):
            self._serving = self._serving or (self._told.poll() and self._told.recv_bytes() == READY)
        return self._serving

    def begin(self, task: T) -> T:
        """Hand a task over; where the process has died, ``end`` will tell."""
        self.task, self.busy = task, True
        with suppress(OSError):
            self.pipe.send(task)
        return task

    def end(self) -> tuple[T, R | Failed]:
        """The outcome of its task; where the process has died, that.

        Raises:
            NoProcess: It had not even begun to work.
        """
        task, self.busy = self.task, False
        try:
            outcome: R | Failed = self.pipe.recv()
        except (EOFError, OSError) as error:
            self.process.join()
            self.alive = False
            code = self.process.exitcode
            if code == UNGUARDED:
                raise NoProcess(f"cannot work in other processes: {GUARD}") from error
            if not self.serving:
                raise NoProcess(f"a process ended with code {code} before it took a run; {GUARD}") from error
            outcome = Failed(f"its process ended with code {self.process.exitcode}")
        return task, outcome  # type: ignore[return-value]

    def interrupt(self) -> None:
        """Ask it to stop, as Ctrl-C would: a run leaves a checkpoint."""
        self.pipe.close()
        if not self.serving:
            # It is still importing, and has nothing to keep.
            self.process.terminate()
        elif self.busy and self.process.is_alive() and self.process.pid is not None:
            os.kill(self.process.pid, signal.SIGINT)

    def stop(self) -> None:
        """Wait until it has stopped, and no longer than is patient."""
        self.process.join(PATIENCE if self.busy else 2.0)
        if self.process.is_alive():
            self.process.terminate()
            self.process.join()


def _ready(workers: Sequence[_Worker[T, R]]) -> list[_Worker[T, R]]:
    """Those that have something to say, as soon as there is one."""
    busy = {worker.pipe: worker for worker in workers if worker.busy}
    return [busy[pipe] for pipe in wait(list(busy)) if isinstance(pipe, Connection)]


def _serve(pipe: Connection, serving: Connection, work: Callable[[T], R]) -> None:
    """What runs in the process; it ends when the other end of the pipe is closed, or its parent dies."""
    if hasattr(os, "setpgrp"):
        # Ctrl-C in the terminal reaches the parent alone, which then stops each of us once: a second would cost the
        # checkpoint.
        os.setpgrp()
    # Behind nohup or & it is ignored, and then the parent's word, or its end, would not stop us.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_leave_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(1)
    try:
        serving.send_bytes(READY)
        while True:
            pipe.send(_outcome(pipe.recv(), work))
    except (EOFError, KeyboardInterrupt, BrokenPipeError):
        return


def _leave_with_parent() -> None:
    """Interrupt this process, as Ctrl-C would, when its parent has ended without a word."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        _thread.interrupt_main()


def _outcome(task: T, work: Callable[[T], R]) -> R | Failed:
    try:
        return work(task)
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> Failed:
    """The message in one line, with its kind where it is none of ours."""
    from rightreasons.core import DataUnavailable, RightReasonsError

    told = " ".join(str(error).split())
    expected = isinstance(error, RightReasonsError | ValueError | OSError) and bool(told)
    return Failed(told if expected else f"{type(error).__name__}: {told}", isinstance(error, DataUnavailable))
