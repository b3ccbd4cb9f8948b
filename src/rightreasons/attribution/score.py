"""The number that is explained, and its gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import Attribution, BadModel
from rightreasons.models.contrast import Leads

Score = Literal["logit", "log_probability", "sum_log_probabilities"]
"""``logit`` of the target; its ``log_probability``; or the sum of the log-probabilities of all classes, which has no
target (Ross et al. 2017, Eq. 1). Of a contrast's leads the classes are two, the target and the other one."""


def check_score(score: str) -> None:
    """Refuse an unknown score.

    Raises:
        ValueError: It is none of :data:`Score`.
    """
    if score not in get_args(Score):
        raise ValueError(f"expected score to be one of {', '.join(get_args(Score))}, got {score!r}")


def explained(
    logits: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"], score: Score
) -> Float[Tensor, " batch"]:
    """One number an image."""
    chosen = logits.as_subclass(Tensor).gather(1, target[:, None])[:, 0]
    if score == "logit":
        return chosen
    if isinstance(logits, Leads):
        # The softmax of two logits is the sigmoid of their difference.
        return F.logsigmoid(chosen) if score == "log_probability" else F.logsigmoid(chosen) + F.logsigmoid(-chosen)
    log_probabilities = logits.log_softmax(dim=1)
    if score == "sum_log_probabilities":
        return log_probabilities.sum(dim=1)
    return log_probabilities.gather(1, target[:, None])[:, 0]


@dataclass(frozen=True)
class PixelGradient(Attribution):
    """What the plain gradients of the pixels share: a score, a sign, and that they can be trained through.

    Args:
        score: The number that is explained.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    score: Score = "logit"

    def __post_init__(self) -> None:
        check_score(self.score)


def gradient(scores: Float[Tensor, " batch"], of: Tensor, *, graph: bool, last: bool = False) -> Tensor:
    """D score / d ``of``, each image's own; with ``graph`` it can be differentiated again.

    Args:
        scores: One number an image.
        of: What they hang on.
        graph: Keep a graph of the gradient.
        last: Nobody asks the pass for another gradient, so what it saved is let go on the way.

    Raises:
        BadModel: The score does not hang on it.
    """
    if not scores.requires_grad:
        raise BadModel("no gradient reaches the images: the network detaches its input or runs under torch.no_grad")
    # The sum keeps images apart: in eval mode no image's score depends on another image.
    (values,) = torch.autograd.grad(scores.sum(), of, create_graph=graph, retain_graph=not last, allow_unused=True)
    if values is None:
        raise BadModel(
            "the score does not depend on what is explained: choose a layer between the image and the logits"
        )
    return values
