"""How to train, and what two runs must have in common for one to take up the other."""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from rightreasons.core import Batch
from rightreasons.data.dataset import ImageDataset
from rightreasons.models import AdaptedClassifier
from rightreasons.training.objective import Objective

Augmentation = Callable[[Batch, torch.Generator], Batch]

OPTIMIZERS = ("adam", "adamw", "sgd")


@dataclass(frozen=True)
class FitSettings:
    """How to train.

    Attributes:
        epochs: Passes over the data.
        batch_size: Images a step, over all processes together.
        optimizer: ``adam``, ``adamw`` or ``sgd``.
        lr: Learning rate.
        weight_decay: Added to the gradient as L2 (``adam``, ``sgd``) or apart from it (``adamw``).
        momentum: For ``sgd``.
        seed: Order of the images, dropout and augmentation follow from it; the initial weights are the caller's.
        augmentation: Called as ``augmentation(batch, generator)`` on each training batch.
        workers: Processes that read images ahead; 0 for data in memory.
        drop_last: Leave out an epoch's last batch where it is smaller.

    Raises:
        ValueError: A number out of range or an unknown optimizer.
    """

    epochs: int = 1
    batch_size: int = 256
    optimizer: str = "adam"
    lr: float = 1e-3
    weight_decay: float = 0.0
    momentum: float = 0.0
    seed: int = 0
    augmentation: Augmentation | None = None
    workers: int = 0
    drop_last: bool = False

    def __post_init__(self) -> None:
        for name, least in (("epochs", 0), ("batch_size", 1), ("workers", 0), ("weight_decay", 0), ("momentum", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"expected {name} of at least {least}, got {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"expected a finite learning rate above 0, got {self.lr}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"expected one of {', '.join(OPTIMIZERS)} as optimizer, got {self.optimizer!r}")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"expected no momentum with {self.optimizer}, got {self.momentum}; it belongs to sgd")


def make_optimizer(weights: list[nn.Parameter], settings: FitSettings) -> Optimizer:
    """The optimizer of these settings."""
    # One kernel for all weights; measured 15 % of an MLP's epoch on a CPU.
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in weights)
    shared = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": fused}
    if settings.optimizer == "sgd":
        return SGD(weights, momentum=settings.momentum, **shared)  # type: ignore[arg-type]
    return (Adam if settings.optimizer == "adam" else AdamW)(weights, **shared)  # type: ignore[arg-type]


def describe(
    model: AdaptedClassifier, data: ImageDataset, objective: Objective, settings: FitSettings
) -> dict[str, object]:
    """What must be the same for a run to be resumed; more epochs may be asked for."""
    free = ("epochs", "workers")
    described = {f.name: getattr(settings, f.name) for f in fields(settings) if f.name not in free}
    described["augmentation"] = _name(settings.augmentation)
    labels = hashlib.sha256(data.target.contiguous().cpu().numpy().tobytes()).hexdigest()[:12]
    terms = {f"term {n}": f"{term.weight} * {_name(term.loss)}" for n, term in objective.terms.items()}
    return {
        **described,
        **terms,
        "task": _name(objective.task),
        "data": f"{data.name}, {len(data)} images, labels {labels}",
        "layer": model.layer,
    }


def _name(method: object) -> str:
    """A method's settings in words that are the same in every process: no addresses."""
    text = getattr(method, "__qualname__", None) or repr(method)
    return re.sub(r" at 0x[0-9a-f]+", "", text)
