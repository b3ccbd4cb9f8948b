"""Revise: losses on what the model looks at."""

from rightreasons.core import Catalogue, ExplanationLoss
from rightreasons.supervision.cam_alignment import GRADIA, HAICS
from rightreasons.supervision.counterexamples import Counterexamples
from rightreasons.supervision.gradient_penalties import RRR
from rightreasons.supervision.res import RES, LearnedImputation, adaptive_threshold, gaussian_imputation

LOSSES: Catalogue[ExplanationLoss] = Catalogue(
    "explanation loss",
    rrr=RRR,
    gradia=GRADIA,
    haics=HAICS,
    res=RES,
    counterexamples=Counterexamples,
)

__all__ = [
    "GRADIA",
    "HAICS",
    "LOSSES",
    "RES",
    "RRR",
    "Counterexamples",
    "LearnedImputation",
    "adaptive_threshold",
    "gaussian_imputation",
]
