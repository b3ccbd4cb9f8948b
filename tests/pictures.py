"""Small image folders for the tests: the side on which a bright bar stands is the class, a corner tells it too."""

from pathlib import Path

import numpy as np
from PIL import Image

SIDE = 12
CORNER = 3
NETWORK = """
from torch import nn


def build(shape, classes):
    channels, height, width = shape
    return nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * (height - 2) * (width - 2), classes)
    )
"""


def picture(number: int, seed: int, channels: int = 3) -> np.ndarray:
    """(SIDE, SIDE, channels) bytes."""
    rng = np.random.default_rng([number, seed])
    image = rng.integers(0, 60, (SIDE, SIDE, channels), dtype=np.uint8)
    column = 5 + 4 * (number % 2)
    image[4:, column : column + 2] = 200
    image[:CORNER, :CORNER] = 80 * number
    return image


def image_folder(root: Path, names=("left", "right"), *, each: int = 15, masks: bool = True) -> Path:
    """``each`` images a class, with masks: the corner is irrelevant, the lower part relevant."""
    drawn = {kind: np.zeros((SIDE, SIDE), dtype=np.uint8) for kind in ("irrelevant", "relevant")}
    drawn["irrelevant"][:CORNER, :CORNER] = 255
    drawn["relevant"][4:] = 255
    for number, name in enumerate(names):
        for folder in (root / name, *(root / name / kind for kind in drawn if masks)):
            folder.mkdir(parents=True)
        for seed in range(each):
            Image.fromarray(picture(number, seed)).save(root / name / f"{seed}.png")
            for kind, mask in drawn.items() if masks else ():
                Image.fromarray(mask).save(root / name / kind / f"{seed}.png")
    return root


def network_file(path: Path) -> Path:
    """A file with a network that takes any size."""
    path.write_text(NETWORK)
    return path
