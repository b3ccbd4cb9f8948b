"""Real images of another class."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.references import check_references, reference_images
from rightreasons.core import ANY_OTHER
from rightreasons.core.settings import check_counts
from rightreasons.counterfactuals.anytime import AnytimeCounterfactual
from rightreasons.counterfactuals.lines import bisected
from rightreasons.counterfactuals.search import Search

AT_ONCE = 8


@dataclass(frozen=True, eq=False)
class NearestNeighbor(AnytimeCounterfactual):
    """The nearest real image to which the model gives the target.

    From the nearest reference outward, each is shown to the model until one is valid. With ``labels`` only references
    of the target's class are shown, which saves most queries; a class without any gives nothing valid.

    Source: the minimum-distance training sample (MDTS) that Shih et al. 2021 (GANMEX), arXiv:2011.06015, compare with.
    Ours: the model is asked, so that what is called valid is valid.

    Args:
        references: Real images, such as the training images.
        labels: Class of each.
        neighbors: References that are shown to the model for each original, at most.
        halvings: Halvings of the line from the original to the found image, to stop at the boundary; the image is a
            blend of both then, no real one. 0 keeps the real one.
    """

    black_box: ClassVar[bool] = True

    references: Float[Tensor, "references channels height width"]
    labels: Int[Tensor, " references"] | None = None
    neighbors: int = 200
    halvings: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_references(self.references, self.max_batch)
        check_counts(neighbors=self.neighbors)
        self.check_range(self.references, "references")
        if self.labels is not None and len(self.labels) != len(self.references):
            raise ValueError(f"expected one label a reference, {len(self.references)}, got {len(self.labels)}")
        check_counts(0, halvings=self.halvings)

    def search(self, search: Search) -> Iterator[None]:
        """Outward, then perhaps back along the line."""
        references = reference_images(self.references, search.inputs)
        order = self._order(search, references)
        found = torch.zeros_like(search.valid)
        first = 0
        while first < order.shape[1] and len(image := search.affordable(search.all[~found])):
            block = search.room(image, AT_ONCE)
            shown = order[image, first : first + block]
            first += block
            row, column = (shown >= 0).nonzero(as_tuple=True)
            for part in search.chunks(len(row)):
                of, candidates = image[row[part]], references[shown[row[part], column[part]]]
                valid = search.offer(candidates, of, search.logits(candidates, of))
                found[of[valid]] = True
            yield
        yield from bisected(search, search.images.clone(), search.all[search.valid], self.halvings)

    def _order(self, search: Search, references: Tensor) -> Int[Tensor, "batch neighbors"]:
        """Numbers of the nearest references of each original, the nearest first; -1 where there are no more."""
        bank, count = references.flatten(1), min(self.neighbors, len(references))
        labels = None if self.labels is None else self.labels.to(bank.device)
        orders = []
        for image in search.chunks(len(search.inputs)):
            distances = torch.cdist(search.inputs[image].flatten(1), bank)
            if labels is not None:
                target, predicted = search.target[image, None], search.predicted[image, None]
                fits = torch.where(target == ANY_OTHER, labels != predicted, labels == target)
                distances = distances.masked_fill(~fits, torch.inf)
            near = distances.topk(count, dim=1, largest=False)
            orders.append(near.indices.masked_fill(near.values.isinf(), -1))
        return torch.cat(orders)
