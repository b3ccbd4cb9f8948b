"""The state of a run in one file, from which a killed run goes on to the same weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor
from torch.optim import Optimizer

from rightreasons.core import CorruptData, ResumeRefused
from rightreasons.models.checkpoints import fill, packable, write_whole
from rightreasons.training.objective import TrainingStep

FILE_NAME = "checkpoint.safetensors"
_KEY = "rightreasons"
_FORMAT = 1


@dataclass
class Progress:
    """How far a run has come.

    Attributes:
        epoch: Epochs that are over.
        step: Steps of the present epoch that are over.
        steps: Steps of all epochs that are over.
        history: One dictionary an epoch that is over.
        meter: Sums of the present epoch, see ``Meter.state``; ``None`` at its beginning.
        watched: What validation has told so far, see ``Watched``; ``None`` where nothing is made of it.
        best: The weights after the best epoch; ``None`` where the last are taken.
    """

    epoch: int = 0
    step: int = 0
    steps: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    meter: dict[str, Any] | None = None
    watched: dict[str, Any] | None = None
    best: dict[str, Tensor] | None = None


def save_checkpoint(
    path: Path,
    step: TrainingStep,
    optimizer: Optimizer,
    progress: Progress,
    *,
    description: Mapping[str, object],
    scaler: Mapping[str, object] | None = None,
) -> None:
    """Write weights, those of the losses, the optimizer's state and the progress as one safetensors file.

    Args:
        path: The file, replaced whole.
        step: Holds the classifier and the losses' modules.
        optimizer: Its state is saved; its settings are part of the description.
        progress: How far the run has come.
        description: What must be the same when the run is resumed.
        scaler: State of the gradient scaler, with fp16.

    Raises:
        NotWritten: The disk is full, for example; the old checkpoint is untouched.
    """
    state = optimizer.state_dict()["state"]
    tensors = {f"weights.{name}": value for name, value in step.state_dict().items()}
    tensors |= {f"optimizer.{i}.{k}": v for i, row in state.items() for k, v in row.items() if isinstance(v, Tensor)}
    tensors |= {f"best.{name}": value for name, value in (progress.best or {}).items()}
    plain = {i: {k: v for k, v in row.items() if not isinstance(v, Tensor)} for i, row in state.items()}
    header = {
        "format": _FORMAT,
        "description": description,
        "progress": {name: value for name, value in vars(progress).items() if name != "best"},
        "optimizer": plain,
        "scaler": scaler,
    }
    write_whole(path, safetensors.torch.save(packable(tensors), metadata={_KEY: json.dumps(header)}))


def load_checkpoint(
    path: Path, step: TrainingStep, optimizer: Optimizer, *, description: Mapping[str, object]
) -> tuple[Progress, dict[str, Any] | None]:
    """Fill the step and the optimizer, and say how far the run had come; second, the gradient scaler's state.

    Raises:
        CorruptData: The file is damaged or no checkpoint.
        ResumeRefused: It was written by a run with other settings; the message names those that differ.
        BadModel: Its weights are those of another network.
    """
    header, tensors = _read(path)
    _refuse_other_run(path, header["description"], json.loads(json.dumps(description)))
    fill(step, _under("weights.", tensors), str(path))
    state: dict[int, dict[str, Any]] = {int(i): dict(row) for i, row in header["optimizer"].items()}
    for name, value in _under("optimizer.", tensors).items():
        index, key = name.split(".", 1)
        state[int(index)][key] = value
    _refuse_unfit(path, state, optimizer)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return Progress(**header["progress"], best=_under("best.", tensors) or None), header["scaler"]


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        header: dict[str, Any] = json.loads(metadata[_KEY])
    except (SafetensorError, json.JSONDecodeError, KeyError) as error:
        raise CorruptData(f"{path} is damaged or no checkpoint of a run; remove it to start anew") from error
    if header["format"] != _FORMAT:
        raise CorruptData(
            f"{path} has checkpoint format {header['format']}, expected {_FORMAT}; remove it to start anew"
        )
    return header, tensors


def _refuse_other_run(path: Path, saved: Mapping[str, object], wanted: Mapping[str, object]) -> None:
    names = sorted(set(saved) | set(wanted))
    differing = [
        _told(name, saved.get(name, "absent"), wanted.get(name, "absent"))
        for name in names
        if saved.get(name) != wanted.get(name)
    ]
    if differing:
        raise ResumeRefused(
            f"{path} belongs to another run: {'; '.join(differing)}. "
            "Take the old settings, or start anew without resuming, in another folder"
        )


def _told(name: str, saved: object, wanted: object) -> str:
    """What differs; of two lists of names only the names that are in one."""
    if isinstance(saved, list) and isinstance(wanted, list) and name in ("trained weights", "frozen modes"):
        only = [[n for n in mine if n not in others] for mine, others in ((saved, wanted), (wanted, saved))]
        if any(only):
            saved, wanted = (f"with {', '.join(names)}" if names else "without them" for names in only)
    return f"{name} was {saved} and is now {wanted}"


def _refuse_unfit(path: Path, state: Mapping[int, Mapping[str, object]], optimizer: Optimizer) -> None:
    """The optimizer's tensors are single numbers or have the shape of their weight."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    for index, row in state.items():
        shapes = {tuple(value.shape) for value in row.values() if isinstance(value, Tensor) and value.ndim}
        if not 0 <= index < len(weights) or shapes - {tuple(weights[index].shape)}:
            raise CorruptData(f"{path} holds an optimizer's state that is not of these weights; remove it")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def finite(step: torch.nn.Module) -> bool:
    """Whether every weight is finite."""
    return all(bool(torch.isfinite(parameter).all()) for parameter in step.parameters())
