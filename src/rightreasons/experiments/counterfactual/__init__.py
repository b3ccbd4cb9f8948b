"""What would have flipped a model on images that a user names: found, measured and written down."""

from rightreasons.experiments.counterfactual.answers import Answers, reached_class, results
from rightreasons.experiments.counterfactual.asked import Asked, CounterfactualSettings, ask, picture_files
from rightreasons.experiments.counterfactual.parts import learnt_parts, needed_parts
from rightreasons.experiments.counterfactual.searching import (
    COUNTERFACTUAL,
    build_counterfactual,
    counterfactuals,
    training_images,
)

__all__ = [
    "COUNTERFACTUAL",
    "Answers",
    "Asked",
    "CounterfactualSettings",
    "ask",
    "build_counterfactual",
    "counterfactuals",
    "learnt_parts",
    "needed_parts",
    "picture_files",
    "reached_class",
    "results",
    "training_images",
]
