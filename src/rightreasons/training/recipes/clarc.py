"""Class artifact compensation: find where a layer shows an artifact, then take it out of what the network follows."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast, get_args

import torch
from torch import Tensor, nn

from rightreasons.concepts import Projection, fold
from rightreasons.core.hooks import captured, modes_kept, substituted
from rightreasons.data.dataset import ImageDataset
from rightreasons.data.groups import groups_of
from rightreasons.models import AdaptedClassifier
from rightreasons.supervision import RRClArC
from rightreasons.training.evaluation import device_of, evaluate
from rightreasons.training.fit import fit
from rightreasons.training.objective import Objective, Term
from rightreasons.training.recipes.artifact import (
    CHUNK,
    Artifact,
    Kind,
    Told,
    activations_of,
    by_groups,
    by_masks,
    layer_of,
    probe_accuracy,
    slope_along,
    values_of,
    values_within,
    variance_share,
)
from rightreasons.training.recipes.recipe import Fit, Recipe, RecipeResult, Stages, figures
from rightreasons.training.settings import FitSettings, held_back
from rightreasons.training.weights import Target, weight_of


@dataclass(frozen=True, eq=False)
class _Work:
    """What a revision works on, and at which layer."""

    data: ImageDataset
    objective: Objective
    settings: FitSettings
    layer: str


@dataclass(frozen=True)
class ClArC(Recipe):
    """Train, find the artifact's directions at a layer from the training images, then revise.

    What tells the artifact is ``groups`` (images of different groups within a class, every class and value counting
    alike, so that the directions are not those of the class) or ``masks`` (the same image with its irrelevant pixels as
    they are, and with those of another image: the principal directions of the difference).

    The report has a line before the revision and one after it: ``probe`` (how well a linear probe reads the artifact
    from the layer, where groups are known; chance is 1 over the number of its values), ``slope`` (mean squared
    derivative of the target's logit along the directions) and ``variance_share`` (how much of the layer's variance lies
    along them); the first also how far apart the artifact's values lie along them (``shift``).

    Source: Anders et al. 2022, arXiv:1912.11425 (ClArC); Pahde et al. 2022, arXiv:2202.03482 (signal directions). A
    subspace, groups within classes, and the masks as a source are ours.

    Args:
        artifact: What tells it, ``groups`` or ``masks``.
        directions: ``signal`` or, from groups alone, ``svm``.
        rank: How many directions; each is found in what the ones before have left.
        layer: Where; empty takes the layer that is explained.
        epochs_before: Of the first training; ``None`` takes those of the settings, and 0 the model as it comes.

    Raises:
        ValueError: An unknown name, a number out of range, or a support vector machine on masks.
    """

    artifact: str = "groups"
    directions: str = "signal"
    rank: int = 1
    layer: str = ""
    epochs_before: int | None = None

    def __post_init__(self) -> None:
        for name, known in (("artifact", get_args(Told)), ("directions", get_args(Kind))):
            if getattr(self, name) not in known:
                raise ValueError(f"expected {name} to be one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.artifact == "masks" and self.directions == "svm":
            raise ValueError(
                "expected directions 'signal' with artifact 'masks', got 'svm': an image whose artifact was exchanged "
                "still has one, so there are no images with and without it to tell apart"
            )
        if self.rank < 1:
            raise ValueError(f"expected rank of at least 1, got {self.rank}")
        if self.epochs_before is not None and self.epochs_before < 0:
            raise ValueError(f"expected epochs_before of at least 0, got {self.epochs_before}")

    def __call__(
        self,
        model: AdaptedClassifier,
        data: ImageDataset,
        objective: Objective,
        settings: FitSettings = FitSettings(),
        *,
        fit: Fit = fit,
        out: Path | None = None,
    ) -> RecipeResult:
        """Train under the objective, find the directions, revise; the report tells of both."""
        layer, user = layer_of(model, self.layer), type(self).__name__
        if self.artifact == "groups":
            values_of(data, user)
        stages = Stages(model, fit, out)
        if self.epochs_before != 0:
            epochs = settings.epochs if self.epochs_before is None else self.epochs_before
            stages.train("plain", data, objective, replace(settings, epochs=epochs))
        work = _Work(data, objective, settings, layer)
        found = self._found(stages, work)
        device = device_of(model)
        found = Artifact(found.basis.to(device), found.places.to(device))
        shift = ((found.places - found.middle) @ found.basis.mT).norm(dim=1).mean()
        report = [{**self._told(stages, work, found), "shift": float(shift)}]
        # What comes next goes on from here.
        stages.initial = {name: value.clone() for name, value in model.state_dict().items()}
        self._revise(stages, work, found)
        return stages.ended([*report, self._told(stages, work, found, revised=True)])

    @abstractmethod
    def _revise(self, stages: Stages, work: _Work, found: Artifact) -> None:
        """Change the trained model."""

    def _read(self, activations: Tensor, found: Artifact) -> Tensor:
        """The layer's activations as what lies behind it gets them, after the revision."""
        return activations

    def _found(self, stages: Stages, work: _Work) -> Artifact:
        data, layer, seed = work.data, work.layer, work.settings.seed
        setting = f"{self.artifact} {self.directions} {self.rank} {layer} {seed}"

        def make() -> Tensor:
            user = type(self).__name__
            if self.artifact == "masks":
                found = by_masks(stages.model, data, layer, rank=self.rank, seed=seed, user=user)
            else:
                kind = cast(Kind, self.directions)
                found = by_groups(stages.model, data, layer, kind=kind, rank=self.rank, user=user)
            return torch.cat([found.basis, found.places])

        made_of = (setting, data.name, data.sampled_fingerprint())
        rows = stages.kept("plain", "directions.safetensors", made_of, make)
        return Artifact(rows[: self.rank], rows[self.rank :])

    def _told(self, stages: Stages, work: _Work, found: Artifact, *, revised: bool = False) -> dict[str, float]:
        data, layer = work.data, work.layer
        model, basis = stages.model, found.basis.cpu()
        activations = activations_of(model, data, layer)
        if revised:
            activations = self._read(activations, found)
        accuracy = (
            figures(model, data, stages.results[-1])
            if stages.results
            else {"train_accuracy": evaluate(model, data).accuracy}
        )
        told = {**accuracy, "slope": slope_along(model, data, found.basis, layer)}
        told["variance_share"] = variance_share(activations, basis)
        value = values_within(data, groups_of(data))
        if value is not None:
            told["probe"] = probe_accuracy(activations, data.target, value)
        return {name: value for name, value in told.items() if math.isfinite(value)}


