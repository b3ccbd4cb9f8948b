"""A network of tokens as a classifier of their embeddings."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from rightreasons.core import BadModel, Trace
from rightreasons.core.hooks import captured, find_layer, modes_kept, substituted
from rightreasons.models.adapters import adapt
from rightreasons.models.classifier import AdaptedClassifier, logits_in


@dataclass(frozen=True, eq=False)
class Embedded:
    """A classifier of the token embeddings of one batch of texts; made by :func:`embed`.

    Attributes:
        model: The network of tokens.
        call: What the network is called with, by the names of its arguments; or the tokens alone.
        embedding: The layer whose output the embeddings stand for.
        inputs: The embeddings of these texts, off the graph.
        turn: Which of the layer's calls in a pass meets the tokens, from 0.
    """

    model: AdaptedClassifier
    call: Tensor | Mapping[str, Tensor]
    embedding: str
    inputs: Float[Tensor, "batch tokens features"]
    turn: int = 0

    @property
    def layer(self) -> str | None:
        """The layer that is explained."""
        return self.model.layer

    @property
    def network(self) -> nn.Module:
        """The user's own network inside."""
        return self.model.network

    @property
    def tokens(self) -> Int[Tensor, "batch tokens"]:
        """The token numbers of these texts."""
        return _ids(self.call)

    def __call__(self, inputs: Float[Tensor, "batch tokens features"]) -> Float[Tensor, "batch classes"]:
        """The logits of texts whose tokens have these embeddings."""
        if len(inputs) != len(self.tokens):
            raise BadModel(
                f"expected the embeddings of {len(self.tokens)} texts, got {len(inputs)}: the classifier was made for "
                "another batch"
            )
        turns = itertools.count()

        def hand_on(output: Tensor) -> Tensor:
            # A copy, so that an in-place operation behind the layer cannot alter the caller's tensor.
            return inputs.clone() if next(turns) == self.turn else output

        with substituted(self.network, self.embedding, hand_on):
            return _run(self.network, self.call)

    def trace(self, inputs: Tensor, layers: Sequence[str] = ()) -> Trace:
        """One pass on the graph, with the activations of these layers."""
        leaf = inputs if inputs.requires_grad else inputs.detach().requires_grad_(True)
        with captured(self.network, layers) as activations:
            logits = self(leaf)
        missing = [name for name in layers if name not in activations]
        if missing:
            raise BadModel(f"layer {missing[0]!r} does not run in a pass, so it has nothing to explain; choose another")
        return Trace(leaf, logits, activations)

    def rows(self, index: Int[Tensor, " rows"]) -> Embedded:
        """The classifier for these texts; masks and whatever else the network takes go along."""
        if isinstance(self.call, Tensor):
            call: Tensor | Mapping[str, Tensor] = self.call[index.to(self.call.device)]
        else:
            call = {name: values[index.to(values.device)] for name, values in self.call.items()}
        return replace(self, call=call, inputs=self.inputs[index.to(self.inputs.device)])


def embed(
    model: nn.Module, tokens: Int[Tensor, "batch tokens"] | Mapping[str, Tensor], *, embedding: str | None = None
) -> Embedded:
    """A classifier of token embeddings (B, T, D), which every method explains by one value a token (B, T).

    The network runs as ever, with its masks and positions, but that its embedding layer hands on what it is given.
    So ``embed(network, tokens)`` gives ``model``, and ``attribution(model, model.inputs, target)`` the values. Where
    the layer embeds other numbers, too (a second text, the same tokens shifted), those calls run as ever: what they
    add is held fixed and not explained.

    Padding that the network masks gets exactly 0 from gradients, relevance propagation, attention maps and whatever
    hides one token at a time. Methods that draw random masks (``RISE``, ``LIME``, ``KernelSHAP``) or optimize one give
    it a small value of chance, since they estimate; class activation maps show what a layer holds there. Where a
    normalization follows the embedding at once, as in BERT, a plain gradient (``Saliency``) sums to about 0 over a
    token's features: take a method that multiplies with the input, or the size of its ``per_channel``.

    Args:
        model: A network of tokens that returns logits, or what ``adapt`` made of it.
        tokens: Token numbers, (B, T); or all that the network is called with by name, a row a text, as a tokenizer of
            Hugging Face returns it. Of a mapping ``input_ids`` are the tokens, else its first entry.
        embedding: Name of the embedding layer; ``None`` finds the first ``nn.Embedding`` that meets the tokens.

    Raises:
        ValueError: The tokens are no whole numbers (B, T), or other tensors have other rows.
        BadModel: No embedding layer meets the tokens, it meets them twice in a pass, or the network has other logits
            when it is given these embeddings.
    """
    call: Tensor | Mapping[str, Tensor] = dict(tokens) if isinstance(tokens, Mapping) else tokens
    _check(call)
    adapted = model if isinstance(model, AdaptedClassifier) else adapt(model)
    return _found(adapted, call, embedding)


