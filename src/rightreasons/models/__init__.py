"""Networks, and the one form in which methods meet them."""

from rightreasons.models.adapters import adapt, check_fits, default_layer
from rightreasons.models.checkpoints import load_weights, save_weights
from rightreasons.models.classifier import AdaptedClassifier, Recorded, record
from rightreasons.models.condition import condition
from rightreasons.models.contrast import Contrast, contrast
from rightreasons.models.locate import MODELS, build
from rightreasons.models.simple import MLP, BaselineCNN, LeNet

__all__ = [
    "MLP",
    "MODELS",
    "AdaptedClassifier",
    "BaselineCNN",
    "Contrast",
    "LeNet",
    "Recorded",
    "adapt",
    "build",
    "check_fits",
    "condition",
    "contrast",
    "default_layer",
    "load_weights",
    "record",
    "save_weights",
]
