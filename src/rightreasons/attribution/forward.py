"""Many passes: how many images at once, in which memory layout, and what is read off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.score import Score, explained
from rightreasons.core import Classifier, Trace
from rightreasons.core.hooks import evaluating

T = TypeVar("T")

Output = Score | Literal["probability"]
"""What is read off the model: a score of the gradient methods, or the ``probability`` of the target."""

ROWS = 256
ROWS_CPU = 64
NUMBERS = 2**23
NUMBERS_CPU = 2**19
"""Without a ``max_batch``: so many images at once, and so many numbers in them at most. On a CPU more only leaves its
caches: LeNet takes a digit in 0.6 of the time with 64 at once that it takes with 256 (0.75 with the way back),
ResNet-50 an image of 3x224x224 in 0.8 of the time with 3 that it takes with 13."""


def score_of(
    logits: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"], score: Output
) -> Float[Tensor, " batch"]:
    """One number an image; of a contrast's leads the probability is that against the other class alone."""
    if score == "probability":
        return explained(logits, target, "log_probability").exp()
    return explained(logits, target, score)


def rows_at_once(max_batch: int | None, inputs: Float[Tensor, "batch ..."]) -> int:
    """Images like these that may run through the model at once."""
    rows, numbers = (ROWS_CPU, NUMBERS_CPU) if inputs.device.type == "cpu" else (ROWS, NUMBERS)
    return max_batch or max(1, min(rows, numbers // inputs[0].numel()))


def check_max_batch(max_batch: int | None) -> None:
    """Refuse a bound below 1; ``None`` leaves it to the size of the images.

    Raises:
        ValueError: It is.
    """
    if max_batch is not None and max_batch < 1:
        raise ValueError(f"expected max_batch above 0, or None, got {max_batch}")


def autocast(inputs: Tensor, *, bfloat16: bool) -> AbstractContextManager[object]:
    """Passes in bfloat16 where that is asked for."""
    return torch.autocast(inputs.device.type, dtype=torch.bfloat16) if bfloat16 else nullcontext()


def evaluated(
    model: Classifier, inputs: Float[Tensor, "batch channels height width"], image: Int[Tensor, " batch"] | None = None
) -> Float[Tensor, "batch classes"]:
    """The logits in evaluation mode, in float32 at least and without a graph; the model is left as it was.

    Args:
        model: The classifier.
        inputs: Any number of images; as many run at once as are fast.
        image: Which image of the model's batch each is made of; as they stand without it.
    """
    rows = torch.arange(len(inputs), device=inputs.device)
    image = rows if image is None else image
    with torch.no_grad(), evaluating(model.network):
        parts = [model.rows(image[row])(inputs[row]) for row in torch.split(rows, rows_at_once(None, inputs))]
    logits = torch.cat(parts).as_subclass(Tensor)
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


class Forward:
    """Passes on a CPU in the memory layout that convolutions and poolings are fastest in.

    The network sees the same numbers with channels last in memory: LeNet runs in 0.4 of the time without a graph and in
    0.7 with the way back, ResNet-50 in 0.93 and 0.87. One that calls ``view`` on its maps cannot, and gets them in the
    usual order.
    """

    def __init__(self, model: Classifier) -> None:
        self.model = model
        self.channels_last = True

    def __call__(
        self, inputs: Float[Tensor, "batch channels height width"], image: Int[Tensor, " batch"] | None = None
    ) -> Float[Tensor, "batch classes"]:
        """The logits; ``image`` says which image of the model's batch each input is made of."""
        model = self.model if image is None else self.model.rows(image)
        return self.in_layout(model, inputs)

    def trace(self, inputs: Tensor, image: Int[Tensor, " batch"]) -> Trace:
        """A pass that can be differentiated."""
        return self.in_layout(self.model.rows(image).trace, inputs)

    def in_layout(self, run: Callable[[Tensor], T], inputs: Tensor) -> T:
        """What ``run`` makes of the images, laid out as they are fastest."""
        fast = inputs.device.type == "cpu" and inputs.dtype in (torch.float32, torch.bfloat16) and inputs.ndim == 4
        if not (self.channels_last and fast):
            return run(inputs)
        try:
            return run(channels_last(inputs))
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            self.channels_last = False
            return run(inputs)


def channels_last(
    inputs: Float[Tensor, "batch channels height width"],
) -> Float[Tensor, "batch channels height width"]:
    """The same images with channels last in memory."""
    batch, channels, height, width = inputs.shape
    if channels > 1:
        return inputs.contiguous(memory_format=torch.channels_last)
    # With one channel both layouts are the same memory, and the strides alone say which is meant.
    return inputs.contiguous().view(batch, height, width, 1).permute(0, 3, 1, 2)
