"""Make vision models right for the right reasons: reveal what they look at, revise it, prove the change.

The names below are loaded when they are first used, so that ``import rightreasons`` does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rightreasons.attribution import ATTRIBUTIONS as ATTRIBUTIONS
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
    from rightreasons.experiments import prove as prove
    from rightreasons.metrics import METRICS as METRICS
    from rightreasons.models import MODELS as MODELS
    from rightreasons.models import adapt as adapt
    from rightreasons.supervision import GRADIA as GRADIA
    from rightreasons.supervision import HAICS as HAICS
    from rightreasons.supervision import LOSSES as LOSSES
    from rightreasons.supervision import RES as RES
    from rightreasons.supervision import RRR as RRR
    from rightreasons.supervision import Counterexamples as Counterexamples
    from rightreasons.training import FitSettings as FitSettings
    from rightreasons.training import Objective as Objective
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
    ),
    "core": ("Batch", "RightReasonsError"),
    "data": ("ImageFolder", "decoy", "load"),
    "experiments": ("prove",),
    "metrics": ("METRICS",),
    "models": ("MODELS", "adapt"),
    "supervision": ("GRADIA", "HAICS", "LOSSES", "RES", "RRR", "Counterexamples"),
    "training": ("FitSettings", "Objective", "Term", "fit"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted(_HOME_OF)


def __getattr__(name: str) -> object:
    if name in _HOME_OF:
        return getattr(import_module(f"{__name__}.{_HOME_OF[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
