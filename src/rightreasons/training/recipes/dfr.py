"""Deep feature reweighting: the last layer is fitted anew where the shortcut does not help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rightreasons.core import BadModel, MissingAnnotation
from rightreasons.core.hooks import modes_kept
from rightreasons.data.arrays import Subset
from rightreasons.data.dataset import ImageDataset, stream
from rightreasons.data.groups import required_groups
from rightreasons.metrics import worst_group_accuracy
from rightreasons.models import AdaptedClassifier
from rightreasons.training.evaluation import device_of
from rightreasons.training.fit import fit
from rightreasons.training.objective import Objective
from rightreasons.training.recipes.recipe import Fit, Recipe, RecipeResult, Stages, figures
from rightreasons.training.settings import FitSettings

STRENGTHS = (1.0, 0.7, 0.3, 0.1, 0.07, 0.03, 0.01)
CHUNK = 256


@dataclass(frozen=True)
class DFR(Recipe):
    """Train plainly, then fit the last layer anew on images in which every group is as frequent as any other.

    The features before the last layer are standardized, and an L1-penalized logistic regression is fitted to as many
    images of each group as the smallest group has. Its strength C is the one with the best worst group on the half of
    such images that it was not fitted to (the largest, among equals). The mean over ``refits`` further draws is
    written into the last layer, the standardization folded in.

    A group here is a class within a group of the data (``rightreasons.data.groups_of``). The groups must cross the
    classes: where a feature tells the class of every single training image, nothing can be balanced.

    Source: Kirichenko et al. 2023, arXiv:2204.02937, section 6, with the strengths of its code. There the last layer is
    fitted to a validation set that is balanced by hand; here to ``held_out`` of each group of the training images, kept
    out of the first training, or to all training images (their DFR-Tr) with ``held_out=0``. More than two classes are
    told apart one against the rest, as liblinear does.

    The history is that of the first training; what the new last layer gives is told in the report.

    Args:
        held_out: Share of the training images of each group that only the last layer sees; 0 shows it all of them.
        refits: How many draws are averaged.
        strengths: The C to choose from, the inverse of the penalty's weight.

    Raises:
        ValueError: A share out of range, no refit, or strengths that are not positive.
    """

    held_out: float = 0.0
    refits: int = 10
    strengths: Sequence[float] = STRENGTHS

    def __post_init__(self) -> None:
        if not 0 <= self.held_out < 1:
            raise ValueError(f"expected held_out from 0 to below 1, got {self.held_out}")
        if self.refits < 1:
            raise ValueError(f"expected refits of at least 1, got {self.refits}")
        object.__setattr__(self, "strengths", tuple(self.strengths))
        if not self.strengths or not all(strength > 0 for strength in self.strengths):
            raise ValueError(f"expected strengths above 0, got {self.strengths}")

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
        """Train under the objective, then fit the last layer; the report gives its C and how it was chosen."""
        group = crossed_groups(data)
        layer = last_layer(model, data)
        own, rest = self._parts(group, settings.seed)
        stages = Stages(model, fit, out)
        first = stages.train("features", data if self.held_out == 0 else Subset(data, rest), objective, settings)
        before = figures(model, data, first)
        shown = data if self.held_out == 0 else Subset(data, own)
        found = Refit(features(model, layer, shown), shown.target, group[own], len(data.classes))
        strength, worst = found.chosen(self.strengths, settings.seed)
        write_head(layer, *found.mean(strength, self.refits, settings.seed))
        smallest = float(_sizes(found.group).min())
        told = {"strength": strength, "images_a_group": smallest, "worst_group_of_half": worst}
        return stages.ended([before, {**figures(model, data, first), **told}])

    def _parts(self, group: Tensor, seed: int) -> tuple[Tensor, Tensor]:
        """Positions that the last layer is fitted to, and those of the first training."""
        if self.held_out == 0:
            return torch.arange(len(group)), torch.arange(len(group))
        generator = stream(seed, "dfr held out")
        held = torch.zeros(len(group), dtype=torch.bool)
        for rows in _members(group):
            held[_shuffled(rows, generator)[: max(2, round(self.held_out * len(rows)))]] = True
        if held.all():
            raise ValueError(f"a share of {self.held_out:g} of each group leaves nothing for the first training")
        return held.nonzero().squeeze(1), (~held).nonzero().squeeze(1)


class Refit:
    """Logistic regressions on standardized features, group-balanced.

    Args:
        features: Of each image.
        target: Its class.
        group: Its group.
        classes: Number of classes.
    """

    def __init__(
        self,
        features: Float[Tensor, "images features"],
        target: Int[Tensor, " images"],
        group: Int[Tensor, " images"],
        classes: int,
    ) -> None:
        values = features.double()
        self.center, spread = values.mean(dim=0), values.std(dim=0, correction=0)
        # A feature that never changes says nothing, and must not be divided by zero.
        self.spread = torch.where(spread > 0, spread, 1.0)
        self.values = (values - self.center) / self.spread
        self.target, self.group, self.classes = target, group, classes

    def head(self, rows: Int[Tensor, " rows"], strength: float) -> tuple[Tensor, Tensor]:
        """Weight (classes, features) and bias (classes,) on standardized features, fitted to these images."""
        values, target = self.values[rows].numpy(), self.target[rows]
        if self.classes == 2:
            weight, bias = _binary(values, target == 1, strength)
            # The difference of the two logits is the regression's own.
            return torch.stack([-weight / 2, weight / 2]), torch.stack([-bias / 2, bias / 2])
        pairs = [_binary(values, target == number, strength) for number in range(self.classes)]
        return torch.stack([weight for weight, _ in pairs]), torch.stack([bias for _, bias in pairs])

    def chosen(self, strengths: Sequence[float], seed: int) -> tuple[float, float]:
        """The strength with the best worst group on the other half of a balanced draw, and that worst group."""
        rows = balanced(self.group, stream(seed, "dfr halves"))
        fitted, judged = rows[:, : rows.shape[1] // 2].flatten(), rows[:, rows.shape[1] // 2 :].flatten()
        found = [self._worst(self.head(fitted, strength), judged) for strength in strengths]
        best = int(np.argmax(found))
        return strengths[best], found[best]

    def mean(self, strength: float, refits: int, seed: int) -> tuple[Tensor, Tensor]:
        """Weight and bias on the features as they are, the mean over so many balanced draws."""
        generator = stream(seed, "dfr refits")
        heads = [self.head(balanced(self.group, generator).flatten(), strength) for _ in range(refits)]
        weight, bias = (torch.stack(parts).mean(dim=0) for parts in zip(*heads, strict=True))
        return folded(weight, bias, self.center, self.spread)

    def _worst(self, head: tuple[Tensor, Tensor], rows: Tensor) -> float:
        weight, bias = head
        predicted = (self.values[rows] @ weight.mT + bias).argmax(dim=1)
        return worst_group_accuracy(predicted, self.target[rows], self.group[rows])


def _binary(values: np.ndarray, positive: Tensor, strength: float) -> tuple[Tensor, Tensor]:
    """Weight and bias of an L1-penalized logistic regression."""
    import sklearn
    from sklearn.linear_model import LogisticRegression

    recent = tuple(map(int, sklearn.__version__.split(".")[:2])) >= (1, 8)
    penalty: dict[str, object] = {"l1_ratio": 1.0} if recent else {"penalty": "l1"}
    machine = LogisticRegression(C=strength, solver="liblinear", max_iter=1000, random_state=0, **penalty)
    machine.fit(values, positive.numpy())
    return torch.from_numpy(machine.coef_[0].copy()), torch.tensor(float(machine.intercept_[0]), dtype=torch.float64)


def folded(
    weight: Float[Tensor, "classes features"],
    bias: Float[Tensor, " classes"],
    mean: Float[Tensor, " features"],
    spread: Float[Tensor, " features"],
) -> tuple[Float[Tensor, "classes features"], Float[Tensor, " classes"]]:
    """The layer that gives for features what this one gives for standardized features."""
    scaled = weight / spread
    return scaled, bias - scaled @ mean


def balanced(group: Int[Tensor, " images"], generator: torch.Generator) -> Int[Tensor, "groups least"]:
    """As many positions of each group as the smallest has, drawn without replacement; a row a group.

    Raises:
        MissingAnnotation: A group has a single image, so that there are no two halves.
    """
    sizes = _sizes(group)
    least = int(sizes.min())
    if least < 2:
        raise MissingAnnotation(
            f"DFR: expected groups of at least 2 images, got 1 in one of the {len(sizes)} groups of a class"
        )
    return torch.stack([_shuffled(rows, generator)[:least] for rows in _members(group)])


def crossed_groups(data: ImageDataset) -> Int[Tensor, " images"]:
    """The groups within the classes, numbered by both.

    Raises:
        MissingAnnotation: There are no groups, or only one a class, so that none can be balanced.
    """
    group = required_groups(data, "DFR")
    within = data.target * (int(group.max()) + 1) + group
    if len(_sizes(within)) <= len(_sizes(data.target)):
        raise MissingAnnotation(
            f"DFR: expected groups that cross the classes, got one group a class in {data.name}: the shortcut tells "
            "the class of every training image, so nothing can be balanced. It needs some images where it does not"
        )
    return within


def last_layer(model: AdaptedClassifier, data: ImageDataset) -> nn.Linear:
    """The linear layer whose output the logits are.

    Raises:
        BadModel: There is none, or it has no bias.
    """
    outputs: list[tuple[nn.Linear, Tensor]] = []
    with modes_kept(model), torch.no_grad(), _watched(model.network, lambda m, _, made: outputs.append((m, made))):
        model.eval()
        logits = model(data.batch(torch.arange(min(2, len(data)))).inputs.to(device_of(model)))
    found = [layer for layer, made in outputs if made.shape == logits.shape and torch.equal(made, logits)]
    if not found:
        raise BadModel(
            f"DFR: expected a network whose logits come out of a Linear layer, got {type(model.network).__name__}, "
            "in which no such layer makes them"
        )
    if found[-1].bias is None:
        raise BadModel("DFR: expected a last layer with a bias, got one without")
    return found[-1]


def features(model: AdaptedClassifier, layer: nn.Linear, data: ImageDataset) -> Float[Tensor, "images features"]:
    """What the layer is given for each image, in evaluation mode, on the CPU."""
    seen: list[Tensor] = []

    def keep(module: nn.Linear, given: Tensor, made: Tensor) -> None:
        if module is layer:
            seen.append(given.float().cpu())

    device = device_of(model)
    with modes_kept(model), torch.no_grad(), _watched(model.network, keep):
        model.eval()
        for index in torch.split(torch.arange(len(data)), CHUNK):
            model(data.batch(index).inputs.to(device))
    return torch.cat(seen)


def write_head(layer: nn.Linear, weight: Float[Tensor, "classes features"], bias: Float[Tensor, " classes"]) -> None:
    """Give the layer these weights, in its own precision."""
    with torch.no_grad():
        layer.weight.copy_(weight)
        layer.bias.copy_(bias)


@contextmanager
def _watched(network: nn.Module, see: Callable[[nn.Linear, Tensor, Tensor], None]) -> Iterator[None]:
    """Call ``see(layer, what it is given, what it makes)`` for each linear layer of the passes inside."""
    layers = [module for module in network.modules() if isinstance(module, nn.Linear)]
    handles = [m.register_forward_hook(lambda module, args, made: see(module, args[0], made)) for m in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _sizes(group: Tensor) -> Tensor:
    """Number of images of each group that has any, by its number."""
    counts = torch.bincount(group)
    return counts[counts > 0]


def _members(group: Tensor) -> list[Tensor]:
    """Positions of the images of each group that has any, by its number."""
    return list(torch.split(group.argsort(stable=True), _sizes(group).tolist()))


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(len(rows), generator=generator)]
