"""Which explainers are asked, with which settings, and which of them can explain a network."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from rightreasons.attribution import ATTRIBUTIONS, TargetedBaseline
from rightreasons.core import Attribution, BadModel, Classifier, RightReasonsError
from rightreasons.core.tensors import content
from rightreasons.data.dataset import stream
from rightreasons.experiments.baselines import GENERATED, TARGETED, NamedBaselines, has_baseline
from rightreasons.experiments.build import build_attribution, title_of
from rightreasons.experiments.config import read_toml
from rightreasons.experiments.explain import Target, contrasted, explained_class
from rightreasons.experiments.making import check_settings
from rightreasons.experiments.subject import Subject
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
        baseline: Where methods begin that have a baseline and are given none: a number, ``mean``, ``blurred``, or, of
            the class of ``against``, ``nearest`` (training image) or ``generated``; empty leaves them their own.

    Raises:
        ValueError: No method, no image, or another target.
    """

    methods: tuple[str | MethodConfig, ...] = ("saliency",)
    images: int | None = 8
    target: Target = "predicted"
    seed: int = 0
    against: str = ""
    baseline: str = ""

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ValueError(f"expected target {' or '.join(get_args(Target))}, got {self.target!r}")
        if not self.methods:
            raise ValueError("expected at least one method, got none")
        if self.images is not None and self.images < 1:
            raise ValueError(f"expected at least one image (--images), got {self.images}")

    @property
    def generates(self) -> bool:
        """Whether a generator is needed, which has to be trained once."""
        own = [method.settings.get("baseline") for method in self.methods if isinstance(method, MethodConfig)]
        asked = (self.baseline, *own)
        return any(one == GENERATED or (isinstance(one, list | tuple) and GENERATED in one) for one in asked)


@dataclass(frozen=True, eq=False)
class Start:
    """Images of a class at which maps begin.

    Attributes:
        title: Which, in short.
        words: What they are.
        images: One for each image that is explained, on the CPU.
        taken: Whether the model takes it for the class.
    """

    title: str
    words: str
    images: Float[Tensor, "images channels height width"]
    taken: Bool[Tensor, " images"]


@dataclass(frozen=True, eq=False)
class Explainers:
    """The explainers that were asked for.

    Attributes:
        methods: Those that run, by the name under which their maps are stored.
        unfit: Why the other ones cannot explain the network, by name.
        baselines: By name, those of a class at which some of the methods begin.
        other: The class that is explained against.
    """

    methods: Mapping[str, Attribution]
    unfit: Mapping[str, str] = field(default_factory=dict)
    baselines: Mapping[str, TargetedBaseline] = field(default_factory=dict)
    other: int | None = None

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

    def starts(self, subject: Subject, inputs: Float[Tensor, "images channels height width"]) -> dict[str, Start]:
        """Where the maps of these images begin, by the baseline's name, if it is at images of a class."""
        model, found = subject.model, dict[str, Start]()
        asked = contrasted(model, self.other)
        for name, baseline in self.baselines.items():
            with modes_kept(model), torch.no_grad():
                model.eval()
                (images,) = baseline.facing(asked, inputs.to(device_of(model)))
                taken = model(images).argmax(dim=1) == self.other
            title = f"{name} {subject.data.classes[self.other or 0]}"
            found[name] = Start(title, TARGETED[name], images.cpu(), taken.cpu())
        return found


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


def check_methods(settings: RevealSettings, classes: Sequence[str]) -> None:
    """Refuse methods, settings and a class that do not exist, before anything is trained for them.

    Raises:
        ValueError: See :func:`build_explainers`.
    """
    class_number(settings.against, classes)
    for method in settings.methods:
        config = MethodConfig(method) if isinstance(method, str) else method
        if config.name != ALL:
            # A baseline may be named, which the class itself does not take.
            given = {key: value for key, value in config.settings.items() if key != "baseline"}
            check_settings(ATTRIBUTIONS[config.name], given, f"{ATTRIBUTIONS.family} {config.name!r}")


