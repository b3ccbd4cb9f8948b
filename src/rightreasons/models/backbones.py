"""Backbones by name: networks that give a feature map, each with the pixel values that it was trained on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import import_module
from types import MappingProxyType
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import BadModel, DataUnavailable, MissingExtra, UnknownName
from rightreasons.core.tensors import resized
from rightreasons.models.blocks.attach import Attached, Block, attach
from rightreasons.models.pretrained import efficientnet_lite0, package

BACKBONES: Mapping[str, str] = MappingProxyType(
    {
        "vgg16": "vgg16",
        "vgg19": "vgg19",
        "resnet50": "resnet50",
        "resnet101": "resnet101",
        "mobilenet": "mobilenetv1_100",
        "mobilenet_v2": "mobilenetv2_100",
        "efficientnet_b0": "efficientnet_b0",
        "efficientnet_b1": "efficientnet_b1",
        "inception_v3": "inception_v3",
        "xception": "legacy_xception",
        "densenet121": "densenet121",
        "densenet169": "densenet169",
        "mnasnet": "mnasnet_100",
        "efficientnet_lite0": "",
    }
)
"""Ours, and what timm calls them; EfficientNet-Lite0 comes in packages, weights and all.

The first thirteen are those of the attention-and-counterfactuals paper, its section 6.2.1, but for the last of them:
timm has no NASNetMobile, and ``mnasnet`` is the nearest searched mobile network that it has.
"""

_HEADS = ("pre_logits", "head", "head_drop", "fc", "fc_norm", "classifier", "global_pool")
"""What stands behind the feature map in timm's networks."""


@dataclass(frozen=True)
class Normalization:
    """The pixel values that a network was trained on: images in [0, 1], minus ``mean``, divided by ``std``.

    Attributes:
        mean: Of each channel.
        std: Of each channel.
        size: Side in pixels.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    size: int = 224

    def __post_init__(self) -> None:
        if not (all(map(math.isfinite, self.mean)) and all(0 < s < math.inf for s in self.std) and self.size >= 1):
            raise ValueError(f"expected finite means, positive deviations and a size of at least 1, got {self}")

    @property
    def reach(self) -> tuple[float, float]:
        """The smallest and the largest value that the network meets: what black and white become, over all channels."""
        pairs = list(zip(self.mean, self.std, strict=True))
        return min(-m / s for m, s in pairs), max((1 - m) / s for m, s in pairs)


NORMALIZATIONS: Mapping[str, Normalization] = MappingProxyType(
    {
        "imagenet": Normalization((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        "signed": Normalization((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
        "unscaled": Normalization((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
        "scaled_twice": Normalization((127.5, 127.5, 127.5), (127.5, 127.5, 127.5)),
    }
)
"""Two customs and two slips.

The customs: the mean and deviation of ImageNet's pixels, about -2.1 to 2.6, or the range from -1 to 1. The slips: bytes
from 0 to 255 as they are, and pixels that were divided by 255 before a step that divides them by 127.5 and takes 1 off,
so that black and white become -1 and -0.992.
"""


class Preparation(nn.Module):
    """Images in [0, 1], gray or RGB and of any size, as a backbone takes them: RGB, resized (bilinear), normalized.

    It is part of the network, so heatmaps are of the images as they are.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, normalization: Normalization) -> None:
        super().__init__()
        self.normalization = normalization
        for name in ("mean", "std"):
            values = torch.tensor(getattr(normalization, name)).view(1, 3, 1, 1)
            self.register_buffer(name, values, persistent=False)

    def forward(self, images: Float[Tensor, "batch channels _ _"]) -> Float[Tensor, "batch 3 size size"]:
        """The images as the network takes them."""
        if images.shape[1] not in (1, 3):
            raise BadModel(f"expected images of 1 or 3 channels, got {images.shape[1]}")
        images = resized(images, (self.normalization.size, self.normalization.size)).expand(-1, 3, -1, -1)
        return (images - self.mean.to(images.dtype)) / self.std.to(images.dtype)

    def extra_repr(self) -> str:
        """What is done."""
        return repr(self.normalization)


class Backbone(nn.Module):
    """Images in [0, 1] in, the network's last feature map out; made by :func:`backbone`.

    Attributes:
        name: Its name.
        channels: Channels of the map.
        preparation: Resizes and normalizes the images.
        network: The network without its head.
    """

    def __init__(self, name: str, network: nn.Module, channels: int, normalization: Normalization) -> None:
        super().__init__()
        self.name = name
        self.channels = channels
        self.preparation = Preparation(normalization)
        self.network = network

    @property
    def normalization(self) -> Normalization:
        """What the network inside is given; its own unless another was asked for."""
        return self.preparation.normalization

    def forward(self, images: Float[Tensor, "batch _ _ _"]) -> Float[Tensor, "batch channels height width"]:
        """The feature map."""
        network: Any = self.network
        extract = network.forward_features if hasattr(network, "forward_features") else network.extract_features
        return _as_map(extract(self.preparation(images)), self.channels, getattr(network, "num_prefix_tokens", 0))

    def extra_repr(self) -> str:
        """Its name and channels."""
        return f"name={self.name!r}, channels={self.channels}"


def _as_map(features: Tensor, channels: int, prefix: int) -> Float[Tensor, "batch channels height width"]:
    """Maps as they are, maps with channels last turned, tokens of a square image laid out in rows."""
    if features.ndim == 4:
        return features if features.shape[1] == channels else features.permute(0, 3, 1, 2)
    tokens = features[:, prefix:]
    side = math.isqrt(tokens.shape[1])
    if features.ndim != 3 or side * side != tokens.shape[1]:
        raise BadModel(f"expected a map (B, C, H, W) or tokens of a square, got {tuple(features.shape)}")
    return tokens.mT.reshape(len(tokens), channels, side, side)


