"""What a model looks at, written down."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import get_args

import safetensors.torch
import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import Batch
from rightreasons.data import Subset
from rightreasons.data.dataset import stream
from rightreasons.experiments.build import build_attribution, title_of
from rightreasons.experiments.explain import Target, explain
from rightreasons.experiments.record import environment, make_record
from rightreasons.experiments.run import accelerator_for, make_folder
from rightreasons.experiments.subject import Subject
from rightreasons.metrics import ArtifactRelevance, EnergyInMask
from rightreasons.models import AdaptedClassifier
from rightreasons.models.checkpoints import write_whole

HEATMAPS = "heatmaps.safetensors"
# Not record.json: a run may lie in the same folder.
REVEALED = "reveal.json"


@dataclass(frozen=True)
class RevealSettings:
    """What to reveal.

    Attributes:
        methods: Names of explainers.
        images: How many images, drawn at random.
        target: ``predicted`` or ``true``: the class that is explained.
        seed: Of the draw.

    Raises:
        ValueError: No method, no image, or another target.
    """

    methods: tuple[str, ...] = ("saliency",)
    images: int = 8
    target: Target = "predicted"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.target not in get_args(Target):
            raise ValueError(f"expected target {' or '.join(get_args(Target))}, got {self.target!r}")
        if not self.methods or self.images < 1:
            raise ValueError(f"expected methods and images, got {len(self.methods)} and {self.images}")


@dataclass(frozen=True, eq=False)
class Revealed:
    """What a model looked at.

    Attributes:
        batch: The images with labels and masks.
        index: Their positions in the data.
        classes: Names of the classes.
        probabilities: Of all classes.
        heatmaps: Raw maps by the explainer's title.
        signed: Whether an explainer's values have a sign.
        shares: By a title, one number an image: how much of a map lies in a mask.
        pixel_range: Of the images.
    """

    batch: Batch
    index: Int[Tensor, " images"]
    classes: tuple[str, ...]
    probabilities: Float[Tensor, "images classes"]
    heatmaps: Mapping[str, Float[Tensor, "images 1 height width"]]
    signed: Mapping[str, bool]
    shares: Mapping[str, Float[Tensor, " images"]]
    pixel_range: tuple[float, float]

    def told(self, row: int) -> tuple[str, ...]:
        """Truth, prediction, confidence and shares of an image, in words."""
        confidence, best = self.probabilities[row].max(dim=0)
        shares = (_percent(float(values[row])) for values in self.shares.values())
        truth = self.classes[int(self.batch.target[row])]
        return truth, self.classes[int(best)], _percent(float(confidence)), *shares


def _percent(value: float) -> str:
    return "none" if value != value else f"{100 * value:.0f} %"


def reveal_images(subject: Subject, settings: RevealSettings, out: Path, *, device: str = "auto") -> Revealed:
    """Explain some images; raw maps go to ``out/heatmaps.safetensors``, what was asked to ``out/reveal.json``."""
    make_folder(out)
    data = subject.data
    methods = {name: build_attribution(name, data) for name in settings.methods}
    order = torch.randperm(len(data), generator=stream(settings.seed, "explained"))
    index = order[: settings.images].sort().values
    where = accelerator_for(device).device
    found = explain(subject.model.to(where), Subset(data, index), methods, target=settings.target)
    _write(subject, settings, {**found.heatmaps, "index": index, "target": found.target}, out, str(where))
    batch = data.batch(index)
    titled = {title_of(methods[name]): maps for name, maps in found.heatmaps.items()}
    return Revealed(
        batch=batch,
        index=index,
        classes=tuple(data.classes),
        probabilities=found.probabilities,
        heatmaps=titled,
        signed={title_of(method): method.signed for method in methods.values()},
        shares=_shares(subject.model, batch, titled),
        pixel_range=data.pixel_range,
    )


def _write(subject: Subject, settings: RevealSettings, tensors: Mapping[str, Tensor], out: Path, device: str) -> None:
    whole = {name: values.contiguous() for name, values in tensors.items()}
    write_whole(out / HEATMAPS, safetensors.torch.save(whole))
    origin = {"run": subject.run.record.key} if subject.run is not None else {}
    config = {**asdict(settings), "data": subject.data.name, "model": repr(subject.model.network), **origin}
    results = {"index": tensors["index"].tolist(), "explained_class": tensors["target"].tolist()}
    make_record("reveal", config, results, environment=environment(device)).write(out / REVEALED)


def _shares(model: AdaptedClassifier, batch: Batch, heatmaps: Mapping[str, Tensor]) -> dict[str, Tensor]:
    shares = {}
    for title, maps in heatmaps.items():
        if batch.irrelevant is not None:
            shares[f"{title} irrelevant"] = ArtifactRelevance()(model, batch, maps)
        if batch.relevant is not None:
            shares[f"{title} relevant"] = EnergyInMask()(model, batch, maps)
    return shares
