"""The parts that an image is cut into, and images that show some of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.attribution.perturbation.masking import Perturbation, coalition_keys, scores
from rightreasons.core import Classifier, MissingExtra
from rightreasons.core.settings import check_counts

Segments = Literal["grid", "slic"] | Callable[[Tensor], Tensor]
"""``grid``: rectangles of almost equal size; ``slic``: superpixels; or a function from images to whole numbers
(B, H, W), one a region."""


@dataclass(frozen=True, kw_only=True)
class RegionPerturbation(Perturbation):
    """A method that shows and hides regions.

    Args:
        segments: What the regions are: a ``"grid"``, ``"slic"`` superpixels (Achanta et al. 2012; needs the extra
            ``superpixels``), or a function from images to region numbers (B, H, W).
        cells: Regions along each side of the grid; superpixels are asked for as many in all, ``cells**2``.
    """

    segments: Segments = "grid"
    cells: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(cells=self.cells)
        if not callable(self.segments) and self.segments not in ("grid", "slic"):
            raise ValueError(f"expected segments to be 'grid', 'slic' or a function, got {self.segments!r}")


@dataclass(frozen=True, eq=False)
class Regions:
    """Images cut into the same number of regions.

    Attributes:
        inputs: The images.
        baseline: What stands where a region is hidden.
        labels: The region of each pixel, 0 to ``count`` - 1.
        target: Their classes.
        rows: Where the images stand in their batch.
        count: Regions an image.
    """

    inputs: Float[Tensor, "batch channels height width"]
    baseline: Float[Tensor, "batch channels height width"]
    labels: Int[Tensor, "batch height width"]
    target: Int[Tensor, " batch"]
    rows: Int[Tensor, " batch"]
    count: int

    def showing(
        self, coalitions: Bool[Tensor, "rows features"], image: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows channels height width"]:
        """The images of these numbers, each with its coalition shown and the baseline elsewhere."""
        shown = coalitions.gather(1, self.labels[image].flatten(1)).view(-1, 1, *self.labels.shape[1:])
        return torch.where(shown, self.inputs[image], self.baseline[image])

    def alive(self, *, graph: bool) -> Bool[Tensor, "batch features"]:
        """Which regions change the image when they are hidden.

        Where a gradient with respect to the images is wanted all do: in a neighboring image they would.
        """
        alive = torch.ones(len(self.inputs), self.count, dtype=torch.bool)
        if graph and (self.inputs.requires_grad or self.baseline.requires_grad):
            return alive
        changed = (self.inputs != self.baseline).any(dim=1).flatten(1).to(torch.long)
        changes = changed.new_zeros(alive.shape).scatter_add(1, self.labels.flatten(1), changed)
        return changes.cpu() > 0

    def spread(self, values: Float[Tensor, "batch features"]) -> Float[Tensor, "batch 1 height width"]:
        """Every pixel with the value of its region."""
        pixels = values.gather(1, self.labels.flatten(1)).view(-1, 1, *self.labels.shape[1:])
        return pixels.to(self.inputs.dtype)

    def sizes(self) -> Int[Tensor, "batch features"]:
        """Pixels a region."""
        labels = self.labels.flatten(1)
        return labels.new_zeros(len(labels), self.count).scatter_add(1, labels, torch.ones_like(labels))


def coalition_scores(
    model: Classifier,
    regions: Regions,
    coalitions: Bool[Tensor, "coalitions features"],
    *,
    settings: Perturbation,
    graph: bool,
) -> Float[Tensor, "coalitions batch"]:
    """The score of every image with only these regions shown."""
    shown = coalitions.to(regions.labels.device)
    keys = coalition_keys(coalitions, regions.alive(graph=graph))

    def place(step: Tensor, image: Tensor) -> Tensor:
        return regions.showing(shown[step], image)

    return scores(model, place, keys, regions.target, settings=settings, graph=graph)


def cut(
    inputs: Float[Tensor, "batch channels height width"],
    baseline: Float[Tensor, "batch channels height width"],
    target: Int[Tensor, " batch"],
    settings: RegionPerturbation,
) -> Iterator[Regions]:
    """The images in groups of as many regions each, so that a group can meet the same coalitions.

    Raises:
        ValueError: The function's regions do not fit the images.
        MissingExtra: Superpixels without scikit-image.
    """
    labels = segmented(inputs.detach(), settings.segments, cells=settings.cells)
    counts = labels.flatten(1).amax(dim=1) + 1
    for count in sorted(set(counts.tolist())):
        rows = (counts == count).nonzero()[:, 0]
        if len(rows) == len(inputs):
            yield Regions(inputs, baseline, labels, target, rows, count)
        else:
            yield Regions(inputs[rows], baseline[rows], labels[rows], target[rows], rows, count)


def gathered(parts: list[tuple[Regions, Tensor]]) -> Float[Tensor, "batch 1 height width"]:
    """The maps of all groups in the order of the batch."""
    order = torch.cat([regions.rows for regions, _ in parts]).argsort()
    return torch.cat([heatmap for _, heatmap in parts])[order]


def segmented(
    inputs: Float[Tensor, "batch channels height width"], segments: Segments, *, cells: int
) -> Int[Tensor, "batch height width"]:
    """The region of each pixel, numbered from 0 without gaps in each image."""
    if segments == "grid":
        return grid(inputs.shape[2], inputs.shape[3], cells=cells).to(inputs.device).expand(len(inputs), -1, -1)
    if segments == "slic":
        images = inputs.float().cpu().permute(0, 2, 3, 1).numpy()
        labels = torch.stack([torch.from_numpy(superpixels(image, count=cells**2)) for image in images])
    else:
        labels = segments(inputs)
    expected = (len(inputs), *inputs.shape[2:])
    if tuple(labels.shape) != expected or labels.is_floating_point():
        raise ValueError(f"expected segments to be whole numbers {expected}, got {labels.dtype} {tuple(labels.shape)}")
    numbered = [torch.unique(image, return_inverse=True)[1] for image in labels]
    return torch.stack(numbered).to(inputs.device)


def grid(height: int, width: int, *, cells: int) -> Int[Tensor, "height width"]:
    """Rectangles, ``cells`` along each side, or one a pixel where there are fewer pixels."""
    down, across = min(cells, height), min(cells, width)
    row = torch.arange(height) * down // height
    column = torch.arange(width) * across // width
    return row[:, None] * across + column


def superpixels(image: np.ndarray, *, count: int) -> np.ndarray:
    """SLIC superpixels of an image (H, W, C), its own range scaled to [0, 1].

    Source: Achanta et al. 2012, doi:10.1109/TPAMI.2012.120, by scikit-image.

    Raises:
        MissingExtra: scikit-image is not installed.
    """
    try:
        from skimage.segmentation import slic
    except ImportError as error:
        raise MissingExtra(
            'superpixels need scikit-image: pip install "rightreasons[superpixels]"; or take segments="grid"'
        ) from error
    spread = image.max() - image.min()
    scaled = (image - image.min()) / (spread if spread > 0 else 1)
    # Three channels are compared in Lab units, up to 100, others as they are, up to 1.
    compactness = 10.0 if scaled.shape[2] == 3 else 0.1
    return np.asarray(slic(scaled, n_segments=count, compactness=compactness, start_label=0, channel_axis=2))
