"""Go on training, made to look where it should."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from rightreasons.cli.options import (
    AnnotatedBatch,
    Attribution,
    BatchSize,
    Borrow,
    DataFolder,
    Device,
    Epochs,
    Grow,
    Irrelevant,
    Loss,
    Lr,
    Optimizer,
    Out,
    Precision,
    Quiet,
    Weight,
)

EXAMPLES = """
**Examples**

rightreasons revise runs/plain --loss rrr --weight 10 --epochs 3 --out runs/revised

rightreasons revise runs/photos --loss res --attribution grad_cam --weight 1 --out runs/res

rightreasons revise runs/plain --fresh --loss counterexamples --out runs/anew

rightreasons revise runs/forty --irrelevant swapped --borrow 4 --grow 1 --out runs/swapped
"""


def revise(
    run: Annotated[Path, typer.Argument(help="Folder of a finished run; its data carry the masks.")],
    loss: Loss = None,
    weight: Weight = None,
    attribution: Attribution = None,
    annotated_batch: AnnotatedBatch = None,
    irrelevant: Irrelevant = None,
    borrow: Borrow = None,
    grow: Grow = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Start from new weights, not from those of the run.")] = False,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Lr = None,
    optimizer: Optimizer = None,
    precision: Precision = None,
    out: Out = Path("runs/revised"),
    seed: Annotated[int | None, typer.Option(help="That of the run, if not given.")] = None,
    device: Device = "auto",
    data_folder: DataFolder = None,
    quiet: Quiet = False,
) -> None:
    """Make a trained classifier look where it should: train on with an explanation loss, rrr if none is named.

    With few masks, and where what they mark comes back at about the same places, no loss and no weight are needed:
    --irrelevant swapped --borrow 4 --grow 1. A loss on few masks does better from new weights (--fresh) and with
    --annotated-batch, which draws annotated images for it at every step.

    To revise a network that was trained elsewhere: `train --model my_net.py:build --weights mine.pt --loss ...`.
    """
    from rightreasons.cli import show
    from rightreasons.cli.settings import changed, randomizing, with_term
    from rightreasons.experiments import Resources, load_run
    from rightreasons.experiments import train as train_run
    from rightreasons.experiments.run import is_finished

    base = load_run(run)
    training = changed(
        base.config.training,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        precision=precision,
        annotated_batch=annotated_batch,
    )
    start = "" if fresh else str(base.weights)
    config = replace(
        base.config,
        seed=base.config.seed if seed is None else seed,
        data=replace(base.config.data, seed=base.config.data_seed),
        model=replace(base.config.model, weights=start),
        training=randomizing(training, irrelevant, borrow, grow),
    )
    told = loss or weight or attribution or irrelevant is None
    config = with_term(config, (loss or "rrr") if told else None, weight, attribution)
    if not fresh and any(isinstance(term.weight, str) for term in config.terms.values()):
        show.note(
            "a weight that follows the task's pull ends near 0 where training goes on from a finished run, of which "
            "the task has little left to pull at: take --fresh, or a number"
        )
    held = is_finished(out)
    show.run_table(train_run(config, out, Resources(device, data_folder, show.progress(quiet))), held=held)
