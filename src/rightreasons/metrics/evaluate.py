"""How good are the explanations of a model: every method by every metric, over the same images."""

from __future__ import annotations

import dataclasses
import inspect
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeVar, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from rightreasons.attribution import ATTRIBUTIONS
from rightreasons.attribution.from_data import settings_from
from rightreasons.core import Attribution, BadModel, Batch, Catalogue, Classifier, Metric, NotConserved
from rightreasons.core.hooks import modes_kept
from rightreasons.data import ImageDataset
from rightreasons.data.dataset import stream
from rightreasons.metrics.controls import EdgeDetector, RandomHeatmap
from rightreasons.metrics.faithfulness.responses import Responses
from rightreasons.metrics.heatmaps import finite_rows
from rightreasons.metrics.localization import where_defined
from rightreasons.metrics.quality import Cell, Measure, MethodRow, QualityTable
from rightreasons.metrics.stability import Moves, UnderNoise
from rightreasons.metrics.statistics import Estimate, Mean, bootstrap, paired_bootstrap
from rightreasons.models import adapt

T = TypeVar("T")
Target = Literal["predicted", "true"]

RANDOM, EDGES = "random heatmap", "edge detector"
"""The controls."""

REFUSALS = (BadModel, NotConserved)
"""What a method raises that cannot explain the network."""


@runtime_checkable
class SharesPasses(Protocol):
    """A metric that reads its passes off what other metrics have run already."""

    def with_responses(self, responses: Responses, heatmap: Tensor) -> Float[Tensor, " batch"]:
        """One score an image."""
        ...


def evaluate_attributions(
    model: Classifier | nn.Module,
    data: ImageDataset,
    methods: Sequence[str] | Mapping[str, Attribution],
    metrics: Sequence[str] | Mapping[str, Metric],
    *,
    target: Target = "predicted",
    images: int | None = None,
    batch_size: int = 32,
    seed: int = 0,
    progress: bool = False,
) -> QualityTable:
    """The table of methods by metrics, with two controls that know nothing of the model: random maps and edges.

    A method's heatmaps are made once, and so are those of noisy copies for all metrics of stability with the same
    draws. Metrics of faithfulness share their forward passes with each other and, where these do not depend on the
    heatmap, with all methods. The model is taken in evaluation mode. A method that cannot explain the network (it
    raises ``BadModel`` or ``NotConserved``) stands in the table with its reason; where it cannot do so on a metric's
    noisy images or redrawn weights, that cell does. Images whose heatmap is not finite are counted and have no score.

    Args:
        model: A classifier, or a network, which is adapted.
        data: The images.
        methods: Catalogue names, or attributions by a name of your own. What a named one must know of the data
            (references, the value of a hidden pixel) is filled in.
        metrics: Likewise. Those that run the method itself get it filled in where they have none.
        target: The class that is explained: ``predicted`` or ``true``.
        images: How many images, drawn at random; ``None`` takes all.
        batch_size: Images at a time.
        seed: Of the draw of images, of the random control and of the intervals.
        progress: Show a bar.

    Raises:
        ValueError: An unknown name, no method or metric, or a setting out of range.
    """
    named = _methods(methods, data, seed)
    measures = _named(metrics, _catalogue(), data)
    _check(named, measures, target, images=images, batch_size=batch_size)
    model = model if isinstance(model, Classifier) else adapt(model)
    index = _drawn(data, images, seed)
    runs = {name: _Run(method) for name, method in named.items()}
    classes = []
    with modes_kept(model.network), torch.no_grad():
        model.network.eval()
        for rows in tqdm(torch.split(index, batch_size), disable=not progress, desc="evaluating", unit="batch"):
            here = model.rows(rows)
            batch = _explained(here, data.batch(rows).to(_device(model)), target)
            classes += batch.target.tolist()
            responses = Responses(here, batch)
            for run in runs.values():
                run.add(responses, measures)
    return QualityTable(
        data=data.name,
        target=target,
        index=tuple(index.tolist()),
        classes=tuple(classes),
        measures=tuple(_measure(name, metric) for name, metric in measures.items()),
        rows=_rows(runs, measures, seed),
        seed=seed,
    )


