"""What a run is made of: TOML into frozen dataclasses, where an unknown name is an error that lists what exists."""

from __future__ import annotations

import dataclasses
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args

T = TypeVar("T")
Masks = Literal["true", "zero", "random", "wrong", "incomplete"]


@dataclass(frozen=True)
class DataConfig:
    """Which images, and what is done to them.

    Attributes:
        name: A data set of ours, or the path of an image folder.
        test: Path of the image folder to test on; without it a share of ``name`` is held out (image folders only).
        decoy: Name of a decoy protocol; empty for none.
        decoy_size: Side of its patch, where it is not the protocol's.
        foreground: Pixels of the clean image above this value become ``relevant``.
        pixels: Range that the pixel values are mapped to.
        validation: Share of the training images held out, decoys and all.
        annotated: Share of the training images that keep their masks.
        masks: The true masks, their upper half alone (``incomplete``), or those of a control.
        resize: Side that the images of a folder are resized to; 0 keeps their size, which must then be one.
        channels: 1 or 3, of the images of a folder.
        seed: Of decoys, splits and annotations; ``None`` takes the run's.
        annotations: File of masks for the images of a folder: COCO, a Label Studio export, or a folder of PNG masks.
        degrade: Settings of ``rightreasons.data.Degraded``, which makes the masks of the training images worse.
        classes: Names of the classes to keep; empty keeps all.
        images: How many images to train on, evenly from all classes; 0 takes all.
        test_images: How many to test on, likewise.
        features: Settings of ``rightreasons.experiments.features.TrunkSettings``: a frozen network whose features stand
            in the place of the images.
    """

    name: str = "mnist"
    test: str = ""
    decoy: str = ""
    decoy_size: int | None = None
    foreground: float | None = None
    pixels: tuple[float, float] = (0.0, 1.0)
    validation: float = 0.0
    annotated: float = 1.0
    masks: Masks = "true"
    resize: int = 0
    channels: int = 3
    seed: int | None = None
    annotations: str = ""
    degrade: Mapping[str, Any] = field(default_factory=dict)
    classes: tuple[str, ...] = ()
    images: int = 0
    test_images: int = 0
    features: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ModelConfig:
    """Which network.

    Attributes:
        name: A model of ours, ``package.module:function`` or ``file.py:function``.
        settings: Keyword arguments of it.
        layer: The layer to explain; empty lets it be found.
        weights: File of weights to start from; empty starts anew.
        mean: Subtracted from each channel.
        std: Each channel is divided by it.
    """

    name: str = "lenet"
    settings: Mapping[str, Any] = field(default_factory=dict)
    layer: str = ""
    weights: str = ""
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)


@dataclass(frozen=True)
class TrainingConfig:
    """How to train.

    Attributes:
        epochs: Passes over the data.
        batch_size: Images a step.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        lr: Learning rate.
        weight_decay: L2.
        momentum: For ``sgd``.
        augmentation: Settings of ``rightreasons.data.Augmentation``; images and masks move together.
        schedule: How the learning rate goes down: empty for not at all, ``cosine`` or ``plateau``.
        schedule_factor: What ``plateau`` multiplies the rate by.
        schedule_patience: After how many epochs in a row without an improvement it does so.
        patience: Stop after so many, and take the best weights; 0 trains all epochs.
        monitor: ``loss`` or ``accuracy`` on the validation images, which ``data.validation`` holds out.
        annotated_batch: Annotated images drawn for the explanation losses at every step, beside the batch.
        precision: ``bf16`` runs the passes of a step in bfloat16; empty leaves it to the Accelerate configuration.
    """

    epochs: int = 3
    batch_size: int = 256
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.0
    augmentation: Mapping[str, Any] = field(default_factory=dict)
    schedule: str = ""
    schedule_factor: float = 0.5
    schedule_patience: int = 2
    patience: int = 0
    monitor: str = "loss"
    annotated_batch: int = 0
    precision: str = ""


@dataclass(frozen=True)
class TermConfig:
    """One explanation loss.

    Attributes:
        loss: Its name.
        weight: What it is multiplied by: a number, or ``balance`` or ``target``, which find it in training; the last
            two may name their share, ``target:0.02``.
        attribution: Name of the explainer; empty takes the loss's own.
        attribution_settings: Keyword arguments of the explainer.
        settings: Further keyword arguments of the loss.
    """

    loss: str
    weight: float | str = 1.0
    attribution: str = ""
    attribution_settings: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RecipeConfig:
    """A way to train that takes more than one call of the loop.

    Attributes:
        name: Of a recipe of ``rightreasons.training``; empty trains once, under the objective as it is.
        settings: Keyword arguments of it.
    """

    name: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunConfig:
    """All that decides a run's numbers.

    Attributes:
        seed: Of the initial weights, the order of the images and, unless they have their own, the decoys.
        data: Which images.
        model: Which network.
        training: How to train.
        terms: Explanation losses by the name under which they are logged.
        recipe: By which recipe.
    """

    seed: int = 0
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    training: TrainingConfig = TrainingConfig()
    terms: Mapping[str, TermConfig] = field(default_factory=dict)
    recipe: RecipeConfig = RecipeConfig()

    @property
    def uses_masks(self) -> bool:
        """Whether the training reads masks: in an explanation loss, or to randomize irrelevant pixels in place."""
        return bool(self.terms) or self.training.augmentation.get("irrelevant", "keep") != "keep"

    @property
    def data_seed(self) -> int:
        """The seed of decoys, splits and annotations."""
        return self.seed if self.data.seed is None else self.data.seed


