"""One call under way: the best image found of each original, and what it cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.attribution.forward import Forward, rows_at_once
from rightreasons.attribution.score import gradient
from rightreasons.core import ANY_OTHER, Classifier, Counterfactuals
from rightreasons.core.hooks import modes_kept

Distance: TypeAlias = Callable[[Tensor, Tensor], Tensor]
Objective: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""``objective(logits, image) -> value`` of each row; ``image`` says which original a row belongs to."""


@dataclass(frozen=True)
class Limits:
    """What a search may cost and what counts as flipped.

    Attributes:
        lead: By how much the logit of the target has to exceed all others.
        max_queries: Rows that may run forward for each original; ``None``: as many as the method wants.
        max_seconds: Time after which the search ends with what it has; ``None``: none.
        max_batch: Rows that run at once; ``None`` leaves it to the size of the images.
    """

    lead: float = 0.01
    max_queries: int | None = None
    max_seconds: float | None = None
    max_batch: int | None = None


@dataclass(eq=False)
class Search:
    """The best image found of each original, and what it cost.

    A row is an image that runs through the model; ``image`` says which original each row belongs to. Methods ask
    through :meth:`logits` and :meth:`differentiate`, which count, and hand what they found to :meth:`offer`, which
    keeps the better one: a valid image before one that is not, of valid ones the nearest, of others that of the most
    probable target.

    Attributes:
        model: The classifier.
        inputs: The originals.
        target: The class to reach, or :data:`ANY_OTHER`.
        distance: What is made small.
        limits: What the search may cost.
        predicted: The class of each original.
        images: The best so far.
        valid: Whether it flips the model.
        length: Its distance from the original.
        improved: Whether anything became better since this was last set to ``False``.
    """

    model: Classifier
    inputs: Float[Tensor, "batch channels height width"]
    target: Int[Tensor, " batch"]
    distance: Distance
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        device, count = self.inputs.device, len(self.inputs)
        self.images = self.inputs.clone()
        self.valid = torch.zeros(count, dtype=torch.bool, device=device)
        self.length = torch.zeros(count, dtype=torch.float64, device=device)
        self.improved = True
        self._merit = torch.full((count,), -torch.inf, dtype=torch.float64, device=device)
        self._queries = torch.zeros(count, dtype=torch.long, device=device)
        self._gradients = torch.zeros(count, dtype=torch.long, device=device)
        self._forward = Forward(self.model)
        self._seconds = 0.0
        self._since = time.perf_counter()
        with self.running():
            self.start = self.logits(self.inputs, self.all)
            self.predicted = self.start.argmax(dim=1)

    @property
    def all(self) -> Int[Tensor, " batch"]:
        """Every original."""
        return torch.arange(len(self.inputs), device=self.inputs.device)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Time counts inside; the network is in evaluation mode and nothing comes onto the graph.

        It is entered for each step anew, because whoever iterates must not inherit these states.
        """
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.no_grad())
            stack.enter_context(modes_kept(self.model.network))
            self.model.network.eval()
            self._since = time.perf_counter()
            try:
                yield
            finally:
                self._seconds += time.perf_counter() - self._since

    def affordable(self, image: Int[Tensor, " rows"], rows: int = 1) -> Int[Tensor, " _"]:
        """Those of the originals for which so many further rows may run."""
        limits = self.limits
        if limits.max_seconds is not None and self._seconds + time.perf_counter() - self._since > limits.max_seconds:
            return image[:0]
        if limits.max_queries is None:
            return image
        return image[self._queries[image] + rows <= limits.max_queries]

    def room(self, image: Int[Tensor, " rows"], most: int) -> int:
        """How many further rows may run for each of these originals, which can afford one; ``most`` at the most."""
        if self.limits.max_queries is None:
            return most
        return min(most, self.limits.max_queries - int(self._queries[image].max()))

    def chunks(self, rows: int) -> tuple[Int[Tensor, " _"], ...]:
        """Numbers of rows, as many as may run at once."""
        numbers = torch.arange(rows, device=self.inputs.device)
        return torch.split(numbers, rows_at_once(self.limits.max_batch, self.inputs))

    def logits(
        self, candidates: Float[Tensor, "rows channels height width"], image: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows classes"]:
        """The logits, in float32 at least; counts."""
        parts = [_plain(self._forward(candidates[row], image[row])) for row in self.chunks(len(image))]
        self._count(self._queries, image)
        return torch.cat(parts)

    def differentiate(
        self, candidates: Float[Tensor, "rows channels height width"], image: Int[Tensor, " rows"], objective: Objective
    ) -> tuple[Float[Tensor, "rows classes"], Float[Tensor, "rows channels height width"]]:
        """The logits, and the gradient of what ``objective`` makes of them; counts.

        Raises:
            BadModel: No gradient reaches the images.
        """
        logits, slopes = [], []
        for row in self.chunks(len(image)):
            leaf = candidates[row].detach().requires_grad_()
            with torch.enable_grad():
                found = _plain(self._forward(leaf, image[row]))
                slopes.append(gradient(objective(found, image[row]), leaf, graph=False, last=True))
            logits.append(found.detach())
        self._count(self._queries, image)
        self._count(self._gradients, image)
        return torch.cat(logits), torch.cat(slopes)

    def lead(self, logits: Float[Tensor, "rows classes"], image: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """By how much the logit of the target exceeds all others; of any other class, by how much the best one does."""
        return lead_of(logits, self.target[image], self.predicted[image])

    def hinge(self, logits: Float[Tensor, "rows classes"], image: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
        """By how much the lead falls short of what is large enough."""
        return F.relu(self.limits.lead - self.lead(logits, image))

    def flipped(self, logits: Float[Tensor, "rows classes"], image: Int[Tensor, " rows"]) -> Bool[Tensor, " rows"]:
        """Whether the lead is large enough, and no tie."""
        lead = self.lead(logits, image)
        return (lead >= self.limits.lead) & (lead > 0)

    def offer(
        self,
        candidates: Float[Tensor, "rows channels height width"],
        image: Int[Tensor, " rows"],
        logits: Float[Tensor, "rows classes"],
    ) -> Bool[Tensor, " rows"]:
        """Keep what is better than the best so far; says of each row whether it flips the model."""
        valid = self.flipped(logits, image)
        length = self.distance(self.inputs[image], candidates).double()
        # Valid images lie above 1, the nearer the higher; others below, by their probability.
        merit = torch.where(valid, 1 + 1 / (1 + length), self._probability(logits, image)).nan_to_num(-torch.inf)
        row = best_rows(merit, image, self._merit)
        if len(row):
            better = image[row]
            self.images[better], self.valid[better] = candidates[row], valid[row]
            self.length[better], self._merit[better] = length[row], merit[row]
            self.improved = True
        return valid

    def result(self) -> Counterfactuals:
        """What has been found so far."""
        counts = self._queries.clone(), self._gradients.clone()
        return Counterfactuals(self.images.clone(), self.valid.clone(), self.target, *counts, self._seconds)

    def _probability(self, logits: Tensor, image: Tensor) -> Tensor:
        """Of the target, below 1; of any other class, that of all others together."""
        each = logits.double().softmax(dim=1)
        target, predicted = self.target[image], self.predicted[image]
        wanted = each.gather(1, target.clamp(min=0)[:, None])[:, 0]
        others = 1 - each.gather(1, predicted[:, None])[:, 0]
        return torch.where(target == ANY_OTHER, others, wanted)

    def _count(self, counts: Tensor, image: Tensor) -> None:
        counts.index_add_(0, image, torch.ones_like(image))


def best_rows(
    merit: Float[Tensor, " rows"], image: Int[Tensor, " rows"], so_far: Float[Tensor, " batch"]
) -> Int[Tensor, " _"]:
    """One row for each original that has a row of more merit than it had so far: the first of the best."""
    best = so_far.scatter_reduce(0, image, merit, "amax")
    ahead = ((merit == best[image]) & (merit > so_far[image])).nonzero()[:, 0]
    first = torch.full_like(so_far, len(image), dtype=torch.long).scatter_reduce(0, image[ahead], ahead, "amin")
    return first[first < len(image)]


def lead_of(
    logits: Float[Tensor, "rows classes"], target: Int[Tensor, " rows"], predicted: Int[Tensor, " rows"]
) -> Float[Tensor, " rows"]:
    """The logit of the target less the largest other one; of :data:`ANY_OTHER` the largest one less the predicted's."""
    anything = target == ANY_OTHER
    pivot = torch.where(anything, predicted, target)[:, None]
    chosen = F.one_hot(pivot[:, 0], logits.shape[1]).bool()
    lead = logits.gather(1, pivot)[:, 0] - logits.masked_fill(chosen, -torch.inf).amax(dim=1)
    return torch.where(anything, -lead, lead)


def _plain(logits: Tensor) -> Tensor:
    """Logits as numbers, in float32 at least."""
    return logits.as_subclass(Tensor).to(torch.promote_types(logits.dtype, torch.float32))
