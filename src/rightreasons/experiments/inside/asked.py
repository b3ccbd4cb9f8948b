"""Which images, and what of the network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.data import ImageDataset
from rightreasons.data.folder import name_of
from rightreasons.experiments.counterfactual.asked import picture_files
from rightreasons.experiments.reveal.methods import drawn
from rightreasons.experiments.reveal.picture import read_picture

Scale = Literal["layer", "map"]
MOST = 24
"""Images on a page."""


@dataclass(frozen=True)
class FeatureSettings:
    """What is asked.

    Attributes:
        layers: Names of layers; empty takes convolutions spread over depth, and the attention blocks.
        images: How many images are drawn at random.
        index: Positions of images in the data, in the place of a draw.
        pictures: Picture files and folders of them, in the place of the data's images.
        maps: How many maps of a layer are drawn, the most active first.
        scale: One scale for all maps of a layer, or one for each map.
        queries: Pixels, column and row, whose place asks a position attention block; empty takes the middle.
        seed: Of the draw.

    Raises:
        ValueError: No image or map, too many images, or options that exclude each other.
    """

    layers: tuple[str, ...] = ()
    images: int = 4
    index: tuple[int, ...] = ()
    pictures: tuple[str, ...] = ()
    maps: int = 24
    scale: Scale = "layer"
    queries: tuple[tuple[int, int], ...] = ()
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.images <= MOST or len(self.index) > MOST:
            raise ValueError(f"expected 1 to {MOST} images on a page, got {max(self.images, len(self.index))}")
        if self.maps < 1:
            raise ValueError(f"expected at least one map of a layer, got {self.maps}")
        if self.index and self.pictures:
            raise ValueError("expected one way to name images, got index and pictures")
        if self.scale not in get_args(Scale):
            raise ValueError(f"expected scale to be {' or '.join(get_args(Scale))}, got {self.scale!r}")
        if not all(name.strip() for name in self.layers):
            raise ValueError("expected the name of a layer, got an empty one: --list prints the layers")
        twice = [name for name in self.layers if self.layers.count(name) > 1]
        if twice:
            raise ValueError(f"expected each layer once, got {twice[0]!r} {self.layers.count(twice[0])} times")


@dataclass(frozen=True, eq=False)
class Looked:
    """The images that are shown to the network.

    Attributes:
        names: For a reader.
        inputs: The images.
        truth: Their classes; ``None`` for pictures of the user's own.
        index: Positions in the data; ``None`` for pictures.
    """

    names: tuple[str, ...]
    inputs: Float[Tensor, "images channels height width"]
    truth: Int[Tensor, " images"] | None
    index: Int[Tensor, " images"] | None


def look_at(data: ImageDataset, settings: FeatureSettings) -> Looked:
    """The images of the settings.

    Raises:
        ValueError: A position that the data does not have, or too many pictures.
        CorruptData: A picture cannot be read.
    """
    if settings.pictures:
        files = picture_files(settings.pictures)
        if len(files) > MOST:
            raise ValueError(f"expected 1 to {MOST} images on a page, got {len(files)}")
        inputs = torch.cat([read_picture(file, data) for file in files])
        return Looked(tuple(file.name for file in files), inputs, None, None)
    wrong = [position for position in settings.index if not 0 <= position < len(data)]
    if wrong:
        raise ValueError(f"expected positions from 0 to {len(data) - 1}, got {wrong[0]}")
    index = torch.tensor(settings.index) if settings.index else drawn(len(data), settings.images, settings.seed)
    batch = data.batch(index)
    names = tuple(name_of(data, position, otherwise="image {:,}") for position in index.tolist())
    return Looked(names, batch.inputs.cpu(), batch.target.cpu(), index)


def cell_of(query: tuple[int, int], image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Row and column, in a map of this size, of the place in which a pixel of the image lies.

    Args:
        query: Column and row of the pixel.
        image: Height and width of the image.
        size: Height and width of the map.

    Raises:
        ValueError: The image has no such pixel.
    """
    column, row = query
    if not (0 <= row < image[0] and 0 <= column < image[1]):
        raise ValueError(f"expected a pixel from 0,0 to {image[1] - 1},{image[0] - 1} (column,row), got {column},{row}")
    return row * size[0] // image[0], column * size[1] // image[1]
