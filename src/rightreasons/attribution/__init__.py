"""Reveal: what the model looked at."""

from rightreasons.attribution.cam import ClassActivationMap, GradCAM, GradCAMPlusPlus
from rightreasons.attribution.gradient import (
    ExpectedGradients,
    InputXGradient,
    IntegratedGradients,
    Saliency,
    SmoothGrad,
)
from rightreasons.attribution.score import Score
from rightreasons.core import Attribution, Catalogue

ATTRIBUTIONS: Catalogue[Attribution] = Catalogue(
    "attribution",
    saliency=Saliency,
    input_x_gradient=InputXGradient,
    smooth_grad=SmoothGrad,
    integrated_gradients=IntegratedGradients,
    expected_gradients=ExpectedGradients,
    grad_cam=GradCAM,
    grad_cam_plus_plus=GradCAMPlusPlus,
)

__all__ = [
    "ATTRIBUTIONS",
    "ClassActivationMap",
    "ExpectedGradients",
    "GradCAM",
    "GradCAMPlusPlus",
    "InputXGradient",
    "IntegratedGradients",
    "Saliency",
    "Score",
    "SmoothGrad",
]
