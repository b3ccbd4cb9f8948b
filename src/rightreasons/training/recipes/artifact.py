"""Where a layer shows an artifact: directions found from training images, and how well it can be read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.concepts import activations_at, orthonormal, signal_direction, svm_direction
from rightreasons.core import BadModel, Batch, Classifier, MissingAnnotation
from rightreasons.core.hooks import modes_kept
from rightreasons.data.dataset import ImageDataset, stream
from rightreasons.data.groups import WHO_HAS_GROUPS, groups_of
from rightreasons.data.randomize import Randomizing, randomized
from rightreasons.metrics.probe import linear_probe
from rightreasons.models import AdaptedClassifier
from rightreasons.supervision import RRClArC
from rightreasons.training.evaluation import device_of

Told = Literal["groups", "masks"]
Kind = Literal["signal", "svm"]
CHUNK = 256


@dataclass(frozen=True, eq=False)
class Artifact:
    """What an artifact does to a layer.

    Attributes:
        basis: The directions, orthonormal.
        places: Mean activations of images with each value of the artifact, every class counting alike.
    """

    basis: Float[Tensor, "rank features"]
    places: Float[Tensor, "values features"]

    @property
    def middle(self) -> Float[Tensor, " features"]:
        """The mean over the artifact's values: a place that is none of theirs."""
        return self.places.mean(dim=0)


def values_of(data: ImageDataset, user: str) -> Int[Tensor, " images"]:
    """The artifact's value in each image, from the groups.

    Groups that lie within one class each are numbered ``class * number of values + value``, as those of a decoy are;
    groups that cross the classes are the values themselves.

    Raises:
        MissingAnnotation: There are no groups, or the value tells the class of every image.
    """
    group = groups_of(data)
    if group is None:
        raise MissingAnnotation(
            f"{user}: artifact = 'groups' needs the group of each image, and {data.name} does not tell it; take "
            f"artifact = 'masks' where the images have irrelevant masks. {WHO_HAS_GROUPS}"
        )
    value = values_within(data, group)
    if value is None:
        raise MissingAnnotation(
            f"{user}: artifact = 'groups' needs a class that has images of different groups, and in {data.name} the "
            "artifact tells the class of every image, so what it does cannot be told from the class; take artifact = "
            "'masks' where the images have irrelevant masks"
        )
    return value


