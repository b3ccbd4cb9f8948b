"""Toy colors: tiny images whose class follows from either of two rules, so that a model may learn one or the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from rightreasons.data.arrays import ArrayDataset
from rightreasons.data.dataset import ImageDataset, Split, stream

Rule = Literal["corners", "top"]

SIDE = 5
COLORS = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [128, 0, 128]], dtype=torch.uint8)
"""Red, green, blue and violet."""

PIXELS: dict[Rule, tuple[int, ...]] = {"corners": (0, 4, 20, 24), "top": (1, 2, 3)}
"""Where each rule looks: positions in the image, row by row."""

IMAGES = {"train": 10_000, "test": 5_000}
DRAW_SEED = 0


def toy_colors(split: Split = "train", *, irrelevant: Rule = "corners", decides: Rule | None = None) -> ArrayDataset:
    """Images of 5x5 pixels in four colors, half of them of class 1; the same ones every time.

    Class 1 has four corners of one color (rule ``corners``) and three different colors in the middle of its top row
    (rule ``top``); class 0 has neither. All other pixels, and what a rule leaves open, are drawn evenly. So both rules
    give the class, in training and in the test. The pixels of one rule are marked irrelevant, those of the other
    relevant: the model has to find the class by the other.

    Args:
        split: 10,000 images to train on, or 5,000 to test on; our numbers, and draws of their own.
        irrelevant: The rule whose pixels are marked irrelevant.
        decides: Only this rule gives the class, and the other holds or not by chance. For telling which rule a model
            follows; ``None`` lets both give it.

    Raises:
        ValueError: No such rule.

    Source: Ross et al. 2017, arXiv:1703.03717, "Toy Color Dataset"; the shade of violet is ours.
    """
    for name in [irrelevant] + ([] if decides is None else [decides]):
        if name not in get_args(Rule):
            raise ValueError(f"expected the rule {' or '.join(get_args(Rule))}, got {name!r}")
    count, generator = IMAGES[split], stream(DRAW_SEED, f"toy colors {split}")
    target = torch.randint(2, (count,), generator=generator)
    chance = torch.randint(2, (count,), generator=generator)
    colors = torch.randint(len(COLORS), (count, SIDE * SIDE), generator=generator)
    for rule in get_args(Rule):
        holds = target if decides in (None, rule) else chance
        colors[:, PIXELS[rule]] = _drawn(rule, holds.bool(), generator)
    relevant: Rule = "top" if irrelevant == "corners" else "corners"
    return ArrayDataset(
        COLORS[colors].mT.reshape(count, 3, SIDE, SIDE),
        target,
        classes=("neither rule", "both rules"),
        name=f"toy_colors/{split}, {irrelevant} irrelevant" + ("" if decides is None else f", {decides} decides"),
        irrelevant=_marked(irrelevant).expand(count, -1, -1, -1),
        relevant=_marked(relevant).expand(count, -1, -1, -1),
    )


@dataclass(frozen=True)
class ToyColors:
    """The toy colors as a named data set.

    Attributes:
        irrelevant: The rule whose pixels are marked irrelevant.
    """

    irrelevant: Rule

    def __call__(self, split: Split, *, folder: Path | None = None, cache: Path | None = None) -> ImageDataset:
        """The images of a split.

        Raises:
            ValueError: A folder was named; these images are drawn.
        """
        if folder is not None:
            raise ValueError(f"expected no folder, as the toy colors are drawn, got {folder}")
        return toy_colors(split, irrelevant=self.irrelevant)


def holding(rule: Rule, colors: Int[Tensor, "images pixels"]) -> Bool[Tensor, " images"]:
    """Whether the colors at a rule's pixels obey it: all the same at the corners, all different at the top."""
    ordered = colors.sort(dim=1).values
    steps = ordered.diff(dim=1)
    return (steps == 0).all(dim=1) if rule == "corners" else (steps != 0).all(dim=1)


def _drawn(rule: Rule, holds: Bool[Tensor, " images"], generator: torch.Generator) -> Int[Tensor, "images pixels"]:
    """Colors at a rule's pixels, drawn evenly from all that obey it, or from all that do not."""
    pixels = len(PIXELS[rule])
    every = torch.cartesian_prod(*[torch.arange(len(COLORS))] * pixels)
    obeys = holding(rule, every)
    drawn = []
    for choices in (every[~obeys], every[obeys]):
        drawn.append(choices[torch.randint(len(choices), (len(holds),), generator=generator)])
    return torch.where(holds[:, None], drawn[1], drawn[0])


def _marked(rule: Rule) -> Bool[Tensor, "1 1 height width"]:
    mask = torch.zeros(SIDE * SIDE, dtype=torch.bool)
    mask[list(PIXELS[rule])] = True
    return mask.view(1, 1, SIDE, SIDE)
