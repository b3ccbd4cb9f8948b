"""Options that several commands share, told once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

DATA_NAMES = (
    "mnist, fashion_mnist, digits, stamps, toy_colors, toy_colors_by_corners, squares_symmetric, squares_asymmetric"
)
"""All of the catalogue, which a test compares: it is not imported for a help text."""

Seed = Annotated[int, typer.Option(help="Of initial weights, order of the images, decoys and draws.")]
RunSeed = Annotated[
    int | None,
    typer.Option(help="Of initial weights, order of the images and decoys; if not given, the configuration's, else 0."),
]
Device = Annotated[str, typer.Option(help="auto (what Accelerate finds), cpu or cuda.")]
Out = Annotated[Path, typer.Option(help="Folder for everything that is written.")]
DataFolder = Annotated[
    Path | None, typer.Option(help="Your own copy of the files of mnist or fashion_mnist; nothing is fetched then.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bar.")]
Config = Annotated[Path | None, typer.Option(help="TOML file with the whole configuration; flags override it.")]

Annotations = Annotated[
    str | None, typer.Option(help="COCO or Label Studio file with masks for the images of a folder.")
]
Data = Annotated[
    str | None,
    typer.Option(help=f"{DATA_NAMES}, or a folder with one sub-folder a class."),
]
Test = Annotated[str | None, typer.Option(help="Folder to test on; without it a fifth of an image folder is held out.")]
Decoy = Annotated[
    str | None,
    typer.Option(
        help="decoy/rrr, decoy/typology, decoy/cdep, decoy/r4, decoy/color, decoy/tag, decoy/texture or "
        "decoy/wallpaper."
    ),
]
Resize = Annotated[
    int | None,
    typer.Option(
        help="Side of the square that images of a folder are brought to; without it they stay as they are, of one size."
    ),
]
Channels = Annotated[int | None, typer.Option(help="1 (grey) or 3 (color), of the images of a folder.")]

Model = Annotated[
    str | None,
    typer.Option(
        help="mlp, lenet, baseline_cnn, small_resnet, strided_cnn, deep_ensemble, backbone, pooled_cnn, "
        "attention_head, efficientnet_lite0_tail, package.module:function or file.py:function."
    ),
]
Weights = Annotated[Path | None, typer.Option(help="Weights of that network: .safetensors, .pt or .pth.")]
Layer = Annotated[str | None, typer.Option(help="Layer to explain; found by itself if not given.")]

Epochs = Annotated[int | None, typer.Option(help="Passes over the training images.")]
BatchSize = Annotated[int | None, typer.Option(help="Images a step.")]
Lr = Annotated[float | None, typer.Option(help="Learning rate.")]
Optimizer = Annotated[str | None, typer.Option(help="adam, adamw or sgd.")]

Recipe = Annotated[
    str | None,
    typer.Option(
        help="Way to train in stages: find_another (train again, kept from what the last model looked at), "
        "dfr (a new last layer on balanced groups), jtt (errors of a first training count more), group_dro (the "
        "worst group counts most), rr_clarc (logits kept from following an artifact's directions in a layer), p_clarc "
        "(these directions projected out) or a_clarc (trained on with the artifact at random). "
        "Its settings belong into the [recipe.settings] of a --config file."
    ),
]
Loss = Annotated[
    str | None,
    typer.Option(
        help="Explanation loss: rrr, cosine_rrr, rbr, rrr_grad_cam, gradia, hint, energy, haics, res, cdep, tap, "
        "counterexamples, pgd_ex, ibp_ex, r4, recolored or color_gradient."
    ),
]
Weight = Annotated[
    str | None,
    typer.Option(
        help="What the explanation loss is multiplied by: a number; balance, to pull as hard as the task does; or "
        "target:0.02, to bring the attribution in irrelevant pixels to 2 % of chance."
    ),
]
Precision = Annotated[
    str | None,
    typer.Option(help="bf16 runs the passes of training in bfloat16, faster where the processor has it."),
]
AnnotatedBatch = Annotated[
    int | None,
    typer.Option(help="Annotated images drawn for the loss at every step, beside the batch; for when they are few."),
]
Irrelevant = Annotated[
    str | None,
    typer.Option(
        help="Without a loss and its weight: replace the irrelevant pixels at every step, by uniform noise (uniform) "
        "or by the same place of another image (swapped)."
    ),
]
Borrow = Annotated[
    int | None,
    typer.Option(
        help="With --irrelevant: how many annotated images lend each image their masks; for when these are few and "
        "mark places that come back. As many annotated images as a batch holds are then drawn for it, "
        "if --annotated-batch does not say otherwise."
    ),
]
Grow = Annotated[int | None, typer.Option(help="With --irrelevant: pixels by which hasty masks are grown.")]
Attribution = Annotated[str | None, typer.Option(help="Explainer in the loss, such as saliency or grad_cam.")]
