"""Take over masks that were drawn elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

EXAMPLES = """
**Examples**

rightreasons masks instances.json --relevant bird --irrelevant watermark --ignore '*'

rightreasons masks label-studio.json --images photos/ --out photos/

rightreasons masks photos/ --out masks.json
"""


def masks(
    source: Annotated[Path, typer.Argument(help="COCO file, Label Studio export (JSON), or folder of PNG masks.")],
    relevant: Annotated[
        list[str] | None, typer.Option(help="Label of what a model should look at; may be given several times.")
    ] = None,
    irrelevant: Annotated[list[str] | None, typer.Option(help="Label of what it should not; several times.")] = None,
    ignore: Annotated[
        list[str] | None, typer.Option(help="Label that says nothing about it; several times. '*': all others.")
    ] = None,
    images: Annotated[
        Path | None, typer.Option(help="Folder with one sub-folder a class; checked that every mask fits an image.")
    ] = None,
    agreement: Annotated[
        Literal["union", "majority"], typer.Option(help="Of several annotators: what any or what most marked.")
    ] = "union",
    out: Annotated[
        Path | None, typer.Option(help="NAME.json for COCO, or a folder for PNG masks; one with images takes them in.")
    ] = None,
) -> None:
    """Read masks that were drawn elsewhere, say what is in them, and write them as COCO or as PNG files."""
    from rightreasons.cli import show
    from rightreasons.data import ImageFolder, read_annotations, with_annotations, write_coco, write_png
    from rightreasons.experiments.run import make_folder

    annotations = read_annotations(
        source, relevant=relevant, irrelevant=irrelevant, ignore=ignore or (), agreement=agreement
    )
    if images is not None:
        # Nothing is read but sizes and names, so images of many sizes need no choice of one.
        annotations = with_annotations(ImageFolder(images, size=1), annotations).named()
    show.table(("", "masks"), [(key, f"{count:,}") for key, count in annotations.counts().items()])
    if out is not None:
        file = out.suffix.lower() == ".json"
        make_folder(out.parent if file else out)
        (write_coco if file else write_png)(annotations, out)
        show.written(out.parent if file else out, out.name if file else "relevant/, irrelevant/")
