"""Networks, and the one form in which methods meet them."""

from rightreasons.models.adapters import adapt, check_fits, default_layer
from rightreasons.models.checkpoints import load_weights, save_weights
from rightreasons.models.classifier import AdaptedClassifier, Recorded, record
from rightreasons.models.condition import condition
from rightreasons.models.contrast import Contrast, contrast
from rightreasons.models.embed import Embedded, embed
from rightreasons.models.locate import MODELS, build
from rightreasons.models.pretrained import SentenceClassifier, efficientnet_lite0, minilm
from rightreasons.models.simple import MLP, BaselineCNN, LeNet

__all__ = [
    "MLP",
    "MODELS",
    "AdaptedClassifier",
    "BaselineCNN",
    "Contrast",
    "Embedded",
    "LeNet",
    "Recorded",
    "SentenceClassifier",
    "adapt",
    "build",
    "check_fits",
    "condition",
    "contrast",
    "default_layer",
    "efficientnet_lite0",
    "embed",
    "load_weights",
    "minilm",
    "record",
    "save_weights",
]
