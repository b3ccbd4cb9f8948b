"""Running what no record holds yet."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from rightreasons.core import CorruptData, DataUnavailable, RightReasonsError, TrainingDiverged
from rightreasons.experiments.build import build_data, build_test
from rightreasons.experiments.config import DataConfig, RunConfig, as_dict
from rightreasons.experiments.record import Record, environment, make_record
from rightreasons.experiments.run import RECORD, WEIGHTS, Resources, device_name, resolved, train
from rightreasons.experiments.select import Select, try_candidate
from rightreasons.experiments.table.assess import UNSEEN, assessment
from rightreasons.experiments.table.plan import TablePlan, identity, slug
from rightreasons.experiments.table.processes import Event, Failed, worked
from rightreasons.experiments.table.records import DIVERGED, Records, assessed
from rightreasons.experiments.table.rows import settled


class RunsFailed(RightReasonsError):
    """Some runs of a table ended in an error; the others are done.

    Attributes:
        reasons: The message of each, by the run's name.
    """

    def __init__(self, reasons: Mapping[str, str], runs: int) -> None:
        self.reasons = dict(reasons)
        name, reason = next(iter(self.reasons.items()))
        others = "" if len(self.reasons) == 1 else "the first, "
        super().__init__(f"{len(self.reasons)} of {runs} runs failed: {others}{name}: {reason}")


@dataclass(frozen=True)
class Task:
    """A run to do.

    Attributes:
        name: What it is called when it begins.
        place: Its path under the folders of records and of runs.
        config: What is run.
        select: Set for a candidate of a choice.
        unseen: The explainer that no arm of the table is trained through.
    """

    name: str
    place: str
    config: RunConfig
    select: Select | None = None
    unseen: str = next(iter(UNSEEN))


def run_table(
    plan: TablePlan,
    records: Records,
    *,
    seeds: int | None = None,
    controls: bool = True,
    only: Sequence[str] = (),
    out: Path = Path("runs"),
    resources: Resources = Resources(),
) -> Generator[str, None, None]:
    """Run what no record holds yet: first the choices, then seed by seed, so that every row stands on as many.

    Yields what it begins, and the error of a run that failed. A run is written down as soon as it ends; a killed one
    goes on from its last epoch. ``resources.jobs`` run at once. One that diverges is written down, too, and not run
    again. A record without an assessment gets one where the run's weights are in ``out``, which is said otherwise.

    Args:
        plan: The table.
        records: What has been run.
        seeds: How many; ``None`` takes the protocol's number.
        controls: Run the arms' controls too.
        only: Rows to run; all where none is named.
        out: Folder of the runs' weights and checkpoints.
        resources: Where to run.

    Raises:
        ValueError: There is no row of that name; or a record was tested on other images than there are now.
        DataUnavailable: No run can have its images.
        RunsFailed: At the end, where some runs failed; the others are done.
    """
    wanted = _rows_wanted(plan, only, controls=controls)
    asked_of = partial(_asked, seeds=range(plan.seeds if seeds is None else seeds), wanted=wanted, controls=controls)
    yield from _same_images(_held(asked_of(settled(plan, records)), records), records, resources)
    searches = list(_searches(plan, records, wanted))
    failed: dict[str, str] = {}
    yield from _run(searches, records, out, resources, failed)
    asked = list(asked_of(settled(plan, records)))
    held = _held(asked, records)
    kept = yield from _to_assess(held, records, out)
    runs = [task for task in asked if task not in held and records.diverged(task.config) is None]
    yield from _run([*kept, *runs], records, out, resources, failed)
    if failed:
        raise RunsFailed(failed, len(searches) + len(kept) + len(runs))


def _rows_wanted(plan: TablePlan, only: Sequence[str], *, controls: bool) -> list[str]:
    """The names of the rows to run, aliases as that which they stand for; none for all."""
    names = list(plan.runs(0, controls=controls)) + list(plan.aliases)
    unknown = [name for name in only if name not in names]
    if unknown:
        raise ValueError(f"no row {unknown[0]!r} in {plan.name}. There are: {', '.join(names)}")
    return [plan.aliases.get(name, name) for name in only]


def _held(tasks: Iterable[Task], records: Records) -> list[Task]:
    """Those that have a record."""
    return [task for task in tasks if records.of(task.config) is not None]


def _to_assess(held: Sequence[Task], records: Records, out: Path) -> Generator[str, None, list[Task]]:
    """The tasks whose records lack an assessment that their weights can still give; says how many cannot."""
    bare = [task for task in held if not assessed(_record(task, records))]
    kept = [replace(task, name=f"{task.name}, assessment") for task in bare if _weights_kept(task, records, out)]
    if len(kept) < len(bare):
        yield (
            f"not assessed: {len(bare) - len(kept)} records hold no assessment, and the weights of their runs are not "
            f"in {out}; their columns stay blank"
        )
    return kept


def _record(task: Task, records: Records) -> Record:
    """The record of a task that has one."""
    record = records.of(task.config)
    if record is None:
        raise ValueError(f"expected a record of {task.name}, found none")
    return record


def _run(
    tasks: Sequence[Task], records: Records, out: Path, resources: Resources, failed: dict[str, str]
) -> Iterator[str]:
    """Do the tasks and write each down; the failed ones are added to ``failed``."""
    work = partial(
        carry_out, out=out, resources=replace(resources, progress=resources.progress and resources.jobs == 1)
    )
    with closing(worked(tasks, work, min(resources.jobs, max(len(tasks), 1)))) as events:
        yield from _written(events, records, failed)


def _written(events: Iterator[Event[Task, Record]], records: Records, failed: dict[str, str]) -> Iterator[str]:
    for event in events:
        if event.outcome is None:
            yield event.task.name
        elif isinstance(event.outcome, Failed):
            if event.outcome.no_data:
                raise DataUnavailable(event.outcome.reason)
            failed[event.task.name] = event.outcome.reason
            yield f"failed: {event.task.name}: {event.outcome.reason}"
        else:
            records.add(event.outcome, event.task.place)
            if event.outcome.kind == DIVERGED:
                yield f"diverged: {event.task.name}: {event.outcome.results['message']}"


def carry_out(task: Task, *, out: Path, resources: Resources) -> Record:
    """Do a task: a candidate is trained and judged, a run trained, tested and assessed, or told to have diverged."""
    if task.select is not None:
        return try_candidate(task.config, task.select, out / task.place, resources)
    try:
        run = train(task.config, out / task.place, resources)
    except TrainingDiverged as error:
        found = {"message": str(error), "seed": task.config.seed}
        return make_record(DIVERGED, as_dict(task.config), found, environment=environment(device_name(resources)))
    splits = run.splits or build_data(task.config.data, seed=task.config.data_seed, folder=resources.folder)
    found = assessment(run.model, splits, task.config, unseen=task.unseen)
    return replace(run.record, results={**run.record.results, "assessment": found})


def _searches(plan: TablePlan, records: Records, wanted: Sequence[str]) -> Iterator[Task]:
    """The candidates that are still to be tried for the rows that are wanted."""
    arms = {entry.arm for entry in plan.entries() if not wanted or entry.name in wanted}
    for arm, select in plan.selections.items():
        for value, config in zip(select.values, select.candidates(plan.arms[arm]), strict=True):
            if arm in arms and records.search(select.described(config)) is None:
                name = f"{plan.name}, choosing {select.key} of {arm}, {value}"
                yield Task(name, f"{plan.name}/choice/{slug(f'{arm} {value}')}", config, select)


def _asked(plan: TablePlan, seeds: Sequence[int], wanted: Sequence[str], *, controls: bool) -> Iterator[Task]:
    """The runs that are asked for, done or not, seed by seed; one that stands in two rows comes once."""
    unseen = unseen_explainer(plan)
    begun: set[str] = set()
    for seed in seeds:
        for name, config in plan.runs(seed, controls=controls).items():
            key = identity(as_dict(config))
            if (wanted and name not in wanted) or key in begun:
                continue
            begun.add(key)
            place = f"{plan.name}/seed-{seed}/{slug(name)}"
            yield Task(f"{plan.name}, seed {seed}, {name}", place, config, unseen=unseen)


def _weights_kept(task: Task, records: Records, out: Path) -> bool:
    """Whether the folder of the run has the weights that its record is of."""
    folder = out / task.place
    if not ((folder / RECORD).is_file() and (folder / WEIGHTS).is_file()):
        return False
    try:
        own = Record.read(folder / RECORD)
        same_run = resolved(own) == as_dict(task.config)
    except CorruptData:
        return False
    return same_run and own.results.get("test") == _record(task, records).results.get("test")


def _same_images(held: Sequence[Task], records: Records, resources: Resources) -> Iterator[str]:
    """Compare the test images that the records are of with those that there are now, by samples.

    Images that went through a frozen network are left out: its features differ in their last digits by machine.

    Raises:
        ValueError: They differ.
    """
    now: dict[str, str] = {}
    differing = []
    for task in held:
        told, data, seed = (
            _record(task, records).results.get("test_fingerprint"),
            task.config.data,
            task.config.data_seed,
        )
        if told is None or data.features:
            continue
        key = f"{seed} {identity(as_dict(_tested(data)))}"
        try:
            if key not in now:
                now[key] = build_test(data, seed=seed, folder=resources.folder).sampled_fingerprint()
        except DataUnavailable as error:
            yield f"not compared with the test images of the records: {error}"
            return
        differing += [task.name] if told != now[key] else []
    if differing:
        raise ValueError(
            f"{len(differing)} of {len(held)} records were tested on other images than there are now (the first is "
            f"{differing[0]}), so they cannot stand in one table with new ones; remove them, or name other --records"
        )


def _tested(config: DataConfig) -> DataConfig:
    """What decides the test images, the rest as by default."""
    return replace(config, validation=0.0, annotated=1.0, masks="true", degrade={}, images=0)


def unseen_explainer(plan: TablePlan) -> str:
    """The first of the explainers kept for assessment that no arm is trained through.

    Raises:
        ValueError: Every one is used by an arm.
    """
    used = {term.attribution for arm in plan.arms.values() for term in arm.terms.values()}
    free = [name for name in UNSEEN if name not in used]
    if not free:
        raise ValueError(f"expected one of {', '.join(UNSEEN)} to be used by no arm of {plan.name}")
    return free[0]