def parse_run(values: Mapping[str, Any]) -> RunConfig:
    """A run from nested mappings, as TOML gives them.

    Raises:
        ValueError: A key is unknown or a value of the wrong kind.
    """
    parts = dict(values)
    terms = parts.pop("terms", {})
    if not isinstance(terms, Mapping):
        raise ValueError(f"expected a table for terms, got {terms!r}")
    sections = {"data": DataConfig, "model": ModelConfig, "training": TrainingConfig, "recipe": RecipeConfig}
    built: dict[str, Any] = {
        name: section(class_, parts.pop(name), name) for name, class_ in sections.items() if name in parts
    }
    built["terms"] = {name: section(TermConfig, term, f"terms.{name}") for name, term in terms.items()}
    return section(RunConfig, {**parts, **built}, "run")


def read_toml(path: Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        ValueError: It does not exist or is no TOML; the message names file and line.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ValueError(f"no configuration file {path}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no TOML: {error}") from error


def section(class_: type[T], values: Any, where: str) -> T:
    """A dataclass from a table; its annotations, as they are written, say what each value has to be.

    Raises:
        ValueError: A key is unknown or missing, or a value of the wrong kind.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"expected a table for {where}, got {values!r}")
    known = {f.name: f for f in dataclasses.fields(class_)}  # type: ignore[arg-type]
    unknown = [key for key in values if key not in known]
    if unknown:
        raise ValueError(f"unknown key {unknown[0]!r} in {where}. There are: {', '.join(known)}")
    missing = [n for n, f in known.items() if n not in values and _required(f)]
    if missing:
        raise ValueError(f"missing key {missing[0]!r} in {where}. There are: {', '.join(known)}")
    return class_(**{key: _checked(value, str(known[key].type), f"{where}.{key}") for key, value in values.items()})


def _required(item: dataclasses.Field[Any]) -> bool:
    return item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING


def _checked(value: Any, kind: str, where: str) -> Any:
    """The value, lists as tuples; the annotation is a string such as ``int | None``."""
    if kind == "tuple[str, ...]":
        return _names(value, where)
    if kind == "tuple[Any, ...]":
        return _listed(value, where)
    if kind.startswith("tuple"):
        return _numbers(value, kind, where)
    if kind == "Masks" and value not in get_args(Masks):
        raise ValueError(f"expected {', '.join(get_args(Masks))} for {where}, got {value!r}")
    if kind.startswith("Mapping[str, Any]") and not (isinstance(value, Mapping) and _is_plain(value)):
        raise ValueError(f"expected a table of plain values for {where}, got {value!r}")
    if kind in _ACCEPTED and (not isinstance(value, _ACCEPTED[kind]) or isinstance(value, bool)):
        raise ValueError(f"expected {kind} for {where}, got {value!r}")
    return float(value) if kind.startswith("float") and isinstance(value, int) else value


_ACCEPTED: Mapping[str, tuple[type, ...]] = {
    "str": (str,),
    "int": (int,),
    "float": (int, float),
    "int | None": (int, type(None)),
    "float | None": (int, float, type(None)),
    "float | str": (int, float, str),
}


def _names(value: Any, where: str) -> tuple[str, ...]:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    if not listed or not all(isinstance(name, str) for name in value):
        raise ValueError(f"expected a list of names for {where}, got {value!r}")
    return tuple(value)


def _listed(value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, list | tuple):
        raise ValueError(f"expected a list for {where}, got {value!r}")
    return tuple(value)


def _numbers(value: Any, kind: str, where: str) -> tuple[float, ...]:
    listed = isinstance(value, Sequence) and not isinstance(value, str)
    if not listed or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in value):
        raise ValueError(f"expected a list of numbers for {where}, got {value!r}")
    wanted = 2 if "..." not in kind else max(1, len(value))
    if len(value) != wanted:
        raise ValueError(f"expected {wanted} number{'s' * (wanted > 1)} for {where}, got {value!r}")
    return tuple(float(v) for v in value)


def _is_plain(value: Any) -> bool:
    """Whether JSON and TOML can both hold it."""
    if isinstance(value, Mapping):
        return all(isinstance(key, str) and _is_plain(v) for key, v in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(v) for v in value)
    return isinstance(value, str | int | float)


def as_dict(config: Any) -> dict[str, Any]:
    """A configuration as plain values, defaults and all."""
    values: dict[str, Any] = _plain(dataclasses.asdict(config))
    return values


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def to_toml(values: Mapping[str, Any], prefix: str = "") -> str:
    """Nested mappings as TOML text; keys without a value are left out, as TOML has no null."""
    plain = {k: v for k, v in values.items() if not isinstance(v, Mapping) and v is not None}
    lines = [f"{_toml_key(key)} = {_toml_value(value)}" for key, value in plain.items()]
    parts = ["\n".join(lines)] if lines else []
    for key, table in values.items():
        if isinstance(table, Mapping) and table:
            name = f"{prefix}{_toml_key(key)}"
            body = to_toml(table, f"{name}.")
            own = any(not isinstance(v, Mapping) for v in table.values())
            parts.append(f"[{name}]\n{body}" if own else body)
    return "\n\n".join(part for part in parts if part)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, str):
        # JSON's escapes are TOML's, but for one character.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{_toml_key(k)} = {_toml_value(v)}' for k, v in value.items())}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(_toml_value(v) for v in value)}]"
    return repr(value)
