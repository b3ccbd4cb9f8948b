"""Gradients whose way back through the activations is changed: guided backpropagation and DeconvNet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from rightreasons.attribution.operators import RECTIFIERS, eagerly, operator_of, out_of_place
from rightreasons.attribution.score import PixelGradient, Score, explained, gradient
from rightreasons.core import BadModel, Classifier

Way = Literal["guided", "deconvolution"]


@dataclass(frozen=True)
class GuidedBackprop(PixelGradient):
    """The gradient of which only positive values pass an activation.

    Each activation is found by its operator, a functional call as well as a module. The paper is about ReLU; for its
    relatives (GELU, SiLU, softplus, ...) the same is done: their own derivative times the positive part of what comes
    back.

    Source: Springenberg et al. 2015, arXiv:1412.6806, section 3.4.

    Args:
        score: The number that is explained.
    """

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The guided gradient, (B, C, H, W)."""
        return _modified_gradient(model, inputs, target, score=self.score, way="guided", graph=graph)


@dataclass(frozen=True)
class DeconvNet(PixelGradient):
    """The gradient in which each activation passes the positive part of what comes back, whatever it did to its input.

    Each activation is found by its operator. The paper is about ReLU; here its relatives are treated alike.
    Max-pooling sends values back to where its maxima were, as the paper's switches do.

    Source: Zeiler and Fergus 2014, arXiv:1311.2901, section 2.1.

    Args:
        score: The number that is explained.
    """

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The deconvolved signal, (B, C, H, W)."""
        return _modified_gradient(model, inputs, target, score=self.score, way="deconvolution", graph=graph)


def _modified_gradient(
    model: Classifier, inputs: Tensor, target: Tensor, *, score: Score, way: Way, graph: bool
) -> Tensor:
    """D score / d x, with the way back through activations changed for this one gradient.

    A pass of its own: a recorded one has plain activations.
    """
    leaf = inputs.view_as(inputs) if inputs.requires_grad else inputs.detach().requires_grad_()
    with eagerly(model.network), _ChangedActivations(way) as changed:
        trace = model.trace(leaf)
    if not changed.found:
        raise BadModel("the network runs no activation such as ReLU, so its gradient is what Saliency gives")
    try:
        return gradient(explained(trace.logits, target, score), leaf, graph=graph)
    finally:
        # A loss on the result walks this very graph again, and must find the activations as they are.
        changed.stop()


class _ChangedActivations(TorchFunctionMode):
    """Lets each activation of a pass send back what ``way`` says, as long as it is ``active``."""

    def __init__(self, way: Way) -> None:
        super().__init__()
        self.active = True
        self.found = False
        self._way = way
        self._heard: list[list[Tensor]] = []

    def stop(self) -> None:
        """Send back plain gradients from now on, and let go of those that were heard."""
        self.active = False
        for heard in self._heard:
            heard.clear()

    def __torch_function__(
        self, func: Callable[..., Any], types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run a call, an activation with hooks on its way back."""
        kwargs = kwargs or {}
        operator, in_place = operator_of(func, args, kwargs)
        target = args[0] if args else kwargs.get("input")
        if operator not in RECTIFIERS or not isinstance(target, Tensor):
            return func(*args, **kwargs)
        self.found = True
        if not target.requires_grad or not torch.is_grad_enabled():
            return func(*args, **kwargs)
        if self._way == "guided" and not (in_place and target._is_view()):
            after = func(*args, **kwargs)
            after.register_hook(self._passing([]))
            return after
        call, plain = func, kwargs
        if in_place:
            found = out_of_place(func, kwargs)
            if found is None:
                raise BadModel(f"the operator {operator!r} has no form that is not in place; write it so")
            call, plain = found
        # A node of its own, which hears from this activation only.
        before = target.clone() if in_place else target.view_as(target)
        rest = {**plain, "input": before} if not args else plain
        after = call(before, *args[1:], **rest) if args else call(**rest)
        heard: list[Tensor] = []
        self._heard.append(heard)
        after.register_hook(self._passing(heard))
        if self._way == "deconvolution":
            before.register_hook(self._leaving(heard))  # type: ignore[no-untyped-call]
        return target.copy_(after) if in_place else after

    # Where nothing comes back, the engine may say so by None.
    def _passing(self, heard: list[Tensor]) -> Callable[[Tensor | None], Tensor | None]:
        def hook(slopes: Tensor | None) -> Tensor | None:
            if not self.active or slopes is None:
                return None
            if self._way == "guided":
                return slopes.relu()
            heard[:] = [slopes.relu()]
            return None

        return hook

    def _leaving(self, heard: list[Tensor]) -> Callable[[Tensor | None], Tensor | None]:
        def hook(slopes: Tensor | None) -> Tensor | None:
            return heard.pop() if self.active and heard else None

        return hook
