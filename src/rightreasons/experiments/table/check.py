"""What is wrong with a plan, told before anything runs."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from functools import partial
from pathlib import Path

import torch

from rightreasons.core import RightReasonsError
from rightreasons.data import DATASETS, ArrayDataset, Degraded, ImageDataset, Rescaled
from rightreasons.experiments.build import build_objective, check_names
from rightreasons.experiments.config import ModelConfig, RunConfig
from rightreasons.experiments.making import called
from rightreasons.experiments.table.plan import TablePlan, slug
from rightreasons.models import MODELS

SIDE = 8


def check(plan: TablePlan) -> None:
    """Refuse what could only fail after hours, or would mix up two rows.

    Raises:
        ValueError: A row names what does not exist, or two rows have one name or one file; the message says which.
    """
    for arm, select in plan.selections.items():
        select.check(plan.arms[arm], arm)
    rows = plan.all_rows()
    _unique(plan)
    for row in rows:
        if not row.control:
            check_run(row.config, row.name)
    for arm, select in plan.selections.items():
        for value, candidate in zip(select.values, select.candidates(plan.arms[arm]), strict=True):
            check_run(candidate, f"{arm}, {select.key} = {value}")
    names = {row.name for row in rows}
    unknown = [value.arm for value in plan.published if value.arm not in names]
    if unknown:
        raise ValueError(
            f"there is a published value for {unknown[0]!r}, which is no arm. There are: {', '.join(sorted(names))}"
        )


def _unique(plan: TablePlan) -> None:
    """Refuse rows that share a name without being the same run, and runs that share a file."""
    keys: dict[str, tuple[str, str]] = {}
    for row in plan.all_rows():
        if keys.setdefault(row.name, row.key) != row.key:
            raise ValueError(f"two rows are called {row.name!r}; rename an arm, or give a vary another label or names")
    _unique_files(entry.name for entry in plan.entries())
    _unique_files(f"{arm} {value}" for arm, select in plan.selections.items() for value in select.values)


def _unique_files(names: Iterable[str]) -> None:
    held: dict[str, str] = {}
    for name in names:
        file = slug(name)
        if not file.strip("."):
            raise ValueError(f"expected letters or digits in the name of a row, got {name!r}")
        if file in held:
            raise ValueError(f"{held[file]!r} and {name!r} would share the file {file}.json; rename one")
        held[file] = name


def check_run(config: RunConfig, told: str) -> None:
    """Refuse names and settings that do not exist; the images themselves are not needed.

    Losses are made as for a run, but of a few invented images, and the network's settings are checked by name.

    Raises:
        ValueError: The message begins with ``told``.
    """
    try:
        check_names(config)
        _check_source(config.data.name)
        _check_model(config.model)
        images = _invented(config)
        if config.data.degrade:
            called(partial(Degraded, images), config.data.degrade, "degrade")
        with torch.random.fork_rng(devices=[]):
            build_objective(config.terms, images)
    except (ValueError, RightReasonsError) as error:
        raise ValueError(f"{told}: {error}") from error


def _check_source(name: str) -> None:
    if name not in DATASETS and len(Path(name).parts) < 2 and not Path(name).is_dir():
        raise ValueError(
            f"no data set and no folder of images is named {name!r}. Data sets: {', '.join(DATASETS)}; a folder has "
            "one sub-folder a class"
        )


def _check_model(config: ModelConfig) -> None:
    """Of a network of ours; the user's own function is not loaded for it."""
    if config.name not in MODELS:
        return
    known = [name for name in inspect.signature(MODELS[config.name]).parameters if name not in ("shape", "classes")]
    unknown = [name for name in config.settings if name not in known]
    if unknown:
        raise ValueError(
            f"model {config.name!r} has no setting {unknown[0]!r}. There are: {', '.join(known) or 'none'}"
        )


def _invented(config: RunConfig) -> ImageDataset:
    """Two black images in the pixel range of the run."""
    data = ArrayDataset(
        torch.zeros(2, 1, SIDE, SIDE, dtype=torch.uint8), torch.arange(2), classes=("a", "b"), name="invented"
    )
    return Rescaled(data, *config.data.pixels)
