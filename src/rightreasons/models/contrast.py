"""One class against another."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rightreasons.core import Classifier, Trace
from rightreasons.core.tensors import check_classes


class Leads(Tensor):
    """Logits that are leads over one other class, (B, classes); made by :class:`Contrast`.

    What is computed of them on the way (another precision, some of the rows) stays marked, so that a score read off
    them knows that it is about two classes.
    """

    @classmethod
    def __torch_function__(
        cls, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """What torch makes of them; a gradient belongs to what it was taken of, and is no lead."""
        if func is torch.autograd.grad:
            with torch._C.DisableTorchFunctionSubclass():
                return func(*args, **(kwargs or {}))
        return super().__torch_function__(func, types, args, kwargs)  # type: ignore[no-untyped-call]


@dataclass(frozen=True, eq=False)
class Contrast:
    """A classifier whose logit of a class says by how much it leads another class; made by :func:`contrast`.

    Attributes:
        model: The classifier itself.
        other: The class that all are contrasted with: one for all images, or one an image.
    """

    model: Classifier
    other: int | Int[Tensor, " batch"]

    @property
    def layer(self) -> str | None:
        """The layer that is explained."""
        return self.model.layer

    @property
    def network(self) -> nn.Module:
        """The user's own network inside."""
        return self.model.network

    @property
    def inputs(self) -> Tensor:
        """What the classifier itself was made for, where it was made for one batch: embeddings of tokens."""
        found: Tensor = self.model.inputs  # type: ignore[attr-defined]
        return found

    def __call__(self, inputs: Tensor) -> Float[Tensor, "batch classes"]:
        """The leads, logit - logit of the other class."""
        return self.leads(self.model(inputs))

    def trace(self, inputs: Tensor, layers: Sequence[str] = ()) -> Trace:
        """A pass of the classifier, with the leads for logits."""
        trace = self.model.trace(inputs, layers)
        return Trace(trace.inputs, self.leads(trace.logits), trace.activations)

    def rows(self, index: Int[Tensor, " rows"]) -> Contrast:
        """The classifier for these images."""
        model = self.model.rows(index)
        if isinstance(self.other, int):
            return self if model is self.model else Contrast(model, self.other)
        return Contrast(model, self.other.to(index.device)[index])

    def leads(self, values: Float[Tensor, "batch classes ..."]) -> Float[Tensor, "batch classes ..."]:
        """What belongs to each class, less what belongs to the other one; of logits, (B, classes), :class:`Leads`.

        Raises:
            ValueError: As many other classes as images are needed, or there is no such class.
        """
        if isinstance(self.other, int):
            other = torch.full((len(values),), self.other, device=values.device)
        elif len(self.other) != len(values):
            raise ValueError(f"expected one other class an image, {len(values)}, got {len(self.other)}")
        else:
            other = self.other.to(values.device)
        check_classes(other, values.shape[1])
        each = other.view(-1, *(1,) * (values.ndim - 1)).expand(-1, 1, *values.shape[2:])
        leads = values - values.gather(1, each)
        if leads.ndim == 2:
            # The very tensor is marked: a view would be unknown to what follows the pass operator by operator.
            leads.__class__ = Leads
        return leads


def contrast(model: Classifier, other: int | Int[Tensor, " batch"]) -> Contrast:
    """A classifier that is explained one against one: its score is logit(target) - logit(other).

    Every method and every metric takes it like any other; the map says what speaks for the target and against the other
    class. Probabilities are those of the two classes alone: that of the target is sigmoid(lead), its log-probability
    log sigmoid(lead), and the sum of the log-probabilities that of both classes. The target is found where its lead is
    above zero.

    Args:
        model: Any classifier.
        other: The class to contrast with, for all images or one an image.

    Raises:
        ValueError: ``other`` is no class number.
    """
    if isinstance(other, Tensor) and (other.ndim != 1 or other.is_floating_point() or other.dtype == torch.bool):
        raise ValueError(f"expected one class number an image, got {other.dtype} of shape {tuple(other.shape)}")
    return Contrast(model, other)
