"""By how much the heatmap errs when it foretells the fall of the score under random changes."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.perturbation.masking import generator_of
from rightreasons.core.settings import check_counts
from rightreasons.metrics.faithfulness.base import Hiding
from rightreasons.metrics.faithfulness.responses import Place, Reading, Responses, baseline_of
from rightreasons.metrics.heatmaps import checked

Change = Literal["square", "gaussian"]
"""A square hidden somewhere, or noise on every pixel."""


@dataclass(frozen=True)
class Infidelity(Hiding):
    """Mean square of what the heatmap foretells, less the fall of the score, over random changes of the image.

    With ``"square"``, a square at a random place is hidden, and the heatmap foretells its sum over the square: it is
    read as contributions to the score (InputXGradient, IntegratedGradients, LRP, Shapley values). With ``"gaussian"``,
    noise is subtracted from the image, and the heatmap foretells the sum of noise * heatmap: it is read as slopes
    (Saliency with its sign); the noise is the same in all channels of a pixel, as a heatmap has one value for them all.
    All images meet the same draws; a square that is drawn several times runs once. It is in squared units of the score.

    Source: Yeh et al. 2019, arXiv:1901.09392, Definition 2.1, with the paper's square removal, and noise around the
    image (the paper's noisy baseline lies around a baseline). Deviation: the paper multiplies slopes with what is
    removed; here the heatmap of a removal holds contributions, slope times (x - baseline), already.

    Args:
        samples: Changes that are drawn.
        change: What is changed.
        side: Of the square, in pixels; at most the image's.
        noise: Standard deviation of the noise, in units of the images.
        scaled: Each heatmap is multiplied with the number that makes its infidelity least (optimal scaling); else
            the scale of a heatmap counts.
        seed: Of the draws; ``None`` draws fresh ones at each call from torch's global generator.
    """

    higher_is_better: ClassVar[bool] = False

    samples: int = 200
    change: Change = "square"
    side: int = field(default=4, kw_only=True)
    noise: float = field(default=0.2, kw_only=True)
    scaled: bool = field(default=False, kw_only=True)
    seed: int | None = field(default=0, kw_only=True)
    score: Reading = field(default="logit", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(samples=self.samples, side=self.side)
        if self.change not in get_args(Change):
            raise ValueError(f"expected change to be one of {', '.join(get_args(Change))}, got {self.change!r}")
        if not self.noise > 0:
            raise ValueError(f"expected noise above 0, got {self.noise}")

    def with_responses(
        self, responses: Responses, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        values = checked(heatmap, responses.batch).flatten(1).double()
        before = responses.clean(self.score, max_batch=self.max_batch).double()
        after, changed, weights = (self._squares if self.change == "square" else self._noise)(responses)
        foretold, fall = changed.to(values) @ values.T, before - after
        weights = weights[:, None].to(values)
        if self.scaled:
            foretold = foretold * _best_scale(foretold, fall, weights)
        return (weights * (foretold - fall).square()).sum(dim=0).to(torch.promote_types(heatmap.dtype, torch.float32))

    def _squares(self, responses: Responses) -> tuple[Tensor, Tensor, Tensor]:
        """The scores, what is hidden (changes, pixels), and the share of the draws that are this change."""
        inputs, baseline = responses.batch.inputs, responses.baseline(self.baseline)
        height, width = inputs.shape[2:]
        if self.side > min(height, width):
            raise ValueError(f"expected side to be at most that of images of {height}x{width}, got {self.side}")
        corners, weights = _corners(self.samples, (height - self.side + 1, width - self.side + 1), self.seed)
        corners, weights = corners.to(inputs.device), weights.to(inputs.device)
        row, column = (corners[:, [axis]] for axis in (0, 1))
        down, across = torch.arange(height, device=inputs.device), torch.arange(width, device=inputs.device)
        in_rows = (down >= row) & (down < row + self.side)
        hidden = in_rows[:, :, None] & ((across >= column) & (across < column + self.side))[:, None, :]

        def place(step: Tensor, image: Tensor) -> Tensor:
            return torch.where(hidden[step][:, None], baseline[image], inputs[image])

        return self._read(responses, place, len(hidden)), hidden.flatten(1), weights

    def _noise(self, responses: Responses) -> tuple[Tensor, Tensor, Tensor]:
        """The scores, the noise that is subtracted (changes, pixels), and the share of each."""
        inputs = responses.batch.inputs
        shape = (self.samples, 1, *inputs.shape[2:])
        noise = self.noise * torch.randn(shape, generator=generator_of(self.seed), dtype=torch.float64).to(inputs)
        place: Place = lambda step, image: inputs[image] - noise[step]  # noqa: E731
        weights = torch.full((self.samples,), 1 / self.samples)
        return self._read(responses, place, self.samples), noise.flatten(1), weights

    def _read(self, responses: Responses, place: Place, steps: int) -> Float[Tensor, "steps batch"]:
        own = (self.side, baseline_of(self.baseline)) if self.change == "square" else (self.noise,)
        key: Hashable = None if self.seed is None else ("infidelity", self.change, self.samples, self.seed, *own)
        return responses.read(place, steps, score=self.score, max_batch=self.max_batch, key=key).double()


def _corners(samples: int, places: tuple[int, int], seed: int | None) -> tuple[Tensor, Tensor]:
    """The different upper left corners (row, column) of random squares, and the share of the draws on each."""
    drawn = torch.randint(places[0] * places[1], (samples,), generator=generator_of(seed))
    different, times = torch.unique(drawn, return_counts=True)
    return torch.stack([different // places[1], different % places[1]], dim=1), times.double() / samples


def _best_scale(foretold: Tensor, fall: Tensor, weights: Tensor) -> Float[Tensor, " batch"]:
    """The factor of least mean square error; 0 for a heatmap that foretells nothing."""
    square = (weights * foretold.square()).sum(dim=0)
    best: Tensor = (weights * foretold * fall).sum(dim=0) / square.masked_fill(square == 0, 1)
    return best
