"""Measure how good the explanations of a classifier are."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

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

EXAMPLES = """
**Examples**

rightreasons evaluate runs/plain --method saliency --method grad_cam --metric deletion --metric sparseness

rightreasons evaluate --model my_net.py:build --weights mine.pt --data photos/ --method lrp --images 200 --out quality
"""


def evaluate(
    run: Annotated[Path | None, typer.Argument(help="Folder of a finished run; or give --model and --weights.")] = None,
    method: Annotated[list[str] | None, typer.Option(help="An explainer; several times, or all.")] = None,
    metric: Annotated[list[str] | None, typer.Option(help="A measure; several times, or none for a quick set.")] = None,
    data: Data = None,
    annotations: Annotations = None,
    decoy: Decoy = None,
    resize: Resize = None,
    channels: Channels = None,
    model: Model = None,
    weights: Weights = None,
    layer: Layer = None,
    images: Annotated[int, typer.Option(help="How many images are explained, drawn at random.")] = 64,
    target: Annotated[Literal["predicted", "true"], typer.Option(help="Class that is explained.")] = "predicted",
    batch_size: Annotated[int, typer.Option(help="Images at a time.")] = 32,
    out: Out = Path("quality"),
    seed: Seed = 0,
    device: Device = "auto",
    data_folder: DataFolder = None,
    quiet: Quiet = False,
) -> None:
    """Compare explainers by measures of quality, beside two controls: writes OUT/index.html and OUT/quality.json."""
    from rightreasons.attribution import ATTRIBUTIONS
    from rightreasons.cli import show
    from rightreasons.cli.settings import changed, data_config, one_process
    from rightreasons.experiments import ModelConfig, QualitySettings, Question, Resources, assess, open_subject
    from rightreasons.reports import QualityPage, write_quality
    from rightreasons.reports.quality import quality_cells

    one_process("evaluate")
    if run is not None and run.is_dir() and (model or weights):
        raise ValueError(f"{run} is a run and has its own network: leave out --model and --weights, or the run")
    methods = tuple(ATTRIBUTIONS) if method == ["all"] else tuple(method or QualitySettings().methods)
    asked = QualitySettings(methods, tuple(metric or ()), images, target, batch_size, seed)
    network = changed(ModelConfig(), name=model, weights=weights and str(weights))
    images_asked = data_config(data, annotations=annotations, decoy=decoy, resize=resize, channels=channels)
    subject = open_subject(run, Question(images_asked, network, layer or "", seed), Resources(device, data_folder))
    table, record = assess(subject, asked, out, device=device, progress=show.progress(quiet))
    named = str(run) if run is not None else str(model)
    content = QualityPage(table, model=named, rerun=(show.this_command(),), environment=record.environment)
    page = write_quality(content, out / "index.html")
    show.table(*quality_cells(content))
    show.console.print("[dim]* best, or not clearly behind it; ~ not clearly better than a random heatmap[/]")
    for name, reason in content.left_out:
        show.warn(f"{name}: {reason}")
    show.written(out, page.name, "quality.json")
