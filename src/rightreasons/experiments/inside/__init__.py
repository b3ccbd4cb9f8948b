"""What lies inside a network for a few images: feature maps of chosen layers, and what attention blocks weigh by."""

from rightreasons.experiments.inside.asked import FeatureSettings, Looked, look_at
from rightreasons.experiments.inside.looking import FEATURES, InsideView, look_inside, offered
from rightreasons.experiments.inside.measures import BlockView, ChannelWeights, LayerView, PlaceWeights

__all__ = [
    "FEATURES",
    "BlockView",
    "ChannelWeights",
    "FeatureSettings",
    "InsideView",
    "LayerView",
    "Looked",
    "PlaceWeights",
    "look_at",
    "look_inside",
    "offered",
]
