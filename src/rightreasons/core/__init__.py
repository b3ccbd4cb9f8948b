"""The spine: what travels, the verbs, and what holds them together."""

from rightreasons.core.batch import Batch
from rightreasons.core.catalogue import Catalogue
from rightreasons.core.errors import (
    BadModel,
    CorruptData,
    DataUnavailable,
    MissingAnnotation,
    MissingExtra,
    NotConserved,
    NotDifferentiable,
    NotWritten,
    ResumeRefused,
    RightReasonsError,
    TrainingDiverged,
    UnknownName,
)
from rightreasons.core.protocols import (
    ANY_OTHER,
    Attribution,
    Classifier,
    Counterfactual,
    Counterfactuals,
    ExplanationLoss,
    Metric,
    Trace,
)

__all__ = [
    "ANY_OTHER",
    "Attribution",
    "BadModel",
    "Batch",
    "Catalogue",
    "Classifier",
    "CorruptData",
    "Counterfactual",
    "Counterfactuals",
    "DataUnavailable",
    "ExplanationLoss",
    "Metric",
    "MissingAnnotation",
    "MissingExtra",
    "NotConserved",
    "NotDifferentiable",
    "NotWritten",
    "ResumeRefused",
    "RightReasonsError",
    "Trace",
    "TrainingDiverged",
    "UnknownName",
]
