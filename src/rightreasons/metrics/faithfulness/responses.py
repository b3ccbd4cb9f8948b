"""The scores of changed images, computed once for all metrics and all heatmaps of a batch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.baselines import Baseline
from rightreasons.attribution.forward import Forward, Output, rows_at_once, score_of
from rightreasons.attribution.perturbation.baselines import baselines_of
from rightreasons.attribution.score import Score
from rightreasons.core import Batch, Classifier
from rightreasons.core.hooks import preserved
from rightreasons.core.tensors import check_classes, check_pair
from rightreasons.models.contrast import Leads

Place = Callable[[Tensor, Tensor], Tensor]
"""``place(step, image) -> inputs``: the images of these numbers, changed as these steps say."""

Hidden = float | str | Baseline
"""What stands where a pixel is hidden: a value, the image's ``"mean"``, the image ``"blurred"``, or a ``Baseline``."""

Reading = Output | Literal["correct"]
"""What is read off the model: a score of the target, or whether the target is the class of the largest logit (1, 0); of
a contrast's leads, whether it is ahead of the other class."""

READINGS: tuple[Reading, ...] = (*get_args(Score), "probability", "correct")

CLEAN = "clean"


class Responses:
    """How the model's score of ``batch.target`` responds to changes of the images of one batch.

    It remembers what it has computed. What does not depend on a heatmap (the images as they are, the baselines, random
    perturbations under a seed) runs once for all heatmaps of the batch; images with pixels hidden in a given order run
    once for all metrics that hide in this order. All readings are kept of each pass, so that metrics of the logit and
    of the probability share it. It is for one batch and one state of the weights: throw it away when either changes.

    Attributes:
        model: The classifier.
        batch: The images and the classes that are explained.
        passes: Images that have run through the model so far.
    """

    def __init__(self, model: Classifier, batch: Batch) -> None:
        check_pair(batch.inputs, batch.target)
        if not len(batch):
            raise ValueError("expected at least one image, got an empty batch")
        self.model = model
        self.batch = batch
        self.passes = 0
        self._forward = Forward(model)
        self._read: dict[Hashable, Tensor] = {}
        self._baselines: dict[Baseline, Tensor] = {}

    def read(
        self,
        place: Place,
        steps: int,
        *,
        score: Reading = "probability",
        max_batch: int | None = None,
        key: Hashable = None,
    ) -> Float[Tensor, "steps batch"]:
        """The score of every image after every change, in float32 at least.

        Args:
            place: Makes the changed images.
            steps: Number of changes; ``place`` is asked for 0 to ``steps - 1``.
            score: What is read off the model.
            max_batch: Images that run at once; ``None``: 256, on a CPU 64, fewer if they are large.
            key: Names the changes (the metric's settings); under a name that was used before nothing runs.
        """
        found = self._read.get(key)
        if key is None or found is None:
            found = self._run(place, torch.arange(steps, device=self.batch.target.device), max_batch)
            if key is not None:
                self._read[key] = found
        return found[READINGS.index(score)]

    def clean(self, score: Reading = "probability", *, max_batch: int | None = None) -> Float[Tensor, " batch"]:
        """The score of every image as it is."""
        place: Place = lambda step, image: self.batch.inputs[image]  # noqa: E731
        return self.read(place, 1, score=score, max_batch=max_batch, key=CLEAN)[0]

    @staticmethod
    def ranks(heatmap: Float[Tensor, "batch 1 height width"]) -> Int[Tensor, "batch pixels"]:
        """Each pixel's place in the order of its heatmap, 0 for the largest value; of equal ones the first leads."""
        order = heatmap.detach().flatten(1).argsort(dim=1, descending=True, stable=True)
        places = torch.arange(order.shape[1], dtype=torch.int32, device=order.device).expand_as(order)
        return torch.empty_like(order, dtype=torch.int32).scatter_(1, order, places)

    @staticmethod
    def order(ranks: Int[Tensor, "batch pixels"]) -> Hashable:
        """A name of these orders, to be part of the ``key`` of what depends on them."""
        return hashlib.blake2b(ranks.cpu().numpy().tobytes(), digest_size=16).digest()

    def baseline(self, setting: Hidden) -> Float[Tensor, "batch channels height width"]:
        """The images that stand where something is hidden.

        Raises:
            ValueError: The setting makes several of an image.
        """
        method = baseline_of(setting)
        if method not in self._baselines:
            made = method.facing(self.model, self.batch.inputs)
            if len(made) != 1:
                raise ValueError(f"expected a baseline that makes one image of each, got {len(made)} of {method}")
            self._baselines[method] = made[0]
        return self._baselines[method]

    def hidden(
        self,
        ranks: Int[Tensor, "batch pixels"],
        counts: Sequence[int],
        *,
        baseline: Hidden,
        score: Reading = "probability",
        max_batch: int | None = None,
    ) -> Float[Tensor, "counts batch"]:
        """The score of every image with so many pixels hidden, those of the lowest ranks.

        Args:
            ranks: Each pixel's place in the order in which pixels are hidden.
            counts: How many are hidden, from 0 to all.
            baseline: What stands there.
            score: What is read off the model.
            max_batch: Images that run at once; ``None``: 256, on a CPU 64, fewer if they are large.
        """
        order, stand_in = self.order(ranks), baseline_of(baseline)
        # With no pixel hidden, or all, the order does not matter; with none the baseline does not either.
        ends: dict[int, Hashable] = {0: CLEAN, ranks.shape[1]: stand_in}
        keys = {count: ends.get(count, (order, stand_in, count)) for count in counts}
        missing = [count for count, key in keys.items() if key not in self._read]
        if missing:
            place, numbers = self._hiding(ranks, missing, baseline)
            found = self._run(place, numbers, max_batch)
            self._read.update({keys[count]: found[:, [step]] for step, count in enumerate(missing)})
        return torch.cat([self._read[keys[count]][READINGS.index(score)] for count in counts])

    def _hiding(self, ranks: Tensor, counts: list[int], baseline: Hidden) -> tuple[Place, Tensor]:
        inputs, stand_in = self.batch.inputs, self.baseline(baseline)
        places = ranks.view(len(inputs), 1, *inputs.shape[2:])
        numbers = torch.tensor(counts, dtype=ranks.dtype, device=ranks.device)

        def place(count: Tensor, image: Tensor) -> Tensor:
            return torch.where(places[image] < count[:, None, None, None], stand_in[image], inputs[image])

        return place, numbers

    def _run(self, place: Place, steps: Tensor, max_batch: int | None) -> Float[Tensor, "readings steps batch"]:
        """All readings of every image after every step."""
        inputs, target = self.batch.inputs, self.batch.target
        rows = torch.arange(len(steps) * len(inputs), device=target.device)
        parts = []
        with _undisturbed(self.model):
            for chunk in torch.split(rows, rows_at_once(max_batch, inputs)):
                image = chunk % len(inputs)
                logits = self._forward(place(steps[chunk // len(inputs)], image), image)
                check_classes(target, logits.shape[1])
                parts.append(_readings(logits, target[image]))
        self.passes += len(rows)
        return torch.cat(parts, dim=1).view(len(READINGS), len(steps), len(inputs))


def baseline_of(setting: Hidden) -> Baseline:
    """A setting in one form.

    Raises:
        ValueError: It is no baseline, or several.
    """
    baselines = baselines_of(setting)
    if len(baselines) != 1:
        raise ValueError(f"expected one baseline, got {len(baselines)}")
    return baselines[0]


def check_reading(score: str) -> None:
    """Refuse an unknown reading.

    Raises:
        ValueError: It is none of :data:`READINGS`.
    """
    if score not in READINGS:
        raise ValueError(f"expected score to be one of {', '.join(READINGS)}, got {score!r}")


@contextmanager
def _undisturbed(model: Classifier) -> Iterator[None]:
    with torch.no_grad(), preserved(model.network):
        yield


def _readings(logits: Float[Tensor, "rows classes"], target: Int[Tensor, " rows"]) -> Float[Tensor, "readings rows"]:
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    found = {score: score_of(logits, target, score) for score in READINGS if score != "correct"}
    right = found["logit"] > 0 if isinstance(logits, Leads) else logits.argmax(dim=1) == target
    return torch.stack([*found.values(), right.to(found["logit"].dtype)])
