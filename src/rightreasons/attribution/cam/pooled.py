"""The first class activation map, and the head that it asks for: global average pooling and one linear layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rightreasons.attribution.cam.base import weighted_sum
from rightreasons.core import Attribution, BadModel, Classifier
from rightreasons.core.tensors import resized
from rightreasons.models import Contrast

HANDED_ON = frozenset(
    {"adaptive_avg_pool2d", "avg_pool2d", "mean", "flatten", "view", "reshape", "squeeze", "__getitem__"}
    | {"contiguous", "clone", "dropout"}
)
"""Functions that may stand between the maps and the linear layer; whether they averaged is checked by values."""


@dataclass(frozen=True, eq=False)
class PooledHead:
    """A head that averages maps over their places and weights the means.

    Attributes:
        maps: What is averaged; the very tensor that a layer handed on.
        weight: Of the linear layer, for each image.
    """

    maps: Float[Tensor, "batch maps rows columns"]
    weight: Float[Tensor, "batch classes maps"]


@dataclass(frozen=True)
class CAM(Attribution):
    """CAM: the maps that a network averages, weighted by its linear layer's weights for the class.

    Its mean over the maps' places, plus the bias, is the logit. It needs a network that ends in global average
    pooling and one linear layer; how that is written (module or function) does not matter.

    Source: Zhou et al. 2016, arXiv:1512.04150, Eqs. 1-2.

    Args:
        positive: Leave out evidence against the class, as the later methods of the family do.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    positive: bool = False

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The map, (B, 1, H, W)."""
        with torch.set_grad_enabled(graph):
            _, head = run_to_head(model, inputs)
            if head is None:
                raise BadModel(
                    "CAM explains networks that end in global average pooling of maps and one linear layer, and this "
                    "one does not; take GradCAM, which asks for no such head"
                )
            chosen = target.view(-1, 1, 1).expand(-1, 1, head.weight.shape[2])
            weights = head.weight.gather(1, chosen).mT[..., None]
            heatmap = weighted_sum(weights, head.maps)
            heatmap = heatmap.relu() if self.positive else heatmap
            return resized(heatmap, (inputs.shape[-2], inputs.shape[-1]))


def run_to_head(model: Classifier, inputs: Tensor) -> tuple[Float[Tensor, "batch classes"], PooledHead | None]:
    """The logits of a new pass, and the head if it is one of average pooling and a linear layer."""
    if isinstance(model, Contrast):
        logits, head = run_to_head(model.model, inputs)
        return model.leads(logits), head and replace(head, weight=model.leads(head.weight))
    with _LastLinear() as last:
        # A view, since a recorded pass over the very same tensor would not run again.
        logits = model(inputs.view_as(inputs))
    if last.output is None or last.weight is None:
        return logits, None
    whole = last.output is logits or torch.equal(last.output, logits)
    means, *before = last.way
    for maps in reversed(before) if whole else ():
        if maps.ndim == 4 and maps.shape[2:].numel() > 1 and _averages(maps, means):
            return logits, PooledHead(maps, last.weight.expand(len(maps), -1, -1))
    return logits, None


def _averages(maps: Tensor, means: Tensor) -> bool:
    found = maps.mean(dim=(2, 3))
    tolerance = torch.finfo(found.dtype).eps ** 0.5
    return found.shape == means.shape and torch.allclose(found, means, rtol=tolerance, atol=tolerance)


class _LastLinear(TorchFunctionMode):
    """Watches the calls of a pass and keeps the last linear one, with the way that led to it.

    Calls are watched, not modules, so that a head written with functions is seen as well.
    """

    def __init__(self) -> None:
        super().__init__()
        self.output: Tensor | None = None
        self.weight: Tensor | None = None
        self.way: list[Tensor] = []
        self._sources: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        output = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        given = [*args, *(kwargs or {}).values()]
        if name == "linear":
            self.output, self.weight, self.way = output, given[1], self._way_to(given[0])
            self._sources.clear()
        elif name in HANDED_ON and output is not given[0] and isinstance(given[0], Tensor):
            # The output is kept along, so that its id is not given to another tensor.
            self._sources[id(output)] = (output, given[0])
        return output

    def _way_to(self, tensor: Tensor) -> list[Tensor]:
        """The tensor, what it was made of, and so on."""
        way = [tensor]
        while id(way[-1]) in self._sources and len(way) <= len(self._sources):
            way.append(self._sources[id(way[-1])][1])
        return way
