"""Work in this process and in others: an error or a death of one leaves the others, Ctrl-C stops all."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch

from rightreasons.experiments.table import processes
from rightreasons.experiments.table.processes import UNGUARDED, Event, Failed, NoProcess, worked


def doubled(folder, task):
    """Work for other processes: what it is told."""
    if task == "error":
        raise ValueError("as asked")
    if task == "death":
        os._exit(3)
    if task == "long":
        (folder / "begun").touch()
        try:
            for _ in range(600):
                time.sleep(0.1)
        except KeyboardInterrupt:
            (folder / "stopped").touch()
            raise
    return f"{task} in {os.getpid()} with {os.environ['OMP_NUM_THREADS']} and {torch.get_num_threads()}"


def test_work_in_this_process_goes_on_after_an_error(tmp_path, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    events = list(worked(["a", "error", "b"], partial(doubled, tmp_path), 1))
    assert [event.task for event in events if event.outcome is None] == ["a", "error", "b"]
    outcomes = [event.outcome for event in events if event.outcome is not None]
    assert outcomes[1] == Failed("as asked")
    assert outcomes[0].startswith(f"a in {os.getpid()} with 7")
    assert Event("a") == events[0]


@pytest.mark.slow
def test_work_in_other_processes_survives_an_error_and_a_death(tmp_path):
    before = dict(os.environ)
    events = list(worked(["a", "error", "death", "b"], partial(doubled, tmp_path), 2))
    assert dict(os.environ) == before
    outcomes = {event.task: event.outcome for event in events if event.outcome is not None}
    assert set(outcomes) == {"a", "error", "death", "b"}
    assert outcomes["error"] == Failed("as asked")
    assert outcomes["death"] == Failed("its process ended with code 3")
    assert outcomes["a"].endswith("with 1 and 1")
    assert f" {os.getpid()} " not in outcomes["a"]


@pytest.mark.slow
def test_ctrl_c_stops_every_process_at_once(tmp_path):
    def press():
        while not (tmp_path / "begun").exists():
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        list(worked(["long", "a", "long"], partial(doubled, tmp_path), 2))
    assert (tmp_path / "stopped").exists()
    assert time.monotonic() - started < 50


ENDED = """
import os, signal, sys, threading, time
from functools import partial
from pathlib import Path
from rightreasons.experiments.table.processes import worked
from tests.experiments.test_table_processes import doubled

def press(folder):
    while not (folder / "begun").exists():
        time.sleep(0.05)
    os.kill(os.getpid(), signal.SIGTERM)

if __name__ == "__main__":
    if "ignored" in sys.argv:  # as behind nohup
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    folder = Path(__file__).parent
    threading.Thread(target=press, args=(folder,), daemon=True).start()
    list(worked(["long", "a", "long"], partial(doubled, folder), 2))
"""


@pytest.mark.slow
@pytest.mark.parametrize("interrupts", ["heard", "ignored"])
def test_a_parent_that_is_ended_leaves_nothing_to_clean_up(tmp_path, interrupts):
    (tmp_path / "script.py").write_text(ENDED)
    # The output ends when the last of the processes has: the tracker of leaked semaphores speaks after them.
    done = subprocess.run(
        [sys.executable, tmp_path / "script.py", interrupts],
        stderr=subprocess.PIPE,
        text=True,
        check=False,
        timeout=120,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert done.returncode == -signal.SIGTERM
    assert (tmp_path / "stopped").exists()
    assert "leaked" not in done.stderr


class Dead:
    """A process that ended at once, before it could be told anything."""

    pid, daemon = 1, True

    def __init__(self, code, *, error=None):
        self.exitcode, self.error = code, error

    def start(self):
        if self.error is not None:
            raise self.error

    def join(self, timeout=None):
        pass

    def is_alive(self):
        return False

    def terminate(self):
        pass


@pytest.mark.parametrize(
    ("code", "error", "told"),
    [
        (1, None, "a process ended with code 1 before it took a run"),
        (UNGUARDED, None, 'cannot work in other processes: .* under if __name__ == "__main__"'),
        (None, OSError("no memory"), "cannot start a process for a run: no memory"),
        (None, BrokenPipeError("broken"), "cannot start a process for a run: broken"),
    ],
)
def test_a_process_that_never_works_is_one_line(monkeypatch, code, error, told):
    context = processes.multiprocessing.get_context("spawn")

    class Context:
        Pipe = context.Pipe

        def Process(self, args, **more):
            args[0].close()
            return Dead(code, error=error)

    monkeypatch.setattr(processes.multiprocessing, "get_context", lambda kind: Context())
    with pytest.raises(NoProcess, match=told):
        list(worked(["a", "b"], str, 2))


def test_a_script_that_is_loaded_by_one_of_our_processes_stops_there(monkeypatch):
    monkeypatch.setattr(processes.multiprocessing.current_process(), "_inheriting", True, raising=False)
    with pytest.raises(SystemExit) as stopped:
        worked(["a"], str, 2)
    assert stopped.value.code == UNGUARDED


@pytest.mark.slow
def test_a_script_without_a_guard_is_told_of_it(tmp_path):
    lines = (
        "from rightreasons.experiments.table.processes import NoProcess, worked",
        "try:",
        "    list(worked(['a', 'b'], str, 2))",
        "except NoProcess as error:",
        "    print(error)",
    )
    (tmp_path / "script.py").write_text("\n".join(lines))
    done = subprocess.run([sys.executable, tmp_path / "script.py"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("cannot work in other processes: a script that asks for several jobs")
    assert "Traceback" not in done.stderr
