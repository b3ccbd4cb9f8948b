"""Run a published table again, with its controls."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rightreasons.cli.options import DataFolder, Device, Quiet

EXAMPLES = """
**Examples**

rightreasons table digits --seeds 3

rightreasons table rrr --only RRR --only plain --records benchmarks/records

rightreasons table typology-mnist --show

rightreasons table my_protocol.toml --no-controls
"""


def table(
    name: Annotated[
        str, typer.Argument(help="digits, rrr, cdep-decoy, typology-mnist, typology-fashion or a .toml file.")
    ],
    seeds: Annotated[int | None, typer.Option(help="How many; the protocol's number if not given.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="A row to run; may be given several times.")] = None,
    controls: Annotated[
        bool, typer.Option("--controls/--no-controls", help="Each arm with masks that should not help, too.")
    ] = True,
    show: Annotated[bool, typer.Option("--show", help="Train nothing; print what the records hold.")] = False,
    records: Annotated[
        list[Path] | None, typer.Option(help="Folders with records; the first is written into. [default: records]")
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
    from rightreasons.cli.settings import one_process
    from rightreasons.experiments import Resources
    from rightreasons.experiments.run import make_folder
    from rightreasons.experiments.table import Records, read_table, run_table, table_rows

    one_process("table")
    if seeds is not None and seeds < 1:
        raise ValueError(f"expected at least one seed, got {seeds}")
    plan = read_table(name)
    held = Records(records or [Path("records")])
    if not show:
        make_folder(held.home)
        resources = Resources(device, data_folder, progress=terminal.progress(quiet))
        begun = run_table(plan, held, seeds=seeds, controls=controls, only=only or (), out=out, resources=resources)
        for told in begun:
            terminal.say(told)
    rows = table_rows(plan, held, seeds=seeds)
    if not rows:
        raise ValueError(f"no record of a run of {plan.name} in {held.home}; leave out --show to run it")
    terminal.published_table(plan, rows)
