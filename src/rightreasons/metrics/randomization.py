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
from jaxtyping import Float, Int
from torch import Tensor, nn

from rightreasons.attribution.perturbation.masking import generator_of
from rightreasons.core import Attribution, Batch, Classifier, Metric
from rightreasons.metrics.heatmaps import checked, finite_rows
from rightreasons.metrics.localization import where_defined
from rightreasons.metrics.similarity import Similarity, check_similarity, compared
from rightreasons.metrics.stability import check_method, method_of
from rightreasons.models.contrast import Contrast

Order = Literal["cascading", "independent", "bottom_up"]
"""From the logits downwards, each layer with all above it; each layer alone; or from the image upwards."""


@dataclass(frozen=True)
class _Sanity(Metric):
    """What the two checks share: a method, and how maps are compared.

    Attributes:
        attribution: The method.
        similarity: How two maps of an image are compared.
        absolute: A map counts as alike as its negative where that is more alike, so the score is |rho|: one that only
            turned its sign is no other map. Without it, -1 would be the best score.
        seed: Of the draws; ``None`` makes fresh ones at each call from torch's global generator.
    """

    higher_is_better: ClassVar[bool] = False
    attribution: Attribution | None = None
    similarity: Similarity = "spearman"
    absolute: bool = True
    seed: int | None = 0

    def __post_init__(self) -> None:
        check_method(self.attribution)
        check_similarity(self.similarity)

    def alike(self, heatmap: Tensor, batch: Batch) -> Callable[[Tensor], Float[Tensor, " batch"]]:
        """A function that says how alike other maps are to these; NaN for one that is not finite."""
        values = checked(heatmap, batch)
        compare = compared(self.similarity, values)

        def score(other: Tensor) -> Tensor:
            other = other.detach().to(values.dtype)
            finite = finite_rows(other)
            other = torch.where(finite.view(-1, 1, 1, 1), other, torch.zeros_like(other))
            found = compare(other)
            if self.absolute:
                found = torch.maximum(found, compare(-other)) if self.similarity == "ssim" else found.abs()
            return where_defined(found.to(values.dtype), finite)

        return score


@dataclass(frozen=True)
class ParameterRandomization(_Sanity):
    """Model-parameter randomization test (MPRT): how alike the heatmap stays when the network's weights are drawn anew.

    Layers are modules with weights of their own. One is drawn anew by its own ``reset_parameters`` (so batch
    normalization forgets its statistics, too), or from a normal distribution of each parameter's own mean and spread
    where it has none or where the weight is computed of other parameters (weight and spectral normalization). The score
    is the mean similarity over the layers; ``curve`` has each. The same classes are explained throughout. The network
    gets its own parameters and buffers back, whatever happens.

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
        # Drawn here, since the global generator goes back after each layer.
        seed = int(torch.randint(2**62, (), generator=generator_of(None))) if self.seed is None else self.seed
        with ExitStack() as cascade:
            for name, module in layers.items():
                with ExitStack() as alone:
                    stack = alone if self.order == "independent" else cascade
                    stack.enter_context(drawn_anew(module, model.network, seed=_seed_of(seed, name)))
                    with torch.no_grad():
                        other = method(model, batch.inputs, batch.target)
                found[name] = alike(other)
        return found


@dataclass(frozen=True)
class RandomLogit(_Sanity):
    """Random-logit test: how alike the heatmaps of the explained class and of a random other class are.

    The other class is as many steps after the explained one for all images of a batch, so that an image's score does
    not depend on its batch; of a contrast the next one that is not contrasted with, NaN where there is none.

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
            steps = int(torch.randint(1, classes, (), generator=generator_of(self.seed)))
            other = method(model, batch.inputs, _class_after(batch.target, steps, model, classes))
        return self.alike(heatmap, batch)(other)


def _class_after(target: Int[Tensor, " batch"], steps: int, model: Classifier, classes: int) -> Int[Tensor, " batch"]:
    """The class so many steps after the target; of a contrast not its other one, which leads itself by nothing."""
    chosen = (target + steps) % classes
    if not isinstance(model, Contrast):
        return chosen
    other = torch.as_tensor(model.other, device=target.device).expand_as(target)
    for _ in range(2):  # past the class contrasted with, and past the target where that comes next
        chosen = torch.where((chosen == other) | (chosen == target), (chosen + 1) % classes, chosen)
    return chosen


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
        twin = _reset(module) if _resets_its_own(module) else _redrawn(module)
    new = {**twin._parameters, **twin._buffers}
    other = {id(old): new[name] for name, old in _held(module).items() if name in new}
    kept = [(part, name, old) for part in network.modules() for name, old in _held(part).items() if id(old) in other]
    computed = _plain_tensors(module)
    try:
        for part, name, old in kept:
            _place_of(part, name)[name] = other[id(old)]
        yield
    finally:
        for part, name, old in kept:
            _place_of(part, name)[name] = old
        vars(module).update(computed)


def _held(module: nn.Module) -> dict[str, Tensor]:
    """A module's own parameters and buffers."""
    held: dict[str, Tensor | None] = {**module._parameters, **module._buffers}
    return {name: values for name, values in held.items() if values is not None}


def _place_of(module: nn.Module, name: str) -> MutableMapping[str, Any]:
    return module._parameters if name in module._parameters else module._buffers


def _plain_tensors(module: nn.Module) -> dict[str, Tensor]:
    """Tensors that are neither parameters nor buffers: a weight computed at each pass, or one kept of the last."""
    return {name: values for name, values in vars(module).items() if isinstance(values, Tensor)}


def _resets_its_own(module: nn.Module) -> bool:
    """Whether ``reset_parameters`` draws the module's own parameters.

    Under weight or spectral normalization, or pruning, it writes the weight that is computed of them at each pass.
    """
    computed = any(name + end in module._parameters for name in _plain_tensors(module) for end in ("_g", "_orig"))
    return callable(getattr(module, "reset_parameters", None)) and not computed


def _reset(module: nn.Module) -> nn.Module:
    # Torch copies no tensor that is on a graph, which one kept of the last pass is.
    kept = [values for part in module.modules() for values in _plain_tensors(part).values()]
    twin = copy.deepcopy(module, {id(values): values.detach().clone() for values in kept})
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
