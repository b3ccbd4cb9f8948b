"""Layer-wise relevance propagation, by operator and on the graph."""

from rightreasons.attribution.lrp.composites import (
    COMPOSITES,
    ByOperator,
    Composite,
    DeepTaylorBox,
    EpsilonAlpha2Beta1,
    EpsilonAlpha2Beta1Flat,
    EpsilonEverywhere,
    EpsilonGammaBox,
    EpsilonPlus,
    EpsilonPlusFlat,
)
from rightreasons.attribution.lrp.conservation import Conservation, NotConserved
from rightreasons.attribution.lrp.method import LRP, DeepTaylor
from rightreasons.attribution.lrp.rules import RULES, AlphaBeta, Epsilon, Flat, Gamma, Rule, WSquare, ZBox, Zero, ZPlus

__all__ = [
    "COMPOSITES",
    "LRP",
    "RULES",
    "AlphaBeta",
    "ByOperator",
    "Composite",
    "Conservation",
    "DeepTaylor",
    "DeepTaylorBox",
    "Epsilon",
    "EpsilonAlpha2Beta1",
    "EpsilonAlpha2Beta1Flat",
    "EpsilonEverywhere",
    "EpsilonGammaBox",
    "EpsilonPlus",
    "EpsilonPlusFlat",
    "Flat",
    "Gamma",
    "NotConserved",
    "Rule",
    "WSquare",
    "ZBox",
    "ZPlus",
    "Zero",
]
