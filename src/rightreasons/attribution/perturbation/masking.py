"""The engine of the family: the scores of many masked copies of many images, within one bound on memory."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import get_args

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.checkpoint import checkpoint
from tqdm import tqdm

from rightreasons.attribution.forward import Forward, Output, autocast, rows_at_once, score_of
from rightreasons.attribution.perturbation.baselines import Hidden, baselines_of
from rightreasons.attribution.score import Score, check_score
from rightreasons.core import Attribution, Classifier
from rightreasons.core.hooks import preserved
from rightreasons.core.settings import check_counts

Place = Callable[[Tensor, Tensor], Tensor]
"""``place(step, image) -> inputs``: the images of these numbers under the masks of these numbers."""

BITS = 52
"""A float64 holds the integers of so many bits exactly."""


@dataclass(frozen=True, kw_only=True)
class Perturbation(Attribution):
    """What all methods of the family share: they hide parts of the image and see what becomes of the score.

    Copies that are equal (a mask drawn twice, a hidden part that holds the baseline already) run once. On the graph,
    what runs beyond ``max_batch`` is computed again in the backward pass, so that memory stays within the bound there
    too. Values are those of any ``max_batch`` up to rounding; a model in training mode is the exception.

    Args:
        baseline: What stands where the image is hidden: a value, the image's ``"mean"``, the image ``"blurred"``, or a
            :class:`Baseline`; of several, the maps are averaged.
        score: The number that is explained.
        max_batch: Masked images that run through the model at once; bounds the memory. ``None``: 64 on a CPU
            and 256 elsewhere, and fewer if they are large (of 3x224x224, 3 and 55).
        bfloat16: Score the masked images in bfloat16 (autocast): faster, each score to some two digits, which tells
            where scores differ little. The map has no graph then, and the method is not ``differentiable``.
        progress: Show a progress bar.
    """

    baseline: Hidden = 0.0
    score: Output = "logit"
    max_batch: int | None = None
    bfloat16: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        baselines_of(self.baseline)
        if isinstance(self.baseline, list):
            object.__setattr__(self, "baseline", tuple(self.baseline))
        if self.score not in (*get_args(Score), "probability"):
            check_score(self.score)
        if self.max_batch is not None:
            check_counts(max_batch=self.max_batch)
        if self.bfloat16:
            object.__setattr__(self, "differentiable", False)

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The map against each baseline, and the mean over several, (B, 1, H, W)."""
        check_any(inputs)
        baselines = torch.cat([baseline.facing(model, inputs) for baseline in baselines_of(self.baseline)])
        maps = [self.against(model, inputs, baseline, target, graph=graph) for baseline in baselines]
        return maps[0] if len(maps) == 1 else torch.stack(maps).mean(dim=0)

    @abstractmethod
    def against(
        self,
        model: Classifier,
        inputs: Float[Tensor, "batch channels height width"],
        baseline: Float[Tensor, "batch channels height width"],
        target: Int[Tensor, " batch"],
        *,
        graph: bool,
    ) -> Float[Tensor, "batch 1 height width"]:
        """The method itself with this image where something is hidden."""