@dataclass(eq=False)
class _Run:
    """What has been found of one method so far."""

    method: Attribution
    scores: list[dict[str, Tensor]] = field(default_factory=list)
    seconds: float = 0.0
    reason: str = ""
    reasons: dict[str, str] = field(default_factory=dict)
    not_finite: int = 0

    def add(self, responses: Responses, metrics: Mapping[str, Metric]) -> None:
        """Explain a batch and score it."""
        heatmap = None if self.reason else self._heatmap(responses.model, responses.batch)
        if heatmap is not None:
            finite = finite_rows(heatmap)
            self.not_finite += int((~finite).sum())
            heatmap = torch.where(finite.view(-1, 1, 1, 1), heatmap, torch.zeros_like(heatmap))
            moves: dict[tuple[float, ...], Moves] = {}
            scores = {name: self._scored(name, metric, responses, heatmap, moves) for name, metric in metrics.items()}
            self.scores.append({name: where_defined(each, finite).float().cpu() for name, each in scores.items()})

    def _heatmap(self, model: Classifier, batch: Batch) -> Tensor | None:
        start = _now(batch.inputs)
        try:
            return self.method(model, batch.inputs, batch.target)
        except REFUSALS as error:
            self.reason = str(error)
            return None
        finally:
            self.seconds += _now(batch.inputs) - start

    def _scored(
        self, name: str, metric: Metric, responses: Responses, heatmap: Tensor, moves: dict[tuple[float, ...], Moves]
    ) -> Float[Tensor, " batch"]:
        """The metric's scores, NaN from when on it has been refused."""
        if name not in self.reasons:
            try:
                return self._score(metric, responses, heatmap, moves)
            except REFUSALS as error:
                self.reasons[name] = str(error)
        return heatmap.new_full((len(heatmap),), torch.nan)

    def _score(
        self, metric: Metric, responses: Responses, heatmap: Tensor, moves: dict[tuple[float, ...], Moves]
    ) -> Float[Tensor, " batch"]:
        metric = _with_method(metric, self.method)
        if isinstance(metric, SharesPasses):
            return metric.with_responses(responses, heatmap)
        if isinstance(metric, UnderNoise) and metric.attribution is self.method and metric.draws is not None:
            if metric.draws not in moves:
                moves[metric.draws] = metric.moves(responses.model, responses.batch, heatmap)
            return metric.score(moves[metric.draws])
        return metric(responses.model, responses.batch, heatmap)

    def of(self, metric: str) -> Float[Tensor, " images"]:
        """The scores of all images; none where the metric was refused for some of them."""
        found = torch.cat([scores[metric] for scores in self.scores])
        return torch.full_like(found, torch.nan) if metric in self.reasons else found


def _with_method(metric: Metric, method: Attribution) -> Metric:
    if getattr(metric, "attribution", method) is not None:
        return metric
    return dataclasses.replace(metric, attribution=method)  # type: ignore[type-var]


def _now(inputs: Tensor) -> float:
    if inputs.device.type == "cuda":
        torch.cuda.synchronize(inputs.device)
    return time.perf_counter()


def _device(model: Classifier) -> torch.device:
    return next((p.device for p in model.network.parameters()), torch.device("cpu"))


def _drawn(data: ImageDataset, images: int | None, seed: int) -> Int[Tensor, " images"]:
    if images is None or images >= len(data):
        return torch.arange(len(data))
    return torch.randperm(len(data), generator=stream(seed, "evaluated"))[:images].sort().values


def _explained(model: Classifier, batch: Batch, target: Target) -> Batch:
    """The batch with the class that is explained as its target."""
    return batch if target == "true" else dataclasses.replace(batch, target=model(batch.inputs).argmax(dim=1))


def _catalogue() -> Catalogue[Metric]:
    # The catalogue lists this family, too.
    from rightreasons.metrics import METRICS

    return METRICS


def _methods(given: Sequence[str] | Mapping[str, Attribution], data: ImageDataset, seed: int) -> dict[str, Attribution]:
    """The methods, then the controls."""
    controls: dict[str, Attribution] = {RANDOM: RandomHeatmap(seed), EDGES: EdgeDetector()}
    methods = _named(given, ATTRIBUTIONS, data)
    taken = [name for name in methods if name in controls]
    if taken:
        raise ValueError(f"expected another name than that of a control, got {taken[0]!r}")
    return {**methods, **controls}


