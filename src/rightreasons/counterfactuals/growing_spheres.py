"""Random images around the original, ever farther, until one flips the model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.core.settings import check_counts, check_positive
from rightreasons.core.tensors import resized
from rightreasons.counterfactuals.anytime import AnytimeCounterfactual
from rightreasons.counterfactuals.lines import bisected
from rightreasons.counterfactuals.search import Search, best_rows
from rightreasons.data.dataset import stream


@dataclass(frozen=True)
class GrowingSpheres(AnytimeCounterfactual):
    """Random changes of growing length; the first that flips the model is shortened, then thinned out.

    Layer by layer, ``samples`` changes are drawn evenly from the shell between two radii and the image is clipped to
    its range, until one is valid. The nearest valid one goes back along its line to the boundary by bisection; then the
    smallest changes are undone and the largest halved while the image stays valid, blocks at a time, and what is left
    is shortened once more. All this once for each of ``cells``, with new draws; the best counts. Where none was valid
    the next search starts around the most probable image. It needs nothing but logits. All images of a batch meet the
    same draws.

    Source: Laugel et al. 2018, arXiv:1712.08443, Algorithms 1 and 2. Ours: radii by their logarithm (their powers leave
    the range of floats at 784 pixels), shells that grow by a factor, bisection, blocks, the halving, cells of more than
    one pixel, and the second start. ``cells=(1,)`` draws each pixel by itself, once, as published.

    Args:
        samples: Images tried in each shell.
        first_radius: Outer radius of the first shell, as a share of the range of a pixel.
        growth: Each shell's outer radius over its inner one.
        cells: Sides, in pixels, of the cells that are drawn, one search each; coarse draws are enlarged, so that the
            change is smooth and its space small.
        bisections: Halvings of the line to the boundary.
        seed: Of the draws; ``None`` draws fresh ones at each call from torch's global generator.
    """

    black_box: ClassVar[bool] = True

    samples: int = 20
    first_radius: float = 1.0
    growth: float = 1.3
    cells: tuple[int, ...] = (2, 4, 4)
    bisections: int = 8
    seed: int | None = 0
    max_queries: int | None = 2000

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(samples=self.samples, bisections=self.bisections)
        check_positive(first_radius=self.first_radius)
        if self.max_queries is not None and self.max_queries <= self.samples:
            raise ValueError(
                f"expected max_queries above samples, {self.samples}, which are shown at once, got {self.max_queries}"
            )
        if not (math.isfinite(self.growth) and self.growth > 1):
            raise ValueError(f"expected growth above 1, got {self.growth}")
        object.__setattr__(self, "cells", tuple(self.cells))
        if not self.cells or any(not isinstance(cell, int) or cell < 1 for cell in self.cells):
            raise ValueError(f"expected cells to be sides of at least one pixel, got {self.cells}")

    def search(self, search: Search) -> Iterator[None]:
        """Grow, shorten, thin out, halve, shorten; again."""
        seed = int(torch.randint(2**31, ())) if self.seed is None else self.seed
        for number, cell in enumerate(self.cells):
            centers = torch.where(search.valid.view(-1, 1, 1, 1), search.inputs, search.images)
            growth = _Growth(centers, centers.clone(), torch.full_like(search.length, -torch.inf))
            yield from self._grow(search, growth, cell, f"{number} of {seed}")
            image, candidates = search.all[growth.found], growth.candidates
            yield from bisected(search, candidates, image, self.bisections)
            yield from thinned(search, candidates, image)
            yield from halved(search, candidates, image)
            yield from bisected(search, candidates, image, self.bisections)

    def _grow(self, search: Search, growth: _Growth, cell: int, draws: str) -> Iterator[None]:
        for number, shell in enumerate(self._shells(search.inputs)):
            image = search.affordable(search.all[~growth.found], self.samples)
            if not len(image):
                return
            changes = self._changes(search.inputs, cell, shell, stream(number, draws))
            self._try(search, growth, changes, image)
            yield

    def _shells(self, inputs: Tensor) -> list[tuple[float, float]]:
        """Inner and outer radii, until no image is farther."""
        inner, outer, farthest = 0.0, self.first_radius * self.width, self.width * math.sqrt(inputs[0].numel())
        shells = []
        while inner < farthest:
            shells.append((inner, outer))
            inner, outer = outer, outer * self.growth
        return shells

    def _try(self, search: Search, growth: _Growth, changes: Tensor, image: Tensor) -> None:
        """Show these originals with each of the changes; keep the nearest valid one of each."""
        for rows in search.chunks(len(image) * len(changes)):
            of = image[rows // len(changes)]
            tried = (growth.centers[of] + changes[rows % len(changes)]).clamp(self.low, self.high)
            valid = search.offer(tried, of, search.logits(tried, of))
            tried, of = tried[valid], of[valid]
            nearness = -self.distance(search.inputs[of], tried).double()
            row = best_rows(nearness, of, growth.nearness)
            growth.candidates[of[row]], growth.nearness[of[row]] = tried[row], nearness[row]

    def _changes(
        self, inputs: Tensor, cell: int, shell: tuple[float, float], generator: torch.Generator
    ) -> Float[Tensor, "samples channels height width"]:
        """Even draws from the shell."""
        _, channels, height, width = inputs.shape
        rows, columns = (max(1, side // cell) for side in (height, width))
        directions = torch.randn(self.samples, channels, rows, columns, generator=generator)
        directions = resized(directions, (height, width))
        length: Tensor = torch.linalg.vector_norm(directions, dim=(1, 2, 3))
        scale = shell_radii(self.samples, channels * rows * columns, shell, generator) / length
        return (scale.view(-1, 1, 1, 1) * directions).to(inputs)


@dataclass(frozen=True, eq=False)
class _Growth:
    """One search of all originals: around what, the nearest valid image of each, and minus its distance."""

    centers: Float[Tensor, "batch channels height width"]
    candidates: Float[Tensor, "batch channels height width"]
    nearness: Float[Tensor, " batch"]

    @property
    def found(self) -> Bool[Tensor, " batch"]:
        return self.nearness > -torch.inf


def shell_radii(
    count: int, dimensions: int, shell: tuple[float, float], generator: torch.Generator | None = None
) -> Float[Tensor, " count"]:
    """Radii of even draws from a shell of many dimensions.

    ``r = b (u + (1 - u) (a / b)^d)^(1 / d)``, by logarithms, so that no power of a radius is ever taken.

    Args:
        count: How many.
        dimensions: Of the space.
        shell: Inner and outer radius.
        generator: Of the draws.
    """
    inner, outer = shell
    draws = torch.rand(count, generator=generator, dtype=torch.float64)
    share = torch.tensor(dimensions * math.log(inner / outer) if inner > 0 else -math.inf, dtype=torch.float64)
    return (math.log(outer) + torch.logaddexp(draws.log(), torch.log1p(-draws) + share) / dimensions).exp()


def thinned(
    search: Search, candidates: Float[Tensor, "batch channels height width"], image: Int[Tensor, " rows"]
) -> Iterator[None]:
    """Undo the smallest changes of valid ``candidates`` while they stay valid, in place."""
    yield from _scaled(search, candidates, image, share=0.0, largest_first=False)


def halved(
    search: Search, candidates: Float[Tensor, "batch channels height width"], image: Int[Tensor, " rows"]
) -> Iterator[None]:
    """Halve the largest changes of valid ``candidates`` while they stay valid, in place."""
    yield from _scaled(search, candidates, image, share=0.5, largest_first=True)


def _scaled(search: Search, candidates: Tensor, image: Tensor, *, share: float, largest_first: bool) -> Iterator[None]:
    """Leave of one change after another this share, where the image stays valid.

    A block of the next changes is scaled at once; where the image stays valid the next block is twice as long, else
    half as long, until a change alone has to stay as it is.
    """
    inputs = search.inputs.flatten(1)
    amounts = (candidates - search.inputs).flatten(1).abs()
    # Pixels that did not change come last.
    key = torch.where(amounts > 0, -amounts if largest_first else amounts, torch.inf)
    ranks, end = key.argsort(dim=1, stable=True).argsort(dim=1), (amounts > 0).sum(dim=1)
    place, size = torch.zeros_like(end), end.clamp(min=2) // 2
    while len(image := search.affordable(image[place[image] < end[image]])):
        rank, at, block = ranks[image], place[image, None], size[image, None]
        chosen, flat = (rank >= at) & (rank < at + block), candidates[image].flatten(1)
        tried = torch.where(chosen, torch.lerp(inputs[image], flat, share), flat).view_as(candidates[image])
        valid = search.offer(tried, image, search.logits(tried, image))
        candidates[image[valid]] = tried[valid]
        place[image] += torch.where(valid | (block[:, 0] == 1), block[:, 0], 0)
        size[image] = torch.where(valid, 2 * block[:, 0], (block[:, 0] // 2).clamp(min=1))
        yield
