"""Prove a change."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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
)

EXAMPLES = """
**Examples**

rightreasons prove runs/plain runs/revised --out proof

rightreasons prove runs/plain runs/revised --controls --out proof

rightreasons prove before.pt after.pt --model my_net.py:build --data photos/ --out proof
"""


def prove(
    before: Annotated[Path, typer.Argument(help="Folder of a run, or a file of weights (with --model and --data).")],
    after: Annotated[Path, typer.Argument(help="The revised one, likewise.")],
    data: Data = None,
    annotations: Annotations = None,
    decoy: Decoy = None,
    resize: Resize = None,
    channels: Channels = None,
    model: Model = None,
    layer: Layer = None,
    controls: Annotated[
        bool,
        typer.Option("--controls", help="Train the masks that should not help, and the clean bound of a decoy, too."),
    ] = False,
    explained: Annotated[int, typer.Option(help="How many test images are explained.")] = 1000,
    out: Out = Path("proof"),
    seed: Seed = 0,
    device: Device = "auto",
    data_folder: DataFolder = None,
    quiet: Quiet = False,
) -> None:
    """Compare two models with intervals, controls and a second explainer: writes OUT/index.html and OUT/proof.json."""
    from rightreasons.cli import show
    from rightreasons.cli.settings import changed, data_config, one_process
    from rightreasons.experiments import CompareSettings, ModelConfig, Question, Resources, compare
    from rightreasons.reports import comparison_page, write

    one_process("prove")
    network = changed(ModelConfig(), name=model) if model else None
    images = data_config(data, annotations=annotations, decoy=decoy, resize=resize, channels=channels)
    result = compare(
        (before, after),
        Question(images, network, layer or "", seed),
        CompareSettings(explained, controls),
        out=out,
        resources=Resources(device, data_folder, show.progress(quiet)),
    )
    page = write(comparison_page(result, rerun=(show.this_command(),)), out / "index.html")
    show.proof_table(result.proof)
    show.written(out, page.name, "proof.json")
