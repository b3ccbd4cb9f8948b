"""Random masks."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from rightreasons.attribution.forward import Output
from rightreasons.attribution.perturbation.masking import Perturbation, generator_of, scores
from rightreasons.core import Classifier
from rightreasons.core.settings import check_counts

NUMBERS = 2**22
"""Numbers in the masks that are held at once while the map is summed up."""


@dataclass(frozen=True)
class RISE(Perturbation):
    """The mean score of random masks that show the pixel: what is seen when the score is high matters.

    Masks are random grids, each cell shown with some probability, enlarged bilinearly and shifted at random by up to a
    cell. All images of a batch meet the same masks, so that an image's map does not depend on its batch.

    Source: Petsiuk et al. 2018, arXiv:1806.07421, Eq. 6 and section 3.2, whose score is the probability of the target.

    Args:
        masks: Number of masks.
        cells: Cells along each side of the grid.
        probability: That a cell is shown.
        seed: Of the masks; ``None`` draws fresh ones at each call from torch's global generator.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = False

    masks: int = 4000
    cells: int = 7
    probability: float = 0.5
    seed: int | None = 0
    score: Output = field(default="probability", kw_only=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        check_counts(masks=self.masks, cells=self.cells)
        if not 0 < self.probability < 1:
            raise ValueError(f"expected probability between 0 and 1, got {self.probability}")

    def against(
        self, model: Classifier, inputs: Tensor, baseline: Tensor, target: Tensor, *, graph: bool
    ) -> Float[Tensor, "batch 1 height width"]:
        """Sum of score * mask over (masks * probability), (B, 1, H, W)."""
        height, width = inputs.shape[2:]
        drawn = _Masks.draw(self, (height, width), device=inputs.device)

        def place(step: Tensor, image: Tensor) -> Tensor:
            shown = drawn[step].to(inputs.dtype)[:, None]
            return baseline[image] + shown * (inputs[image] - baseline[image])

        keys = torch.arange(self.masks)[:, None].expand(-1, len(inputs))
        values = scores(model, place, keys, target, settings=self, graph=graph)
        heatmap = values.new_zeros(len(inputs), height * width)
        for step in torch.split(torch.arange(self.masks, device=inputs.device), max(1, NUMBERS // (height * width))):
            heatmap = heatmap + values[step].T @ drawn[step].to(values.dtype).flatten(1)
        return (heatmap / (self.masks * self.probability)).to(inputs.dtype).view(-1, 1, height, width)


@dataclass(frozen=True, eq=False)
class _Masks:
    """Masks as their small grids and shifts; enlarged only when asked for, since all of them would fill the memory."""

    grids: Float[Tensor, "masks cells cells"]
    shift: Int[Tensor, "masks 2"]
    size: tuple[int, int]

    @classmethod
    def draw(cls, settings: RISE, size: tuple[int, int], *, device: torch.device) -> _Masks:
        generator = generator_of(settings.seed)
        cells = settings.cells
        grids = torch.rand(settings.masks, cells, cells, generator=generator) < settings.probability
        uniform = torch.rand(settings.masks, 2, generator=generator)
        shift = (uniform * torch.tensor([-(-side // cells) for side in size])).long()
        return cls(grids.float().to(device), shift.to(device), size)

    def __getitem__(self, step: Int[Tensor, " rows"]) -> Float[Tensor, "rows height width"]:
        """The masks of these numbers."""
        cells = self.grids.shape[1]
        large = [(cells + 1) * -(-side // cells) for side in self.size]
        smooth = F.interpolate(self.grids[step][:, None], size=large, mode="bilinear", align_corners=False)[:, 0]
        row, column = (
            self.shift[step, axis, None] + torch.arange(side, device=step.device) for axis, side in enumerate(self.size)
        )
        return smooth[torch.arange(len(step), device=step.device)[:, None, None], row[:, :, None], column[:, None, :]]
