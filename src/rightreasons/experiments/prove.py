"""Whether a revision worked: two models on the same images, with intervals, controls and a second explainer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from rightreasons.attribution import IntegratedGradients, Saliency
from rightreasons.core import Attribution, Metric
from rightreasons.data import DecoyDataset, ImageDataset, Subset, Wrapper, swapped
from rightreasons.data.dataset import stream
from rightreasons.experiments.explain import explain
from rightreasons.experiments.proof import Comparison, Control, Example, Proof, View
from rightreasons.metrics import (
    ArtifactRelevance,
    DeadMap,
    EnergyInMask,
    IoU,
    MaskF1,
    MaskPrecision,
    MaskRecall,
    Mean,
    PairedEstimate,
    PointingGame,
    Statistic,
    WrongReasonShare,
    bootstrap,
    paired_bootstrap,
    prediction_change,
)
from rightreasons.metrics.classification import Accuracy, MacroF1, WorstClass, classification_report
from rightreasons.models import AdaptedClassifier, check_fits
from rightreasons.training import Evaluation, device_of, evaluate


def default_explainers() -> dict[str, Attribution]:
    """The explainer that RRR trains through, and one that no loss of ours trains through by default."""
    return {
        "Saliency": Saliency("sum_log_probabilities"),
        "Integrated gradients": IntegratedGradients(score="log_probability"),
    }


@dataclass(frozen=True)
class ProofSettings:
    """How much is looked at.

    Attributes:
        explainers: Attributions by the name to show; the first is the one that was trained through.
        explained: How many test images are explained, drawn at random.
        examples: How many of these are shown.
        resamples: Of the bootstrap.
        seed: Of the draws.

    Raises:
        ValueError: A number is too small, or there is no explainer.
    """

    explainers: Mapping[str, Attribution] = field(default_factory=default_explainers)
    explained: int = 1000
    examples: int = 8
    resamples: int = 2000
    seed: int = 0

    def __post_init__(self) -> None:
        if self.explained < 1 or self.examples < 0 or self.resamples < 1:
            raise ValueError(
                "expected at least 1 explained image, 0 examples and 1 resample, "
                f"got {self.explained}, {self.examples} and {self.resamples}"
            )
        if not self.explainers:
            raise ValueError("expected at least one explainer, got none")


@dataclass(frozen=True)
class Bound:
    """A model that never saw the shortcut, and the data it is measured on.

    Attributes:
        model: Trained without the shortcut.
        data: The test images without it.
    """

    model: AdaptedClassifier
    data: ImageDataset


def prove(
    before: AdaptedClassifier,
    after: AdaptedClassifier,
    data: ImageDataset,
    settings: ProofSettings | None = None,
    *,
    bound: Bound | None = None,
    controls: Mapping[str, AdaptedClassifier] | None = None,
) -> Proof:
    """Compare two models on data that neither was trained on.

    Predictions are compared on all images; heatmaps, always of the class that the model predicts, on some drawn at
    random. Every interval is a 95 % bootstrap interval over images, paired where models are compared; that of the
    worst class, and of a share of 0 or 1, is exact instead (Clopper-Pearson). Where the data carry a decoy, the images
    are shown again with only the decoy changed to see how many predictions follow it.

    Args:
        before: The model as it was.
        after: The revised model.
        data: Test images; with masks, the measures of place are taken too.
        settings: How much is looked at.
        bound: A model that never saw the shortcut.
        controls: Models revised with masks that should not help, by name.

    Raises:
        ValueError: There are no images, or the models do not fit them.
    """
    settings = settings or ProofSettings()
    for model in (before, after):
        check_fits(model, data[0].inputs.to(device_of(model)), data.target)
    found = evaluate(before, data), evaluate(after, data)
    clean = evaluate(bound.model, bound.data) if bound else None
    comparisons = _predictions(*found, clean, data.classes, settings) + _swaps(before, after, data, found, settings)
    some = _drawn(data, settings)
    maps = [explain(model, some, settings.explainers).heatmaps for model in (before, after)]
    comparisons += _places(before, after, some, maps, settings)
    return Proof(
        data=data.name,
        classes=tuple(data.classes),
        images=len(data),
        explained=len(some),
        explainers={name: a.signed for name, a in settings.explainers.items()},
        comparisons=tuple(comparisons),
        controls=tuple(_control(n, m, found[1], data, settings) for n, m in (controls or {}).items()),
        examples=_examples(some, found, maps, settings),
    )


def _predictions(
    before: Evaluation, after: Evaluation, clean: Evaluation | None, classes: Sequence[str], settings: ProofSettings
) -> list[Comparison]:
    number = len(classes)
    measures: list[tuple[str, str, Statistic]] = [
        ("Accuracy", "Share of test images classified correctly.", Accuracy()),
        ("Worst class", "Accuracy on the class that fares worst.", WorstClass(number)),
        ("Macro F1", "Mean over classes of the harmonic mean of precision and recall.", MacroF1(number)),
    ]
    resampling = {"resamples": settings.resamples, "seed": settings.seed}
    return [
        Comparison(
            name,
            told,
            *_paired(_pair(before), _pair(after), statistic, settings),
            higher_is_better=True,
            bound=bootstrap(_pair(clean), statistic=statistic, **resampling) if clean else None,
            of=_worst(before, after, clean, classes) if isinstance(statistic, WorstClass) else "",
        )
        for name, told, statistic in measures
    ]


def _worst(before: Evaluation, after: Evaluation, clean: Evaluation | None, classes: Sequence[str]) -> str:
    """Which class fares worst, before and after."""
    found = {"before": before, "after": after, **({"with the clean bound": clean} if clean else {})}
    reports = {name: classification_report(*_pair(own), classes=len(classes)) for name, own in found.items()}
    return ", ".join(f"{classes[report.worst]} {name}" for name, report in reports.items())


def _pair(found: Evaluation) -> tuple[Tensor, Tensor]:
    return found.predictions, found.target


def _paired(
    before: Tensor | Sequence[Tensor],
    after: Tensor | Sequence[Tensor],
    statistic: Statistic,
    settings: ProofSettings,
) -> PairedEstimate:
    return paired_bootstrap(before, after, statistic=statistic, resamples=settings.resamples, seed=settings.seed)


def has_decoy(data: ImageDataset) -> bool:
    """Whether there is a decoy in it that can be swapped."""
    while isinstance(data, Wrapper):
        if isinstance(data, DecoyDataset):
            return True
        data = data.data
    return False


def _swaps(
    before: AdaptedClassifier,
    after: AdaptedClassifier,
    data: ImageDataset,
    found: tuple[Evaluation, Evaluation],
    settings: ProofSettings,
) -> list[Comparison]:
    if not has_decoy(data):
        return []
    other = swapped(data, settings.seed)
    first, second = (
        prediction_change(own.predictions, evaluate(model, other).predictions)
        for model, own in zip((before, after), found, strict=True)
    )
    told = "Share of predictions that change when only the decoy is swapped for another class's."
    return [Comparison("Decoy swap", told, *_paired(first, second, Mean(), settings), higher_is_better=False)]


def _drawn(data: ImageDataset, settings: ProofSettings) -> Subset:
    order = torch.randperm(len(data), generator=stream(settings.seed, "explained"))
    return Subset(data, order[: settings.explained], change="drawn at random")


PLACES: tuple[tuple[str, str, Metric], ...] = (
    (
        "Artifact relevance",
        "Share of the heatmap's absolute values that lie inside the irrelevant pixels.",
        ArtifactRelevance(),
    ),
    (
        "Wrong-reason share",
        "Share of the irrelevant pixels on which the heatmap is above its own mean.",
        WrongReasonShare(),
    ),
    ("Energy in mask", "Share of the heatmap's positive values that lie inside the relevant pixels.", EnergyInMask()),
    ("Pointing game", "Share of heatmaps whose maximum lies inside the relevant pixels.", PointingGame()),
    ("IoU", "Intersection over union of the relevant pixels and the heatmap at half its maximum or more.", IoU()),
    ("Mask precision", "Share of the pixels at half the heatmap's maximum or more that are relevant.", MaskPrecision()),
    ("Mask recall", "Share of the relevant pixels at half the heatmap's maximum or more.", MaskRecall()),
    ("Mask F1", "Harmonic mean of mask precision and recall.", MaskF1()),
    ("Empty heatmaps", "Share of heatmaps that are flat, which other measures must leave out.", DeadMap()),
)


def _places(
    before: AdaptedClassifier,
    after: AdaptedClassifier,
    data: ImageDataset,
    maps: Sequence[Mapping[str, Tensor]],
    settings: ProofSettings,
) -> list[Comparison]:
    """The measures of place that the masks allow, for every explainer."""
    batch = data.batch(torch.arange(len(data)))
    if batch.relevant is None and batch.irrelevant is None:
        return []
    rows = []
    for name, told, metric in PLACES:
        for explainer in settings.explainers:
            first, second = (metric(m, batch, own[explainer]) for m, own in zip((before, after), maps, strict=True))
            if torch.isfinite(first + second).any():
                figures = _paired(first, second, Mean(), settings)
                if isinstance(metric, DeadMap) and figures.before.value == figures.after.value == 0:
                    continue
                rows.append(
                    Comparison(f"{name} ({explainer})", told, *figures, higher_is_better=metric.higher_is_better)
                )
    return rows


def _control(
    name: str, model: AdaptedClassifier, after: Evaluation, data: ImageDataset, settings: ProofSettings
) -> Control:
    accuracy, _, lead = _paired(_pair(evaluate(model, data)), _pair(after), Accuracy(), settings)
    return Control(name, accuracy, lead, passed=lead.low > 0)


def _examples(
    data: Subset, found: Sequence[Evaluation], maps: Sequence[Mapping[str, Tensor]], settings: ProofSettings
) -> tuple[Example, ...]:
    shown = data.batch(torch.arange(min(settings.examples, len(data))))
    low, high = data.pixel_range
    images = ((shown.inputs - low) / (high - low)).clamp(0, 1)
    positions = data.index.tolist()
    return tuple(
        Example(
            index=positions[i],
            image=images[i],
            truth=int(shown.target[i]),
            irrelevant=None if shown.irrelevant is None else shown.irrelevant[i, 0],
            before=_view(found[0], positions[i], i, maps[0]),
            after=_view(found[1], positions[i], i, maps[1]),
        )
        for i in range(len(shown))
    )


def _view(found: Evaluation, position: int, row: int, maps: Mapping[str, Tensor]) -> View:
    probabilities = found.logits[position].softmax(dim=0)
    best = int(probabilities.argmax())
    return View(best, float(probabilities[best]), {name: values[row, 0] for name, values in maps.items()})
