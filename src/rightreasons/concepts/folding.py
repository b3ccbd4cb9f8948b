"""A projection written into the weights, so that the network alone carries it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from rightreasons.concepts.projection import Projection
from rightreasons.core import BadModel, Classifier
from rightreasons.core.hooks import captured, find_layer, modes_kept, substituted

Maps = nn.Linear | nn.Conv1d | nn.Conv2d
_TOLERANCE = 1e-4


def fold(
    model: Classifier,
    layer: str,
    projection: Projection,
    inputs: Float[Tensor, "images channels height width"],
) -> None:
    """Change the weights so that, in evaluation mode, the network gives what it gives with the projection in place.

    a - V^T V (a - z) = P a + c is linear, so it goes into the layer itself where that is a linear map or a convolution:
    W becomes P W, exactly, whatever the padding. Else it goes into the linear maps and convolutions that read the
    layer: W becomes W P. The shift goes into a bias, or into the running mean of the BatchNorm behind a layer without
    one; a convolution that pads with zeros sees no shift in its padding, so there is no exact form, and it is refused.
    The result is compared with the projected network on ``inputs``, so that a network in which something else reads the
    layer is refused, too. The network is unchanged then.

    Args:
        model: The classifier; its network is changed in place.
        layer: Name of the layer whose activations are projected.
        projection: Their projection.
        inputs: Some images to follow the network on and to compare with.

    Raises:
        BadModel: The network has no exact form; the message says why.
    """
    twin = copy.deepcopy(model)
    own = find_layer(twin.network, layer)
    with torch.no_grad(), modes_kept(twin.network):
        twin.network.eval()
        _check_width(twin, layer, projection, inputs[:1])
        with substituted(twin.network, layer, projection):
            wanted = twin(inputs)
        affine = _Affine(projection)
        if isinstance(own, Maps) and _groups(own) == 1:
            _into_itself(twin, layer, own, affine, inputs)
        else:
            _into_readers(twin, layer, affine, inputs)
        off = float((twin(inputs) - wanted).abs().max() / wanted.abs().max().clamp(min=1e-12))
    if not off <= _TOLERANCE:
        raise BadModel(
            f"the projection at layer {layer!r} cannot be folded into the weights: logits would differ by {off:.2g} of "
            "their size, as something other than the linear maps behind it reads the layer; name another layer"
        )
    model.network.load_state_dict(twin.network.state_dict())


class _Affine:
    """P a + c in double precision, with P = 1 - V^T V and c = V^T V z."""

    def __init__(self, projection: Projection) -> None:
        basis = projection.basis.double()
        onto = basis.mT @ basis
        self.matrix = torch.eye(len(onto), dtype=onto.dtype, device=onto.device) - onto
        self.shift = onto @ projection.reference.double()


def _check_width(model: Classifier, layer: str, projection: Projection, inputs: Tensor) -> None:
    with captured(model.network, (layer,)) as activations:
        model(inputs)
    if layer not in activations:
        raise BadModel(f"layer {layer!r} does not run in a pass; choose another")
    features = activations[layer].shape[1 if activations[layer].ndim == 4 else -1]
    if features != len(projection.reference):
        raise BadModel(f"the directions have {len(projection.reference)} features and layer {layer!r} gives {features}")


def _into_itself(model: Classifier, layer: str, own: Maps, affine: _Affine, inputs: Tensor) -> None:
    weight = own.weight.double()
    if own.bias is None:
        # Found before the weights change; what it centers moves by the shift.
        norms = _reading(model, layer, inputs, _BatchNorm)
        _move_norms(norms, -affine.shift, f"layer {layer!r}")
    else:
        own.bias.copy_(affine.matrix @ own.bias.double() + affine.shift)
    own.weight.copy_(torch.tensordot(affine.matrix, weight, dims=1))


def _into_readers(model: Classifier, layer: str, affine: _Affine, inputs: Tensor) -> None:
    readers = _reading(model, layer, inputs, Maps)
    if not readers:
        raise BadModel(
            f"the projection at layer {layer!r} cannot be folded into the weights: neither is it a linear map or a "
            "convolution, nor does one read what it hands on; name another layer"
        )
    for name, reader in readers.items():
        _into_reader(model, name, cast(Maps, reader), affine, inputs)


def _into_reader(model: Classifier, name: str, reader: Maps, affine: _Affine, inputs: Tensor) -> None:
    """W (P a + c) + b as the reader's own weights: W P and b + W c, summed over the places of its window."""
    features = len(affine.shift)
    weight = reader.weight.double()
    if _groups(reader) != 1 or weight.shape[1] % features:
        raise BadModel(f"layer {name!r} cannot take the projection: it reads {weight.shape[1]} of {features} features")
    _refuse_padding(name, reader, affine)
    # A linear layer behind a flattened map has one column a feature and place.
    columns = weight.reshape(len(weight), features, -1)
    added = torch.einsum("okp,k->o", columns, affine.shift)
    if reader.bias is not None:
        reader.bias.copy_(reader.bias.double() + added)
    else:
        _move_norms(_reading(model, name, inputs, _BatchNorm), -added, f"layer {name!r}")
    reader.weight.copy_(torch.einsum("okp,kj->ojp", columns, affine.matrix).reshape(weight.shape))


