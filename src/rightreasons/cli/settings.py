"""From flags to a configuration."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rightreasons.experiments import DataConfig, RecipeConfig, RunConfig, TrainingConfig

T = TypeVar("T")


def changed(config: T, **flags: Any) -> T:
    """The configuration with the flags that were given."""
    given = {key: value for key, value in flags.items() if value is not None}
    return replace(config, **given)  # type: ignore[type-var]


def one_process(command: str) -> None:
    """Refuse to run side by side with itself.

    Raises:
        ValueError: Several processes were launched together.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError(f"{command} runs in one process; train and revise can be launched in several")


def data_config(name: str | None, **flags: Any) -> DataConfig | None:
    """The images of the flags; ``None`` where none are named.

    Raises:
        ValueError: Something was said about images that are not named.
    """
    from rightreasons.experiments import DataConfig

    if name is not None:
        return changed(DataConfig(name=name), **flags)
    given = [key for key, value in flags.items() if value is not None]
    if given:
        raise ValueError(f"--{given[0]} belongs to images that --data names")
    return None


def run_config(file: Path | None) -> RunConfig:
    """The configuration in a file, or the defaults."""
    from rightreasons.experiments import parse_run, read_toml

    return parse_run(read_toml(file)) if file is not None else parse_run({})


def with_term(config: RunConfig, loss: str | None, weight: str | None, attribution: str | None) -> RunConfig:
    """The configuration with the explanation loss of the flags in the place of its own.

    Raises:
        ValueError: A weight or an explainer without a loss, or a weight of 0, which has no effect.
    """
    from rightreasons.experiments import TermConfig

    if loss is None:
        if weight is not None or attribution is not None:
            raise ValueError("--weight and --attribution belong to a --loss")
        if config.training.annotated_batch and not (config.terms or config.training.augmentation.get("borrow")):
            raise ValueError("annotated images are drawn for a --loss, or to --borrow their masks; name one of them")
        return _effective(config)
    term = TermConfig(loss=loss, weight=1.0 if weight is None else _number(weight), attribution=attribution or "")
    return _effective(replace(config, terms={loss: term}))


def _effective(config: RunConfig) -> RunConfig:
    """The configuration, if each of its losses has an effect; in a table a loss of weight 0 may be a control."""
    for name, term in config.terms.items():
        if term.weight == 0:
            raise ValueError(
                f"a weight of 0 leaves {name} without effect: give it a --weight above 0, or balance, which finds one; "
                "or leave the loss out to train without it"
            )
    return config


def randomizing(config: TrainingConfig, irrelevant: str | None, borrow: int | None, grow: int | None) -> TrainingConfig:
    """The configuration with the irrelevant pixels replaced as the flags say.

    Where masks are borrowed and the configuration draws no annotated images, as many are drawn as a batch holds.
    """
    given = {"irrelevant": irrelevant, "borrow": borrow, "grow": grow}
    told = {key: value for key, value in given.items() if value is not None}
    if not told:
        return config
    moves = {**config.augmentation, **told}
    if moves.get("irrelevant", "keep") == "keep":
        raise ValueError("--borrow and --grow say which pixels to replace; say by what: --irrelevant swapped")
    if moves.get("borrow") and not config.annotated_batch:
        config = replace(config, annotated_batch=config.batch_size)
    return replace(config, augmentation=moves)


def with_recipe(config: RecipeConfig, name: str | None) -> RecipeConfig:
    """The recipe of the flag in the place of the configuration's; settings stay where it is the same one."""
    return config if name is None or name == config.name else replace(config, name=name, settings={})


def _number(told: str) -> float | str:
    """A number where it is one, so that a record holds it as such."""
    try:
        return float(told)
    except ValueError:
        return told
