"""A network of images and text as a classifier of images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from rightreasons.models.classifier import AdaptedClassifier


def condition(model: AdaptedClassifier, text: Tensor | Sequence[Tensor] | Mapping[str, Tensor]) -> AdaptedClassifier:
    """A classifier of the images of one batch, with the text of each beside it.

    The network is called as ``network(images, text)``, ``network(images, *text)`` or ``network(images, **text)``.
    Methods that show a model copies or parts of the batch take the text along, see :meth:`AdaptedClassifier.rows`.

    Args:
        model: An adapted network of images and text.
        text: One row an image: a tensor, several, or several by the names of the network's arguments.

    Raises:
        ValueError: No tensor, or not the same number of rows in each.
    """
    beside = dict(text) if isinstance(text, Mapping) else (text,) if isinstance(text, Tensor) else tuple(text)
    tensors = list(beside.values()) if isinstance(beside, Mapping) else list(beside)
    if not tensors or not all(isinstance(values, Tensor) and values.ndim for values in tensors):
        raise ValueError("expected text as one tensor or several, a row an image; tokenize it first")
    if len({len(values) for values in tensors}) > 1:
        raise ValueError(f"expected as many rows in each tensor, got {', '.join(str(len(v)) for v in tensors)}")
    return model.besides(beside)
