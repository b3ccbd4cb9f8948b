"""The demo."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rightreasons.cli.options import DataFolder, Device, Out, Quiet, Seed

EXAMPLES = """
**Examples**

rightreasons demo

rightreasons demo --controls --seed 1 --out demo-1

rightreasons demo --study fashion-typology

rightreasons demo --study digits        (needs no network at all)
"""


def demo(
    study: Annotated[str, typer.Option(help="decoy-rrr, fashion-typology or digits.")] = "decoy-rrr",
    controls: Annotated[bool, typer.Option("--controls", help="Train the zero, random and wrong masks too.")] = False,
    out: Out = Path("demo"),
    seed: Seed = 0,
    device: Device = "auto",
    data_folder: DataFolder = None,
    quiet: Quiet = False,
) -> None:
    """Catch a real classifier cheating, repair it, and prove the repair: writes OUT/index.html."""
    from rightreasons.cli import show
    from rightreasons.cli.settings import one_process
    from rightreasons.experiments import Resources, demonstrate
    from rightreasons.reports import study_page, write

    one_process("demo")
    resources = Resources(device, data_folder, show.progress(quiet))
    result, note = demonstrate(study, out, seed=seed, controls=controls, resources=resources, say=show.warn)
    page = write(study_page(result, rerun=(show.this_command(),), notes=(note,) if note else ()), out / "index.html")
    show.proof_table(result.proof)
    show.page(page)
