"""What single layers of a network hold, and what its attention blocks weigh by."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import partial
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import BadModel, Classifier
from rightreasons.core.hooks import captured, modes_kept, preserved
from rightreasons.models.blocks import AttentionBlock, BlockAttention, attended

Form = Literal["maps", "maps, channels last", "tokens", "vector", "other"]
"""What a layer gives for an image: (C, h, w), (h, w, C), (T, D), (D,), or something else."""

_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)
_FIRST = (*_CONVOLUTIONS, nn.BatchNorm2d, nn.GroupNorm, nn.MaxPool2d, nn.AvgPool2d, nn.AdaptiveAvgPool2d)
# Exactly these: a subclass may take its channels from elsewhere, as timm's LayerNorm2d does.
_LAST = (nn.Linear, nn.LayerNorm)
_RECTIFIERS = (nn.ReLU, nn.ReLU6)
NAMED = 12
"""Layers that an error names."""


@dataclass(frozen=True)
class LayerOutput:
    """What a layer gives for one image.

    Attributes:
        name: The layer, as in ``network.named_modules()``.
        kind: Its class.
        shape: Of the output, without the batch; empty where it is no tensor of one row an image.
        form: What the axes are.
        runs: How often it runs in a pass.
        rectified: Whether a ReLU layer takes the output as it is.
    """

    name: str
    kind: str
    shape: tuple[int, ...]
    form: Form
    runs: int
    rectified: bool = False

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
        ValueError: No layer is named, or one twice.
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
        ValueError: No layer is named, or one twice.
        BadModel: A layer does not exist, does not run, runs more than once, or gives no tensor.
    """
    _check_named(layers)
    with torch.no_grad(), preserved(model.network), captured(model.network, layers) as activations:
        model(inputs)
    return _all_of(activations, layers)


