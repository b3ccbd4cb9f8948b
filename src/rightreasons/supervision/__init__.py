"""Revise: losses on what the model looks at."""

from rightreasons.core import Catalogue, ExplanationLoss
from rightreasons.supervision.activation_penalty import TAP
from rightreasons.supervision.color_invariance import ColorGradient, Recolored
from rightreasons.supervision.concept_penalty import RRClArC
from rightreasons.supervision.counterexamples import Counterexamples
from rightreasons.supervision.decomposition import CDEP
from rightreasons.supervision.gradient_penalties import RBR, RRR, CosineRRR
from rightreasons.supervision.map_guidance import GRADIA, HAICS, HINT, Energy, RRRGradCAM
from rightreasons.supervision.perturbation_training import R4, IBPEx, PGDEx
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
    cdep=CDEP,
    tap=TAP,
    counterexamples=Counterexamples,
    pgd_ex=PGDEx,
    ibp_ex=IBPEx,
    r4=R4,
    recolored=Recolored,
    color_gradient=ColorGradient,
)

__all__ = [
    "CDEP",
    "GRADIA",
    "HAICS",
    "HINT",
    "LOSSES",
    "R4",
    "RBR",
    "RES",
    "RRR",
    "TAP",
    "ColorGradient",
    "CosineRRR",
    "Counterexamples",
    "Energy",
    "IBPEx",
    "LearnedImputation",
    "PGDEx",
    "RRClArC",
    "RRRGradCAM",
    "Recolored",
    "adaptive_threshold",
    "gaussian_imputation",
]
