"""What single layers of a network hold, and what its attention blocks weigh by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import BadModel, Classifier
from rightreasons.core.hooks import captured, find_layer, preserved
from rightreasons.models.blocks import AttentionBlock, BlockAttention, attended

Form = Literal["maps", "maps, channels last", "tokens", "vector", "other"]
"""What a layer gives for an image: (C, h, w), (h, w, C), (T, D), (D,), or something else."""

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_FIRST = (*_CONVOLUTIONS, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
# Exactly these: a subclass may take its channels from elsewhere, as timm's LayerNorm2d does.
_LAST = (nn.Linear, nn.LayerNorm)


@dataclass(frozen=True)
class LayerOutput:
    """What a layer gives for one image.

    Attributes:
        name: The layer, as in ``network.named_modules()``.
        kind: Its class.
        shape: Of the output, without the batch; empty where it is no tensor of one row an image.
        form: What the axes are.
        runs: How often it runs in a pass.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    form: Form
    runs: int

    @property
    def shows(self) -> bool:
        """Whether it has maps of places that can be shown."""
        return self.form == "maps" and self.runs == 1

    @property
    def told(self) -> str:
        """Why it cannot be shown, or its maps, in words."""
        size = " x ".join(map(str, self.shape))
        if self.runs > 1:
            return f"runs {self.runs} times in a pass"
        return {
            "maps": f"maps, {size}",
            "maps, channels last": f"maps with their channels last, {size}",
            "tokens": f"tokens, {size}",
            "vector": f"a vector of {size}",
            "other": f"an output of shape {size}" if size else "no tensor of one row an image",
        }[self.form]


@dataclass(frozen=True, eq=False)
class Inside:
    """What a pass left: the logits, the output of chosen layers, what all attention blocks weighed by.

    Attributes:
        logits: Of the images.
        maps: By the layer's name.
        attention: By the block's name.
    """

    logits: Float[Tensor, "batch classes"]
    maps: Mapping[str, Float[Tensor, "batch ..."]]
    attention: Mapping[str, BlockAttention]


def inside(model: Classifier, inputs: Float[Tensor, "batch ..."], layers: Sequence[str]) -> Inside:
    """One pass off the graph in the mode that the model is in; the model is left as it was.

    Raises:
        ValueError: No layer is named.
        BadModel: A layer does not exist, does not run, runs more than once, or gives no tensor; or an attention block
            runs more than once.
    """
    _check_named(layers)
    network = model.network
    with torch.no_grad(), preserved(network), attended(network) as attention, captured(network, layers) as maps:
        logits = model(inputs)
    return Inside(logits, _all_of(maps, layers), attention)


def feature_maps(
    model: Classifier, inputs: Float[Tensor, "batch ..."], layers: Sequence[str]
) -> dict[str, Float[Tensor, "batch ..."]]:
    """What these layers give for these images, off the graph: (B, C, h, w) of convolutions, (B, T, D) of token layers.

    One pass in the mode that the model is in; the model is left as it was. ``model.trace`` gives the same on the graph.

    Raises:
        ValueError: No layer is named.
        BadModel: A layer does not exist, does not run, runs more than once, or gives no tensor.
    """
    _check_named(layers)
    with torch.no_grad(), preserved(model.network), captured(model.network, layers) as activations:
        model(inputs)
    return _all_of(activations, layers)


def _check_named(layers: Sequence[str]) -> None:
    if isinstance(layers, str) or not layers:
        raise ValueError(f"expected the names of layers, got {layers!r}")


def _all_of(activations: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Tensor]:
    missing = [name for name in layers if name not in activations]
    if missing:
        raise BadModel(f"layer {missing[0]!r} does not run in a pass, so it has nothing to show; choose another")
    return {name: activations[name] for name in layers}


