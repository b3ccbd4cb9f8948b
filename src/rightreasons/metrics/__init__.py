"""Prove: scores of heatmaps and of predictions, and how sure they are."""

from rightreasons.core import Catalogue, Metric
from rightreasons.metrics.classification import (
    Accuracy,
    Classification,
    MacroF1,
    WorstClass,
    WorstGroup,
    accuracy,
    classification_report,
    macro_f1,
    per_class_accuracy,
    worst_class_accuracy,
    worst_group_accuracy,
)
from rightreasons.metrics.localization import EnergyInMask, IoU, MaskF1, MaskPrecision, MaskRecall, PointingGame
from rightreasons.metrics.shortcut import (
    ArtifactRelevance,
    DeadMap,
    WrongReasonShare,
    mean_activation,
    prediction_change,
)
from rightreasons.metrics.statistics import (
    Estimate,
    Mean,
    PairedEstimate,
    SeedSummary,
    Statistic,
    bootstrap,
    mean_sd_interval,
    paired_bootstrap,
)

METRICS: Catalogue[Metric] = Catalogue(
    "metric",
    iou=IoU,
    mask_precision=MaskPrecision,
    mask_recall=MaskRecall,
    mask_f1=MaskF1,
    energy_in_mask=EnergyInMask,
    pointing_game=PointingGame,
    wrong_reason_share=WrongReasonShare,
    artifact_relevance=ArtifactRelevance,
    dead_map=DeadMap,
)

__all__ = [
    "METRICS",
    "Accuracy",
    "ArtifactRelevance",
    "Classification",
    "DeadMap",
    "EnergyInMask",
    "Estimate",
    "IoU",
    "MacroF1",
    "MaskF1",
    "MaskPrecision",
    "MaskRecall",
    "Mean",
    "PairedEstimate",
    "PointingGame",
    "SeedSummary",
    "Statistic",
    "WorstClass",
    "WorstGroup",
    "WrongReasonShare",
    "accuracy",
    "bootstrap",
    "classification_report",
    "macro_f1",
    "mean_activation",
    "mean_sd_interval",
    "paired_bootstrap",
    "per_class_accuracy",
    "prediction_change",
    "worst_class_accuracy",
    "worst_group_accuracy",
]
