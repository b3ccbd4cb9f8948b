"""How every script of a family measures: pairs with a floor, memory, peers, the table and the record.

A script lists its cases and hands them to :func:`main`::

    CASES = [Case("LeNet", 256, "Saliency", heatmap(Saliency()), passes(both=1), at_most=1.05)]
    if __name__ == "__main__":
        main(__doc__, CASES)

Every measurement is paired with its floor, the passes of the network alone that the method cannot do without, run just
before it; the table shows the median of the pairs' CPU-time ratios, so a load on the machine that lasts longer than a
pair cancels. Memory is the growth of the resident set at its peak, during the first call.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib.util
import json
import os
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import torch
from torch import Tensor
from workloads import Run, Workload, workload

from rightreasons.core import Attribution
from rightreasons.models import adapt

Make = Callable[[Workload], Run | None]
"""What to run on a workload; ``None`` where a peer is not installed or cannot."""

SAMPLED = 8
"""Of more equal passes in a floor than these, so many are run and the rest is counted."""


@dataclass(frozen=True)
class Floor:
    """The work that a method cannot do without: runs, and how often each."""

    name: str
    parts: Callable[[Workload], Sequence[tuple[int, Run]]]


def passes(forward: int = 0, both: int = 0) -> Floor:
    """So many forward passes, and so many forward passes with the way back to the images."""
    counts = ((forward, "F"), (both, "FB"))
    name = " + ".join(f"{count} {what}" if count > 1 else what for count, what in counts if count)
    return Floor(name, lambda work: [(forward, work.forward), (both, work.both)])


@dataclass(frozen=True)
class Case:
    """A method on a network, its floor, what was asked of it, and who else has it.

    Attributes:
        network: One of ``workloads.NETWORKS``.
        batch: Images.
        method: Its name in the table.
        ours: Makes our call.
        floor: What it is counted in.
        at_most: The ratio that was asked.
        megabytes: The growth of memory that was asked.
        peers: Makers of the peers' calls, by the peer's name.
        noise: Noise instead of digits for LeNet.
        rounds: Pairs at most, of what takes minutes.
        note: A remark on the workload, such as an agreement, printed and recorded.
    """

    network: str
    batch: int
    method: str
    ours: Make
    floor: Floor
    at_most: float | None = None
    megabytes: float | None = None
    peers: Mapping[str, Make] = field(default_factory=dict)
    noise: bool = False
    rounds: int | None = None
    note: Callable[[Workload], str] | None = None

    @property
    def name(self) -> str:
        """What ``--only`` looks at."""
        return f"{self.network}, {self.batch}: {self.method}"


@dataclass(frozen=True)
class Row:
    """Medians of CPU and wall time over the floor, the quartiles of CPU, memory in MB, and what was asked."""

    workload: str
    method: str
    whose: str
    floor: str
    cpu: float
    low: float
    high: float
    wall: float
    megabytes: float
    asked: float | None = None
    asked_megabytes: float | None = None
    note: str = ""

    def line(self) -> str:
        """The row in columns."""
        quartiles = f"{self.low:.2f}-{self.high:.2f}"
        figures = f"{self.cpu:8.3f}  {quartiles:14}{self.wall:7.2f}{self.megabytes:7.0f}"
        bars = [_judged(self.cpu, self.asked, ""), _judged(self.megabytes, self.asked_megabytes, " MB")]
        remarks = "; ".join(filter(None, [*bars, self.note]))
        return f"{self.workload:16}{self.method:30}{self.whose:18}{self.floor:16}{figures}  {remarks}".rstrip()


HEAD = (
    f"{'network, images':16}{'method':30}{'whose':18}{'floor':16}"
    f"{'CPU':>8}  {'quartiles':14}{'wall':>7}{'MB':>7}  asked"
)


def _judged(found: float, asked: float | None, unit: str) -> str:
    if asked is None:
        return ""
    return f"{asked:g}{unit} " + ("met" if found <= asked else "NOT MET" if found > asked else "not measured")


def heatmap(attribution: Attribution) -> Make:
    """A map of ours, off the graph."""

    def make(work: Workload) -> Run:
        model = adapt(work.network, work.layer)

        def run() -> Tensor:
            with torch.no_grad():
                return attribution(model, work.inputs, work.target)

        return run

    return make


def agreement(other: Attribution, exact: Attribution) -> Callable[[Workload], str]:
    """A note on how well a cheaper map agrees with the exact one."""

    def note(work: Workload) -> str:
        maps = [run() for run in (heatmap(other)(work), heatmap(exact)(work)) if run is not None]
        pair = torch.stack([torch.as_tensor(found).double().flatten() for found in maps])
        return f"correlates {float(torch.corrcoef(pair)[0, 1]):.5f} with the exact map"

    return note


def peer(name: str) -> ModuleType | None:
    """A peer's module, or ``None`` where it is not installed.

    torchvision, which some import and none of these maps needs, is stood in for where it is missing.
    """
    parts = ("", ".models", ".models.resnet", ".models.vgg", ".transforms", ".transforms.functional")
    missing = importlib.util.find_spec("torchvision") is None if "torchvision" not in sys.modules else False
    stand_ins = {f"torchvision{part}": MagicMock() for part in parts} if missing else {}
    sys.modules.update(stand_ins)
    try:
        return importlib.import_module(name)
    except ImportError:
        return None
    finally:
        for part in stand_ins:
            del sys.modules[part]


def measure(case: Case, work: Workload, whose: str, run: Run, rounds: int) -> Row:
    """Pairs of the floor and the call."""
    grown = memory(run)  # Warms up as well.
    parts = [(count, part) for count, part in case.floor.parts(work) if count]
    pairs = []
    for _ in range(rounds):
        below = _sum([_timed_often(count, part) for count, part in parts])
        above = timed(run)
        pairs.append((above[0] / below[0], above[1] / below[1]))
    ratios = [cpu for cpu, _ in pairs]
    low, middle, high = statistics.quantiles(ratios * 2 if rounds == 1 else ratios, n=4, method="inclusive")
    wall = statistics.median(wall for _, wall in pairs)
    ours = whose == "ours"
    asked = (case.at_most, case.megabytes) if ours else (None, None)
    note = case.note(work) if ours and case.note else ""
    return Row(work.name, case.method, whose, case.floor.name, middle, low, high, wall, grown, *asked, note)


def timed(run: Run) -> tuple[float, float]:
    """CPU and wall seconds."""
    cpu, wall = time.process_time(), time.perf_counter()
    run()
    return time.process_time() - cpu, time.perf_counter() - wall


def _timed_often(count: int, run: Run) -> tuple[float, float]:
    taken = _sum([timed(run) for _ in range(min(count, SAMPLED))])
    more = count / min(count, SAMPLED)
    return taken[0] * more, taken[1] * more


def _sum(times: Sequence[tuple[float, float]]) -> tuple[float, float]:
    return sum(cpu for cpu, _ in times), sum(wall for _, wall in times)


def memory(run: Run) -> float:
    """MB by which the resident set grows at its peak; NaN where the system does not tell."""
    reset = Path("/proc/self/clear_refs")
    if not os.access(reset, os.W_OK):
        run()
        return float("nan")
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    reset.write_text("5")
    before = resident("VmRSS")
    run()
    return resident("VmHWM") - before


def resident(entry: str) -> float:
    """MB of resident memory: ``VmRSS`` now, ``VmHWM`` at its peak."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(entry):
            return int(line.split()[1]) / 1024
    return float("nan")


