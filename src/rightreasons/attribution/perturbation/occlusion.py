"""One part hidden at a time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.attribution.perturbation.masking import Perturbation, scores
from rightreasons.attribution.perturbation.regions import RegionPerturbation, coalition_scores, cut, gathered
from rightreasons.core import Classifier
from rightreasons.core.settings import check_counts

SHARE = 8
"""Without a ``window``: so many fit along the shorter side."""


@dataclass(frozen=True)
class Occlusion(Perturbation):
    """The drop of the score when a window slides over the image and hides what is under it, in all channels.

    A pixel has the mean drop over the windows that cover it. The last window of a row or column is cut off by the
    border.

    Source: Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2. They show the score under the window, not its drop.

    Args:
        window: Side of the window in pixels, or height and width; ``None`` is an eighth of the shorter side.
        stride: Pixels between windows, or down and across; ``None`` sets them edge to edge.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    window: int | tuple[int, int] | None = None
    stride: int | tuple[int, int] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, sides in (("window", self.window), ("stride", self.stride)):
            if sides is not None:
                for side in _pair(sides):
                    check_counts(**{name: side})
        if self.window is not None and self.stride is not None:
            _check_stride(_pair(self.window), _pair(self.stride))

    def against(
        self, model: Classifier, inputs: Tensor, baseline: Tensor, target: Tensor, *, graph: bool
    ) -> Float[Tensor, "batch 1 height width"]:
        """Mean of f(x) - f(x without the window), (B, 1, H, W)."""
        down, across = self.windows(*inputs.shape[2:])
        # One more row that covers nothing stands for the image itself.
        rows, columns = (
            torch.cat([side, side.new_zeros(1, side.shape[1])]).to(inputs.device) for side in (down, across)
        )

        def place(step: Tensor, image: Tensor) -> Tensor:
            hidden = rows[step // len(across)][:, None, :, None] & columns[step % len(across)][:, None, None, :]
            return torch.where(hidden, baseline[image], inputs[image])

        changed = (inputs != baseline).any(dim=1).cpu()
        if graph and inputs.requires_grad:  # in a neighboring image they would differ
            changed = torch.ones_like(changed)
        keys = _keys(_touched(changed, down, across))
        values = scores(model, place, keys, target, settings=self, graph=graph)
        drops = (values[-1:] - values[:-1]).T.reshape(len(inputs), len(down), len(across))
        return _averaged(drops, down, across).to(inputs.dtype)[:, None]

    def windows(self, height: int, width: int) -> tuple[Bool[Tensor, "down height"], Bool[Tensor, "across width"]]:
        """Which rows of pixels the windows cover, one after another, and which columns.

        Raises:
            ValueError: The stride is larger than the window.
        """
        window = _pair(self.window or math.ceil(min(height, width) / SHARE))
        stride = _pair(self.stride or window)
        _check_stride(window, stride)
        down, across = (_intervals(*sides) for sides in zip((height, width), window, stride, strict=True))
        return down, across


@dataclass(frozen=True)
class FeatureAblation(RegionPerturbation):
    """The drop of the score when one region is hidden; every pixel has the drop of its region.

    Source: the occlusion of Zeiler & Fergus 2014, arXiv:1311.2901, section 4.2, with regions of any shape.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    def against(
        self, model: Classifier, inputs: Tensor, baseline: Tensor, target: Tensor, *, graph: bool
    ) -> Float[Tensor, "batch 1 height width"]:
        """F(x) - f(x without the region), (B, 1, H, W)."""
        parts = []
        for regions in cut(inputs, baseline, target, self):
            coalitions = torch.ones(regions.count + 1, regions.count, dtype=torch.bool)
            coalitions[1:].fill_diagonal_(False)
            values = coalition_scores(model, regions, coalitions, settings=self, graph=graph)
            parts.append((regions, regions.spread((values[:1] - values[1:]).T)))
        return gathered(parts)


def _pair(sides: int | tuple[int, int]) -> tuple[int, int]:
    return sides if isinstance(sides, tuple) else (sides, sides)


def _check_stride(window: tuple[int, int], stride: tuple[int, int]) -> None:
    if stride[0] > window[0] or stride[1] > window[1]:
        raise ValueError(f"expected a stride of at most the window {window}, got {stride}: it would leave pixels out")


def _intervals(side: int, window: int, stride: int) -> Bool[Tensor, "windows side"]:
    """The pixels under each window along one side."""
    start = torch.arange(1 + max(0, math.ceil((side - window) / stride)))[:, None] * stride
    place = torch.arange(side)
    return (place >= start) & (place < start + window)


def _touched(
    changed: Bool[Tensor, "batch height width"], down: Bool[Tensor, "down height"], across: Bool[Tensor, "across width"]
) -> Bool[Tensor, "batch windows"]:
    """Which windows lie over a pixel that differs from the baseline."""
    return ((down.float() @ changed.float() @ across.float().T) > 0).flatten(1)


def _keys(touched: Bool[Tensor, "batch windows"]) -> Int[Tensor, "steps batch"]:
    """A number for each window; the one behind the last for the image itself, and for windows that change nothing."""
    count = touched.shape[1]
    steps = torch.arange(count + 1)[:, None].expand(-1, len(touched))
    return torch.where(F.pad(touched, (0, 1)).T, steps, count)


def _averaged(
    drops: Float[Tensor, "batch down across"], down: Bool[Tensor, "down height"], across: Bool[Tensor, "across width"]
) -> Float[Tensor, "batch height width"]:
    """At each pixel the mean over the windows that cover it."""
    rows, columns = (side.to(drops) / side.sum(dim=0).to(drops) for side in (down, across))
    return rows.T @ drops @ columns
