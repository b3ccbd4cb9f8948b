"""The same test images under every arm of a table: what each says and where it looks, from weights that were kept."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.core import Attribution
from rightreasons.data import ImageDataset, Subset
from rightreasons.experiments.build import build_attribution, build_data, title_of
from rightreasons.experiments.config import RunConfig, as_dict
from rightreasons.experiments.explain import explain
from rightreasons.experiments.record import Record
from rightreasons.experiments.run import RECORD, WEIGHTS, Resources, Run, accelerator_for, load_run, resolved
from rightreasons.experiments.table import BOUND, PLAIN, TablePlan, TableRow
from rightreasons.experiments.table.assess import SALIENCY, UNSEEN
from rightreasons.experiments.table.running import unseen_explainer

NOT_KEPT = "weights not kept"
NO_IMAGES = "takes the features of a frozen network in the place of images"


@dataclass(frozen=True, eq=False)
class ShownImage:
    """A test image that every arm is asked about.

    Attributes:
        position: In the test images.
        image: (C, H, W) in [0, 1].
        truth: Number of the class.
        irrelevant: (H, W), or ``None``.
    """

    position: int
    image: Float[Tensor, "channels height width"]
    truth: int
    irrelevant: Float[Tensor, "height width"] | None


@dataclass(frozen=True, eq=False)
class ArmView:
    """What one arm says about the shown images, and why.

    Attributes:
        name: Of the arm.
        predictions: Number of the class, an image each.
        heatmaps: Raw maps of the predicted class by explainer.
    """

    name: str
    predictions: tuple[int, ...]
    heatmaps: Mapping[str, Float[Tensor, "images height width"]]


@dataclass(frozen=True, eq=False)
class TableViews:
    """The same images under every arm.

    Attributes:
        seed: Of the runs whose weights are shown.
        rule: How the images were chosen, in words.
        classes: Names of the classes.
        images: Those that are shown; none where no weights were kept.
        explainers: Signed or not, by name, in order.
        untrained: The explainer that no arm was trained through; empty where no weights were kept.
        arms: Those with weights.
        missing: Why, by the name of an arm that is not shown.
    """

    seed: int
    rule: str
    classes: tuple[str, ...]
    images: tuple[ShownImage, ...]
    explainers: Mapping[str, bool]
    untrained: str
    arms: tuple[ArmView, ...]
    missing: Mapping[str, str]


def table_views(
    plan: TablePlan, rows: Sequence[TableRow], out: Path, *, count: int = 5, resources: Resources = Resources()
) -> TableViews:
    """Show the same test images to every arm whose weights lie under ``out``, in whichever folder.

    All arms are taken from one seed, that with the most weights (the first of equals), since the decoys of the test
    images may follow the seed. The clean bound is shown the same images, decoy and all. The explained class is the one
    that the arm predicts.

    Args:
        plan: The table.
        rows: Its rows; controls and what is varied are left out.
        out: Folder of the runs.
        count: How many images.
        resources: Where it runs, and where the data lie.

    Raises:
        ValueError: Fewer than one image is asked for.
        RightReasonsError: A kept run is damaged, or its images cannot be had.
    """
    if count < 1:
        raise ValueError(f"expected at least one image to show, got {count}")
    arms = {row.name: row.records for row in rows if not row.control and row.variation is None}
    kept = _kept(out)
    found = {name: {s: kept[_text(r)] for s, r in own.items() if _text(r) in kept} for name, own in arms.items()}
    seeds = sorted({seed for own in arms.values() for seed in own})
    seed = max(seeds, key=lambda s: sum(s in own for own in found.values()), default=0)
    runs = {name: load_run(own[seed]) for name, own in found.items() if seed in own}
    missing = {name: f"{NOT_KEPT} of seed {seed}" for name in arms if name not in runs}
    missing |= {name: NO_IMAGES for name, run in runs.items() if run.config.data.features}
    runs = {name: run for name, run in runs.items() if name not in missing}
    if not runs or plan.plain.data.features:
        return TableViews(seed, "", (), (), {}, "", (), missing)
    return _Viewer(plan, runs, seed, resources).views(count, missing)


def _kept(out: Path) -> dict[str, Path]:
    """The folders that hold a finished run with its weights, by what was run."""
    folders = sorted(path.parent for path in out.rglob(RECORD) if (path.parent / WEIGHTS).is_file())
    records = {folder: Record.read(folder / RECORD) for folder in folders}
    return {_text(record): folder for folder, record in records.items() if record.kind == "train"}


def _text(record: Record) -> str:
    return json.dumps(resolved(record), sort_keys=True)


class _Viewer:
    """The runs of one seed and the images that they are shown."""

    def __init__(self, plan: TablePlan, runs: Mapping[str, Run], seed: int, resources: Resources) -> None:
        self.plan, self.runs, self.seed, self.resources = plan, runs, seed, resources
        self.decoyed = replace(plan.plain, seed=seed)
        self._held: dict[str, ImageDataset] = {}

    def views(self, count: int, missing: Mapping[str, str]) -> TableViews:
        """All arms that can be shown these images, and why the others cannot."""
        data = self.images(PLAIN, self.decoyed)
        positions = first_of_classes(data.target, count)
        explainers, untrained = self.explainers(data)
        fit = {name: run for name, run in self.runs.items() if self._fits(run, data)}
        unfit = {name: "trained on images of another size or other classes" for name in self.runs if name not in fit}
        return TableViews(
            seed=self.seed,
            rule=_rule([data.classes[int(data.target[i])] for i in positions], len(data.classes)),
            classes=tuple(data.classes),
            images=_images(data, positions),
            explainers={name: method.signed for name, method in explainers.items()},
            untrained=untrained,
            arms=tuple(self._arm(name, run, positions, explainers) for name, run in fit.items()),
            missing={**missing, **unfit},
        )

    def images(self, name: str, config: RunConfig) -> ImageDataset:
        """The test images in the form that an arm takes; the clean bound is shown those of plain."""
        own = self.decoyed.data if name == BOUND else config.data
        data = replace(own, masks="true", annotated=1.0, degrade={})
        key = json.dumps([as_dict(data), config.data_seed])
        if key not in self._held:
            self._held[key] = build_data(data, seed=config.data_seed, folder=self.resources.folder).test
        return self._held[key]

    def explainers(self, data: ImageDataset) -> tuple[dict[str, Attribution], str]:
        """Saliency, and the explainer that no arm of the table is trained through, with its name; as in ``assess``."""
        unseen = unseen_explainer(self.plan)
        methods = [build_attribution("saliency", data, SALIENCY), build_attribution(unseen, data, UNSEEN[unseen])]
        return {title_of(method): method for method in methods}, title_of(methods[-1])

    def _fits(self, run: Run, data: ImageDataset) -> bool:
        own = run.record.results
        return tuple(own["shape"]) == data.shape and tuple(own["classes"]) == tuple(data.classes)

    def _arm(self, name: str, run: Run, positions: Sequence[int], explainers: Mapping[str, Attribution]) -> ArmView:
        run.model.to(accelerator_for(self.resources.device).device)
        explained = explain(run.model, Subset(self.images(name, run.config), positions), explainers)
        maps = {title: values[:, 0] for title, values in explained.heatmaps.items()}
        return ArmView(name, tuple(explained.probabilities.argmax(dim=1).tolist()), maps)


def first_of_classes(target: Int[Tensor, " images"], count: int) -> list[int]:
    """Position of the first image of each of ``count`` classes, evenly spaced over those that there are."""
    classes = sorted(set(target.tolist()))
    some = [classes[k * len(classes) // count] for k in range(count)] if len(classes) > count else classes
    return [int((target == number).nonzero()[0]) for number in some]


def _rule(shown: Sequence[str], classes: int) -> str:
    if len(shown) == classes:
        return "The first test image of each class."
    return f"The first test image of each of {len(shown)} classes, evenly spaced: {', '.join(shown)}."


def _images(data: ImageDataset, positions: Sequence[int]) -> tuple[ShownImage, ...]:
    batch = data.batch(torch.tensor(positions))
    low, high = data.pixel_range
    images = ((batch.inputs - low) / (high - low)).clamp(0, 1)
    masks = [None] * len(positions) if batch.irrelevant is None else [mask[0] for mask in batch.irrelevant]
    shown = zip(positions, images, batch.target.tolist(), masks, strict=True)
    return tuple(ShownImage(position, image, truth, mask) for position, image, truth, mask in shown)
