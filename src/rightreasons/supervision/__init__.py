"""Revise: losses on what the model looks at."""

from rightreasons.core import Catalogue, ExplanationLoss
from rightreasons.supervision.activation_penalty import TAP
from rightreasons.supervision.counterexamples import Counterexamples
from rightreasons.supervision.gradient_penalties import RBR, RRR, CosineRRR
from rightreasons.supervision.map_guidance import GRADIA, HAICS, HINT, Energy, RRRGradCAM
from rightreasons.supervision.perturbation_training import PGDEx
from rightreasons.supervision.res import RES, LearnedImputation, adaptive_threshold, gaussian_imputation

LOSSES: Catalogue[ExplanationLoss] = Catalogue(
    "explanation loss",
    rrr=RRR,
    cosine_rrr=CosineRRR,
    rbr=RBR,
    rrr_grad_cam=RRRGradCAM,
    gradia=GRADIA,
    hint=HINT,
    energy=Energy,
    haics=HAICS,
    res=RES,
    tap=TAP,
    counterexamples=Counterexamples,
    pgd_ex=PGDEx,
)

__all__ = [
    "GRADIA",
    "HAICS",
    "HINT",
    "LOSSES",
    "RBR",
    "RES",
    "RRR",
    "TAP",
    "CosineRRR",
    "Counterexamples",
    "Energy",
    "LearnedImputation",
    "PGDEx",
    "RRRGradCAM",
    "adaptive_threshold",
    "gaussian_imputation",
]