def build_explainers(subject: Subject, settings: RevealSettings) -> Explainers:
    """The explainers of the settings; of ``all``, those that can explain this network.

    Each method is tried on the first image.

    Raises:
        BadModel: A method that was named cannot explain it.
        ValueError: No method of a name, a setting that it does not have, or two methods under one label; or a baseline
            that cannot be had, see :class:`~rightreasons.experiments.baselines.NamedBaselines`.
    """
    check_methods(settings, subject.data.classes)
    asked = [MethodConfig(m) if isinstance(m, str) else m for m in settings.methods]
    named = [config for config in asked if config.name != ALL]
    keys = [config.key for config in named]
    twice = next((key for key in keys if keys.count(key) > 1), None)
    if twice is not None:
        raise ValueError(f"two methods are called {twice!r}: give one of them another label, in a file for --config")
    build = _Builder(subject, settings)
    methods = {config.key: build(config.name, config.settings) for config in named}
    _refuse_unfit(methods, build)
    unfit: dict[str, str] = {}
    if len(named) < len(asked):
        _add_all(methods, unfit, build)
    elif settings.baseline and not any(has_baseline(config.name) for config in named):
        some = ", ".join(name for name in ATTRIBUTIONS if has_baseline(name))
        raise ValueError(f"expected a method that begins at a baseline, such as {some}, got {', '.join(keys)}")
    if not methods:
        raise ValueError("none of the methods can explain this network")
    return Explainers(methods, unfit, build.baselines.targeted, build.other)


class _Builder:
    """Makes methods for one network and its images."""

    def __init__(self, subject: Subject, settings: RevealSettings) -> None:
        self.subject, self.settings = subject, settings
        self.other = class_number(settings.against, subject.data.classes)
        self.baselines = NamedBaselines(subject, self.other)
        # A name that makes no sense is a mistake, and no reason to leave methods out.
        self.default = self.baselines.of(settings.baseline) if settings.baseline else None

    def __call__(self, name: str, given: Mapping[str, Any]) -> Attribution:
        return build_attribution(name, self.subject.data, self.baselines.settings(name, given, self.default))

    def try_on_one(self, method: Attribution) -> None:
        """Explain the first image."""
        model, data = self.subject.model, self.subject.data
        with modes_kept(model), torch.no_grad(), torch.random.fork_rng():
            model.eval()
            batch = data[0].to(device_of(model))
            asked: Classifier = contrasted(model, self.other)
            chosen = explained_class(model(batch.inputs).softmax(dim=1), batch, self.settings.target)
            method(asked, batch.inputs, chosen)


def _refuse_unfit(methods: Mapping[str, Attribution], build: _Builder) -> None:
    """Before any map is made: a method that fails later would take the others' maps with it."""
    unfit: dict[str, Exception] = {}
    for name, method in methods.items():
        try:
            build.try_on_one(method)
        except torch.OutOfMemoryError:
            raise
        except _UNFIT as error:
            unfit[name] = error
    if unfit:
        told = "; ".join(f"{name}: {_reason(error)}" for name, error in unfit.items())
        rest = [name for name in methods if name not in unfit]
        it_can = f" (it can by {', '.join(rest)})" if rest else ""
        raise BadModel(f"cannot explain this network by {told}{it_can}") from next(iter(unfit.values()))


def _reason(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _add_all(methods: dict[str, Attribution], unfit: dict[str, str], build: _Builder) -> None:
    for name in ATTRIBUTIONS:
        if name in methods:
            continue
        try:
            method = build(name, {})
            build.try_on_one(method)
        except torch.OutOfMemoryError:
            raise
        except _UNFIT as error:
            unfit[name] = _reason(error)
        else:
            methods[name] = method


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
    return order(images, seed)[:wanted].sort().values


def order(images: int, seed: int) -> Int[Tensor, " images"]:
    """All positions in the order of the draw."""
    return torch.randperm(images, generator=stream(seed, "explained"))


def _settings(settings: Attribution | TargetedBaseline) -> dict[str, str]:
    return {f.name: _told(getattr(settings, f.name)) for f in dataclasses.fields(settings)}  # type: ignore[arg-type]


def _told(value: object) -> str:
    if isinstance(value, TargetedBaseline):
        inside = ", ".join(f"{name}={told}" for name, told in _settings(value).items())
        return f"{type(value).__name__}({inside})"
    if isinstance(value, tuple) and any(isinstance(one, TargetedBaseline) for one in value):
        return f"({', '.join(map(_told, value))})"
    if not isinstance(value, Tensor):
        return repr(value)
    digest = hashlib.sha256(content(value)).hexdigest()
    return f"{value.dtype} {tuple(value.shape)} {digest[:16]}"
