"""Make vision models right for the right reasons: reveal what they look at, revise it, prove the change.

The names below are loaded when they are first used, so that ``import rightreasons`` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rightreasons.attribution import ATTRIBUTIONS as ATTRIBUTIONS
    from rightreasons.attribution import LRP as LRP
    from rightreasons.attribution import DeepLIFT as DeepLIFT
    from rightreasons.attribution import ExpectedGradients as ExpectedGradients
    from rightreasons.attribution import GradCAM as GradCAM
    from rightreasons.attribution import GradCAMPlusPlus as GradCAMPlusPlus
    from rightreasons.attribution import InputXGradient as InputXGradient
    from rightreasons.attribution import IntegratedGradients as IntegratedGradients
    from rightreasons.attribution import Saliency as Saliency
    from rightreasons.attribution import SmoothGrad as SmoothGrad
    from rightreasons.core import Batch as Batch
    from rightreasons.core import RightReasonsError as RightReasonsError
    from rightreasons.data import ImageFolder as ImageFolder
    from rightreasons.data import decoy as decoy
    from rightreasons.data import load as load
    from rightreasons.data import read_annotations as read_annotations
    from rightreasons.data import with_annotations as with_annotations
    from rightreasons.experiments import prove as prove
    from rightreasons.metrics import METRICS as METRICS
    from rightreasons.metrics import evaluate_attributions as evaluate_attributions
    from rightreasons.models import MODELS as MODELS
    from rightreasons.models import adapt as adapt
    from rightreasons.models import condition as condition
    from rightreasons.models import contrast as contrast
    from rightreasons.models import embed as embed
    from rightreasons.supervision import GRADIA as GRADIA
    from rightreasons.supervision import HAICS as HAICS
    from rightreasons.supervision import LOSSES as LOSSES
    from rightreasons.supervision import RES as RES
    from rightreasons.supervision import RRR as RRR
    from rightreasons.supervision import Counterexamples as Counterexamples
    from rightreasons.supervision import Energy as Energy
    from rightreasons.supervision import RRRGradCAM as RRRGradCAM
    from rightreasons.training import Balance as Balance
    from rightreasons.training import FitSettings as FitSettings
    from rightreasons.training import Objective as Objective
    from rightreasons.training import Target as Target
    from rightreasons.training import Term as Term
    from rightreasons.training import fit as fit

__version__ = "0.1.0"

_HOMES = {
    "attribution": (
        "ATTRIBUTIONS",
        "ExpectedGradients",
        "GradCAM",
        "GradCAMPlusPlus",
        "InputXGradient",
        "IntegratedGradients",
        "Saliency",
        "SmoothGrad",
        "LRP",
        "DeepLIFT",
    ),
    "core": ("Batch", "RightReasonsError"),
    "data": ("ImageFolder", "decoy", "load", "read_annotations", "with_annotations"),
    "experiments": ("prove",),
    "metrics": ("METRICS", "evaluate_attributions"),
    "models": ("MODELS", "adapt", "condition", "contrast", "embed"),
    "supervision": ("GRADIA", "HAICS", "LOSSES", "RES", "RRR", "Counterexamples", "Energy", "RRRGradCAM"),
    "training": ("FitSettings", "Objective", "Term", "fit", "Balance", "Target"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
