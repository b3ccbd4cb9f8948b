"""Networks, and the one form in which methods meet them."""

from rightreasons.models.adapters import adapt, check_fits, default_layer
from rightreasons.models.autoencoder import VAE, Autoencoder, ClassGenerator
from rightreasons.models.backbones import (
    BACKBONES,
    NORMALIZATIONS,
    Backbone,
    BackboneClassifier,
    Normalization,
    backbone,
    count_weights,
)
from rightreasons.models.blocks import (
    BLOCKS,
    CBAM,
    Attached,
    AttentionBlock,
    BlockAttention,
    GlobalContext,
    PositionAttention,
    SqueezeExcite,
    attach,
    attended,
)
from rightreasons.models.checkpoints import load_weights, save_weights
from rightreasons.models.classifier import AdaptedClassifier, Recorded, record
from rightreasons.models.condition import condition
from rightreasons.models.contrast import Contrast, contrast
from rightreasons.models.embed import Embedded, embed
from rightreasons.models.ensemble import DeepEnsemble
from rightreasons.models.features import (
    Inside,
    LayerOutput,
    check_layers,
    feature_maps,
    inside,
    layer_outputs,
    layers_with_maps,
)
from rightreasons.models.heads import AttentionHead, Lite0Tail
from rightreasons.models.locate import MODELS, NamedEnsemble, build
from rightreasons.models.pretrained import SentenceClassifier, efficientnet_lite0, minilm
from rightreasons.models.simple import MLP, BaselineCNN, LeNet, SmallResNet, StridedCNN

__all__ = [
    "BACKBONES",
    "BLOCKS",
    "CBAM",
    "MLP",
    "MODELS",
    "NORMALIZATIONS",
    "VAE",
    "AdaptedClassifier",
    "Attached",
    "AttentionBlock",
    "AttentionHead",
    "Autoencoder",
    "Backbone",
    "BackboneClassifier",
    "BaselineCNN",
    "BlockAttention",
    "ClassGenerator",
    "Contrast",
    "DeepEnsemble",
    "Embedded",
    "GlobalContext",
    "Inside",
    "LayerOutput",
    "LeNet",
    "Lite0Tail",
    "NamedEnsemble",
    "Normalization",
    "PositionAttention",
    "Recorded",
    "SentenceClassifier",
    "SmallResNet",
    "SqueezeExcite",
    "StridedCNN",
    "adapt",
    "attach",
    "attended",
    "backbone",
    "build",
    "check_fits",
    "check_layers",
    "condition",
    "contrast",
    "count_weights",
    "default_layer",
    "efficientnet_lite0",
    "embed",
    "feature_maps",
    "inside",
    "layer_outputs",
    "layers_with_maps",
    "load_weights",
    "minilm",
    "record",
    "save_weights",
]
