"""What was found and measured, and how it is written down."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field, fields
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.core import ANY_OTHER, Counterfactuals
from rightreasons.counterfactuals import Overlay
from rightreasons.experiments.counterfactual.asked import ANY, Asked
from rightreasons.experiments.record import Record, make_record
from rightreasons.metrics import Estimate, bootstrap
from rightreasons.metrics.counterfactual import Boundary, Distances


@dataclass(frozen=True, eq=False)
class Answers:
    """The counterfactuals with all that was measured of them; everything on the CPU.

    Attributes:
        asked: Images and targets.
        found: What the method found.
        classes: Names of the classes.
        pixel_range: Of the images.
        way: Probabilities of all classes on the way from the original to the counterfactual.
        overlay: What of the change is drawn.
        contrasts: What speaks for the predicted class and against the other one; NaN where it cannot be told.
        baseline: From where these maps start, in words.
        distances: Of each pair.
        boundary: Where the way crosses it.
        record: As it was written.
    """

    asked: Asked
    found: Counterfactuals
    classes: tuple[str, ...]
    pixel_range: tuple[float, float]
    way: Float[Tensor, "frames images classes"]
    overlay: Overlay
    contrasts: Float[Tensor, "images 1 height width"]
    baseline: str
    distances: Distances
    boundary: Boundary
    record: Record = field(default_factory=lambda: make_record("counterfactual", {}, {}))

    @property
    def other(self) -> Int[Tensor, " images"]:
        """The class that each is about: the target, or of any other one that which was reached or came nearest."""
        return reached_class(self.way[-1], self.asked.predicted, self.asked.target)

    @property
    def valid(self) -> Bool[Tensor, " images"]:
        """Whether the model gives the changed image the target, by whatever lead."""
        reached, target = self.way[-1].argmax(dim=1), self.asked.target
        return torch.where(target == ANY_OTHER, reached != self.asked.predicted, reached == target)

    @property
    def milliseconds(self) -> float:
        """Of the search, an image; all are searched together."""
        return 1000 * self.found.seconds / len(self.asked.names)

    def summary(self) -> dict[str, Estimate]:
        """Means over the images with 95 % intervals: validity and queries over all, distances over the valid ones."""
        valid = self.valid
        told = {name: getattr(self.distances, name) for name in ("l2", "l1", "linf", "l0", "tv", "sparsity")}
        told |= {"sharpness": self.boundary.sharpness, "overshoot": self.boundary.overshoot}
        found = {"validity": valid.double(), "queries": self.found.queries.double()}
        found |= {name: values.double().masked_fill(~valid, math.nan) for name, values in told.items()}
        return {name: bootstrap(values) for name, values in found.items()}


def reached_class(
    after: Float[Tensor, "images classes"], predicted: Int[Tensor, " images"], target: Int[Tensor, " images"]
) -> Int[Tensor, " images"]:
    """The target; of any other class the most probable one but that which was predicted."""
    best = after.scatter(1, predicted[:, None], -1.0).argmax(dim=1)
    return torch.where(target == ANY_OTHER, best, target)


def results(answers: Answers) -> dict[str, Any]:
    """What the record says: the summary, and one mapping an image."""
    return {
        "summary": {name: asdict(estimate) for name, estimate in answers.summary().items()},
        "milliseconds": answers.milliseconds,
        "images": [_told(answers, row) for row in range(len(answers.asked.names))],
    }


def _told(answers: Answers, row: int) -> dict[str, Any]:
    asked, found, drawn, classes = answers.asked, answers.found, answers.overlay, answers.classes
    start, other = int(asked.predicted[row]), int(answers.other[row])
    chances = answers.way[:, row]
    return {
        "name": asked.names[row],
        "position": None if asked.index is None else int(asked.index[row]),
        "truth": None if asked.truth is None else classes[int(asked.truth[row])],
        "predicted": classes[start],
        "target": ANY if asked.target[row] == ANY_OTHER else classes[int(asked.target[row])],
        "becomes": classes[int(chances[-1].argmax())],
        "valid": bool(answers.valid[row]),
        "way": {"predicted": chances[:, start].tolist(), "other": chances[:, other].tolist()},
        "distances": {f.name: float(getattr(answers.distances, f.name)[row]) for f in fields(Distances)},
        "boundary": {f.name: float(getattr(answers.boundary, f.name)[row]) for f in fields(Boundary)},
        "drawn": {
            "pixels": int(drawn.drawn[row].sum()),
            "needless": int(drawn.needless[row]),
            "faint": int(drawn.faint[row]),
            "valid": bool(drawn.valid[row]),
        },
        "queries": int(found.queries[row]),
        "gradients": int(found.gradients[row]),
        "milliseconds": answers.milliseconds,
    }
