"""Whether the variants of a table on a frozen network cost little beside one pass of that network over the data.

    python benchmarks/attention_pass.py attention --threads 2 --out attention_pass.json

The pass fills a cache of its own, so it is a whole one: the images are read, and their features computed and written.
Each variant is then a whole run: the features read, trained on, tested and written down. Wall seconds, one after the
other, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from rightreasons.data.download import default_cache
from rightreasons.experiments import Resources
from rightreasons.experiments.build import build_data
from rightreasons.experiments.config import RunConfig
from rightreasons.experiments.run import train
from rightreasons.experiments.table import read_table

AT_MOST = 1.3


def main(given: Sequence[str] | None = None) -> dict[str, float]:
    asked = arguments(given)
    torch.set_num_threads(asked.threads)
    plan = read_table(asked.table)
    arms = {name: config for name, config in plan.base.items() if config.data == plan.plain.data}
    if not plan.plain.data.features:
        raise SystemExit(f"{plan.name} has no frozen network")
    with TemporaryDirectory() as folder, own_cache(Path(folder)):
        seconds = measured(arms, Path(folder) / "runs")
    whole = seconds.pop("pass")
    found = {"pass": whole, **seconds, "ratio": sum(seconds.values()) / whole}
    for name, value in found.items():
        print(f"{name:<12}{value:>10.2f}")
    ratio = found["ratio"]
    print(f"the {len(seconds)} variants: {ratio:.2f} of the pass ({AT_MOST} asked); with it: {1 + ratio:.2f}")
    if asked.out:
        told = {"table": plan.name, "threads": asked.threads, "seconds": found}
        asked.out.write_text(json.dumps(told, indent=1) + "\n")
    return found


def arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("table")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path)
    return parser.parse_args(given)


@contextmanager
def own_cache(folder: Path) -> Iterator[None]:
    """A cache in a folder, for a while, that has the data sets of the usual one and no features."""
    usual, own, before = default_cache(), folder / "cache", os.environ.get("RIGHTREASONS_CACHE")
    own.mkdir()
    for entry in usual.iterdir() if usual.is_dir() else ():
        if entry.name != "features":
            (own / entry.name).symlink_to(entry.resolve())
    os.environ["RIGHTREASONS_CACHE"] = str(own)
    try:
        yield
    finally:
        os.environ.pop("RIGHTREASONS_CACHE")
        os.environ.update({} if before is None else {"RIGHTREASONS_CACHE": before})


def measured(arms: Mapping[str, RunConfig], out: Path) -> dict[str, float]:
    """Wall seconds of the pass and of each variant."""
    config = next(iter(arms.values()))
    start = time.perf_counter()
    build_data(config.data, seed=config.data_seed)
    found = {"pass": time.perf_counter() - start}
    for number, (name, config) in enumerate(arms.items()):
        start = time.perf_counter()
        train(config, out / str(number), Resources("cpu", progress=False))
        found[name] = time.perf_counter() - start
    return found


if __name__ == "__main__":
    main()
