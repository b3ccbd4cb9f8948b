"""See what a classifier looks at."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from rightreasons.cli.options import (
    Annotations,
    Channels,
    Data,
    DataFolder,
    Decoy,
    Device,
    Layer,
    Model,
    Out,
    Quiet,
    Resize,
    Seed,
    Weights,
)

if TYPE_CHECKING:
    from rightreasons.experiments import Conduct, Revealed, RevealSettings, Storage, Subject

EXAMPLES = """
**Examples**

rightreasons reveal runs/plain --method saliency --method integrated_gradients --out maps

rightreasons reveal --model my_net.py:build --weights mine.pt --data photos/ --method grad_cam --out maps

rightreasons reveal runs/plain --images all --method all --out maps

rightreasons reveal runs/plain --image photo.png --method grad_cam --method lrp --out figure.png

rightreasons reveal runs/plain --method deep_lift --against 3 --baseline nearest --out maps

accelerate launch --num_processes 2 -m rightreasons reveal runs/plain --images all --out maps
(on CPUs add --multi_gpu before -m, or Accelerate starts one process only)
"""

SHEET = 60
"""Images that fit on a sheet; more are streamed into shards."""

COLUMNS = 3
"""Shares that fit into a row of the terminal; more get a row each."""


def reveal(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run; or give --model and --weights.")] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(help="An explainer; may be given several times. all: every one that can explain the network."),
    ] = None,
    config: Annotated[Path | None, typer.Option(help="TOML file with explainers and settings: [[method]].")] = None,
    data: Data = None,
    annotations: Annotations = None,
    decoy: Decoy = None,
    resize: Resize = None,
    channels: Channels = None,
    model: Model = None,
    weights: Weights = None,
    layer: Layer = None,
    images: Annotated[
        str, typer.Option(help=f"How many images, drawn at random, or all; more than {SHEET} are streamed into shards.")
    ] = "8",
    image: Annotated[Path | None, typer.Option(help="One picture of your own instead: writes a figure.")] = None,
    target: Annotated[Literal["predicted", "true"], typer.Option(help="Class that is explained.")] = "predicted",
    against: Annotated[
        str, typer.Option(help="Name or number of a class: explain what speaks for the target and against it.")
    ] = "",
    baseline: Annotated[
        str,
        typer.Option(
            help="Where methods with a baseline begin, such as integrated_gradients and deep_lift: a number, mean, "
            "blurred; or, with --against, nearest (the nearest training image of that class) or generated (from the "
            "image; the generator is trained once and kept). Unless given, the smallest pixel value."
        ),
    ] = "",
    out: Out = Path("reveal"),
    shard_size: Annotated[
        int | None, typer.Option(help="Images a shard: 1,000 unless given, fewer where that would be over 128 MiB.")
    ] = None,
    format: Annotated[Literal["safetensors", "parquet"] | None, typer.Option(help="Of the shards.")] = None,
    half: Annotated[bool, typer.Option("--half", help="Shards in float16, each map over its largest value.")] = False,
    overlay: Annotated[bool, typer.Option("--overlay", help="With --image: maps over the gray image.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace other maps in OUT.")] = False,
    seed: Seed = 0,
    device: Device = "auto",
    data_folder: DataFolder = None,
    quiet: Quiet = False,
) -> None:
    """Write what a classifier looks at.

    A few images: OUT/sheet.png, the raw maps in OUT/heatmaps.safetensors. Many (--images all): OUT/shards/, one line an
    image in OUT/index.jsonl and OUT/index.csv, a page in OUT/index.html; the same command goes on where it was stopped.
    One picture (--image): a figure with all methods side by side.
    """
    from rightreasons.cli import show
    from rightreasons.cli.pictures import squashed
    from rightreasons.cli.settings import changed, data_config
    from rightreasons.experiments import (
        Conduct,
        ModelConfig,
        Question,
        Resources,
        RevealSettings,
        Storage,
        open_subject,
        read_methods,
    )
    from rightreasons.experiments.reveal.methods import check_methods

    count = None if images == "all" else _number(images)
    named = tuple(method or ([] if config else ["saliency"]))
    settings = RevealSettings(
        (*(read_methods(config) if config else ()), *named), count, target, seed, against, baseline
    )
    many = image is None and (count is None or count > SHEET)
    given = {"shard-size": shard_size, "format": format, "half": half, "overwrite": overwrite}
    _check_use(many, given, overlay=overlay and image is None)
    if run is not None and run.is_dir() and (model or weights):
        raise ValueError(f"{run} is a run and has its own network: leave out --model and --weights, or the run")
    network = changed(ModelConfig(), name=model, weights=weights and str(weights))
    images_asked = data_config(data, annotations=annotations, decoy=decoy, resize=resize, channels=channels)
    resources = Resources(device, data_folder, show.progress(quiet))
    subject = open_subject(run, Question(images_asked, network, layer or "", seed), resources)
    check_methods(settings, subject.data.classes)
    if settings.generates and settings.against:
        show.note("a generated baseline needs networks that are trained on the training images, once; they are kept")
    if image is not None:
        squashed([image] if image.is_file() else [], subject.data.shape)
        _picture(subject, image, settings, out, device=device, overlay=overlay)
    elif many:
        storage = Storage(shard_size, format or "safetensors", half)
        _all(subject, settings, out, storage, Conduct(device, overwrite, show.progress(quiet)))
    else:
        _some(subject, settings, out, device)


def _number(text: str) -> int:
    try:
        return int(text)
    except ValueError as error:
        raise ValueError(f"expected a number of images or all, got {text!r}") from error


def _check_use(many: bool, given: Mapping[str, object], *, overlay: bool) -> None:
    """Refuse options that would have no effect.

    Raises:
        ValueError: By name.
    """
    if overlay:
        raise ValueError("--overlay belongs to a picture that --image names")
    needless = [name for name, value in given.items() if value is not None and value is not False and not many]
    if needless:
        raise ValueError(f"--{needless[0]} belongs to shards, which --images all writes, or more than {SHEET} images")
    if not many and int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("reveal of a few images runs in one process; --images all can be launched in several")


def _all(subject: Subject, settings: RevealSettings, out: Path, storage: Storage, conduct: Conduct) -> None:
    """Stream into shards; Ctrl-C says how to go on."""
    from rightreasons.cli import show
    from rightreasons.experiments import reveal_all
    from rightreasons.reports import write_gallery

    try:
        maps = reveal_all(subject, settings, out, storage, conduct)
        if maps is not None:
            show.revealed(write_gallery(maps, subject.data, rerun=show.this_command()))
    except KeyboardInterrupt:
        done = len(list((out / "shards").glob("*-of-*.*")))
        if os.environ.get("RANK", "0") == "0":
            typer.echo(f"interrupted after {done} shards; the same command goes on after them", err=True)
        raise typer.Exit(130) from None


def _some(subject: Subject, settings: RevealSettings, out: Path, device: str) -> None:
    from rightreasons.cli import show
    from rightreasons.experiments import reveal_images
    from rightreasons.reports import reveal_sheet

    found = reveal_images(subject, settings, out, device=device)
    reveal_sheet(found).save(out / "sheet.png")
    images = list(enumerate(found.names))
    if len(found.shares) <= COLUMNS:
        rows = [(name, *found.told(row)) for row, name in images]
        show.table(("image", "truth", "prediction", "sure", *found.shares), rows)
    else:
        rows = [(name, found.told(row)[0], *found.said(row)) for row, name in images]
        show.table(("image", "truth", "prediction", "sure"), rows)
        show.table(("mean share of the absolute map", ""), found.mean_shares())
    for kind, area in found.areas.items():
        show.note(
            f"{kind} masks cover {100 * area:.1f} % of an image on average: so much of a map lies there by chance"
        )
    _begins(found)
    show.unfit(found.unfit)
    show.written(out, "sheet.png", "heatmaps.safetensors", "reveal.json")


def _picture(subject: Subject, image: Path, settings: RevealSettings, out: Path, *, device: str, overlay: bool) -> None:
    from rightreasons.cli import show
    from rightreasons.experiments import reveal_picture
    from rightreasons.experiments.run import make_folder
    from rightreasons.reports import picture_figure

    file = out if out.suffix.lower() == ".png" else out / "figure.png"
    make_folder(file.parent)
    found = reveal_picture(subject, image, settings, device=device)
    picture_figure(found, title=image.name, against=settings.against, overlay=overlay).save(file)
    show.table(("picture", "prediction", "sure"), [(str(image), *found.said(0))])
    _begins(found)
    show.unfit(found.unfit)
    show.written(file.parent, file.name)


def _begins(found: Revealed) -> None:
    """Where maps begin, and whether the model sees there what it is contrasted with."""
    from rightreasons.cli import show

    for start in found.starts.values():
        taken = f"{int(start.taken.sum())} of {len(start.taken)}"
        show.note(f"{start.title}: maps begin at {start.words}; the model takes {taken} for it")