def _named(given: Sequence[str] | Mapping[str, T], catalogue: Catalogue[T], data: ImageDataset) -> dict[str, T]:
    """Methods by name; those that are named only are made, with what they must know of the data."""
    if isinstance(given, str):
        raise ValueError(f"expected a list of names, got the name {given!r}")
    if isinstance(given, Mapping):
        return dict(given)
    return {name: catalogue[name](**settings_from(catalogue[name], data)) for name in given}


def _check(
    methods: Mapping[str, object],
    metrics: Mapping[str, object],
    target: str,
    *,
    images: int | None,
    batch_size: int,
) -> None:
    kinds = ((methods, Attribution), (metrics, Metric))
    for given, kind in kinds:
        wrong = [name for name, method in given.items() if not isinstance(method, kind)]
        if wrong:
            raise ValueError(f"expected {wrong[0]!r} to be of type {kind.__name__}, got {given[wrong[0]]!r}")
    if len(methods) < 3 or not metrics:
        raise ValueError(f"expected methods and metrics, got {len(methods) - 2} and {len(metrics)}")
    if target not in get_args(Target):
        raise ValueError(f"expected target {' or '.join(get_args(Target))}, got {target!r}")
    if batch_size < 1 or (images is not None and images < 1):
        raise ValueError(f"expected at least one image, and a batch of one, got {images} and {batch_size}")


def _measure(name: str, metric: Metric) -> Measure:
    about = inspect.cleandoc(type(metric).__doc__ or "").split("\n\n")[0]
    return Measure(name, metric.higher_is_better, " ".join(about.split()), repr(metric))


def _rows(runs: Mapping[str, _Run], metrics: Mapping[str, Metric], seed: int) -> tuple[MethodRow, ...]:
    columns = {name: _column(name, metric.higher_is_better, runs, seed) for name, metric in metrics.items()}
    return tuple(
        MethodRow(
            name=name,
            settings=repr(run.method),
            cells={} if run.reason else {metric: column[name] for metric, column in columns.items()},
            seconds=run.seconds,
            control=name in (RANDOM, EDGES),
            reason=run.reason,
            not_finite=run.not_finite,
        )
        for name, run in runs.items()
    )


def _column(metric: str, higher: bool, runs: Mapping[str, _Run], seed: int) -> dict[str, Cell]:
    """The cells of one metric by the method's name."""
    scores = {name: run.of(metric) for name, run in runs.items() if not run.reason}
    statistic = Mean() if _answers(scores.values()) else _Bootstrapped()
    estimates = {name: bootstrap(values, statistic=statistic, seed=seed) for name, values in scores.items()}
    means = {n: e.value if higher else -e.value for n, e in estimates.items() if n not in (RANDOM, EDGES) and e.count}

    def difference(name: str, other: str) -> Estimate:
        return paired_bootstrap(scores[other], scores[name], statistic=statistic, seed=seed).difference

    cells = {}
    for name, values in scores.items():
        if name not in means:
            cells[name] = Cell(estimates[name], values, reason=runs[name].reasons.get(metric, ""))
            continue
        best = max(means, key=lambda other: means[other])
        rank = 1 + sum(mean > means[name] for mean in means.values())
        cells[name] = Cell(estimates[name], values, rank, difference(name, RANDOM), difference(name, best))
    return cells


def _answers(scores: Iterable[Tensor]) -> bool:
    """Whether the scores of all methods are right or wrong answers, 1 or 0."""
    return all(bool(((values == 0) | (values == 1) | values.isnan()).all()) for values in scores)


@dataclass(frozen=True)
class _Bootstrapped(Mean):
    """The mean of scores that are no right or wrong answers, also where all happen to be 0 or 1."""

    def interval(self, terms: Float[Tensor, "images terms"], *, confidence: float) -> None:
        """That of the bootstrap."""

    def difference_interval(
        self, before: Float[Tensor, "images terms"], after: Float[Tensor, "images terms"], *, confidence: float
    ) -> None:
        """That of the bootstrap."""
