"""See what a classifier looks at."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from rightreasons.cli.options import Channels, Data, DataFolder, Decoy, Device, Layer, Model, Out, Resize, Seed, Weights

EXAMPLES = """
**Examples**

rightreasons reveal runs/plain --method saliency --method integrated_gradients --out maps

rightreasons reveal --model my_net.py:build --weights mine.pt --data photos/ --method grad_cam --out maps
"""


def reveal(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run; or give --model and --weights.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="An explainer; may be given several times.")] = None,
    data: Data = None,
    decoy: Decoy = None,
    resize: Resize = None,
    channels: Channels = None,
    model: Model = None,
    weights: Weights = None,
    layer: Layer = None,
    images: Annotated[int, typer.Option(help="How many images are explained, drawn at random.")] = 8,
    target: Annotated[Literal["predicted", "true"], typer.Option(help="Class that is explained.")] = "predicted",
    out: Out = Path("reveal"),
    seed: Seed = 0,
    device: Device = "auto",
    data_folder: DataFolder = None,
) -> None:
    """Write what a classifier looks at: OUT/sheet.png, the raw maps in OUT/heatmaps.safetensors, OUT/reveal.json."""
    from rightreasons.cli import show
    from rightreasons.cli.settings import changed, data_config, one_process
    from rightreasons.experiments import ModelConfig, Question, Resources, RevealSettings, open_subject, reveal_images
    from rightreasons.reports import reveal_sheet

    one_process("reveal")
    if run is not None and run.is_dir() and (model or weights):
        raise ValueError(f"{run} is a run and has its own network: leave out --model and --weights, or the run")
    network = changed(ModelConfig(), name=model, weights=weights and str(weights))
    images_asked = data_config(data, decoy=decoy, resize=resize, channels=channels)
    subject = open_subject(run, Question(images_asked, network, layer or "", seed), Resources(device, data_folder))
    settings = RevealSettings(tuple(method or ["saliency"]), images, target, seed)
    found = reveal_images(subject, settings, out, device=device)
    reveal_sheet(found).save(out / "sheet.png")
    rows = [(str(position), *found.told(row)) for row, position in enumerate(found.index.tolist())]
    show.table(("image", "truth", "prediction", "sure", *found.shares), rows)
    show.written(out, "sheet.png", "heatmaps.safetensors", "reveal.json")
