"""Does the model's score respond to changes of the image as the heatmap says."""

from rightreasons.metrics.faithfulness.base import Faithfulness
from rightreasons.metrics.faithfulness.features import FaithfulnessEstimate, MonotonicityCorrelation
from rightreasons.metrics.faithfulness.flipping import (
    Deletion,
    Insertion,
    Monotonicity,
    PixelFlipping,
    RegionPerturbation,
)
from rightreasons.metrics.faithfulness.imputation import imputed
from rightreasons.metrics.faithfulness.infidelity import Infidelity
from rightreasons.metrics.faithfulness.responses import Responses
from rightreasons.metrics.faithfulness.road import ROAD
from rightreasons.metrics.faithfulness.subsets import FaithfulnessCorrelation, SensitivityN

__all__ = [
    "ROAD",
    "Deletion",
    "Faithfulness",
    "FaithfulnessCorrelation",
    "FaithfulnessEstimate",
    "Infidelity",
    "Insertion",
    "Monotonicity",
    "MonotonicityCorrelation",
    "PixelFlipping",
    "RegionPerturbation",
    "Responses",
    "SensitivityN",
    "imputed",
]