def _ids(call: Tensor | Mapping[str, Tensor]) -> Int[Tensor, "batch tokens"]:
    if isinstance(call, Tensor):
        return call
    return call["input_ids"] if "input_ids" in call else next(iter(call.values()))


def _check(call: Tensor | Mapping[str, Tensor]) -> None:
    values = [call] if isinstance(call, Tensor) else list(call.values())
    if not values or not all(isinstance(v, Tensor) and v.ndim for v in values):
        raise ValueError("expected tokens as a tensor, or tensors by name; ask the tokenizer for return_tensors='pt'")
    ids = _ids(call)
    if ids.ndim != 2 or ids.is_floating_point() or ids.dtype == torch.bool:
        raise ValueError(f"expected token numbers (B, T), got {ids.dtype} of shape {tuple(ids.shape)}")
    if any(len(v) != len(ids) for v in values):
        raise ValueError(f"expected {len(ids)} rows in each tensor, got {', '.join(str(len(v)) for v in values)}")


def _run(network: nn.Module, call: Tensor | Mapping[str, Tensor]) -> Float[Tensor, "batch classes"]:
    return logits_in(network(call) if isinstance(call, Tensor) else network(**call))


def _found(model: AdaptedClassifier, call: Tensor | Mapping[str, Tensor], named: str | None) -> Embedded:
    """The classifier of what the embedding layer that meets the tokens makes of them."""
    network = model.network
    layers = [n for n, m in network.named_modules() if isinstance(m, nn.Embedding)] if named is None else [named]
    if not layers:
        raise BadModel("the network has no nn.Embedding; name the layer that embeds its tokens")
    with torch.no_grad(), modes_kept(network):
        network.eval()
        with _met(network, layers, _ids(call)) as met:
            logits = _run(network, call)
        if not met:
            raise BadModel(f"no layer of {', '.join(layers)} is called with these token numbers; name the embedding")
        name, values, turn = met[0]
        if [other for other, _, _ in met].count(name) > 1:
            raise BadModel(f"layer {name!r} embeds these tokens more than once in a pass; name a layer that runs once")
        if values.ndim != 3:
            raise BadModel(f"layer {name!r} gives shape {tuple(values.shape)}, expected embeddings (B, T, D)")
        found = Embedded(model, call, name, values, turn)
        if not torch.allclose(found(values), logits, rtol=1e-4, atol=1e-5, equal_nan=True):
            raise BadModel(f"given what layer {name!r} makes of the tokens, the network has other logits than on them")
    return found


@contextmanager
def _met(network: nn.Module, layers: Sequence[str], ids: Tensor) -> Iterator[list[tuple[str, Tensor, int]]]:
    """Fill a list with each call of these layers that meets the tokens: the layer, its output, which of its calls."""
    met: list[tuple[str, Tensor, int]] = []

    def keeping(name: str) -> Callable[[nn.Module, Any, Any], None]:
        turns = itertools.count()

        def hook(module: nn.Module, args: Any, output: Any) -> None:
            turn, seen = next(turns), args[0] if args else None
            if isinstance(seen, Tensor) and seen.shape == ids.shape and bool((seen == ids).all()):
                met.append((name, output.detach(), turn))

        return hook

    handles = [find_layer(network, name).register_forward_hook(keeping(name)) for name in layers]
    try:
        yield met
    finally:
        for handle in handles:
            handle.remove()
