"""The verbs: what an attribution, a loss and a metric are, told once.

Every method is a frozen dataclass: settings in the constructor, tensors in the call. It holds no model and nothing to
reset; its ``repr`` is its configuration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rightreasons.core.batch import Batch
from rightreasons.core.errors import NotDifferentiable
from rightreasons.core.hooks import preserved
from rightreasons.core.tensors import check_pair


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """One pass through a model: the very inputs, the logits and the activations that were asked for.

    ``inputs`` requires a gradient, so that everything else hangs on it.
    """

    inputs: Float[Tensor, "batch ..."]
    logits: Float[Tensor, "batch classes"]
    activations: Mapping[str, Tensor]


@runtime_checkable
class Classifier(Protocol):
    """What a method may ask of a model; ``rightreasons.models.adapt`` makes one of any network."""

    @property
    def layer(self) -> str | None:
        """The layer whose activations are explained unless a method names another."""
        ...

    @property
    def network(self) -> nn.Module:
        """The user's own network inside."""
        ...

    def __call__(self, inputs: Tensor) -> Float[Tensor, "batch classes"]:
        """The logits."""
        ...

    def trace(self, inputs: Tensor, layers: Sequence[str] = ()) -> Trace:
        """A pass that can be differentiated; a recorded pass over the same tensor is used again."""
        ...

    def rows(self, index: Int[Tensor, " rows"]) -> Classifier:
        """The classifier for these images of its batch, in this order.

        One that is made for one batch (with a text beside each image, or a class to contrast each with) has to know
        which images it meets when a method shows it copies or parts of the batch; any other returns itself.
        """
        ...


Inputs = Float[Tensor, "batch channels height width"] | Float[Tensor, "batch tokens features"]
"""Images, or the embeddings of tokens."""

Heatmap = Float[Tensor, "batch 1 height width"] | Float[Tensor, "batch tokens"]
"""One value a pixel, or one a token."""


@dataclass(frozen=True, slots=True, eq=False)
class _TokenRow:
    """A classifier of token embeddings as one of images of a single row, a feature a channel.

    So a method that knows images only explains tokens as well.
    """

    model: Classifier

    @property
    def layer(self) -> str | None:
        return self.model.layer

    @property
    def network(self) -> nn.Module:
        return self.model.network

    def __call__(self, inputs: Float[Tensor, "batch features 1 tokens"]) -> Float[Tensor, "batch classes"]:
        return self.model(inputs.squeeze(2).mT)

    def trace(self, inputs: Float[Tensor, "batch features 1 tokens"], layers: Sequence[str] = ()) -> Trace:
        leaf = inputs if inputs.requires_grad else inputs.detach().requires_grad_()
        trace = self.model.trace(leaf.squeeze(2).mT, layers)
        return Trace(leaf, trace.logits, trace.activations)

    def rows(self, index: Int[Tensor, " rows"]) -> _TokenRow:
        return _TokenRow(self.model.rows(index))


