"""How to train, and what two runs must have in common for one to take up the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from rightreasons.core import Batch
from rightreasons.data.dataset import ImageDataset
from rightreasons.models import AdaptedClassifier
from rightreasons.training.description import described
from rightreasons.training.objective import Objective, TrainingStep

Augmentation = Callable[[Batch, torch.Generator], Batch]

OPTIMIZERS = ("adam", "adamw", "sgd")
SCHEDULES = ("", "cosine", "plateau")
MONITORS = ("loss", "accuracy")
PRECISIONS = ("", "bf16")
_LATER = ("schedule", "schedule_factor", "schedule_patience", "patience", "monitor", "annotated_batch", "precision")
"""Settings that older checkpoints do not tell; at their defaults they are what was."""


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
        schedule: How the learning rate goes down: empty for not at all, ``cosine`` to 0 over all steps, ``plateau``
            when validation no longer gets better.
        schedule_factor: What ``plateau`` multiplies the rate by.
        schedule_patience: After how many epochs in a row without an improvement it does so.
        patience: Stop after so many epochs in a row without an improvement, and take the weights of the best epoch
            either way; 0 trains all epochs and takes the last weights.
        monitor: What is to get better: the ``loss`` (cross-entropy) or the ``accuracy`` on the validation images.
        annotated_batch: Images with a mask that are drawn for the explanation losses at every step, by each process,
            beside the batch. Where few images are annotated a batch holds hardly any, and a loss on one or two says
            little. The task's loss does not count the images drawn; they share its forward pass, so a normalization
            over the batch (BatchNorm) sees them too. 0 draws none.
        precision: Of the passes of a step: ``bf16`` runs them under autocast in bfloat16, with channels last in memory
            where the network's own pass can, which is faster on processors and GPUs that have it; so are data sets
            validated after each epoch. Weights stay in float32. Gradients of most losses keep their direction (cosine
            0.99 to float32's), those of ``HAICS`` and ``RBR`` less (0.6 to 0.9). Empty leaves it to the Accelerate
            configuration.

    Raises:
        ValueError: A number out of range or an unknown name.
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
    schedule: str = ""
    schedule_factor: float = 0.5
    schedule_patience: int = 2
    patience: int = 0
    monitor: str = "loss"
    annotated_batch: int = 0
    precision: str = ""

    @property
    def watches(self) -> bool:
        """Whether training follows from the validation images."""
        return self.schedule == "plateau" or self.patience > 0

    def __post_init__(self) -> None:
        whole = (("epochs", 0), ("batch_size", 1), ("workers", 0), ("annotated_batch", 0))
        for name, least in (*whole, ("weight_decay", 0), ("momentum", 0)):
            if not getattr(self, name) >= least:
                raise ValueError(f"expected {name} of at least {least}, got {getattr(self, name)}")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise ValueError(f"expected a finite learning rate above 0, got {self.lr}")
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"expected one of {', '.join(OPTIMIZERS)} as optimizer, got {self.optimizer!r}")
        if self.momentum and self.optimizer != "sgd":
            raise ValueError(f"expected no momentum with {self.optimizer}, got {self.momentum}; it belongs to sgd")
        self._check_names_and_schedule()

    def _check_names_and_schedule(self) -> None:
        for name, known in (("schedule", SCHEDULES), ("monitor", MONITORS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                told = f"{' or '.join(filter(None, known))} as {name}" + (" (or leave it out)" if "" in known else "")
                raise ValueError(f"expected {told}, got {getattr(self, name)!r}")
        if not 0 < self.schedule_factor < 1:
            raise ValueError(f"expected schedule_factor between 0 and 1, got {self.schedule_factor}")
        if self.schedule_patience < 1 or self.patience < 0:
            raise ValueError(
                f"expected schedule_patience >= 1 and patience >= 0, got {self.schedule_patience} and {self.patience}"
            )


def make_optimizer(weights: list[nn.Parameter], settings: FitSettings) -> Optimizer:
    """The optimizer of these settings."""
    # One kernel for all weights: fewer calls, which is most of the step of a small network.
    fused = all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in weights)
    shared = {"lr": settings.lr, "weight_decay": settings.weight_decay, "fused": fused}
    if settings.optimizer == "sgd":
        return SGD(weights, momentum=settings.momentum, **shared)  # type: ignore[arg-type]
    return (Adam if settings.optimizer == "adam" else AdamW)(weights, **shared)  # type: ignore[arg-type]


def describe(
    model: AdaptedClassifier, data: ImageDataset, objective: Objective, settings: FitSettings
) -> dict[str, object]:
    """What must be the same for a run to be resumed; more epochs may be asked for, unless the schedule ends with them.

    The images are told by a hash of all labels and of some images; the trained weights by their names in their order,
    under which the optimizer's state is kept.
    """
    free = ("epochs", "workers")
    own: dict[str, object] = {
        f.name: getattr(settings, f.name)
        for f in fields(settings)
        if f.name not in free and not (f.name in _LATER and getattr(settings, f.name) == f.default)
    }
    if settings.schedule == "cosine":
        own["epochs"] = settings.epochs
    own["augmentation"] = described(settings.augmentation)
    terms = {f"term {n}": f"{term.weight} * {described(term.loss)}" for n, term in objective.terms.items()}
    step, held = TrainingStep(model, objective), held_back(model)
    return {
        **own,
        **terms,
        "task": described(objective.task),
        "data": f"{data.name}, {len(data)} images, hash {data.sampled_fingerprint()[:12]}",
        "layer": model.layer,
        "mean": model.mean.flatten().tolist(),
        "std": model.std.flatten().tolist(),
        "trained weights": [name for name, weight in step.named_parameters() if weight.requires_grad],
        "frozen modes": [name for name, module in model.network.named_modules() if module in held],
    }


def held_back(model: AdaptedClassifier) -> set[nn.Module]:
    """The modules that stay in evaluation mode while the network trains.

    Those that were put there inside a network in training mode, as one freezes a normalization. A network that is in
    evaluation mode as a whole, as after loading, is trained as a whole.
    """
    return {m for m in model.network.modules() if not m.training} if model.network.training else set()