def values_within(data: ImageDataset, group: Int[Tensor, " images"] | None) -> Int[Tensor, " images"] | None:
    """The artifact's value in each image; ``None`` where no class has images of two values."""
    if group is None:
        return None
    each = -(-(int(group.max()) + 1) // len(data.classes))
    value = group % each if bool((group // each == data.target).all()) else group
    return value if len(even_cells(data.target, value)) else None


def even_cells(target: Int[Tensor, " images"], value: Int[Tensor, " images"]) -> Int[Tensor, " rows"]:
    """Positions in which, within each class, every value of the artifact comes equally often; images are repeated.

    So the mean over a value is not that of the class it goes with. Classes that have a single value are left out, and
    all others count alike.
    """
    cells = [
        [rows for number in _distinct(value) if len(rows := ((target == c) & (value == number)).nonzero().squeeze(1))]
        for c in _distinct(target)
    ]
    kept = [rows for of_class in cells if len(of_class) > 1 for rows in of_class]
    if not kept:
        return torch.empty(0, dtype=torch.long)
    largest = max(len(rows) for rows in kept)
    return torch.cat([rows[torch.arange(largest) % len(rows)] for rows in kept])


def directions_of_groups(
    activations: Float[Tensor, "images features"], value: Int[Tensor, " images"], *, kind: Kind, rank: int
) -> Float[Tensor, "rank features"]:
    """One direction after the other: each is found in what is left when the ones before are projected out.

    The i-th tells the i-th value of the artifact from the others, and then the round begins anew.

    Source: refitting after projecting out is Ravfogel et al. 2020, arXiv:2004.07667, Algorithm 1.

    Raises:
        ValueError: More signal directions than there are: the means of n values differ along n - 1.
    """
    numbers = _distinct(value)[1:]
    if kind == "signal" and rank > len(numbers):
        raise ValueError(
            f"expected rank of at most {len(numbers)} with directions = 'signal', as the artifact has "
            f"{len(numbers) + 1} values, got {rank}; 'svm' finds more"
        )
    left, found = activations.double(), []
    for number in range(rank):
        present = value == numbers[number % len(numbers)]
        direction = signal_direction(left, present) if kind == "signal" else svm_direction(left, present)
        found.append(direction)
        basis = orthonormal(found)
        left = activations.double() - activations.double() @ basis.mT @ basis
    return orthonormal(found).to(activations)


def principal_directions(moves: Float[Tensor, "images features"], *, rank: int) -> Float[Tensor, "rank features"]:
    """The directions along which the activations move most when the artifact is exchanged, not centered.

    Raises:
        ValueError: They do not move along so many.
    """
    _, sizes, directions = torch.linalg.svd(moves.double(), full_matrices=False)
    moved = int((sizes > 1e-6 * sizes[:1]).sum()) if bool(sizes[0] > 0) else 0
    if rank > moved:
        raise ValueError(f"expected rank of at most {moved}, along which the artifact moves the layer, got {rank}")
    chosen = directions[:rank]
    signs = chosen.gather(1, chosen.abs().argmax(dim=1, keepdim=True)).sign()
    found: Tensor = (chosen * signs).to(moves)
    return found


def by_groups(
    model: AdaptedClassifier, data: ImageDataset, layer: str, *, kind: Kind, rank: int, user: str
) -> Artifact:
    """The artifact from images of different groups within a class."""
    value = values_of(data, user)
    rows = even_cells(data.target, value)
    activations, value = activations_of(model, data, layer)[rows], value[rows]
    places = torch.stack([activations[value == number].mean(dim=0) for number in _distinct(value)])
    return Artifact(directions_of_groups(activations, value, kind=kind, rank=rank), places)


def by_masks(model: AdaptedClassifier, data: ImageDataset, layer: str, *, rank: int, seed: int, user: str) -> Artifact:
    """The artifact from what the layer does when irrelevant pixels become those of another image.

    Its values are those that come with the classes.
    """
    moves, places = [], []
    device, generator = device_of(model), stream(seed, "clarc swapped")
    order = torch.randperm(len(data), generator=generator)
    for index in torch.split(order, CHUNK):
        batch = _masked(data.batch(index), data.name, user)
        swapped = randomized(batch, Randomizing("swapped", data.pixel_range), generator)
        before, after = (activations_at(model, b.inputs.to(device), layer=layer).cpu() for b in (batch, swapped))
        drawn = batch.annotated_rows()
        moves.append((before - after)[drawn])
        places.append(before)
    target, activations = data.target[order], torch.cat(places)
    means = torch.stack([activations[target == c].mean(dim=0) for c in _distinct(target)])
    return Artifact(principal_directions(torch.cat(moves), rank=rank), means)


def _masked(batch: Batch, name: str, user: str) -> Batch:
    if batch.irrelevant is None or not bool((batch.irrelevant[batch.annotated_rows()] > 0).any()):
        raise MissingAnnotation(
            f"{user}: artifact = 'masks' needs irrelevant masks, and {name} has none; take artifact = 'groups' where "
            "the groups of the images are known"
        )
    return batch


def activations_of(model: AdaptedClassifier, data: ImageDataset, layer: str) -> Float[Tensor, "images features"]:
    """What the layer hands on for each image, on the CPU."""
    device = device_of(model)
    return torch.cat([activations_at(model, b.inputs.to(device), layer=layer).cpu() for b in _chunks(data, len(data))])


def probe_accuracy(
    activations: Float[Tensor, "images features"], target: Int[Tensor, " images"], value: Int[Tensor, " images"]
) -> float:
    """How well a linear probe reads the artifact's value: the mean over classes and values, on images it has not seen.

    Every second image of each class and value fits the probe, a logistic regression on standardized features; the
    others judge it. Chance is 1 over the number of values; NaN where too few images are there to ask.
    """
    cells = [((target == c) & (value == v)).nonzero().squeeze(1) for c in _distinct(target) for v in _distinct(value)]
    fitted = torch.cat([rows[::2] for rows in cells])
    judged = [rows[1::2] for rows in cells if len(rows) > 1]
    rows = fitted[even_cells(target[fitted], value[fitted])]
    if not len(rows) or not judged:
        return float("nan")
    right = linear_probe(activations[rows], value[rows])(activations) == value
    return float(torch.stack([right[cell].double().mean() for cell in judged]).mean())


def slope_along(model: AdaptedClassifier, data: ImageDataset, basis: Tensor, layer: str) -> float:
    """The mean squared derivative of the target's logit along the directions, over at most 256 images."""
    loss, device = RRClArC(basis, layer=layer, answer="target"), device_of(model)
    with modes_kept(model):
        model.eval()
        batch = next(_chunks(data, CHUNK)).to(device)
        return float(loss(model, batch, model(batch.inputs)).detach())


def variance_share(activations: Float[Tensor, "images features"], basis: Float[Tensor, "rank features"]) -> float:
    """How much of the variance of the activations lies in the subspace."""
    centered = activations - activations.mean(dim=0)
    return float((centered @ basis.mT).square().sum() / centered.square().sum())


def layer_of(model: Classifier, layer: str) -> str:
    """The layer of that name, or the model's own.

    Raises:
        BadModel: None was named, and the model has no layer of its own.
    """
    name = layer or model.layer
    if name is None:
        raise BadModel("this network has no layer of its own to read an artifact from; name one: layer = '...'")
    return name


def _chunks(data: ImageDataset, images: int) -> Iterator[Batch]:
    some = torch.linspace(0, len(data) - 1, min(images, len(data))).round().long()
    for index in torch.split(some, CHUNK):
        yield data.batch(index)


def _distinct(numbers: Int[Tensor, " _"]) -> Int[Tensor, " _"]:
    return torch.bincount(numbers).nonzero().squeeze(1)
