"""Go on training with an explanation loss."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rightreasons.cli.options import (
    Attribution,
    BatchSize,
    DataFolder,
    Device,
    Epochs,
    Loss,
    Lr,
    Optimizer,
    Out,
    Quiet,
    Weight,
)

EXAMPLES = """
**Examples**

rightreasons revise runs/plain --loss rrr --weight 10 --epochs 3 --out runs/revised

rightreasons revise runs/photos --loss res --attribution grad_cam --weight 1 --out runs/res

rightreasons revise runs/plain --fresh --loss counterexamples --out runs/anew
"""


def revise(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run; its data carry the masks.")],
    loss: Loss = "rrr",
    weight: Weight = None,
    attribution: Attribution = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from new weights, not from those of the run.")] = False,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Lr = None,
    optimizer: Optimizer = None,
    out: Out = Path("runs/revised"),
    seed: Annotated[int | None, typer.Option(help="That of the run, if not given.")] = None,
    device: Device = "auto",
    data_folder: DataFolder = None,
    quiet: Quiet = False,
) -> None:
    """Make a trained classifier look where it should: train on with an explanation loss.

    To revise a network that was trained elsewhere: `train --model my_net.py:build --weights mine.pt --loss ...`.
    """
    from rightreasons.cli import show
    from rightreasons.cli.settings import changed, with_term
    from rightreasons.experiments import Resources, load_run
    from rightreasons.experiments import train as train_run

    base = load_run(run)
    start = "" if fresh else str(base.weights)
    config = replace(
        base.config,
        seed=base.config.seed if seed is None else seed,
        data=replace(base.config.data, seed=base.config.data_seed),
        model=replace(base.config.model, weights=start),
        training=changed(base.config.training, epochs=epochs, batch_size=batch_size, lr=lr, optimizer=optimizer),
    )
    config = with_term(config, loss, weight, attribution)
    show.run_table(train_run(config, out, Resources(device, data_folder, show.progress(quiet))))
