"""A generator that has learnt to flip the model: one pass an image."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from rightreasons.core.hooks import evaluating
from rightreasons.core.settings import check_counts
from rightreasons.counterfactuals.anytime import AnytimeCounterfactual
from rightreasons.counterfactuals.learnt import pixel_values, told_class, unit_range
from rightreasons.counterfactuals.lines import bisected
from rightreasons.counterfactuals.search import Search


@dataclass(frozen=True, eq=False)
class Amortized(AnytimeCounterfactual):
    """One forward pass of a trained generator from the image and the target to the counterfactual.

    The classifier is asked once, to say whether the result is valid; what is not is returned as not valid. The
    generator's own pass is not among the queries. It knows the classifier that it was trained against: for another one
    its images are those of an independent judge.

    Source: the idea of a learnt generator is that of Khorram and Fuxin 2022 (C3LT), arXiv:2203.15064; network and
    training are ours, see ``ClassGenerator`` and ``fit_generator``.

    Args:
        generator: Images from 0 to 1 and a class of each to images from 0 to 1.
        passes: Passes at most: what is not valid yet goes through the generator again.
        refine: Halvings of the line from the original to a valid image, to stop at the boundary; the image is a blend
            of both then and looks less like the target. 0 keeps what the generator made.
    """

    black_box: ClassVar[bool] = True

    generator: Callable[[Tensor, Tensor], Tensor]
    passes: int = 1
    refine: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(passes=self.passes)
        check_counts(0, refine=self.refine)
        if not callable(self.generator):
            raise ValueError(f"expected a generator of images, got {type(self.generator).__name__}")

    def search(self, search: Search) -> Iterator[None]:
        """Generate; again where it failed; then perhaps back along the line."""
        told, images = told_class(search, self.generator), search.inputs.clone()
        for _ in range(self.passes):
            image = search.affordable(search.all[~search.valid])
            if not len(image):
                break
            images[image] = self._made(search, images[image], told[image])
            search.offer(images[image], image, search.logits(images[image], image))
            yield
        yield from bisected(search, search.images.clone(), search.all[search.valid], self.refine)

    def _made(self, search: Search, images: Tensor, told: Tensor) -> Tensor:
        """What the generator makes of them."""
        pixel_range = self.low, self.high
        with evaluating(self.generator):
            parts = [
                self.generator(unit_range(images[row], pixel_range, self.generator), told[row])
                for row in search.chunks(len(told))
            ]
        return pixel_values(torch.cat(parts), pixel_range, search.inputs)
