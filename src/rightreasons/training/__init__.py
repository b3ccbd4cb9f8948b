"""Training: an objective with explanation losses, the loop, and checkpoints to resume from."""

from rightreasons.training.evaluation import Evaluation, device_of, evaluate, modes_kept, predict
from rightreasons.training.fit import FitResult, default_accelerator, fit
from rightreasons.training.objective import Objective, Term, TrainingStep
from rightreasons.training.settings import OPTIMIZERS, FitSettings
from rightreasons.training.weights import Balance, Target, weight_of

__all__ = [
    "OPTIMIZERS",
    "Balance",
    "Evaluation",
    "FitResult",
    "FitSettings",
    "Objective",
    "Target",
    "Term",
    "TrainingStep",
    "default_accelerator",
    "device_of",
    "evaluate",
    "fit",
    "modes_kept",
    "predict",
    "weight_of",
]
