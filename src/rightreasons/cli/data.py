"""Look at data."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from rightreasons.cli.options import DATA_NAMES, Annotations, Channels, DataFolder, Decoy, Resize, Seed, Test

EXAMPLES = """
**Examples**

rightreasons data mnist

rightreasons data mnist --decoy decoy/rrr --out sheet.png

rightreasons data photos/ --resize 128
"""


def data(
    name: Annotated[str, typer.Argument(help=f"{DATA_NAMES}, or a folder with one sub-folder a class.")],
    annotations: Annotations = None,
    decoy: Decoy = None,
    test: Test = None,
    resize: Resize = None,
    channels: Channels = None,
    data_folder: DataFolder = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option(help="PNG file for a sheet of some images with their masks.")] = None,
) -> None:
    """Fetch data, check it and say what is in it: splits, classes, masks and a fingerprint."""
    from rightreasons.cli import show
    from rightreasons.cli.settings import changed
    from rightreasons.experiments import DataConfig, build_data, describe
    from rightreasons.experiments.run import make_folder

    config = changed(
        DataConfig(name=name), annotations=annotations, decoy=decoy, test=test, resize=resize, channels=channels
    )
    splits = build_data(config, seed=seed, folder=data_folder)
    rows = {"train": describe(splits.train), "test": describe(splits.test)}
    show.table(("", *rows), [(key, *(row[key] for row in rows.values())) for key in rows["train"]])
    if out is not None:
        from rightreasons.reports import data_sheet

        make_folder(out.parent)
        data_sheet(splits.train).save(out)
        show.written(out.parent, out.name)
