"""A network by name: one of ours, or the user's own ``package.module:function`` or ``file.py:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from rightreasons.core import BadModel, Catalogue
from rightreasons.models.backbones import BackboneClassifier
from rightreasons.models.ensemble import DeepEnsemble
from rightreasons.models.heads import AttentionHead, Lite0Tail
from rightreasons.models.pooled import PooledCNN
from rightreasons.models.simple import MLP, BaselineCNN, LeNet, SmallResNet, StridedCNN


class NamedEnsemble(DeepEnsemble):
    """A :class:`DeepEnsemble` of networks by one name, each started from other weights.

    Args:
        shape: Channels, height and width of an image.
        classes: Number of classes.
        member: What :func:`build` takes: a name, or a mapping of ``name`` and its settings.
        members: How many.

    Raises:
        BadModel: A member cannot be made.
        ValueError: Fewer than one member.
    """

    def __init__(
        self,
        shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        *,
        member: str | Mapping[str, Any] = "strided_cnn",
        members: int = 3,
    ) -> None:
        settings = {"name": member} if isinstance(member, str) else dict(member)
        name = settings.pop("name", "strided_cnn")
        super().__init__([build(name, shape, classes, settings=settings) for _ in range(members)])


MODELS: Catalogue[nn.Module] = Catalogue(
    "model",
    mlp=MLP,
    lenet=LeNet,
    baseline_cnn=BaselineCNN,
    small_resnet=SmallResNet,
    strided_cnn=StridedCNN,
    deep_ensemble=NamedEnsemble,
    backbone=BackboneClassifier,
    pooled_cnn=PooledCNN,
    attention_head=AttentionHead,
    efficientnet_lite0_tail=Lite0Tail,
)


def build(
    name: str, shape: tuple[int, int, int], classes: int, *, settings: Mapping[str, Any] | None = None
) -> nn.Module:
    """Make the network of that name.

    A user's function is called with ``shape`` and ``classes`` where it has parameters of these names.

    Args:
        name: A name in ``MODELS``, ``package.module:function`` or ``path/to/file.py:function``.
        shape: Channels, height and width of an image.
        classes: Number of classes.
        settings: Further keyword arguments.

    Raises:
        BadModel: It cannot be found, or what it makes is no network.
    """
    if name.endswith(".py"):
        raise BadModel(f"expected the function too, {name}:function, got {name}")
    if ":" not in name:
        return _call(MODELS[name], name, {"shape": shape, "classes": classes, **(settings or {})})
    maker = _find(name)
    offered = {"shape": shape, "classes": classes}
    wanted = inspect.signature(maker).parameters
    network = _call(maker, name, {**{k: v for k, v in offered.items() if k in wanted}, **(settings or {})})
    if not isinstance(network, nn.Module):
        raise BadModel(f"{name} returned {type(network).__name__}, expected a torch.nn.Module")
    return network


def _call(maker: Callable[..., nn.Module], name: str, arguments: Mapping[str, Any]) -> nn.Module:
    try:
        inspect.signature(maker).bind(**arguments)
    except TypeError as error:
        raise BadModel(f"model {name}: {error}; it takes {inspect.signature(maker)}") from error
    return maker(**arguments)


def _find(name: str) -> Callable[..., nn.Module]:
    where, _, function = name.rpartition(":")
    module = _module_of_file(Path(where)) if where.endswith(".py") else _module_of_package(where)
    maker = getattr(module, function, None)
    if not callable(maker):
        raise BadModel(f"{where} has no function {function!r}")
    return maker  # type: ignore[no-any-return]


def _module_of_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise BadModel(f"no file {path}; a model is named path/to/file.py:function or package.module:function")
    # A name of its own: the file must neither hide a package of its name nor another file of it.
    digest = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    spec = importlib.util.spec_from_file_location(f"_user_model_{digest}_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BadModel(f"{path} cannot be loaded as Python")
    module = importlib.util.module_from_spec(spec)
    # Registered before it runs, as an import would: dataclasses inside look their module up.
    sys.modules[spec.name] = module
    # Last, so that the file's neighbors can be imported and hide nothing.
    if str(path.resolve().parent) not in sys.path:
        sys.path.append(str(path.resolve().parent))
    spec.loader.exec_module(module)
    return module


def _module_of_package(name: str) -> ModuleType:
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise BadModel(
            f"cannot import {name}: {error}; a model is named package.module:function or file.py:function"
        ) from error