class Attribution(ABC):
    """What a model looked at: ``attribution(model, inputs, target) -> heatmap``, (B, 1, H, W), or (B, T) for tokens.

    Raw values at the resolution of the inputs: nothing is normalized or made absolute. The heatmap is on the graph (to
    the weights, and to ``inputs`` where they require a gradient) exactly when gradients are enabled and the class is
    ``differentiable``. A call leaves the model as it found it.

    Attributes:
        differentiable: The heatmap's gradient with respect to the weights is right; a contract test holds every class
            to it by finite differences.
        signed: Negative values mean evidence against the target.
        layer: The layer that is explained; ``None`` means the model's own choice, or that the method has no layer.
    """

    differentiable: ClassVar[bool]
    signed: ClassVar[bool]
    layer: str | None = None

    @abstractmethod
    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The method itself: (B, C, H, W) or (B, 1, H, W), with a graph to the weights if ``graph``."""

    def __call__(self, model: Classifier, inputs: Inputs, target: Int[Tensor, " batch"]) -> Heatmap:
        """The heatmap; where a method has values per channel (per feature of a token), their sum."""
        values = self.per_channel(model, inputs, target)
        return values.sum(dim=-1) if values.ndim == 3 else values.sum(dim=1, keepdim=True)

    def per_channel(
        self, model: Classifier, inputs: Inputs, target: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch _ height width"] | Float[Tensor, "batch tokens _"]:
        """The values before channels are summed, (B, C, H, W), or (B, 1, H, W) for methods without channels.

        Of tokens (B, T, D), or (B, T, 1).

        A loss on their squares needs this form: in the sum, channels of opposite sign would hide each other.

        Raises:
            ValueError: ``inputs`` and ``target`` do not go together.
            BadModel: The layer does not exist or has no spatial map.
        """
        check_pair(inputs, target)
        if not isinstance(model, Classifier):
            raise ValueError(f"expected a classifier, got {type(model).__name__}; make one of it: adapt(network)")
        if inputs.ndim == 3:
            return self.per_channel(_TokenRow(model), inputs.mT.unsqueeze(2), target).squeeze(2).mT
        graph = torch.is_grad_enabled() and self.differentiable
        with ExitStack() as stack:
            stack.enter_context(torch.inference_mode(False))
            stack.enter_context(torch.enable_grad())
            # Flash and memory-efficient attention have no double backward.
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
            stack.enter_context(preserved(model.network))
            inputs, target = (t.clone() if t.is_inference() else t for t in (inputs, target))
            values = self.attribute(model, inputs, target, graph=graph)
        return values if graph else values.detach()


class ExplanationLoss(ABC):
    """How far a model looks where it should not: ``loss(model, batch, logits) -> scalar``.

    Terms are means over the annotated images; an image without a mask of the loss's kind does not count, and a batch
    without any gives zero. The explained pass is the training pass itself, in the mode the model is in: with BatchNorm
    in training mode a map depends on its batch mates, as the logits do.

    A loss with weights of its own holds them in a field that is an ``nn.Module``; the objective trains them along.
    """

    attribution: Attribution | None = None
    differentiates: ClassVar[bool] = False
    """Whether a loss without an attribution differentiates the pass itself, so that it must reach the images."""
    counts_annotated: ClassVar[bool] = True
    """Whether it is a mean over annotated images; over all of them, where it needs no masks."""

    def tapped(self, model: Classifier) -> tuple[str, ...]:
        """The layers whose activations the loss itself asks the training pass for, beside those of its attribution."""
        return ()

    @abstractmethod
    def __call__(self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]) -> Float[Tensor, ""]:
        """The term, unweighted.

        Raises:
            MissingAnnotation: The batch does not carry the kind of mask that the loss is about.
        """


class Metric(ABC):
    """Whether that changed: ``metric(model, batch, heatmap) -> score`` of shape (B,).

    A score is NaN for an image on which the metric is not defined (no mask, a map of zeros where there is no answer).
    """

    higher_is_better: ClassVar[bool]

    @abstractmethod
    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""


LATER = "later"
"""Metadata of a dataclass's field that older checkpoints do not tell; at its default a method is what it was."""

ANY_OTHER = -1
"""A target of a counterfactual: whichever class is not the predicted one."""


@dataclass(frozen=True, slots=True, eq=False)
class Counterfactuals:
    """The changed images, whether they flip the model, and what they cost.

    Attributes:
        images: The changed image of each original; where no valid one was found, the one that comes nearest to it: that
            of the highest probability of the target.
        valid: Whether the model gives the changed image the target, by the lead that the method asks for: a little, so
            that rounding does not take it back, or more.
        target: What was asked for, a class or :data:`ANY_OTHER`.
        queries: Images that ran forward for each original; the first one is the original itself.
        gradients: Images that ran backward for each original.
        seconds: Time of the whole call, without what was done between two items of :meth:`Counterfactual.improve`.
    """

    images: Float[Tensor, "batch channels height width"]
    valid: Bool[Tensor, " batch"]
    target: Int[Tensor, " batch"]
    queries: Int[Tensor, " batch"]
    gradients: Int[Tensor, " batch"]
    seconds: float


class Counterfactual(ABC):
    """The smallest change that flips it: ``counterfactual(model, inputs, target) -> Counterfactuals``.

    All images of a batch are searched together, and a batch equals its singles. The model predicts in evaluation mode
    and is left as it was found; nothing is on the graph.

    Attributes:
        black_box: The method asks for logits only, never for a gradient.
    """

    black_box: ClassVar[bool]

    @abstractmethod
    def improve(
        self,
        model: Classifier,
        inputs: Float[Tensor, "batch channels height width"],
        target: Int[Tensor, " batch"],
    ) -> Iterator[Counterfactuals]:
        """Ever better counterfactuals: an image once valid stays so, and comes no further from its original.

        Raises:
            ValueError: A target is the predicted class or none of the model's, or an image leaves its range of values.
        """

    @abstractmethod
    def distance(
        self,
        inputs: Float[Tensor, "batch channels height width"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, " batch"]:
        """What the method makes small, for each pair."""

    def __call__(
        self,
        model: Classifier,
        inputs: Float[Tensor, "batch channels height width"],
        target: Int[Tensor, " batch"],
    ) -> Counterfactuals:
        """The last item of :meth:`improve`."""
        return deque(self.improve(model, inputs, target), maxlen=1)[0]


def require_differentiable(attribution: Attribution, user: str) -> None:
    """Refuse an attribution that has no graph to the weights.

    Raises:
        NotDifferentiable: By name.
    """
    if not attribution.differentiable:
        raise NotDifferentiable(
            f"{user} trains through its attribution, and {type(attribution).__name__} is not "
            "differentiable: its gradient with respect to the weights is zero or undefined. Choose one that is, such "
            "as Saliency or GradCAM"
        )