def _check_named(layers: Sequence[str]) -> None:
    if isinstance(layers, str) or not layers:
        raise ValueError(f"expected the names of layers, got {layers!r}")
    twice = next((name for name in layers if list(layers).count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"expected each layer once, got {twice!r} {list(layers).count(twice)} times")


def _all_of(activations: Mapping[str, Tensor], layers: Sequence[str]) -> dict[str, Tensor]:
    missing = [name for name in layers if name not in activations]
    if missing:
        raise BadModel(f"layer {missing[0]!r} does not run in a pass, so it has nothing to show; choose another")
    return {name: activations[name] for name in layers}


def layer_outputs(model: Classifier, inputs: Float[Tensor, "batch ..."]) -> tuple[LayerOutput, ...]:
    """What every layer that runs gives for the first of these images, in evaluation mode, in the order they end.

    Of four axes, the sides of the map are those that stand to each other as the sides of the image do; convolutions,
    poolings and normalizations say it themselves, and what has the shape of an earlier output, as behind an activation,
    takes the form of that.
    """
    noted = _Noted(inputs.shape[2:])
    handles = []
    try:
        for name, module in model.network.named_modules():
            if name:
                handles.append(module.register_forward_hook(partial(noted.keep, name)))
            if isinstance(module, _RECTIFIERS):
                handles.append(module.register_forward_pre_hook(lambda _, args: noted.rectify(*args[:1])))
        with torch.no_grad(), modes_kept(model.network):
            model.network.eval()
            model.rows(torch.zeros(1, dtype=torch.long))(inputs[:1])
    finally:
        for handle in handles:
            handle.remove()
    return tuple(replace(output, rectified=name in noted.rectified) for name, output in noted.found.items())


class _Noted:
    """What the layers of a pass of one image give."""

    def __init__(self, image: Sequence[int]) -> None:
        self.image = image
        self.found: dict[str, LayerOutput] = {}
        self.rectified: set[str] = set()
        self._forms: dict[tuple[int, ...], Form] = {}
        # With the tensors themselves, so that none of their numbers is given out again.
        self._givers: dict[tuple[int, int], tuple[Tensor, list[str]]] = {}

    def keep(self, name: str, module: nn.Module, args: object, output: object) -> None:
        """A layer ends."""
        whole = tuple(output.shape) if isinstance(output, Tensor) else ()
        shape = whole[1:] if whole[:1] == (1,) else ()
        runs = self.found.pop(name).runs + 1 if name in self.found else 1
        form = self._forms[shape] = self._form(module, shape)
        self.found[name] = LayerOutput(name, type(module).__name__, shape, form, runs)
        if isinstance(output, Tensor):
            self._givers.setdefault(_state(output), (output, []))[1].append(name)

    def rectify(self, features: object = None) -> None:
        """A ReLU begins, with what these layers gave."""
        if isinstance(features, Tensor) and _state(features) in self._givers:
            self.rectified.update(self._givers[_state(features)][1])

    def _form(self, module: nn.Module, shape: tuple[int, ...]) -> Form:
        if len(shape) != 3:
            return {2: "tokens", 1: "vector"}.get(len(shape), "other")  # type: ignore[return-value]
        told = _told_form(module)
        return told or self._forms.get(shape) or _likely_form(shape, self.image)


def _state(tensor: Tensor) -> tuple[int, int]:
    """Which tensor, and how often it was written to: a sum in place is not what the layer gave."""
    return id(tensor), 0 if tensor.is_inference() else tensor._version


def _told_form(module: nn.Module) -> Form | None:
    """The form of three axes that a layer has by its kind."""
    if isinstance(module, _FIRST):
        return "maps"
    if type(module) in _LAST and len(getattr(module, "normalized_shape", (0,))) == 1:
        return "maps, channels last"
    return None


def _likely_form(shape: tuple[int, ...], image: Sequence[int]) -> Form:
    """The form of three axes by the image's proportion."""

    def off(height: int, width: int) -> float:
        """How far the sides are from the proportion of the image's."""
        sides = (height, width, *image)
        return abs(math.log(sides[0] * sides[3] / (sides[1] * sides[2]))) if all(sides) else math.inf

    last = len(image) == 2 and off(shape[0], shape[1]) < off(shape[1], shape[2])
    return "maps, channels last" if last else "maps"


def layers_with_maps(model: Classifier, outputs: Sequence[LayerOutput], most: int = 5) -> list[str]:
    """The layers to show unless others are named: convolutions spread evenly over depth, and all attention blocks.

    Convolutions that give a single place, and those inside an attention block, are left out.

    Args:
        model: The classifier.
        outputs: Of its layers.
        most: Convolutions; of one alone, the first is taken.

    Raises:
        ValueError: ``most`` is below 1.
        BadModel: There is none.
    """
    if most < 1:
        raise ValueError(f"expected at least one convolution, got {most}")
    modules: dict[str, nn.Module] = dict(model.network.named_modules())
    blocks = [name for name, module in modules.items() if isinstance(module, AttentionBlock)]
    within = tuple(f"{name}." for name in blocks)
    spread = [o.name for o in outputs if o.shows and isinstance(modules[o.name], _CONVOLUTIONS)]
    wide = {o.name for o in outputs if o.shows and math.prod(o.shape[1:]) > 1}
    spread = [name for name in spread if name in wide and not name.startswith(within)]
    if len(spread) > most:
        spread = [spread[round(k * (len(spread) - 1) / max(most - 1, 1))] for k in range(most)]
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
        _refuse_unknown(model.network, outputs, name)
        if name not in known:
            raise BadModel(f"layer {name!r} does not run in a pass, so it has nothing to show; choose another")
        if not known[name].shows:
            some = _those_with_maps(outputs)
            there = f"choose among those that do: {some}" if some else "no layer of this network has any"
            raise BadModel(
                f"layer {name!r} has no maps of places with their channels first to show, it "
                f"{'' if known[name].runs > 1 else 'gives '}{known[name].told}; {there}"
            )


def _refuse_unknown(network: nn.Module, outputs: Sequence[LayerOutput], name: str) -> None:
    """Refuse a name that no layer has, with the near ones and those that can be shown."""
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if name and name in modules:
        return
    near = " or ".join(map(repr, get_close_matches(name, list(filter(None, modules)), n=3)))
    hint = f" Did you mean {near}?" if near else ""
    some = _those_with_maps(outputs)
    raise BadModel(f"no layer named {name!r}.{hint} " + (f"With maps there are: {some}" if some else "None has maps"))


def _those_with_maps(outputs: Sequence[LayerOutput]) -> str:
    """Names of layers that can be shown, whole blocks before their parts, in short."""
    names = sorted((output.name for output in outputs if output.shows), key=lambda name: name.count("."))
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
