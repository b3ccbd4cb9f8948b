"""Training: an objective with explanation losses, the loop, and checkpoints to resume from."""

from rightreasons.training.autoencode import (
    AutoencodeSettings,
    GeneratorSettings,
    fit_autoencoder,
    fit_generator,
)
from rightreasons.training.evaluation import Evaluation, device_of, evaluate, modes_kept, predict
from rightreasons.training.fit import FitResult, default_accelerator, fit
from rightreasons.training.objective import GroupTask, Objective, Term, TrainingStep
from rightreasons.training.recipes import (
    DFR,
    JTT,
    RECIPES,
    AClArC,
    FindAnotherExplanation,
    GroupDRO,
    GroupDROLoss,
    PClArC,
    Recipe,
    RecipeResult,
    RRClArCRecipe,
)
from rightreasons.training.settings import OPTIMIZERS, FitSettings
from rightreasons.training.weights import Balance, Target, weight_of

__all__ = [
    "DFR",
    "JTT",
    "OPTIMIZERS",
    "RECIPES",
    "AClArC",
    "AutoencodeSettings",
    "Balance",
    "Evaluation",
    "FindAnotherExplanation",
    "FitResult",
    "FitSettings",
    "GeneratorSettings",
    "GroupDRO",
    "GroupDROLoss",
    "GroupTask",
    "Objective",
    "PClArC",
    "RRClArCRecipe",
    "Recipe",
    "RecipeResult",
    "Target",
    "Term",
    "TrainingStep",
    "default_accelerator",
    "device_of",
    "evaluate",
    "fit",
    "fit_autoencoder",
    "fit_generator",
    "modes_kept",
    "predict",
    "weight_of",
]
