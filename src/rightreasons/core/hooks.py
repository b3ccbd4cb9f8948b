"""Temporary effects on a network: context managers that undo themselves, whatever happens inside."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

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


def find_layer(network: nn.Module, name: str) -> nn.Module:
    """The module of that name.

    Raises:
        BadModel: There is none; the message lists those that exist.
    """
    modules: dict[str, nn.Module] = dict(network.named_modules())
    if name not in modules or not name:
        leaves = [n for n, m in modules.items() if n and not any(m.children())]
        raise BadModel(f"no layer named {name!r}. There are: {', '.join(leaves)}")
    return modules[name]


def _keep(name: str, activations: dict[str, Tensor]):  # type: ignore[no-untyped-def]  # noqa: ANN202
    def hook(module: nn.Module, args: object, output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise BadModel(f"layer {name!r} returns {type(output).__name__}, expected a tensor; choose another")
        if name in activations:
            raise BadModel(f"layer {name!r} runs more than once in a pass, so its map is not defined; choose another")
        activations[name] = output
        return output.clone()

    return hook


@contextmanager
def preserved(network: nn.Module) -> Iterator[None]:
    """Let passes in training mode leave no trace in the buffers (running statistics).

    The buffers are exchanged for copies, not written back: a graph that saved the originals stays valid.
    """
    if not network.training:
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