def layer_outputs(model: Classifier, inputs: Float[Tensor, "batch ..."]) -> tuple[LayerOutput, ...]:
    """What every layer that runs gives for the first of these images, in the order in which they end.

    Of four axes, the sides of the map are those that stand to each other as the sides of the image do; convolutions,
    poolings and normalizations say it themselves.
    """
    found: dict[str, LayerOutput] = {}
    handles = []

    def keep(name: str, module: nn.Module, output: object) -> None:
        whole = tuple(output.shape) if isinstance(output, Tensor) else ()
        shape = whole[1:] if whole[:1] == (1,) else ()
        runs = found.pop(name).runs + 1 if name in found else 1
        found[name] = LayerOutput(name, type(module).__name__, shape, _form(module, shape, inputs.shape[2:]), runs)

    try:
        for name, module in model.network.named_modules():
            if name:
                handles.append(module.register_forward_hook(lambda m, _, output, name=name: keep(name, m, output)))
        with torch.no_grad(), preserved(model.network):
            model.rows(torch.zeros(1, dtype=torch.long))(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    return tuple(found.values())


def _form(module: nn.Module, shape: tuple[int, ...], image: Sequence[int]) -> Form:
    if len(shape) == 3:
        return "maps, channels last" if _channels_last(module, shape, image) else "maps"
    return {2: "tokens", 1: "vector"}.get(len(shape), "other")  # type: ignore[return-value]


def _channels_last(module: nn.Module, shape: tuple[int, ...], image: Sequence[int]) -> bool:
    if isinstance(module, _FIRST):
        return False
    if type(module) in _LAST and len(getattr(module, "normalized_shape", (0,))) == 1:
        return True

    def off(height: int, width: int) -> float:
        """How far the sides are from the proportion of the image's."""
        sides = (height, width, *image)
        return abs(math.log(sides[0] * sides[3] / (sides[1] * sides[2]))) if all(sides) else math.inf

    return len(image) == 2 and off(shape[0], shape[1]) < off(shape[1], shape[2])


def layers_with_maps(model: Classifier, outputs: Sequence[LayerOutput], most: int = 5) -> list[str]:
    """The layers to show unless others are named: convolutions spread evenly over depth, and all attention blocks.

    Layers that give a single place, and those inside an attention block, are left out.

    Raises:
        BadModel: There is none.
    """
    modules: dict[str, nn.Module] = dict(model.network.named_modules())
    blocks = [name for name, module in modules.items() if isinstance(module, AttentionBlock)]
    within = tuple(f"{name}." for name in blocks)
    spread = [o.name for o in outputs if o.shows and isinstance(modules[o.name], _CONVOLUTIONS)]
    wide = {o.name for o in outputs if o.shows and math.prod(o.shape[1:]) > 1}
    spread = [name for name in spread if name in wide and not name.startswith(within)]
    if len(spread) > most:
        spread = [spread[round(k * (len(spread) - 1) / (most - 1))] for k in range(most)]
    chosen = {*spread, *blocks}
    found = [o.name for o in outputs if o.shows and o.name in chosen]
    if not found:
        raise BadModel(
            f"{type(model.network).__name__} has no convolution or attention block with maps of places; if a layer has "
            "some all the same, name it"
        )
    return found


def check_layers(model: Classifier, outputs: Sequence[LayerOutput], layers: Sequence[str]) -> None:
    """Refuse layers that have no maps of places to show.

    Raises:
        BadModel: A layer does not exist (the message names near ones), does not run, runs more than once, or gives
            tokens, a vector or maps with their channels last; the message names layers that can be shown.
    """
    known = {output.name: output for output in outputs}
    for name in layers:
        find_layer(model.network, name)
        if name not in known:
            raise BadModel(f"layer {name!r} does not run in a pass, so it has nothing to show; choose another")
        if not known[name].shows:
            others = [output.name for output in outputs if output.shows]
            some = ", ".join(others[:8]) + (", ..." if len(others) > 8 else "")
            there = f"choose among those that do: {some}" if others else "no layer of this network has any"
            raise BadModel(
                f"layer {name!r} has no maps of places with their channels first to show, it "
                f"{'' if known[name].runs > 1 else 'gives '}{known[name].told}; {there}"
            )
