"""What would have flipped a model on images that a user names: found, measured and written down."""

from rightreasons.experiments.counterfactual.answers import Answers, reached_class, results
from rightreasons.experiments.counterfactual.asked import Asked, CounterfactualSettings, ask, picture_files
from rightreasons.experiments.counterfactual.methods import (
    Cell,
    MethodRecords,
    MethodRow,
    MethodsProtocol,
    method_rows,
    run_methods,
    write_methods_csv,
)
from rightreasons.experiments.counterfactual.searching import (
    COUNTERFACTUAL,
    build_counterfactual,
    counterfactuals,
)
from rightreasons.experiments.parts import Keep, class_autoencoders, learnt_parts, needed_parts

__all__ = [
    "COUNTERFACTUAL",
    "Answers",
    "Asked",
    "Cell",
    "CounterfactualSettings",
    "Keep",
    "MethodRecords",
    "MethodRow",
    "MethodsProtocol",
    "ask",
    "build_counterfactual",
    "class_autoencoders",
    "counterfactuals",
    "learnt_parts",
    "method_rows",
    "needed_parts",
    "picture_files",
    "reached_class",
    "results",
    "run_methods",
    "write_methods_csv",
]
