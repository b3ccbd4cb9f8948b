"""A study over several seeds, one record a run: mean, sample sd and 95 % interval of every arm.

    python benchmarks/study_seeds.py decoy-rrr --seeds 5 --controls

Trains only what ``benchmarks/records/STUDY`` does not hold yet; ``--table`` trains nothing and prints what is there.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from rightreasons.experiments import Record, Resources, read_study
from rightreasons.experiments.config import as_dict
from rightreasons.experiments.run import RECORD, resolved, train
from rightreasons.experiments.study import arms_of
from rightreasons.metrics import mean_sd_interval

RECORDS = Path(__file__).parent / "records"


def main() -> None:
    asked = arguments()
    arms: dict[str, list[Record]] = {}
    for seed in range(asked.seeds):
        study = read_study(asked.study).with_seed(seed)
        for name, config in arms_of(study.run, controls=asked.controls).items():
            path = RECORDS / asked.study / f"seed-{seed}" / f"{name.replace(' ', '-')}.json"
            if not (path.exists() and resolved(Record.read(path)) == as_dict(config)):
                if asked.table:
                    continue
                print(f"seed {seed}, {name} ...", flush=True)
                out = Path("runs") / "seeds" / asked.study / path.parent.name / path.stem
                path.parent.mkdir(parents=True, exist_ok=True)
                train(config, out, Resources("cpu", progress=asked.progress))
                shutil.copyfile(out / RECORD, path)
            arms.setdefault(name, []).append(Record.read(path))
    table(arms)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("study")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--controls", action="store_true", help="the zero, random and wrong masks too")
    parser.add_argument("--table", action="store_true", help="only print what is recorded")
    parser.add_argument("--progress", action="store_true")
    return parser.parse_args()


def table(arms: dict[str, list[Record]]) -> None:
    bound = {r.config["seed"]: r.results["test"]["accuracy"] for r in arms.get("clean bound", [])}
    print(
        f"\n{'test accuracy, %':<14}{'mean':>8}{'sd':>7}{'95 % interval':>18}{'to the bound':>22}{'s':>7}{'seeds':>7}"
    )
    for name, records in arms.items():
        values = {r.config["seed"]: r.results["test"]["accuracy"] for r in records}
        found = mean_sd_interval([100 * v for v in values.values()])
        paired = mean_sd_interval([100 * (v - bound[s]) for s, v in values.items() if s in bound] or [float("nan")])
        seconds = sum(r.seconds for r in records) / len(records)
        print(
            f"{name:<14}{found.mean:>10.2f}{found.sd:>7.2f}   [{found.low:6.2f}, {found.high:6.2f}]"
            f"{paired.mean:>+8.2f} [{paired.low:+6.2f}, {paired.high:+6.2f}]{seconds:>7.0f}{len(values):>7}"
        )


if __name__ == "__main__":
    main()