@dataclass(frozen=True)
class RRClArCRecipe(ClArC):
    """Train, find the artifact's directions, then fine-tune under ``RRClArC``: the logits may not follow them.

    Source: Dreyer et al. 2024, arXiv:2308.09437. There the weight is swept; here it is balanced against the
    cross-entropy unless it is a number.

    Args:
        weight: Of ``RRClArC``: a number, or ``balance``.
        epochs_after: Of the fine-tuning; ``None`` takes those of the settings.
        freeze: Keep the weights that the layer's activations follow from as they are, so that the directions stay
            those of the artifact. Let free, they move the artifact out of the directions, and a larger weight then
            makes the worst group worse.
    """

    weight: float | str = "balance"
    epochs_after: int | None = None
    freeze: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        weight = weight_of(self.weight)
        if isinstance(weight, Target):
            raise ValueError(f"expected a number or 'balance' as weight, got {self.weight!r}")
        Term(RRClArC(torch.ones(1, 1)), weight)
        _check_epochs(self.epochs_after)

    def _revise(self, stages: Stages, work: _Work, found: Artifact) -> None:
        objective = work.objective
        if "rr_clarc" in objective.terms:
            raise ValueError("RRClArCRecipe brings a term 'rr_clarc' of its own: expected no other of that name")
        term = Term(RRClArC(found.basis.cpu(), layer=work.layer), weight_of(self.weight))
        revised = replace(objective, terms={**objective.terms, "rr_clarc": term})
        kept = frozen_below(stages.model, work.layer, _some(work.data)) if self.freeze else nullcontext()
        with kept:
            stages.train("revised", work.data, revised, _for_epochs(work.settings, self.epochs_after))


