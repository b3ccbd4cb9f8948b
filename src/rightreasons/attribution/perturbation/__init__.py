"""Attributions that hide parts of the image and see what becomes of the score."""

from rightreasons.attribution.forward import Output
from rightreasons.attribution.perturbation.baselines import MeanBaseline, ScaledBlur
from rightreasons.attribution.perturbation.masking import Perturbation
from rightreasons.attribution.perturbation.meaningful import MeaningfulPerturbation
from rightreasons.attribution.perturbation.occlusion import FeatureAblation, Occlusion
from rightreasons.attribution.perturbation.regions import RegionPerturbation, Segments
from rightreasons.attribution.perturbation.rise import RISE
from rightreasons.attribution.perturbation.surrogate import LIME, KernelSHAP

__all__ = [
    "LIME",
    "RISE",
    "FeatureAblation",
    "KernelSHAP",
    "MeanBaseline",
    "MeaningfulPerturbation",
    "Occlusion",
    "Output",
    "Perturbation",
    "RegionPerturbation",
    "ScaledBlur",
    "Segments",
]
