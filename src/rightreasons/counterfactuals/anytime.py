"""What all counterfactual methods share: their limits, the checks, and that one may stop early."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.attribution.forward import check_max_batch
from rightreasons.core import ANY_OTHER, Classifier, Counterfactual, Counterfactuals
from rightreasons.core.settings import check_counts, check_positive
from rightreasons.core.tensors import check_classes, check_pair
from rightreasons.counterfactuals.search import Limits, Search

SLACK = 1e-5
"""By so much of the range a pixel may leave it: what rounding does."""


@dataclass(frozen=True, kw_only=True)
class AnytimeCounterfactual(Counterfactual):
    """A search that may be stopped at any time.

    Args:
        low: Smallest value of a pixel.
        high: Largest value of a pixel.
        lead: By how much the logit of the target has to exceed all others for an image to be valid. Above zero, so that
            the rounding of another batch size does not flip it back.
        max_queries: Images that may run forward for each original; ``None``: as many as the method wants.
        max_seconds: Time after which a call ends with the best found, at the next step; ``None``: none.
        max_batch: Images that run at once; ``None``: 256, on a CPU 64, and fewer if they are large.
    """

    low: float = 0.0
    high: float = 1.0
    lead: float = 0.01
    max_queries: int | None = None
    max_seconds: float | None = None
    max_batch: int | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.low) and math.isfinite(self.high) and self.low < self.high):
            raise ValueError(f"expected finite low < high, got {self.low} and {self.high}")
        if not (math.isfinite(self.lead) and self.lead >= 0):
            raise ValueError(f"expected a lead of at least 0, got {self.lead}")
        if self.max_queries is not None:
            check_counts(max_queries=self.max_queries)
        if self.max_seconds is not None:
            check_positive(max_seconds=self.max_seconds)
        check_max_batch(self.max_batch)

    def improve(
        self,
        model: Classifier,
        inputs: Float[Tensor, "batch channels height width"],
        target: Int[Tensor, " batch"],
    ) -> Iterator[Counterfactuals]:
        """Ever better counterfactuals; the last item says what the whole search cost.

        Raises:
            ValueError: A target is the predicted class or none of the model's, or an image leaves its range of values;
                the message names the images.
        """
        # Here and not at the first item, so that a mistake is told where it is made.
        return self._items(self.begin(model, inputs, target))

    def _items(self, search: Search) -> Iterator[Counterfactuals]:
        with search.running():
            search.offer(search.inputs, search.all, search.start)
        steps, under_way = self.search(search), True
        while under_way:
            with search.running():
                under_way = next(steps, steps) is None
            if search.improved or not under_way:
                search.improved = False
                yield search.result()

    @abstractmethod
    def search(self, search: Search) -> Iterator[None]:
        """The method itself; a step ends at each ``yield``, where it may be stopped."""

    def begin(self, model: Classifier, inputs: Tensor, target: Tensor) -> Search:
        """The checks, and the pass that says what the model predicts."""
        self._check(model, inputs, target)
        with torch.inference_mode(False):
            # Copies: tensors of inference mode cannot be used outside it.
            inputs, target = (t.detach().clone() for t in (inputs, target.to(inputs.device)))
            search = Search(model, inputs, target, self.distance, self.limits)
        if (asked := target[target != ANY_OTHER]).numel():
            check_classes(asked, search.start.shape[1])
        self.check_target(search)
        return search

    def check_target(self, search: Search) -> None:
        """Refuse a target that is the predicted class.

        Raises:
            ValueError: It is; the message names the images.
        """
        if (same := search.target == search.predicted).any():
            raise ValueError(
                f"expected a target other than the predicted class, got the class itself for {named_images(same)}"
            )

    def distance(
        self,
        inputs: Float[Tensor, "batch channels height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]:
        """The Euclidean length of the change, in units of the pixels' range."""
        length: Tensor = torch.linalg.vector_norm((images - inputs).flatten(1), dim=1)
        return length / self.width

    @property
    def width(self) -> float:
        """The range of a pixel."""
        return self.high - self.low

    @property
    def limits(self) -> Limits:
        """What a search may cost."""
        return Limits(self.lead, self.max_queries, self.max_seconds, self.max_batch)

    def _check(self, model: Classifier, inputs: Tensor, target: Tensor) -> None:
        check_pair(inputs, target)
        if not isinstance(model, Classifier):
            raise ValueError(f"expected a classifier, got {type(model).__name__}; make one of it: adapt(network)")
        if inputs.ndim != 4 or not inputs.is_floating_point():
            raise ValueError(f"expected images (B, C, H, W) of floats, got {tuple(inputs.shape)} of {inputs.dtype}")
        if not len(inputs):
            raise ValueError("expected at least one image, got an empty batch")
        self.check_range(inputs, "images")

    def check_range(self, images: Float[Tensor, "images channels height width"], name: str) -> None:
        """Refuse images outside the range of the pixels.

        Raises:
            ValueError: The message names them.
        """
        slack = SLACK * self.width
        inside = ((images >= self.low - slack) & (images <= self.high + slack)).flatten(1).all(dim=1)
        if not inside.all():
            raise ValueError(
                f"expected {name} of pixels from {self.low} to {self.high}, got other values in "
                f"{named_images(~inside)}; low and high are settings"
            )


def named_images(rows: Bool[Tensor, " batch"]) -> str:
    """The images of these rows, for a message."""
    positions: list[int] = torch.nonzero(rows).flatten().tolist()
    return f"{'image' if len(positions) == 1 else 'images'} {', '.join(map(str, positions))}"
