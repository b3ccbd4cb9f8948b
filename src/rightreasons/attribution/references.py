"""Images to start from: the references of a method that averages over several."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor

from rightreasons.attribution.forward import check_max_batch

References = Float[Tensor, "references channels height width"] | Float[Tensor, "references tokens features"]
"""Images, or embeddings of tokens."""


def check_references(references: Tensor, max_batch: int | None) -> None:
    """Refuse an empty background set or batch.

    Raises:
        ValueError: One of both.
    """
    if not isinstance(references, Tensor) or len(references) == 0:
        raise ValueError("expected references to be at least one image, (R, C, H, W), such as some training images")
    check_max_batch(max_batch)


def reference_images(references: Tensor, inputs: Tensor) -> Tensor:
    """The references, where and as exact as the images are; embeddings of tokens, (R, T, D), as methods see them.

    Raises:
        ValueError: They have another shape.
    """
    given = references
    if given.ndim == 3 and inputs.ndim == 4 and inputs.shape[2] == 1:
        given = given.mT.unsqueeze(2)
    elif given.ndim == 4 and given.shape[2] == 1 and inputs.ndim == 3:
        given = given.squeeze(2).mT
    if given.shape[1:] != inputs.shape[1:]:
        tokens = inputs.ndim == 4 and references.ndim == 3
        expected = inputs.squeeze(2).mT.shape if tokens and inputs.shape[2] == 1 else inputs.shape
        raise ValueError(
            f"expected references of the {'texts' if tokens else 'images'}' shape {tuple(expected[1:])}, "
            f"got {tuple(references.shape[1:])}"
        )
    return given.to(inputs)
