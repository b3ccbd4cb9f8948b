"""What attention blocks weigh by, recorded while a network runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import BadModel
from rightreasons.models.blocks.block import AttentionBlock
from rightreasons.models.blocks.position_attention import PositionAttention

Weights = Mapping[str, Float[Tensor, "batch ..."]]


@dataclass(frozen=True, eq=False)
class BlockAttention:
    """What an attention block weighed by in one pass, off the graph.

    Attributes:
        kind: Class of the block.
        size: Height and width of the maps that it met.
        weights: By name, see :meth:`AttentionBlock.attention`.
        scale: The learned scale of position attention; ``None`` for other blocks.
        change: Euclidean length of what the block did to the features of an image, as a share of theirs; NaN for
            features of zeros that stay so, infinite for those that do not.
    """

    kind: str
    size: tuple[int, int]
    weights: Weights
    scale: float | None
    change: Float[Tensor, " batch"]


@contextmanager
def attended(network: nn.Module) -> Iterator[dict[str, BlockAttention]]:
    """Fill a dictionary with what all attention blocks inside weigh by, during the pass inside.

    The weights are those that the block's own forward pass asks for and uses; its output is as ever.

    Raises:
        BadModel: A block runs more than once in a pass, or weighs by something else than its ``attention``.
    """
    found: dict[str, BlockAttention] = {}
    with ExitStack() as stack:
        for name, block in network.named_modules():
            if isinstance(block, AttentionBlock):
                stack.enter_context(_watched(block, name, found))
        yield found


@contextmanager
def _watched(block: AttentionBlock, name: str, found: dict[str, BlockAttention]) -> Iterator[None]:
    asked: list[Weights] = []
    own, before = block.attention, vars(block).get("attention")
    # In front of the class's method, for this block alone.
    vars(block)["attention"] = _noting(own, asked)
    handle = block.register_forward_hook(_telling(name, asked, found))
    try:
        yield
    finally:
        handle.remove()
        del vars(block)["attention"]
        if before is not None:
            vars(block)["attention"] = before


def _noting(attention: Callable[[Tensor], Weights], asked: list[Weights]) -> Callable[[Tensor], Weights]:
    def noted(features: Tensor) -> Weights:
        weights = attention(features)
        asked.append(weights)
        return weights

    return noted


def _telling(
    name: str, asked: list[Weights], found: dict[str, BlockAttention]
) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
    def tell(block: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        if name in found:
            raise BadModel(f"attention block {name!r} runs more than once in a pass, so its attention is not defined")
        if len(asked) != 1:
            raise BadModel(
                f"expected {type(block).__name__} {name!r} to ask its attention(features) once in a pass, "
                f"got {len(asked)} times: that is what it is taken to weigh by"
            )
        features = args[0].detach()
        lengths = [values.flatten(1).norm(dim=1) for values in (output.detach() - features, features)]
        found[name] = BlockAttention(
            kind=type(block).__name__,
            size=(features.shape[2], features.shape[3]),
            weights={key: values.detach() for key, values in asked[0].items()},
            scale=block.scale.item() if isinstance(block, PositionAttention) else None,
            change=lengths[0] / lengths[1],
        )

    return tell
