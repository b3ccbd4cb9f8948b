"""The one form in which methods meet a network."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from rightreasons.core import BadModel, Classifier, Trace
from rightreasons.core.hooks import captured, find_layer

Beside = tuple[Tensor, ...] | Mapping[str, Tensor]


class AdaptedClassifier(nn.Module):
    """A network with its preprocessing and the layer that is explained; made by :func:`adapt`.

    Attributes:
        network: The user's own network; its weights are saved and loaded under its own names.
        beside: What the network takes beside the images, one row an image: see :func:`condition`.
        layer: Name of the explained layer inside ``network``, or ``None`` where there is none to find.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        network: nn.Module,
        *,
        layer: str | None = None,
        mean: Sequence[float] = (0.0,),
        std: Sequence[float] = (1.0,),
    ) -> None:
        super().__init__()
        mean, std = tuple(map(float, mean)), tuple(map(float, std))
        _check_standardization(mean, std)
        self.network = network
        self.layer = layer
        self.beside: Beside = ()
        self._standardizes = mean != (0.0,) or std != (1.0,)
        self._channels = max(len(mean), len(std))
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1), persistent=False)

    def forward(self, inputs: Float[Tensor, "batch channels height width"]) -> Float[Tensor, "batch classes"]:
        """The logits."""
        if self._standardizes:
            # One channel would be broadcast to as many as there are means.
            if self._channels not in (1, inputs.shape[1]):
                raise BadModel(
                    f"expected images of {self._channels} channels, as mean and std have, got {inputs.shape[1]}"
                )
            inputs = (inputs - self.mean.to(inputs.dtype)) / self.std.to(inputs.dtype)
        if not self.beside:
            return logits_in(self.network(inputs))
        _check_beside(self.beside, inputs)
        if isinstance(self.beside, Mapping):
            return logits_in(self.network(inputs, **self.beside))
        return logits_in(self.network(inputs, *self.beside))

    def trace(self, inputs: Tensor, layers: Sequence[str] = ()) -> Trace:
        """One pass on the graph, with the activations of these layers."""
        leaf = inputs if inputs.requires_grad else inputs.detach().requires_grad_(True)
        with captured(self.network, layers) as activations:
            logits = self(leaf)
        missing = [name for name in layers if name not in activations]
        if missing:
            raise BadModel(f"layer {missing[0]!r} does not run in a pass, so it has nothing to explain; choose another")
        return Trace(leaf, logits, activations)

    def rows(self, index: Int[Tensor, " rows"]) -> AdaptedClassifier:
        """The same classifier; what stands beside the images is that of these images."""
        if not self.beside:
            return self
        if isinstance(self.beside, Mapping):
            return self.besides({name: values[index] for name, values in self.beside.items()})
        return self.besides(tuple(values[index] for values in self.beside))

    def besides(self, beside: Beside) -> AdaptedClassifier:
        """The same network and preprocessing with other tensors beside the images."""
        twin = copy.copy(self)
        twin.beside = beside
        return twin

    def explaining(self, layer: str) -> AdaptedClassifier:
        """The same network and preprocessing with another layer explained."""
        find_layer(self.network, layer)
        twin = copy.copy(self)
        twin.layer = layer
        return twin

    def extra_repr(self) -> str:
        """Which layer is explained."""
        return f"layer={self.layer!r}"


def _check_beside(beside: Beside, inputs: Tensor) -> None:
    for values in beside.values() if isinstance(beside, Mapping) else beside:
        if len(values) != len(inputs):
            raise BadModel(
                f"expected one row of text an image, got {len(values)} for {len(inputs)} images: the classifier was "
                "made for another batch"
            )


def _check_standardization(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    lengths = {len(mean), len(std)}
    if 0 in lengths or len(lengths - {1}) > 1:
        raise ValueError(f"expected one mean and std, or one a channel, got {len(mean)} and {len(std)}")
    if not all(map(math.isfinite, mean)):
        raise ValueError(f"expected finite means, got {mean}")
    if not all(math.isfinite(value) and value > 0 for value in std):
        raise ValueError(f"expected finite standard deviations above 0, got {std}")


def logits_in(output: object) -> Tensor:
    """The logits in what a network returns: a tensor, or an object with ``.logits`` (Hugging Face)."""
    logits = output if isinstance(output, Tensor) else getattr(output, "logits", None)
    if not isinstance(logits, Tensor):
        raise BadModel(
            f"the network returns {type(output).__name__}, expected logits as a tensor or an object with `.logits`; "
            "wrap it in a module that returns the logits"
        )
    if logits.ndim != 2:
        raise BadModel(f"expected logits of shape (B, classes), got {tuple(logits.shape)}")
    return logits


class Recorded:
    """A classifier that has already run: the recorded pass is handed out again for the very same input tensor.

    An explanation loss that asks for it shares its forward pass with the cross-entropy.
    """

    def __init__(self, model: Classifier, trace: Trace) -> None:
        self._model = model
        self._trace = trace
        self.layer = model.layer

    @property
    def network(self) -> nn.Module:
        """The user's own network inside."""
        return self._model.network

    @property
    def logits(self) -> Float[Tensor, "batch classes"]:
        """The logits of the recorded pass."""
        return self._trace.logits

    def __call__(self, inputs: Tensor) -> Float[Tensor, "batch classes"]:
        """The logits: recorded ones for the recorded inputs, else of a new pass."""
        return self._trace.logits if inputs is self._trace.inputs else self._model(inputs)

    def trace(self, inputs: Tensor, layers: Sequence[str] = ()) -> Trace:
        """The recorded pass where it holds what is asked for, else a new one."""
        if inputs is self._trace.inputs and all(name in self._trace.activations for name in layers):
            return self._trace
        return self._model.trace(inputs, layers)

    def rows(self, index: Int[Tensor, " rows"]) -> Classifier:
        """That of the classifier itself: what was recorded is the whole batch."""
        return self._model.rows(index)


def record(model: Classifier, inputs: Tensor, layers: Sequence[str] | None = None) -> Recorded:
    """Run the model once on ``inputs`` and keep the pass.

    ``layers`` are those whose activations are kept; ``None`` keeps the model's own. Attention runs by its plain
    formula: flash and memory-efficient attention have no double backward. Inputs that require no gradient give a pass
    that is recorded for its activations alone, which costs no way back to the image.
    """
    if layers is None:
        layers = () if model.layer is None else (model.layer,)
    with sdpa_kernel(SDPBackend.MATH):
        if inputs.requires_grad:
            return Recorded(model, model.trace(inputs, layers))
        with captured(model.network, layers) as activations:
            return Recorded(model, Trace(inputs, model(inputs), activations))
