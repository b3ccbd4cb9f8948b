"""What a proof holds, and its numbers as plain values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from jaxtyping import Float
from torch import Tensor

from rightreasons.metrics import Estimate


@dataclass(frozen=True)
class Comparison:
    """One measure before and after.

    Attributes:
        name: The measure, with the explainer where it is about heatmaps.
        explanation: What it means, in a sentence.
        before: Of the model as it was.
        after: Of the revised model.
        difference: After minus before, with its own (paired) interval.
        higher_is_better: Whether a larger value is the better one.
        bound: The same measure of a model that never saw the shortcut.
        of: What the figures are of, where it may differ from model to model: which class fares worst.
    """

    name: str
    explanation: str
    before: Estimate
    after: Estimate
    difference: Estimate
    higher_is_better: bool
    bound: Estimate | None = None
    of: str = ""

    @property
    def judgement(self) -> Literal["better", "worse", "no clear change", "not judged"]:
        """What the interval of the difference says: no clear change if it holds zero."""
        low, high = self.difference.low, self.difference.high
        if not (math.isfinite(low) and math.isfinite(high)):
            return "not judged"
        if low <= 0 <= high:
            return "no clear change"
        return "better" if (low > 0) == self.higher_is_better else "worse"


@dataclass(frozen=True)
class Control:
    """A run that should fail for a known reason.

    Attributes:
        name: Which.
        accuracy: What came out.
        lead: Accuracy of the revised model minus this one's, paired.
        passed: Whether the revised model is clearly ahead, the interval of the lead above zero.
    """

    name: str
    accuracy: Estimate
    lead: Estimate
    passed: bool


@dataclass(frozen=True, eq=False)
class View:
    """What one model says about one image, and why.

    Attributes:
        prediction: Number of the class.
        confidence: Its probability.
        heatmaps: Raw maps (H, W) by explainer, of the predicted class.
    """

    prediction: int
    confidence: float
    heatmaps: Mapping[str, Float[Tensor, "height width"]]


@dataclass(frozen=True, eq=False)
class Example:
    """An image with its truth and the views of both models.

    Attributes:
        index: Position in the data set.
        image: (C, H, W) in [0, 1].
        truth: Number of the class.
        irrelevant: (H, W), or ``None``.
        before: The model as it was.
        after: The revised model.
    """

    index: int
    image: Float[Tensor, "channels height width"]
    truth: int
    irrelevant: Float[Tensor, "height width"] | None
    before: View
    after: View


@dataclass(frozen=True, eq=False)
class Proof:
    """The result of :func:`prove`.

    Attributes:
        data: Name of the test data.
        classes: Names of the classes.
        images: Number of test images.
        explained: How many of them were explained.
        explainers: Signed or not, by name, in order; the first is the one that was trained through, if any was.
        comparisons: The measures, accuracy first.
        controls: Runs that should fail.
        examples: Images drawn at random, the same for both models.
    """

    data: str
    classes: tuple[str, ...]
    images: int
    explained: int
    explainers: Mapping[str, bool]
    comparisons: tuple[Comparison, ...]
    controls: tuple[Control, ...] = ()
    examples: tuple[Example, ...] = ()

    def __getitem__(self, name: str) -> Comparison:
        """The comparison of that name."""
        for comparison in self.comparisons:
            if comparison.name == name:
                return comparison
        raise KeyError(f"no comparison {name!r}. There are: {', '.join(c.name for c in self.comparisons)}")


def figures(proof: Proof) -> dict[str, Any]:
    """The numbers of a proof as plain values, for a record."""

    def plain(e: Estimate | None) -> list[float] | None:
        return None if e is None else [e.value, e.low, e.high, e.count]

    comparisons = {
        c.name: {
            "before": plain(c.before),
            "after": plain(c.after),
            "difference": plain(c.difference),
            "bound": plain(c.bound),
            "judgement": c.judgement,
            **({"of": c.of} if c.of else {}),
        }
        for c in proof.comparisons
    }
    controls = {
        c.name: {"accuracy": plain(c.accuracy), "lead": plain(c.lead), "passed": c.passed} for c in proof.controls
    }
    return {"comparisons": comparisons, "controls": controls}
