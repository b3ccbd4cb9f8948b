"""Images meet baselines: what each pixel adds to the change of the score from one to the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.shapley.pair import Ends, Steps, noise_state, paired, ran, same_noise
from rightreasons.attribution.shapley.rescale import swept
from rightreasons.attribution.shapley.reveal_cancel import swept_in_parts
from rightreasons.core import Classifier, NotConserved
from rightreasons.core.hooks import preserved

SWEEPS: dict[str, Callable[[list[Ends], Tensor], Tensor]] = {"rescale": swept, "reveal_cancel": swept_in_parts}

Seed = Callable[[Tensor, Tensor, Tensor], Tensor]
"""``seed(image, logits, baseline logits) -> (classes, rows, outputs)``: multipliers of the logits of these images."""


@dataclass(frozen=True, slots=True, eq=False)
class Shares:
    """What pixels add, and what they should sum to.

    Attributes:
        values: (classes, rows, C, H, W).
        promised: (classes, rows).
        scale: Of the scores whose difference is promised, (classes, rows).
    """

    values: Tensor
    promised: Tensor
    scale: Tensor

    def check(self, tolerance: float) -> None:
        """Refuse values that do not sum to what they should.

        Raises:
            NotConserved: By how much.
        """
        with torch.no_grad():
            values, kind = self.values.double(), torch.finfo(self.values.dtype)
            missing = (values.sum(dim=(2, 3, 4)) - self.promised.double()).abs()
            # Of an image that is its baseline nothing is left but the rounding of two scores.
            missing = (missing - 100 * kind.eps * self.scale.double()).clamp(min=0)
            worst = float((missing / values.abs().sum(dim=(2, 3, 4)).clamp(min=kind.tiny)).max())
        if not worst <= tolerance:
            raise NotConserved(
                f"the values do not sum to the change of the score from the baseline: {worst:.2g} of them is missing, "
                f"more than the tolerance of {tolerance:g}"
            )


@dataclass(frozen=True, slots=True)
class Meetings:
    """How meetings are held.

    Attributes:
        model: The classifier.
        rule: Of a nonlinear function: a key of :data:`SWEEPS`.
        seed: What is explained.
        graph: The values are on the graph to the weights.
    """

    model: Classifier
    rule: str
    seed: Seed
    graph: bool

    def with_baselines(self, inputs: Tensor, starts: Float[Tensor, "baselines batch ..."]) -> Shares:
        """Each image meets baselines of its own; means over these. A baseline that all images share runs once."""
        rows = torch.arange(len(inputs), device=inputs.device)
        many, runs = self._ran_for_others(inputs, rows)
        found = []
        for number, start in enumerate(starts):
            shared = self._same_for_all_rows() and bool((start == start[:1]).all())
            ends = paired(many, runs(start[:1] if shared else start), alone_is_image=False)
            if number == len(starts) - 1:
                many = []  # the last meeting uses the pass up
            found.append(self._shares(ends, inputs - start, rows))
        return _mean(found)

    def with_references(self, inputs: Tensor, references: Tensor, rows_at_once: int) -> Shares:
        """Each image meets each reference; means over these.

        Of images and references the more numerous run in batches, and the others one by one beside these.
        """
        if len(references) < len(inputs) or not self._same_for_all_rows():
            rows = torch.arange(len(inputs), device=inputs.device)
            return _joined([self._images(inputs, references, part) for part in torch.split(rows, rows_at_once)])
        each: list[list[Shares]] = [[] for _ in inputs]
        for part in torch.split(references, rows_at_once):
            many, runs = self._ran_for_others(part, None)
            for number in range(len(inputs)):
                image = inputs[number : number + 1]
                ends = paired(many, runs(image), alone_is_image=True)
                index = torch.full((len(part),), number, device=inputs.device)
                each[number].append(_summed(self._shares(ends, image - part, index), len(references)))
        return _joined([_total(shares) for shares in each])

    def _images(self, inputs: Tensor, references: Tensor, rows: Tensor) -> Shares:
        images = inputs[rows]
        many, runs = self._ran_for_others(images, rows)
        found = []
        for reference in references:
            start = reference[None]
            ends = paired(many, runs(start), alone_is_image=False)
            found.append(self._shares(ends, images - start, rows))
        return _mean(found)

    def _same_for_all_rows(self) -> bool:
        """Nothing stands beside an image, and no class of its own against it."""
        first = torch.zeros(1, dtype=torch.long)
        one = self.model.rows(first)  # a recorded pass gives the classifier below it, not itself
        return one.rows(first) is one

    def _ran_for_others(
        self, inputs: Tensor, rows: Tensor | None
    ) -> tuple[Steps, Callable[[Tensor], Callable[[int], Steps]]]:
        """A pass, and what runs others beside it, with the same dropout masks."""
        state = noise_state(inputs.device)
        model = self.model if rows is None else self.model.rows(rows)
        many = ran(model, inputs, graph=self.graph)

        def runs(other: Tensor) -> Callable[[int], Steps]:
            def alone(count: int) -> Steps:
                shown = other if self._same_for_all_rows() and count == 1 else other.expand(inputs.shape)
                with same_noise(state, inputs.device):
                    return ran(model, shown, graph=self.graph)

            return alone

        return many, runs

    def _shares(self, ends: list[Ends], way: Tensor, image: Int[Tensor, " rows"]) -> Shares:
        last = ends[-1]
        slopes = self.seed(image, last.image, last.baseline)
        promised = (slopes * last.change).sum(-1)
        scale = (slopes.abs() * (last.image.abs() + last.baseline.abs())).sum(-1)
        return Shares(way * SWEEPS[self.rule](ends, slopes), promised, scale)


@contextmanager
def off_graph(model: Classifier, inputs: Tensor) -> Iterator[Tensor]:
    """Images to explain without a graph, also within ``torch.inference_mode``.

    Raises:
        ValueError: They are no images.
    """
    if inputs.ndim != 4:
        raise ValueError(f"expected images, (B, C, H, W), got shape {tuple(inputs.shape)}")
    with torch.inference_mode(False), torch.no_grad(), preserved(model.network):
        yield inputs.clone() if inputs.is_inference() else inputs


def one_class(target: Int[Tensor, " batch"]) -> Seed:
    """The logit of each image's target."""

    def seed(image: Tensor, logits: Tensor, baseline: Tensor) -> Tensor:
        rows = torch.zeros(len(image), logits.shape[1], dtype=logits.dtype, device=logits.device)
        return rows.scatter(1, target[image][:, None], 1.0)[None]

    return seed


