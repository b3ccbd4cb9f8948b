"""From any ``torch.nn.Module`` to a classifier that every method understands."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from rightreasons.core import BadModel
from rightreasons.core.hooks import find_layer, modes_kept
from rightreasons.core.tensors import check_classes
from rightreasons.models.blocks.block import AttentionBlock
from rightreasons.models.classifier import AdaptedClassifier

log = logging.getLogger("rightreasons")


def adapt(
    network: nn.Module,
    layer: str | None = None,
    *,
    mean: Sequence[float] = (0.0,),
    std: Sequence[float] = (1.0,),
) -> AdaptedClassifier:
    """Make a classifier of any network: plain torch, timm, torchvision, Hugging Face with ``.logits``.

    Without a ``layer`` the one to explain is found: in a transformer the first normalization of its last block; else
    the last convolution that is no shortcut's, or the :class:`AttentionBlock` that comes after it, never a layer inside
    one. An MLP has none. The choice is logged and stands in the ``repr``. A compiled or data-parallel network is
    explained through the module inside it.

    Args:
        network: Returns logits (B, classes) for images (B, C, H, W).
        layer: Name of the layer to explain, as in ``network.named_modules()``.
        mean: Subtracted from each channel before the network sees the image; one number, or one a channel.
        std: Each channel is divided by it; likewise.

    Raises:
        ValueError: Not a module, or a mean that is not finite, or a standard deviation that is not positive.
        BadModel: No such layer.
    """
    if isinstance(network, AdaptedClassifier):
        return network if layer is None else network.explaining(layer)
    if not isinstance(network, nn.Module):
        raise ValueError(f"expected a torch.nn.Module, got {type(network).__name__}")
    network = _inner(network)
    if layer is None:
        layer = default_layer(network)
        log.info("explaining layer %r of %s", layer, type(network).__name__)
    else:
        find_layer(network, layer)
    return AdaptedClassifier(network, layer=layer, mean=mean, std=std)


def _inner(network: nn.Module) -> nn.Module:
    """The module inside torch.compile's or DistributedDataParallel's wrapper."""
    network = getattr(network, "_orig_mod", network)
    if isinstance(network, nn.parallel.DistributedDataParallel | nn.DataParallel):
        network = network.module
    return network


def default_layer(network: nn.Module) -> str | None:
    """The layer to explain when nobody named one; ``None`` where the network has no map of places.

    A network may name its own by a string attribute ``explained_layer``.
    """
    named = getattr(network, "explained_layer", None)
    if isinstance(named, str):
        return named
    modules: dict[str, nn.Module] = dict(network.named_modules())
    blocks = [name for name, module in modules.items() if isinstance(module, AttentionBlock)]
    outside = {n: m for n, m in modules.items() if not n.startswith(tuple(f"{block}." for block in blocks))}
    tokens = [n for n, m in outside.items() if "Attention" in type(m).__name__ and n not in blocks]
    attention = [name for name in tokens if _norm_beside(modules, name)]
    if attention:
        return _norm_beside(modules, attention[-1])
    maps = {n: m for n, m in outside.items() if isinstance(m, nn.Conv2d | AttentionBlock)}
    return _main_path(maps) if maps else None


def _main_path(maps: dict[str, nn.Conv2d | AttentionBlock]) -> str:
    """The last that makes a map; of a shortcut's convolution, which is 1x1, the last larger one as wide beside it."""
    name, last = list(maps.items())[-1]
    if isinstance(last, AttentionBlock):
        return name
    convolutions = {other: module for other, module in maps.items() if isinstance(module, nn.Conv2d)}
    block = name.split(".")[0]
    larger = [
        other
        for other, module in convolutions.items()
        if other.split(".")[0] == block and max(module.kernel_size) > 1 and module.out_channels == last.out_channels
    ]
    if not larger or max(last.kernel_size) > 1:
        return name
    names = list(maps)
    behind = [other for other in names[names.index(larger[-1]) :] if isinstance(maps[other], AttentionBlock)]
    return behind[-1] if behind else larger[-1]


def _norm_beside(modules: dict[str, nn.Module], name: str) -> str | None:
    """The first layer normalization in the block that holds this module."""
    block = name.rpartition(".")[0]
    for child, module in modules[block].named_children():
        if isinstance(module, nn.LayerNorm):
            return f"{block}.{child}" if block else child
    return None


def check_fits(model: AdaptedClassifier, inputs: Tensor, target: Tensor) -> None:
    """Try one image, so that a network that cannot take the data says so before any work starts.

    It runs in evaluation mode; every module gets the mode back that it had.

    Args:
        model: The classifier.
        inputs: At least one image, (B, C, H, W).
        target: All labels that will come, (N,).

    Raises:
        BadModel: The network refuses images of this shape.
        ValueError: A label is out of the model's range.
    """
    try:
        with modes_kept(model), torch.no_grad():
            model.eval()
            logits = model(inputs[:1])
    except BadModel:
        raise
    except Exception as error:
        # Networks refuse in their own ways: a RuntimeError of torch, an assertion on the size, a TypeError.
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadModel(
            f"the network cannot take images of shape {tuple(inputs.shape[1:])} (channels, height, width): {reason}"
        ) from error
    check_classes(target, logits.shape[1])
