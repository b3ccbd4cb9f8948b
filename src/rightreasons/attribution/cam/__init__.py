"""Class activation maps: the activations of a layer, weighted by what they mean to the score."""

from rightreasons.attribution.cam.ablation import AblationCAM
from rightreasons.attribution.cam.activation import EigenCAM, ScoreCAM
from rightreasons.attribution.cam.base import ClassActivationMap
from rightreasons.attribution.cam.gradient import (
    GradCAM,
    GradCAMPlusPlus,
    GradientActivationMap,
    HiResCAM,
    LayerCAM,
    XGradCAM,
)
from rightreasons.attribution.cam.pooled import CAM
from rightreasons.attribution.cam.several import AcrossLayers

__all__ = [
    "CAM",
    "AblationCAM",
    "AcrossLayers",
    "ClassActivationMap",
    "EigenCAM",
    "GradCAM",
    "GradCAMPlusPlus",
    "GradientActivationMap",
    "HiResCAM",
    "LayerCAM",
    "ScoreCAM",
    "XGradCAM",
]
