"""What a classifier says about a whole data set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rightreasons.core.hooks import modes_kept
from rightreasons.data.dataset import ImageDataset
from rightreasons.models import AdaptedClassifier

__all__ = ["Evaluation", "device_of", "evaluate", "modes_kept", "predict"]


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Logits, predicted and true classes of a data set, in its order, on the CPU."""

    logits: Float[Tensor, "images classes"]
    target: Int[Tensor, " images"]

    @property
    def predictions(self) -> Int[Tensor, " images"]:
        """The class with the largest logit."""
        return self.logits.argmax(dim=1)

    @property
    def accuracy(self) -> float:
        """Share of images whose predicted class is the true one."""
        return (self.predictions == self.target).double().mean().item()


def device_of(module: nn.Module) -> torch.device:
    """Where the weights lie; the CPU for a module without any."""
    return next((parameter.device for parameter in module.parameters()), torch.device("cpu"))


def predict(model: AdaptedClassifier, data: ImageDataset, *, batch_size: int = 1024) -> Float[Tensor, "images classes"]:
    """The logits of all images, on the CPU: in evaluation mode, without a graph, where the weights lie.

    The model keeps its mode.

    Raises:
        ValueError: The data set is empty, or the batch size is no positive number.
    """
    if len(data) == 0 or batch_size < 1:
        raise ValueError(f"expected images and a batch size of at least 1, got {len(data)} and {batch_size}")
    device = device_of(model)
    with modes_kept(model), torch.no_grad():
        model.eval()
        starts = range(0, len(data), batch_size)
        rows = (torch.arange(start, min(start + batch_size, len(data))) for start in starts)
        parts = [model(data.batch(index).inputs.to(device)).float().cpu() for index in rows]
    return torch.cat(parts)


def evaluate(model: AdaptedClassifier, data: ImageDataset, *, batch_size: int = 1024) -> Evaluation:
    """Logits, predictions and accuracy on a data set."""
    return Evaluation(predict(model, data, batch_size=batch_size), data.target.cpu())