def scores(
    model: Classifier,
    place: Place,
    keys: Int[Tensor, "steps batch"],
    target: Int[Tensor, " batch"],
    *,
    settings: Perturbation,
    graph: bool,
) -> Float[Tensor, "steps batch"]:
    """The score of every image under every mask, in float32 at least.

    Args:
        model: The classifier.
        place: Makes the masked images.
        keys: Masks that have the same key for an image show the same picture, which runs once; keys are at most as
            many as there are pairs, from 0.
        target: Class of each image.
        settings: What the method was told.
        graph: Keep a graph to the weights.
    """
    rows, position = _distinct(keys)
    step, image = (part.to(target.device) for part in (rows // keys.shape[1], rows % keys.shape[1]))

    forward = Forward(model)

    def run(rows: Tensor) -> Tensor:
        masked = place(step[rows], image[rows])
        with autocast(masked, bfloat16=settings.bfloat16):
            logits = forward(masked, image[rows])
        return score_of(
            logits.to(torch.promote_types(logits.dtype, torch.float32)), target[image[rows]], settings.score
        )

    at_once = rows_at_once(settings.max_batch, place(step[:1], image[:1]))
    chunks = torch.split(torch.arange(len(rows), device=target.device), at_once)
    values = _in_chunks(run, model.network, chunks, graph=graph, settings=settings)
    return values[position.to(values.device)].view(keys.shape)


def _in_chunks(
    run: Callable[[Tensor], Tensor],
    network: nn.Module,
    chunks: Sequence[Tensor],
    *,
    graph: bool,
    settings: Perturbation,
) -> Float[Tensor, " rows"]:
    """``run`` over all rows; on the graph a chunk among several is run again when its gradient is asked for."""
    parts = []
    with torch.set_grad_enabled(graph), progress(sum(map(len, chunks)), settings) as bar:
        for chunk in chunks:
            parts.append(_recomputed(run, network, chunk) if graph and len(chunks) > 1 else run(chunk))
            bar.update(len(chunk))
        return torch.cat(parts)


def progress(rows: int, settings: Perturbation) -> tqdm:
    """A bar over images that run through the model, gone when they have; silent unless asked for."""
    name = type(settings).__name__
    return tqdm(total=rows, desc=name, unit="image", leave=False, disable=not settings.progress)


def _recomputed(run: Callable[[Tensor], Tensor], network: nn.Module, chunk: Tensor) -> Tensor:
    """``run(chunk)`` whose activations are not kept but computed again in the backward pass."""
    versions = [p._version for p in network.parameters()]

    def again(chunk: Tensor) -> Tensor:
        if [p._version for p in network.parameters()] != versions:
            raise RuntimeError("the network's weights were changed in place between the forward and the backward pass")
        with _as_in_a_call(network):
            return run(chunk)

    return checkpoint(again, chunk, use_reentrant=False)  # type: ignore[no-any-return]


@contextmanager
def _as_in_a_call(network: nn.Module) -> Iterator[None]:
    """The backward pass comes when the call, and what it guards, is over."""
    with sdpa_kernel(SDPBackend.MATH), preserved(network):
        yield


def _distinct(keys: Int[Tensor, "steps batch"]) -> tuple[Int[Tensor, " rows"], Int[Tensor, " pairs"]]:
    """One pair (step * batch + image) for each key of an image, and the place among them of every pair."""
    batch = keys.shape[1]
    pairs = torch.arange(keys.numel())
    _, position = torch.unique(keys.flatten() * batch + pairs % batch, return_inverse=True)
    first = torch.full((int(position.max()) + 1,), keys.numel()).scatter_reduce(0, position, pairs, "amin")
    return first, position


def coalition_keys(
    coalitions: Bool[Tensor, "coalitions features"], alive: Bool[Tensor, "batch features"]
) -> Int[Tensor, "coalitions batch"]:
    """A number for every coalition and image, the same where both show the same features that are ``alive``.

    A feature is alive if hiding it changes the image.
    """
    keys = torch.zeros(len(coalitions), len(alive), dtype=torch.long)
    for shown, living in zip(torch.split(coalitions, BITS, 1), torch.split(alive, BITS, 1), strict=True):
        digits = 2.0 ** torch.arange(shown.shape[1], dtype=torch.float64)
        word = shown.double() @ (living * digits).T
        values, number = torch.unique(word, return_inverse=True)
        keys = torch.unique(keys * len(values) + number, return_inverse=True)[1]
    return keys


def generator_of(seed: int | None) -> torch.Generator | None:
    """A generator of its own for a seed; ``None`` means torch's global one."""
    return None if seed is None else torch.Generator().manual_seed(seed)


def check_any(images: Tensor) -> None:
    """Refuse an empty batch.

    Raises:
        ValueError: No image.
    """
    if not len(images):
        raise ValueError("expected at least one image, got an empty batch")
