"""See what lies inside a classifier."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rightreasons.cli.options import Channels, Data, DataFolder, Decoy, Device, Model, Out, Resize, Seed, Weights

if TYPE_CHECKING:
    from rightreasons.experiments import Subject
    from rightreasons.reports import InsidePage

EXAMPLES = """
**Examples**

rightreasons features runs/plain --list

rightreasons features runs/plain --layer conv1 --layer conv2 --index 3 --index 17 --out inside

rightreasons features runs/plain --image photo.png --image more/ --maps 48 --scale map

rightreasons features --model my_net.py:build --weights mine.pt --data photos/ --images 6 --query 10,20
"""


def features(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run; or give --model and --weights.")] = None,
    layer: Annotated[
        list[str] | None,
        typer.Option(help="Layer whose maps are shown; several times. Unless given, convolutions spread over depth."),
    ] = None,
    list_layers: Annotated[
        bool, typer.Option("--list", help="Print the layers with what they give for an image, and write nothing.")
    ] = False,
    images: Annotated[int, typer.Option(help="How many images are drawn at random, where none are named.")] = 4,
    image: Annotated[
        list[Path] | None, typer.Option(help="A picture of your own, or a folder of them; several times.")
    ] = None,
    index: Annotated[list[int] | None, typer.Option(help="Position of an image in the data; several times.")] = None,
    maps: Annotated[int, typer.Option(help="Maps of a layer that are drawn, the most active first.")] = 24,
    scale: Annotated[
        Literal["layer", "map"], typer.Option(help="One scale of colors for a layer, or one for each map.")
    ] = "layer",
    query: Annotated[
        list[str] | None,
        typer.Option(
            help="Pixel, as column,row, whose place asks a position attention block; several times. Unless given, "
            "the middle."
        ),
    ] = None,
    data: Data = None,
    decoy: Decoy = None,
    resize: Resize = None,
    channels: Channels = None,
    model: Model = None,
    weights: Weights = None,
    out: Out = Path("features"),
    seed: Seed = 0,
    device: Device = "auto",
    data_folder: DataFolder = None,
) -> None:
    """Show the feature maps of layers, and what attention blocks weigh by.

    Writes OUT/index.html with all of it, OUT/features.json with the numbers, the raw maps in OUT/features.safetensors,
    and the pictures in OUT/images/.
    """
    from rightreasons.cli import show
    from rightreasons.cli.pictures import picture_names, squashed
    from rightreasons.cli.settings import changed, data_config, one_process
    from rightreasons.experiments import FeatureSettings, ModelConfig, Question, Resources, look_inside, open_subject
    from rightreasons.reports import write_inside

    one_process("features")
    if run is not None and run.is_dir() and (model or weights):
        raise ValueError(f"{run} is a run and has its own network: leave out --model and --weights, or the run")
    settings = FeatureSettings(
        layers=tuple(layer or ()),
        images=images,
        index=tuple(index or ()),
        pictures=picture_names(image or ()),
        maps=maps,
        scale=scale,
        queries=tuple(map(_pixel, query or ())),
        seed=seed,
    )
    network = changed(ModelConfig(), name=model, weights=weights and str(weights))
    question = Question(data_config(data, decoy=decoy, resize=resize, channels=channels), network, "", seed)
    subject = open_subject(run, question, Resources(device, data_folder))
    if list_layers:
        _list(subject, device)
        return
    squashed(image or (), subject.data.shape)
    _tell(write_inside(look_inside(subject, settings, out, device=device), out, rerun=show.this_command()))
    show.written(out, "index.html", "features.json", "features.safetensors", "images/")


def _pixel(text: str) -> tuple[int, int]:
    """A column and a row.

    Raises:
        ValueError: No two numbers.
    """
    parts = text.split(",")
    if len(parts) != 2 or not all(part.strip().isdecimal() for part in parts):
        raise ValueError(f"expected --query column,row, as 10,20, got {text!r}")
    return int(parts[0]), int(parts[1])


def _list(subject: Subject, device: str) -> None:
    """All layers that run; those that have no maps say what they give instead."""
    from rightreasons.cli import show
    from rightreasons.experiments import offered

    found = offered(subject, device)
    rows = [(output.name, output.kind, output.told, "yes" if usual else "") for output, usual in found]
    show.table(("layer", "class", "gives for an image", "shown unless named"), rows)
    show.note("a layer can be shown if it gives maps, channels x height x width")


def _tell(page: InsidePage) -> None:
    """A line a layer, then a line an attention block."""
    from rightreasons.cli import show

    rows = []
    for row in page.rows:
        width, height = row.size
        size = f"{row.channels:,} x {height} x {width}"
        rows.append((row.layer.name, size, f"{len(row.shown):,}", f"{row.dead:,}", row.never_positive))
    show.table(("layer", "maps", "shown", "dead", "below zero"), rows)
    for block, does in page.kinds:
        show.say(f"{block.attention.kind} {block.name}: {does[:1].lower()}{does[1:]}")
