"""A frozen trunk before the network that is trained: its features are computed once and cached."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import BadModel
from rightreasons.core.hooks import find_layer
from rightreasons.data import ImageDataset
from rightreasons.data.download import default_cache
from rightreasons.data.features import FeatureDataset
from rightreasons.models import BACKBONES, NORMALIZATIONS, AdaptedClassifier, backbone, efficientnet_lite0

TRUNKS: Mapping[str, Callable[[], AdaptedClassifier]] = MappingProxyType({"efficientnet_lite0": efficientnet_lite0})
"""Trained networks whose weights come in packages, by name."""


@dataclass(frozen=True)
class TrunkSettings:
    """Which frozen features stand in the place of the images.

    Attributes:
        trunk: Name of a trained network; without ``layer`` one of the backbones, with the weights it was trained to.
        layer: The layer whose output is taken; empty takes the last map, activation and all.
        side: Side to which images are resized first; 0 leaves them as they are, or for the last map takes the
            network's own.
        normalization: Of the last map: ``own``, or another custom whatever the network wants, see ``backbone``.
    """

    trunk: str
    layer: str = ""
    side: int = 0
    normalization: str = "own"

    def __post_init__(self) -> None:
        known = TRUNKS if self.layer else BACKBONES
        if self.trunk not in known:
            raise ValueError(f"no frozen trunk named {self.trunk!r}. There are: {', '.join(known)}")
        if self.side < 0:
            raise ValueError(f"expected a side of at least 0 pixels, got {self.side}")
        if self.normalization not in ("own", *NORMALIZATIONS):
            raise ValueError(f"expected own, {', '.join(NORMALIZATIONS)}, got {self.normalization!r}")
        if self.layer and self.normalization != "own":
            raise ValueError(f"expected the network's own normalization with a layer, got {self.normalization!r}")


class UpTo(nn.Module):
    """A network up to one of its layers: what lies behind it does not run.

    Grey images are shown in three equal channels, and images are enlarged to ``side`` where it is not 0.
    """

    def __init__(self, network: AdaptedClassifier, layer: str, side: int = 0) -> None:
        super().__init__()
        self.network, self.layer, self.side = network, layer, side
        find_layer(network.network, layer)

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Tensor:
        """The layer's output."""
        if self.side:
            inputs = F.interpolate(inputs, size=(self.side, self.side), mode="bilinear", align_corners=False)
        inputs = inputs.expand(-1, 3, -1, -1) if inputs.shape[1] == 1 else inputs
        handle = find_layer(self.network.network, self.layer).register_forward_hook(_stop)
        try:
            self.network(inputs)
        except _Reached as reached:
            return reached.output
        finally:
            handle.remove()
        raise BadModel(f"layer {self.layer!r} does not run in a pass; choose another")

    def extra_repr(self) -> str:
        """Layer and side."""
        return f"layer={self.layer!r}, side={self.side}"


class _Reached(Exception):
    def __init__(self, output: Tensor) -> None:
        super().__init__()
        self.output = output


def _stop(module: nn.Module, args: object, output: Tensor) -> None:
    raise _Reached(output)


def with_features(data: ImageDataset, settings: TrunkSettings) -> ImageDataset:
    """The features of a frozen trunk in the place of the images, from the cache where they were computed before.

    Raises:
        MissingExtra: The package with the trunk is not installed.
        DataUnavailable: The trunk's weights cannot be fetched.
        BadModel: The trunk has no such layer, or it gives no maps.
    """
    with torch.random.fork_rng():
        trunk = _trunk(settings)
    told = f"{settings.trunk} {settings.layer or 'last map'}" + (f" at {settings.side}" if settings.side else "")
    return FeatureDataset(data, trunk, default_cache() / "features", told=told)


def _trunk(settings: TrunkSettings) -> nn.Module:
    if settings.layer:
        return UpTo(TRUNKS[settings.trunk](), settings.layer, settings.side)
    return backbone(
        settings.trunk, pretrained=True, normalization=settings.normalization, size=settings.side or None
    ).eval()