def backbone(name: str, *, pretrained: bool = False, normalization: str = "own", size: int | None = None) -> Backbone:
    """A backbone by name: one of ``BACKBONES``, or any network of timm, vision transformers too.

    It takes images in [0, 1] and prepares them itself, each backbone in its own way. The paper's InceptionV3 came to
    21 %, which the paper puts down to pixels in another range than the network's own: the other normalizations repeat
    such slips (``table backbones`` shows what they cost), and ``Backbone.normalization`` what a network is given.

    Args:
        name: Its name.
        pretrained: With weights trained on ImageNet: of a package (EfficientNet-Lite0), or fetched by timm.
        normalization: ``own``, or one of ``NORMALIZATIONS`` whatever the network wants.
        size: Side that images are resized to; ``None`` takes the network's own.

    Raises:
        ValueError: No such backbone or normalization.
        MissingExtra: The package that holds it is not installed.
        DataUnavailable: Its weights cannot be fetched.
    """
    if normalization != "own" and normalization not in NORMALIZATIONS:
        raise ValueError(f"expected own, {', '.join(NORMALIZATIONS)} as normalization, got {normalization!r}")
    make = _lite if name == "efficientnet_lite0" else _of_timm
    network, channels, own = make(name, pretrained, size)
    given = own if normalization == "own" else NORMALIZATIONS[normalization]
    return Backbone(name, network, channels, replace(given, size=size or own.size))


def _lite(name: str, pretrained: bool, size: int | None) -> tuple[nn.Module, int, Normalization]:
    """EfficientNet-Lite0; where it begins anew its BatchNorms follow the data at torch's pace.

    The package's pace, 0.01 a step, is for hundreds of thousands of steps: after a few hundred a network in evaluation
    mode still has the statistics it began with, and guesses.
    """
    if pretrained:
        network: Any = efficientnet_lite0().network
    else:
        network = package("efficientnet_lite_pytorch").EfficientNet.from_name("efficientnet-lite0")
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.momentum = 0.1
    channels = network._fc.in_features
    network._fc = nn.Identity()
    return network, channels, NORMALIZATIONS["signed"]


def _of_timm(name: str, pretrained: bool, size: int | None) -> tuple[nn.Module, int, Normalization]:
    """A network of timm without what stands behind its feature map."""
    timm = _timm()
    theirs = BACKBONES.get(name, name)
    if not timm.is_model(theirs):
        raise UnknownName(f"unknown backbone {name!r}. There are: {', '.join(BACKBONES)}, and those of timm")
    fixed = size is not None and bool(getattr(timm.get_pretrained_cfg(theirs), "fixed_input_size", False))
    try:
        network = timm.create_model(
            theirs, pretrained=pretrained, num_classes=0, global_pool="", **({"img_size": size} if fixed else {})
        )
    except Exception as error:
        if not pretrained:
            raise
        # Fetching fails in the ways of several libraries: of the hub, of its transport, of the file's format.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataUnavailable(f"the weights of {name} cannot be fetched: {reason}") from error
    for part in _HEADS:
        if isinstance(getattr(network, part, None), nn.Module):
            setattr(network, part, nn.Identity())
    told = network.pretrained_cfg
    return network, network.num_features, Normalization(told["mean"], told["std"], told["input_size"][-1])


def _timm() -> Any:
    """The package timm.

    Raises:
        MissingExtra: It, or torchvision that it needs, is not installed or cannot be imported.
    """
    try:
        return import_module("timm")
    except (ImportError, RuntimeError) as error:
        # A torchvision that does not fit torch fails with a RuntimeError.
        raise MissingExtra(
            f'this backbone needs timm and its torchvision: pip install "rightreasons[hub]" ({error})'
        ) from error


class BackboneClassifier(Attached):
    """A backbone by name, an attention block or none, and the paper's head, for images in [0, 1].

    Args:
        shape: Channels (1 or 3), height and width of an image.
        classes: Number of classes.
        backbone: Name of the backbone, or a mapping of ``name`` and further arguments of :func:`backbone`.
        block: Name of an attention block, or a mapping of ``name`` and its settings; empty for none.
        hidden: Width of the head's dense layer; 0 leaves it out.
        dropout: Share of it that is dropped in training.

    Raises:
        BadModel: Images of neither 1 nor 3 channels.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (3, 224, 224),
        classes: int = 10,
        *,
        backbone: str | Mapping[str, Any] = "efficientnet_lite0",
        block: Block = "",
        hidden: int = 128,
        dropout: float = 0.5,
    ) -> None:
        if shape[0] not in (1, 3):
            raise BadModel(f"expected images of 1 or 3 channels for a backbone, got {shape[0]}")
        settings = {"name": backbone} if isinstance(backbone, str) else dict(backbone)
        made = attach(_named(settings), block, classes, hidden=hidden, dropout=dropout)
        super().__init__(made.backbone, made.block, made.head)


def _named(settings: Mapping[str, Any]) -> Backbone:
    try:
        return backbone(**settings)
    except TypeError as error:
        raise ValueError(f"no backbone can be made with {dict(settings)}: {error}") from error


def count_weights(network: nn.Module, *, statistics: bool = False) -> int:
    """The number of weights; with ``statistics`` also the running ones of normalizations, which Keras counts along.

    The counts of the attention-and-counterfactuals paper are Keras's.
    """
    weights = sum(p.numel() for p in network.parameters())
    running = (b.numel() for n, b in network.named_buffers() if n.endswith(("running_mean", "running_var")))
    return weights + (sum(running) if statistics else 0)
