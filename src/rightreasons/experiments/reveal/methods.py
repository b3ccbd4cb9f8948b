"""Which explainers are asked, with which settings, and which of them can explain a network."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Int
from torch import Tensor

from rightreasons.attribution import ATTRIBUTIONS
from rightreasons.core import Attribution, Classifier, RightReasonsError
from rightreasons.core.tensors import content
from rightreasons.data import ImageDataset
from rightreasons.data.dataset import stream
from rightreasons.experiments.build import build_attribution, title_of
from rightreasons.experiments.config import read_toml
from rightreasons.experiments.explain import Target, contrasted, explained_class
from rightreasons.models import AdaptedClassifier
from rightreasons.training import device_of, modes_kept

ALL = "all"
"""In the place of a name: every explainer of the catalogue that can explain the network."""

# A network that a method cannot take ends in one of these; anything else is a defect and is not hidden.
_UNFIT = (RightReasonsError, ValueError, RuntimeError)


@dataclass(frozen=True)
class MethodConfig:
    """One explainer.

    Attributes:
        name: Its name in the catalogue.
        settings: Keyword arguments of it.
        label: Under which its maps are stored; empty takes the name.
    """

    name: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    @property
    def key(self) -> str:
        """Under which its maps are stored."""
        return self.label or self.name


@dataclass(frozen=True)
class RevealSettings:
    """What to reveal.

    Attributes:
        methods: Explainers, by name or with their settings; ``all`` for every one that can explain the network.
        images: How many images, drawn at random; ``None`` for all of them.
        target: ``predicted`` or ``true``: the class that is explained.
        seed: Of the draw.
        against: Name or number of a class: what speaks for the target against it; empty explains the target alone.

    Raises:
        ValueError: No method, no image, or another target.
    """

    methods: tuple[str | MethodConfig, ...] = ("saliency",)
    images: int | None = 8
    target: Target = "predicted"
    seed: int = 0
    against: str = ""

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ValueError(f"expected target {' or '.join(get_args(Target))}, got {self.target!r}")
        if not self.methods or (self.images is not None and self.images < 1):
            raise ValueError(f"expected methods and images, got {len(self.methods)} and {self.images}")


@dataclass(frozen=True, eq=False)
class Explainers:
    """The explainers that were asked for.

    Attributes:
        methods: Those that run, by the name under which their maps are stored.
        unfit: Why the other ones cannot explain the network, by name.
    """

    methods: Mapping[str, Attribution]
    unfit: Mapping[str, str] = field(default_factory=dict)

    @property
    def titles(self) -> dict[str, str]:
        """Their names for a reader."""
        told = {key: title_of(method) for key, method in self.methods.items()}
        names = {key: ATTRIBUTIONS.name_of(method) for key, method in self.methods.items()}
        return {key: title if key == names[key] else f"{title} ({key})" for key, title in told.items()}

    @property
    def settings(self) -> dict[str, dict[str, str]]:
        """Every setting of each, written out."""
        return {key: {"method": type(m).__name__, **_settings(m)} for key, m in self.methods.items()}


def read_methods(path: Path) -> tuple[MethodConfig, ...]:
    """The explainers in a TOML file: tables ``[[method]]`` with ``name``, settings and, if it has to, ``label``.

    Raises:
        ValueError: No such file, no TOML, or something else in it.
    """
    values = read_toml(path)
    tables = values.pop("method", [])
    if values:
        raise ValueError(f"unknown key {next(iter(values))!r} in {path}. There are: [[method]]")
    if not isinstance(tables, list) or not tables or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"expected tables [[method]] in {path}")
    for table in tables:
        if not isinstance(table.get("name"), str) or not isinstance(table.get("label", ""), str):
            raise ValueError(f"expected a name in each [[method]] of {path}, got {table!r}")
    return tuple(MethodConfig(t.pop("name"), label=t.pop("label", ""), settings=t) for t in map(dict, tables))


def build_explainers(subject_data: ImageDataset, model: AdaptedClassifier, settings: RevealSettings) -> Explainers:
    """The explainers of the settings; of ``all``, those that can explain this network.

    Each method of ``all`` is tried on the first image.

    Raises:
        ValueError: No method of a name, a setting that it does not have, or two methods under one label.
    """
    asked = [MethodConfig(m) if isinstance(m, str) else m for m in settings.methods]
    named = [config for config in asked if config.name != ALL]
    keys = [config.key for config in named]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"two methods are called {twice!r}: give one of them another label, in a file for --config")
    methods = {config.key: build_attribution(config.name, subject_data, config.settings) for config in named}
    unfit: dict[str, str] = {}
    if len(named) < len(asked):
        _add_all(methods, unfit, subject_data, model, settings)
    if not methods:
        raise ValueError("none of the methods can explain this network")
    return Explainers(methods, unfit)


def _add_all(
    methods: dict[str, Attribution],
    unfit: dict[str, str],
    data: ImageDataset,
    model: AdaptedClassifier,
    settings: RevealSettings,
) -> None:
    for name in ATTRIBUTIONS:
        if name in methods:
            continue
        try:
            method = build_attribution(name, data)
            _try(method, model, data, settings)
        except _UNFIT as error:
            unfit[name] = " ".join(str(error).split()) or type(error).__name__
        else:
            methods[name] = method


def _try(method: Attribution, model: AdaptedClassifier, data: ImageDataset, settings: RevealSettings) -> None:
    with modes_kept(model), torch.no_grad(), torch.random.fork_rng():
        model.eval()
        batch = data[0].to(device_of(model))
        asked: Classifier = contrasted(model, class_number(settings.against, data.classes))
        method(asked, batch.inputs, explained_class(model(batch.inputs).softmax(dim=1), batch, settings.target))


def class_number(name: str, classes: Sequence[str]) -> int | None:
    """The class of that name, or else of that number; ``None`` for no name.

    Raises:
        ValueError: There is none; the message lists the classes.
    """
    if not name:
        return None
    if name in classes:
        return list(classes).index(name)
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    some = ", ".join(classes[:10]) + (", ..." if len(classes) > 10 else "")
    raise ValueError(f"no class {name!r} to explain against. There are: {some}; or its number, 0 to {len(classes) - 1}")


def drawn(images: int, wanted: int | None, seed: int) -> Int[Tensor, " drawn"]:
    """Positions of as many images as are wanted, drawn at random, in their order; ``None`` wants all."""
    order = torch.randperm(images, generator=stream(seed, "explained"))
    return order[:wanted].sort().values


def _settings(method: Attribution) -> dict[str, str]:
    return {f.name: _told(getattr(method, f.name)) for f in dataclasses.fields(method)}  # type: ignore[arg-type]


def _told(value: object) -> str:
    if not isinstance(value, Tensor):
        return repr(value)
    digest = hashlib.sha256(content(value)).hexdigest()
    return f"{value.dtype} {tuple(value.shape)} {digest[:16]}"
