"""Sanity checks: a heatmap that stays the same when the network or the class is another says nothing about either.

Both run the method itself; ``evaluate_attributions`` fills it in. Lower similarity is better.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable, Iterator, Mapping, MutableMapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor, nn

from rightreasons.core import Attribution, Batch, Classifier, Metric
from rightreasons.metrics.localization import where_defined
from rightreasons.metrics.similarity import Similarity, check_similarity, compared
from rightreasons.metrics.stability import check_maps, check_method, method_of

Order = Literal["cascading", "independent", "bottom_up"]
"""From the logits downwards, each layer with all above it; each layer alone; or from the image upwards."""


@dataclass(frozen=True)
class _Sanity(Metric):
    """What the two checks share: a method, and how maps are compared.

    Attributes:
        attribution: The method.
        similarity: How two maps of an image are compared.
        absolute: Compare the absolute values of the maps, so that a map that only turned its sign counts as the same.
        seed: Of the draws.
    """

    higher_is_better: ClassVar[bool] = False
    attribution: Attribution | None = None
    similarity: Similarity = "spearman"
    absolute: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        check_method(self.attribution)
        check_similarity(self.similarity)

    def alike(self, heatmap: Tensor, batch: Batch) -> Callable[[Tensor], Float[Tensor, " batch"]]:
        """A function that says how alike other maps are to these; NaN for one that is not finite."""
        values = check_maps(heatmap, batch).view(heatmap.shape)
        compare = compared(self.similarity, values.abs() if self.absolute else values)

        def score(other: Tensor) -> Tensor:
            other = other.detach().to(values.dtype)
            finite = torch.isfinite(other).all(dim=3).all(dim=2)[:, 0]
            other = torch.where(finite.view(-1, 1, 1, 1), other, torch.zeros_like(other))
            return where_defined(compare(other.abs() if self.absolute else other).to(values.dtype), finite)

        return score


@dataclass(frozen=True)
class ParameterRandomization(_Sanity):
    """Model-parameter randomization test (MPRT): how alike the heatmap stays when the network's weights are drawn anew.

    Layers are modules with weights of their own. One is drawn anew by its own ``reset_parameters`` (so batch
    normalization forgets its statistics, too), or from a normal distribution of each parameter's own mean and spread
    where it has none. The score is the mean similarity over the layers; ``curve`` has each. The same classes are
    explained throughout. The network gets its own parameters and buffers back, whatever happens.

    NaN where no layer gives a comparison (a constant map has no ranks).

    Source: Adebayo et al. 2018, arXiv:1810.03292, section 3. They show curves; the mean over layers as one score is
    quantus's.

    Attributes:
        order: ``cascading``, ``independent`` or ``bottom_up``.
    """

    order: Order = "cascading"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.order not in get_args(Order):
            raise ValueError(f"expected order to be one of {', '.join(get_args(Order))}, got {self.order!r}")

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image."""
        return torch.stack(list(self.curve(model, batch, heatmap).values())).nanmean(dim=0)

    def curve(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Mapping[str, Float[Tensor, " batch"]]:
        """The similarity of each image's maps after each layer, by the layer's name, in the order they are drawn anew.

        Raises:
            ValueError: There is no method, or no layer with weights.
        """
        method = method_of(self, self.attribution)
        alike = self.alike(heatmap, batch)
        layers = layers_upwards(model, batch.inputs[:1])
        if self.order != "bottom_up":
            layers = dict(reversed(layers.items()))
        if not layers:
            raise ValueError("expected a network with weights, got one without any")
        found = {}
        with ExitStack() as cascade:
            for name, module in layers.items():
                with ExitStack() as alone:
                    stack = alone if self.order == "independent" else cascade
                    stack.enter_context(drawn_anew(module, model.network, seed=_seed_of(self.seed, name)))
                    with torch.no_grad():
                        other = method(model, batch.inputs, batch.target)
                found[name] = alike(other)
        return found


@dataclass(frozen=True)
class RandomLogit(_Sanity):
    """Random-logit test: how alike the heatmaps of the explained class and of a random other class are.

    The other class is as many steps after the explained one for all images of a batch, so that an image's score does
    not depend on its batch.

    Source: Sixt et al. 2020, arXiv:1912.09818, section 5.
    """

    def __call__(
        self, model: Classifier, batch: Batch, heatmap: Float[Tensor, "batch 1 height width"]
    ) -> Float[Tensor, " batch"]:
        """One score an image.

        Raises:
            ValueError: There is no method, or the model has one class only.
        """
        method = method_of(self, self.attribution)
        with torch.no_grad():
            first = torch.zeros(1, dtype=torch.long, device=batch.inputs.device)
            classes = model.rows(first)(batch.inputs[:1]).shape[1]
            if classes < 2:
                raise ValueError("expected a model of at least two classes, got one")
            steps = int(torch.randint(1, classes, (), generator=torch.Generator().manual_seed(self.seed)))
            other = method(model, batch.inputs, (batch.target + steps) % classes)
        return self.alike(heatmap, batch)(other)


def layers_upwards(model: Classifier, inputs: Float[Tensor, "1 channels height width"]) -> dict[str, nn.Module]:
    """The modules with weights of their own by name, as a pass meets them, from the image to the logits.

    A module that the pass does not call (its weights are used by another one) stands behind the one registered before
    it. Weights that two modules share belong to the first.
    """
    modules = dict(model.network.named_modules())
    called: dict[nn.Module, int] = {}

    def note(module: nn.Module, args: object) -> None:
        called.setdefault(module, len(called))

    handles = [module.register_forward_pre_hook(note) for module in modules.values()]
    try:
        with torch.no_grad():
            model.rows(torch.zeros(1, dtype=torch.long, device=inputs.device))(inputs)
    finally:
        for handle in handles:
            handle.remove()
    owners, seen, last = [], set[int](), -1
    for position, (name, module) in enumerate(modules.items()):
        last = called.get(module, last)
        own = [p for p in module.parameters(recurse=False) if id(p) not in seen]
        seen.update(map(id, own))
        if own:
            owners.append((last, position, name or "(root)", module))
    return {name: module for _, _, name, module in sorted(owners, key=lambda owner: owner[:2])}


@contextmanager
def drawn_anew(module: nn.Module, network: nn.Module, *, seed: int) -> Iterator[None]:
    """Let a module of the network have other weights of its own during the passes inside; its children keep theirs.

    Parameters and buffers are exchanged, not overwritten, wherever the network holds them: an optimizer, their
    ``.grad`` and graphs that saved them stay valid.
    """
    with _seeded(module, seed):
        twin = _reset(module) if callable(getattr(module, "reset_parameters", None)) else _redrawn(module)
    new = {**twin._parameters, **twin._buffers}
    other = {id(old): new[name] for name, old in _held(module).items() if name in new}
    kept = [(part, name, old) for part in network.modules() for name, old in _held(part).items() if id(old) in other]
    try:
        for part, name, old in kept:
            _place_of(part, name)[name] = other[id(old)]
        yield
    finally:
        for part, name, old in kept:
            _place_of(part, name)[name] = old


def _held(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and buffers."""
    held: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    return {name: values for name, values in held.items() if values is not None}


def _place_of(module: nn.Module, name: str) -> MutableMapping[str, Any]:
    return module._parameters if name in module._parameters else module._buffers


def _reset(module: nn.Module) -> nn.Module:
    twin = copy.deepcopy(module)
    twin.reset_parameters()  # type: ignore[operator]
    return twin


@torch.no_grad()
def _redrawn(module: nn.Module) -> nn.Module:
    """A stand-in with parameters from a normal of each one's mean and spread (its size where all numbers are equal)."""
    twin = nn.Module()
    for name, values in module._parameters.items():
        if values is None:
            continue
        whole = values.detach().double()
        spread = whole.std(correction=0)
        spread = torch.where(spread > 0, spread, whole.mean().abs())
        drawn = (whole.mean() + spread * torch.randn_like(whole)).to(values.dtype)
        twin.register_parameter(name, nn.Parameter(drawn, requires_grad=values.requires_grad))
    return twin


@contextmanager
def _seeded(module: nn.Module, seed: int) -> Iterator[None]:
    """Draws of torch's own generators under this seed; they go on as before afterwards."""
    devices = {p.device for p in module.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(devices=list(devices)):
        torch.manual_seed(seed)
        yield


def _seed_of(seed: int, layer: str) -> int:
    """A seed of its own for each layer, so that a layer is drawn alike in every order."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{layer}".encode()).digest()[:7], "big")
