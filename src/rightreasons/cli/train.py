"""Train a classifier."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from rightreasons.cli.options import (
    AnnotatedBatch,
    Annotations,
    Attribution,
    BatchSize,
    Borrow,
    Channels,
    Config,
    Data,
    DataFolder,
    Decoy,
    Device,
    Epochs,
    Grow,
    Irrelevant,
    Layer,
    Loss,
    Lr,
    Model,
    Optimizer,
    Out,
    Precision,
    Quiet,
    Recipe,
    Resize,
    RunSeed,
    Test,
    Weight,
    Weights,
)

EXAMPLES = """
**Examples**

rightreasons train --data mnist --decoy decoy/cdep --model lenet --epochs 3 --out runs/plain

rightreasons train --data photos/ --resize 64 --model my_net.py:build --out runs/photos

rightreasons train --data squares_symmetric --recipe jtt --epochs 5 --out runs/jtt

rightreasons train --config run.toml --seed 3 --out runs/three

accelerate launch --num_processes 2 -m rightreasons train --config run.toml --out runs/two
(on CPUs add --multi_gpu before -m, or Accelerate starts one process only)
"""


def train(
    config: Config = None,
    data: Data = None,
    test: Test = None,
    annotations: Annotations = None,
    decoy: Decoy = None,
    resize: Resize = None,
    channels: Channels = None,
    model: Model = None,
    weights: Weights = None,
    layer: Layer = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Lr = None,
    optimizer: Optimizer = None,
    precision: Precision = None,
    loss: Loss = None,
    weight: Weight = None,
    attribution: Attribution = None,
    annotated_batch: AnnotatedBatch = None,
    irrelevant: Irrelevant = None,
    borrow: Borrow = None,
    grow: Grow = None,
    recipe: Recipe = None,
    out: Out = Path("runs/train"),
    seed: RunSeed = None,
    device: Device = "auto",
    data_folder: DataFolder = None,
    quiet: Quiet = False,
) -> None:
    """Train a classifier: plainly, with an explanation loss from the start, or by a recipe that needs no masks.

    The same command goes on where a killed run stopped, and does not run a finished one again.
    """
    from rightreasons.cli import show
    from rightreasons.cli.settings import changed, randomizing, run_config, with_recipe, with_term
    from rightreasons.experiments import Resources
    from rightreasons.experiments import train as run
    from rightreasons.experiments.run import is_finished

    base = run_config(config)
    training = changed(
        base.training,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        optimizer=optimizer,
        precision=precision,
        annotated_batch=annotated_batch,
    )
    settings = with_term(
        replace(
            base,
            seed=base.seed if seed is None else seed,
            data=changed(
                base.data, name=data, test=test, annotations=annotations, decoy=decoy, resize=resize, channels=channels
            ),
            model=changed(base.model, name=model, weights=weights and str(weights), layer=layer),
            training=randomizing(training, irrelevant, borrow, grow),
            recipe=with_recipe(base.recipe, recipe),
        ),
        loss,
        weight,
        attribution,
    )
    held = is_finished(out)
    show.run_table(run(settings, out, Resources(device, data_folder, show.progress(quiet))), held=held)
