"""Run a published table again, with its controls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from rightreasons.cli.options import DataFolder, Device, Quiet

if TYPE_CHECKING:
    from rightreasons.experiments import Resources
    from rightreasons.experiments.counterfactual import Cell
    from rightreasons.experiments.table import Records, RunsFailed, TablePlan, TableRow

EXAMPLES = """
**Examples**

rightreasons table digits --seeds 3

rightreasons table rrr --only RRR --only plain --records benchmarks/records

rightreasons table typology-mnist --show

rightreasons table my_protocol.toml --no-controls --jobs 2

rightreasons table rrr --show --csv rrr.csv

rightreasons table digits --seeds 2 --page digits.html

rightreasons table counterfactuals --only wachter --only mnist

rightreasons table --list
"""

COUNTERFACTUALS = "counterfactuals"
"""The one table that trains no arms: methods are asked about the same images."""


def table(
    name: Annotated[
        str | None, typer.Argument(help="A table of ours (see --list), such as digits or rrr, or a .toml file.")
    ] = None,
    seeds: Annotated[int | None, typer.Option(help="How many; the protocol's number if not given.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A row to run; may be given several times.")] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Each arm with masks that should not help, too.")
    ] = True,
    show: Annotated[bool, typer.Option("--show", help="Train nothing; print what the records hold.")] = False,
    records: Annotated[
        list[Path] | None, typer.Option(help="Folders with records; the first is written into. [default: records]")
    ] = None,
    list_all: Annotated[bool, typer.Option("--list", help="Print which tables there are, or the rows of one.")] = False,
    jobs: Annotated[int, typer.Option(help="Runs at once, each in a process of its own with one thread.")] = 1,
    csv: Annotated[Path | None, typer.Option(help="Write the table to this file, too, a line a row.")] = None,
    json: Annotated[
        Path | None, typer.Option(help="Write the table to this file, too, with all that it knows.")
    ] = None,
    page: Annotated[
        Path | None, typer.Option(help="Write a page to show to this file, too, with maps where the weights were kept.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder of the runs' weights and checkpoints.")] = Path("runs/tables"),
    device: Device = "auto",
    data_folder: DataFolder = None,
    quiet: Quiet = False,
) -> None:
    """Run what no record holds yet and print the table, with published values, controls and the seeds it stands on.

    Each run is one JSON record, written as soon as it ends. The same command goes on where a killed one stopped.
    """
    from rightreasons.cli import show as terminal
    from rightreasons.cli import show_table
    from rightreasons.cli.settings import one_process
    from rightreasons.cli.show_methods import methods_table
    from rightreasons.experiments import Resources
    from rightreasons.experiments.table import (
        Records,
        settled,
        table_rows,
        write_csv,
        write_json,
    )

    one_process("table")
    resources = Resources(device, data_folder, progress=terminal.progress(quiet), jobs=jobs)
    if name == COUNTERFACTUALS and not list_all:
        _refuse({"--page": page, "--json": json, "--no-controls": not controls, "--jobs": jobs > 1})
        methods_table(_cells(seeds, only), records, csv, None if show else out, resources)
        return
    if list_all:
        _list(name)
        return
    plan, held, failed = _plan(name, seeds), Records(records or [Path("records")]), None
    show_table.unread(held.unread)
    if not show:
        asked = {"seeds": seeds, "controls": controls, "only": only or (), "out": out, "resources": resources}
        failed = _run(plan, held, asked)
    rows = table_rows(plan, held, seeds=seeds)
    if not rows:
        raise failed or ValueError(f"no record of a run of {plan.name} in {held.home}; leave out --show to run it")
    show_table.published_table(plan, rows)
    for path, write in ((csv, write_csv), (json, write_json)):
        if path is not None:
            write(plan, rows, path)
            terminal.written(path.parent, path.name)
    if page is not None:
        _write_page(settled(plan, held), rows, page, out, resources)
    if failed is not None:
        raise failed


def _cells(seeds: int | None, only: Sequence[str] | None) -> tuple[Cell, ...]:
    """Of the table of counterfactual methods; one seed unless more are asked for."""
    from rightreasons.experiments.counterfactual import MethodsProtocol

    if seeds is not None and seeds < 1:
        raise ValueError(f"expected at least one seed, got {seeds}")
    return MethodsProtocol().cells(seeds or 1, only or ())


def _refuse(given: Mapping[str, object]) -> None:
    """Options that the table of counterfactual methods does not have."""
    unfit = [name for name, value in given.items() if value]
    if unfit:
        raise ValueError(f"the table {COUNTERFACTUALS} does not take {', '.join(unfit)}; it takes --csv")


def _list(name: str | None) -> None:
    """All tables, or the rows of one."""
    from rightreasons.cli import show_table
    from rightreasons.cli.show import say
    from rightreasons.experiments.table import read_table, tables

    if name is None:
        show_table.listed([read_table(known) for known in tables()])
        say(f"and {COUNTERFACTUALS}: methods by data set and kind of target, on the same test images")
    elif name == COUNTERFACTUALS:
        for cell in _cells(None, None):
            say(f"{cell.method}, {cell.kind}, {cell.data}")
    else:
        show_table.told(read_table(name))


def _write_page(plan: TablePlan, rows: tuple[TableRow, ...], page: Path, out: Path, resources: Resources) -> None:
    """The table as a page, with the maps of those arms whose weights were kept."""
    from rightreasons.cli import show as terminal
    from rightreasons.experiments.table_views import table_views
    from rightreasons.reports import TablePage, write_table

    views = table_views(plan, rows, out, resources=resources)
    write_table(TablePage(plan, rows, views, rerun=(terminal.this_command(),)), page)
    terminal.written(page.parent, page.name)


def _run(plan: TablePlan, held: Records, asked: Mapping[str, Any]) -> RunsFailed | None:
    """Run what is missing, saying what begins; the failure that some runs came to, as the others still make a table."""
    from rightreasons.cli import show as terminal
    from rightreasons.experiments.run import make_folder
    from rightreasons.experiments.table import RunsFailed, run_table

    make_folder(held.home)
    try:
        # Closed at once on Ctrl-C, so that runs in other processes stop, too.
        with closing(run_table(plan, held, **asked)) as begun:
            for told in begun:
                terminal.say(told)
    except RunsFailed as error:
        return error
    return None


def _plan(name: str | None, seeds: int | None) -> TablePlan:
    """The plan of that name, asked for as many seeds.

    Raises:
        ValueError: No table is named, or no seed is left.
    """
    from rightreasons.experiments.table import read_table, tables

    if name is None:
        raise ValueError(f"expected a table. There are: {', '.join(tables())}; or name a .toml file")
    if seeds is not None and seeds < 1:
        raise ValueError(f"expected at least one seed, got {seeds}")
    return read_table(name)