def _refuse_padding(name: str, reader: Maps, affine: _Affine) -> None:
    if isinstance(reader, nn.Linear) or reader.padding_mode != "zeros" or not bool(affine.shift.any()):
        return
    sides = reader.padding if isinstance(reader.padding, tuple) else (int(reader.padding == "same"),)
    if any(side > 0 for side in sides) and any(side > 1 for side in reader.kernel_size):
        raise BadModel(
            f"the projection cannot be folded into layer {name!r}: it pads with zeros, which the projection's shift "
            "does not reach, so no weights are exact at the border; name a layer that is itself a convolution, or one "
            "behind the last of them"
        )


def _move_norms(norms: dict[str, nn.Module], by: Tensor, behind: str) -> None:
    means = [norm.running_mean for norm in norms.values() if isinstance(norm.running_mean, Tensor)]
    if len(means) != 1:
        if not bool(by.any()):
            return
        raise BadModel(f"{behind} has no bias that could carry the projection's shift, and no BatchNorm behind it")
    means[0].copy_(means[0].double() + by)


def _reading(model: Classifier, layer: str, inputs: Tensor, kind: object) -> dict[str, nn.Module]:
    """The modules of this kind that are given what the layer hands on, as it is or flattened."""
    found: dict[str, nn.Module] = {}
    made: list[Tensor] = []

    def see(name: str, module: nn.Module, given: object) -> None:
        if made and isinstance(given, Tensor) and _same_values(given, made[0]):
            found[name] = module

    with _hooked(model.network, layer, made.append, see, kind):
        model(inputs)
    return found


def _same_values(given: Tensor, made: Tensor) -> bool:
    """Whether one is a view of the whole of the other."""
    return given.data_ptr() == made.data_ptr() and given.numel() == made.numel()


@contextmanager
def _hooked(
    network: nn.Module,
    layer: str,
    made: Callable[[Tensor], None],
    see: Callable[[str, nn.Module, object], None],
    kind: object,
) -> Iterator[None]:
    handles = [find_layer(network, layer).register_forward_hook(lambda _m, _given, output: made(output))]
    for name, module in network.named_modules():
        if isinstance(module, kind) and name != layer:  # type: ignore[arg-type]

            def before(module: nn.Module, given: tuple[object, ...], name: str = name) -> None:
                see(name, module, given[0] if given else None)

            handles.append(module.register_forward_pre_hook(before))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _groups(module: Maps) -> int:
    return 1 if isinstance(module, nn.Linear) else module.groups
