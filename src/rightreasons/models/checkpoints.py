"""Weights on disk: written whole or not at all, and refused with a reason when they do not fit."""

from __future__ import annotations

import os
import pickle
import secrets
from collections.abc import Mapping
from pathlib import Path

import safetensors.torch
import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from rightreasons.core import BadModel, NotWritten

_PICKLED = (".pt", ".pth")


def save_weights(network: nn.Module, path: str | Path) -> None:
    """Write a network's weights and buffers as safetensors.

    Raises:
        ValueError: The name does not end in ``.safetensors``.
        NotWritten: The disk is full, for example; a file that stood there before is untouched.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"expected a file name that ends in .safetensors, got {path.name}")
    write_whole(path, safetensors.torch.save(packable(network.state_dict())))


def load_weights(network: nn.Module, path: str | Path) -> None:
    """Fill a network with the weights in a ``.safetensors``, ``.pt`` or ``.pth`` file; code in it is never run.

    Raises:
        BadModel: No such file, not a file of weights, or not the weights of this network; the message says which.
    """
    fill(network, read_weights(path), str(path))


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors``, ``.pt`` or ``.pth`` file by name; a wrapping ``state_dict`` is taken off.

    Raises:
        BadModel: No such file, or not a file of weights.
    """
    path = Path(path)
    if not path.is_file():
        raise BadModel(f"no weights file {path}")
    if path.suffix not in (".safetensors", *_PICKLED):
        raise BadModel(f"expected weights in a .safetensors, .pt or .pth file, got {path.name}")
    try:
        found: object = _unpickled(path) if path.suffix in _PICKLED else safetensors.torch.load_file(path)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise BadModel(f"{path} is not a file of weights, or is damaged: {reason}") from error
    return _named_tensors(found, path)


def _unpickled(path: Path) -> object:
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if "Weights only load failed" not in str(error):
            raise
        raise ValueError(
            "it holds more than plain tensors and was not opened, since that could run code; "
            "save it again with torch.save(network.state_dict(), ...)"
        ) from error


def _named_tensors(found: object, path: Path) -> dict[str, Tensor]:
    if isinstance(found, Mapping) and isinstance(found.get("state_dict"), Mapping):
        found = found["state_dict"]
    if not isinstance(found, Mapping) or not all(isinstance(value, Tensor) for value in found.values()):
        raise BadModel(
            f"{path} holds no mapping from names to tensors; save it with torch.save(network.state_dict(), ...)"
        )
    return {str(name): value for name, value in found.items()}


def fill(module: nn.Module, weights: Mapping[str, Tensor], source: str) -> None:
    """Load weights that must fit exactly.

    Raises:
        BadModel: Keys are missing or unexpected, or a shape differs; ``source`` and the names stand in the message.
    """
    own = {name: value for name, value in module.state_dict().items() if isinstance(value, Tensor)}
    shapes = (
        f"{name} {tuple(weights[name].shape)} where the network has {tuple(own[name].shape)}"
        for name in own
        if name in weights and weights[name].shape != own[name].shape
    )
    wrong = [
        f"{what}: {_some(names)}"
        for what, names in (
            ("missing", [name for name in own if name not in weights]),
            ("unexpected", [name for name in weights if name not in own]),
            ("of another shape", list(shapes)),
        )
        if names
    ]
    if wrong:
        raise BadModel(f"the weights in {source} are not those of this {type(module).__name__}; {'; '.join(wrong)}")
    module.load_state_dict(dict(weights))


def _some(names: list[str], most: int = 4) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def packable(tensors: Mapping[str, object]) -> dict[str, Tensor]:
    """The tensors as safetensors takes them: on the CPU and contiguous; tied weights each get their own copy."""
    wrong = [name for name, value in tensors.items() if not isinstance(value, Tensor)]
    if wrong:
        raise BadModel(f"only tensors can be saved as weights; {_some(wrong)} is none")
    return {
        name: value.detach().cpu().clone().contiguous() for name, value in tensors.items() if isinstance(value, Tensor)
    }


def write_whole(path: Path, content: bytes) -> None:
    """Put a file in place whole or not at all: written beside, flushed to the disk, then renamed.

    The file beside has a name of its own for each call, so that several writers do not meet; the last one stays.

    Raises:
        NotWritten: It could not be written; what stood there before is untouched.
    """
    # Not a temporary file of the library: that would be readable by its owner alone.
    beside = path.with_name(f".{secrets.token_hex(8)}.partial")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            _write(beside, content)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)
    except OSError as error:
        left = "the file that stood there before is untouched" if path.exists() else "nothing was left there"
        raise NotWritten(f"cannot write {path}: {error.strerror or error}; {left}") from error


def _write(path: Path, content: bytes) -> None:
    with path.open("xb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
