"""Shapley values and differences from a baseline, by operator and exact in their sum."""

from rightreasons.attribution.shapley.chain import ChainedSHAP
from rightreasons.attribution.shapley.deep_lift import DeepLIFT
from rightreasons.attribution.shapley.deep_shap import DeepSHAP
from rightreasons.attribution.shapley.gradient_shap import GradientSHAP
from rightreasons.attribution.shapley.heads import Head, LinearHead, TreeHead, as_head
from rightreasons.attribution.shapley.trees import Tree, tree_of, tree_shapley

__all__ = [
    "ChainedSHAP",
    "DeepLIFT",
    "DeepSHAP",
    "GradientSHAP",
    "Head",
    "LinearHead",
    "Tree",
    "TreeHead",
    "as_head",
    "tree_of",
    "tree_shapley",
]
