"""What travels between data, models, losses and metrics."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """Images with their labels and, where a person drew them, masks.

    A pixel in ``relevant`` should matter, one in ``irrelevant`` should not (F and C of Gao et al. 2022);
    a pixel in neither is unknown. Values of a mask lie in [0, 1]. A batch equals only itself.

    Attributes:
        inputs: Images in the data set's pixel range.
        target: Class of each image.
        relevant: Where the model should look.
        irrelevant: Where it should not.
        annotated: Which images a person annotated; ``None`` with a mask present means all of them.
        text: Tokens that go with the image.
        group: Group of each image, for worst-group figures.
        index: Position in the data set.
    """

    inputs: Float[Tensor, "batch channels height width"]
    target: Int[Tensor, " batch"]
    relevant: Float[Tensor, "batch 1 height width"] | None = None
    irrelevant: Float[Tensor, "batch 1 height width"] | None = None
    annotated: Bool[Tensor, " batch"] | None = None
    text: Int[Tensor, "batch tokens"] | None = None
    group: Int[Tensor, " batch"] | None = None
    index: Int[Tensor, " batch"] | None = None

    def __len__(self) -> int:
        return len(self.target)

    def __getitem__(self, rows: Tensor | slice) -> Batch:
        """The same batch with only these rows (a slice, a boolean or an index tensor)."""
        return self._each(lambda value: value[rows])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Batch:
        """The same batch on another device."""
        return self._each(lambda value: value.to(device, non_blocking=non_blocking))

    def annotated_rows(self) -> Bool[Tensor, " batch"]:
        """Which images carry masks that count."""
        if self.relevant is None and self.irrelevant is None:
            return torch.zeros(len(self), dtype=torch.bool, device=self.target.device)
        if self.annotated is None:
            return torch.ones(len(self), dtype=torch.bool, device=self.target.device)
        return self.annotated

    def _each(self, change: Callable[[Tensor], Tensor]) -> Batch:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return replace(self, **{name: change(value) for name, value in values.items() if value is not None})