def every_class(image: Tensor, logits: Tensor, baseline: Tensor) -> Tensor:
    """The logit of each class."""
    classes = logits.shape[1]
    one = torch.eye(classes, dtype=logits.dtype, device=logits.device)
    return one[:, None].expand(classes, len(image), classes)


def _mean(parts: Sequence[Shares]) -> Shares:
    return parts[0] if len(parts) == 1 else _combined(parts, lambda tensors: _sum(tensors) / len(parts))


def _total(parts: Sequence[Shares]) -> Shares:
    return _combined(parts, _sum)


def _summed(shares: Shares, count: int) -> Shares:
    """The mean over rows, of which these are a part of ``count``."""
    return _combined([shares], lambda tensors: tensors[0].sum(1, keepdim=True) / count)


def _joined(parts: Sequence[Shares]) -> Shares:
    return _combined(parts, lambda tensors: torch.cat(tensors, dim=1))


def _combined(parts: Sequence[Shares], how: Callable[[list[Tensor]], Tensor]) -> Shares:
    return Shares(how([p.values for p in parts]), how([p.promised for p in parts]), how([p.scale for p in parts]))


def _sum(tensors: list[Tensor]) -> Tensor:
    total = tensors[0]
    for tensor in tensors[1:]:
        total = total + tensor
    return total
