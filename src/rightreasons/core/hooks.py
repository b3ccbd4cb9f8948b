"""Temporary effects on a network: context managers that undo themselves, whatever happens inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from itertools import chain

from torch import Tensor, nn

from rightreasons.core.errors import BadModel


@contextmanager
def captured(network: nn.Module, layers: Sequence[str]) -> Iterator[dict[str, Tensor]]:
    """Fill a dictionary with the outputs of the named layers during the passes inside.

    The layer hands on a copy, so that an in-place operation behind it cannot alter what was captured.

    Raises:
        BadModel: A layer does not exist, runs twice in a pass, or does not return a tensor.
    """
    activations: dict[str, Tensor] = {}
    handles = []
    try:
        for name in layers:
            hook = _keep(name, activations)
            handles.append(find_layer(network, name).register_forward_hook(hook))
        yield activations
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def substituted(network: nn.Module, layer: str, activation: Tensor | Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Let a layer hand on another activation during the passes inside.

    What runs before the layer and beside it runs as ever; what runs behind it sees the substitute alone.

    Args:
        network: The network.
        layer: Name of the layer.
        activation: What it hands on, or a function that makes this of the layer's own output.

    Raises:
        BadModel: The layer does not exist or does not return a tensor.
    """

    def hook(module: nn.Module, args: object, output: object) -> Tensor:
        found = _tensor_of(output, layer)
        # A copy, so that an in-place operation behind the layer cannot alter the caller's tensor.
        return activation.clone() if isinstance(activation, Tensor) else activation(found)

    handle = find_layer(network, layer).register_forward_hook(hook)
    try:
        yield
    finally:
        handle.remove()


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Raises:
        BadModel: There is none; the message names near ones and lists those that exist.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if name not in modules or not name:
        leaves = [n for n, m in modules.items() if n and not any(m.children())]
        blocks = [n for n, m in network.named_children() if any(m.children())]
        whole = f"; or a block of them: {', '.join(blocks)}" if blocks else ""
        near = " or ".join(map(repr, get_close_matches(name, list(modules), n=3)))
        hint = f" Did you mean {near}?" if near else ""
        raise BadModel(f"no layer named {name!r}.{hint} There are: {', '.join(leaves)}{whole}")
    return modules[name]


def _keep(name: str, activations: dict[str, Tensor]):  # type: ignore[no-untyped-def]  # noqa: ANN202
    def hook(module: nn.Module, args: object, output: object) -> Tensor:
        found = _tensor_of(output, name)
        if name in activations:
            raise BadModel(f"layer {name!r} runs more than once in a pass, so its map is not defined; choose another")
        activations[name] = found
        return found.clone()

    return hook


def _tensor_of(output: object, name: str) -> Tensor:
    if not isinstance(output, Tensor):
        raise BadModel(f"layer {name!r} returns {type(output).__name__}, expected a tensor; choose another")
    return output


@contextmanager
def modes_kept(module: nn.Module) -> Iterator[None]:
    """Give every module inside the mode (training or evaluation) back that it had."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        yield
    finally:
        for part, training in modes:
            part.training = training


@contextmanager
def evaluating(network: object) -> Iterator[None]:
    """Evaluation mode inside, for what is a network; it gets its modes back."""
    if not isinstance(network, nn.Module):
        yield
        return
    with modes_kept(network):
        network.eval()
        yield


def for_weights(images: Tensor, network: object) -> Tensor:
    """The images where and as exact as the weights are, for what is a network that has any."""
    weights = chain(network.parameters(), network.buffers()) if isinstance(network, nn.Module) else iter(())
    like = next((each for each in weights if each.is_floating_point()), images)
    return images.to(device=like.device, dtype=like.dtype)


@contextmanager
def preserved(network: nn.Module) -> Iterator[None]:
    """Let passes in which any sub-module is in training mode leave no trace in the buffers (running statistics).

    The buffers are exchanged for copies, not written back: a graph that saved the originals stays valid.
    """
    if not any(module.training for module in network.modules()):
        yield
        return
    kept = [(m, n, b) for m in network.modules() for n, b in m._buffers.items() if b is not None]
    for module, name, buffer in kept:
        module._buffers[name] = buffer.clone()
    try:
        yield
    finally:
        for module, name, buffer in kept:
            module._buffers[name] = buffer