def rows_of(case: Case, asked: argparse.Namespace) -> list[Row]:
    """Ours and the peers' on the case's workload, printed as they come."""
    work = workload(case.network, min(case.batch, asked.batch or case.batch), noise=case.noise)
    makers = {"ours": case.ours, **({} if asked.no_peers else case.peers)}
    rows = []
    for whose, make in makers.items():
        run = make(work)
        if run is not None:
            rows.append(measure(case, work, whose, run, min(asked.rounds, case.rounds or asked.rounds)))
            print(rows[-1].line(), flush=True)
    return rows


def arguments(description: str, given: Sequence[str] | None) -> argparse.Namespace:
    """The options that all scripts share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5, help="measured pairs a method")
    parser.add_argument("--threads", type=int, default=1, help="CPU threads")
    parser.add_argument("--only", nargs="*", default=[], help="cases whose name holds each of these words")
    parser.add_argument("--batch", type=int, help="at most so many images, for a quick look")
    parser.add_argument("--no-peers", action="store_true", help="ours alone")
    parser.add_argument("--out", type=Path, help="a JSON file for the figures")
    asked = parser.parse_args(given)
    if asked.rounds < 1:
        parser.error(f"expected at least 1 round, got {asked.rounds}")
    return asked


def main(description: str | None, cases: Sequence[Case], given: Sequence[str] | None = None) -> list[Row]:
    """Measure what was asked for, print it, and write what was printed."""
    asked = arguments(description or "", given)
    torch.set_num_threads(asked.threads)
    setting = {"device": processor(), "torch": torch.__version__, "threads": asked.threads, "rounds": asked.rounds}
    print(", ".join(f"{name} {value}" for name, value in setting.items()))
    print(HEAD)
    rows: list[Row] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # The peers have many.
        for case in cases:
            if all(word.lower() in case.name.lower() for word in asked.only):
                rows += rows_of(case, asked)
    if asked.out:
        content = {"setting": setting, "rows": [asdict(row) for row in rows]}
        asked.out.write_text(json.dumps(content, indent=2) + "\n")
    return rows


def processor() -> str:
    """The CPU's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