@dataclass(frozen=True)
class PClArC(ClArC):
    """Train, find the artifact's directions, and project them out of the layer: nothing is trained after.

    All images get one place along the directions, the middle between the artifact's values. The projection is folded
    into the weights (``rightreasons.concepts.fold``), so that the network is loaded as any other; a layer at which that
    is not exact is refused. ``slope`` in the report is then zero where the projection went into the layers behind;
    where it went into the layer itself, what lies behind could still follow the directions, which no image moves along.

    Source: Anders et al. 2022, arXiv:1912.11425, which moves to the mean of clean images; here none of the values is
    known to be the clean one.
    """

    def _revise(self, stages: Stages, work: _Work, found: Artifact) -> None:
        inputs = _some(work.data).to(device_of(stages.model))
        fold(stages.model, work.layer, Projection(found.basis, found.middle), inputs)

    def _read(self, activations: Tensor, found: Artifact) -> Tensor:
        moved: Tensor = Projection(found.basis.cpu(), found.middle.cpu())(activations)
        return moved


@dataclass(frozen=True)
class AClArC(ClArC):
    """Train, find the artifact's directions, then train what lies behind the layer on images with a random artifact.

    In each step every image is moved, along the directions, to the place of one of the artifact's values, drawn anew,
    so that behind the layer the artifact says nothing about the class. What lies before the layer stays as it is. In
    evaluation nothing is moved.

    Source: Anders et al. 2022, arXiv:1912.11425, which gives all images the artifact; with several values, as of a
    background, there is none to give to all.

    Args:
        epochs_after: Of the second training; ``None`` takes those of the settings.
    """

    epochs_after: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        _check_epochs(self.epochs_after)

    def _revise(self, stages: Stages, work: _Work, found: Artifact) -> None:
        model, moved = stages.model, moved_in(stages.model.network, found)
        with frozen_below(model, work.layer, _some(work.data)), substituted(model.network, work.layer, moved):
            stages.train("revised", work.data, work.objective, _for_epochs(work.settings, self.epochs_after))


def moved_in(network: nn.Module, found: Artifact) -> Callable[[Tensor], Tensor]:
    """A function that, while the network trains, moves each image to the place of a random value of the artifact."""

    def moved(activation: Tensor) -> Tensor:
        if not network.training:
            return activation
        features = 1 if activation.ndim == 4 else -1
        last = activation.movedim(features, -1)
        basis, places = found.basis.to(last), found.places.to(last)
        place = places[torch.randint(len(places), (len(last),), device=last.device)]
        away = last - place.view(len(last), *[1] * (last.ndim - 2), -1)
        return (last - away @ basis.mT @ basis).movedim(-1, features)

    return moved


@contextmanager
def frozen_below(model: AdaptedClassifier, layer: str, inputs: Tensor) -> Iterator[None]:
    """Keep the weights that the layer's activations follow from, and their normalizations' statistics, as they are."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    with modes_kept(model), torch.enable_grad(), captured(model.network, (layer,)) as activations:
        model.eval()
        model(inputs[:2].to(device_of(model)))
        slopes = torch.autograd.grad(activations[layer].sum(), weights, allow_unused=True)
    below = [weight for weight, slope in zip(weights, slopes, strict=True) if slope is not None]
    fixed, held = {id(weight) for weight in below}, held_back(model)
    with modes_kept(model):
        model.train()
        for module in model.network.modules():
            own = list(module.parameters(recurse=False))
            if module in held or (own and all(id(weight) in fixed for weight in own)):
                module.training = False
        for weight in below:
            weight.requires_grad_(False)
        try:
            yield
        finally:
            for weight in below:
                weight.requires_grad_(True)


def _some(data: ImageDataset) -> Tensor:
    return data.batch(torch.arange(min(CHUNK, len(data)))).inputs


def _check_epochs(epochs: int | None) -> None:
    if epochs is not None and epochs < 1:
        raise ValueError(f"expected epochs_after of at least 1, got {epochs}")


def _for_epochs(settings: FitSettings, epochs: int | None) -> FitSettings:
    return settings if epochs is None else replace(settings, epochs=epochs)
