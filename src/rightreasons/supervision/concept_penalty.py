"""A penalty on how far the answer follows concept directions of a layer."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from rightreasons.attribution.score import gradient
from rightreasons.concepts import orthonormal
from rightreasons.core import BadModel, Batch, Classifier, ExplanationLoss
from rightreasons.core.hooks import preserved

Answer = Literal["target", "max", "all", "random", "log_probabilities"]
"""Which logits: the target's, the largest, their sum, a sum with random signs, or the sum of all log-probabilities."""

Size = Literal["square", "absolute", "cosine"]


@dataclass(frozen=True, eq=False)
class RRClArC(ExplanationLoss):
    """Right for the right concept: the answer's derivative along concept directions of a layer, squared.

    g is the gradient of the ``answer`` with respect to the layer's activations, v a direction; the loss is the sum
    over places and directions of (g . v)^2, and the mean over all images. No mask is needed: the directions come from
    images with and without the artifact (``rightreasons.concepts``). Several directions count as the subspace that
    they span.

    Source: Dreyer et al. 2024, arXiv:2308.09437.

    Args:
        directions: One a row, (directions, features).
        layer: Name of the layer; ``None`` takes the model's own.
        answer: What is differentiated. ``random`` draws the signs anew at each call, from torch's global generator.
        size: The squared derivative, its absolute value, or the squared cosine, which no scale of the gradient changes.
    """

    counts_annotated: ClassVar[bool] = False

    differentiates: ClassVar[bool] = True

    directions: Float[Tensor, "directions features"] = field(repr=False)
    layer: str | None = None
    answer: Answer = "random"
    size: Size = "square"

    def __post_init__(self) -> None:
        if self.answer not in get_args(Answer):
            raise ValueError(f"expected answer to be one of {', '.join(get_args(Answer))}, got {self.answer!r}")
        if self.size not in get_args(Size):
            raise ValueError(f"expected size to be one of {', '.join(get_args(Size))}, got {self.size!r}")
        object.__setattr__(self, "directions", orthonormal(self.directions.detach()))

    def tapped(self, model: Classifier) -> tuple[str, ...]:
        """The layer whose activations it asks for."""
        name = self.layer or model.layer
        if name is None:
            raise BadModel("this network has no layer of its own to read concepts from; name one")
        return (name,)

    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The mean over all images."""
        (layer,) = self.tapped(model)
        with torch.enable_grad(), preserved(model.network), sdpa_kernel(SDPBackend.MATH):
            trace = model.trace(batch.inputs, (layer,))
            slopes = gradient(self._answer(trace.logits, batch.target), trace.activations[layer], graph=True)
        last = slopes.movedim(1 if slopes.ndim == 4 else -1, -1).flatten(1, -2) if slopes.ndim > 2 else slopes[:, None]
        if last.shape[-1] != self.directions.shape[1]:
            raise BadModel(
                f"the directions have {self.directions.shape[1]} features and layer {layer!r} gives {last.shape[-1]}"
            )
        along = last @ self.directions.to(last).mT
        if self.size == "absolute":
            return along.abs().sum(dim=(1, 2)).mean()
        squares = along.square().sum(dim=(1, 2))
        if self.size == "cosine":
            whole = last.square().sum(dim=(1, 2))
            squares = squares / torch.where(whole > 0, whole, 1.0)
        return squares.mean()

    def _answer(self, logits: Float[Tensor, "batch classes"], target: Tensor) -> Float[Tensor, " batch"]:
        if self.answer == "target":
            return logits.gather(1, target[:, None])[:, 0]
        if self.answer == "max":
            return logits.amax(dim=1)
        if self.answer == "random":
            signs = torch.randint(2, logits.shape, device=logits.device).to(logits.dtype) * 2 - 1
            return (signs * logits).sum(dim=1)
        return logits.sum(dim=1) if self.answer == "all" else logits.log_softmax(dim=1).sum(dim=1)
