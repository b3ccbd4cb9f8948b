"""Layer-wise relevance propagation."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from jaxtyping import Int
from torch import Tensor

from rightreasons.attribution.lrp.composites import COMPOSITES, Composite, DeepTaylorBox, EpsilonPlus
from rightreasons.attribution.lrp.conservation import Conservation, Ledger
from rightreasons.attribution.lrp.rules import RULES, Rule
from rightreasons.attribution.lrp.sweep import Choice, swept
from rightreasons.attribution.operators import eagerly
from rightreasons.attribution.tape.tape import Tape, watching
from rightreasons.core import Attribution, BadModel, Catalogue, Classifier
from rightreasons.core.protocols import Inputs

T = TypeVar("T")


@dataclass(frozen=True)
class LRP(Attribution):
    """Layer-wise relevance propagation: the logit handed back, operator by operator, in proportion to contributions.

    It works by operator, not by module: functional calls, residual sums, modules used twice and operations in place
    are all seen, BatchNorm is folded exactly into the layer ahead of it, and an operator without a rule is refused. All
    is plain tensor algebra, so a loss on the map has its right gradient. The method runs a pass of its own (a recorded
    one cannot be used again) without mixed precision, and refuses BatchNorm in training mode.

    Source: Bach et al. 2015, doi:10.1371/journal.pone.0130140; operators of transformers after Achtibat et al. 2024
    (AttnLRP), arXiv:2402.05602.

    Args:
        composite: Which rule which operator gets: a name, ``{"name": ..., setting: ...}`` or a :class:`Composite`.
        layers: Rules of single layers, by layer name: ``{"conv1": "z_box"}``; each a name, a mapping or a rule.
        check: Raise where an operator does not conserve relevance.
        tolerance: How much may go missing at one operator, as a share of the relevance that passes it.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    composite: str | Mapping[str, Any] | Composite = field(default_factory=EpsilonPlus)
    layers: Mapping[str, str | Mapping[str, Any] | Rule] = field(default_factory=dict, hash=False)
    check: bool = False
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        object.__setattr__(self, "composite", named(COMPOSITES, self.composite))
        object.__setattr__(self, "layers", {name: named(RULES, rule) for name, rule in self.layers.items()})
        if self.tolerance <= 0:
            raise ValueError(f"expected tolerance above 0, got {self.tolerance}")

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The relevance of each pixel and channel, (B, C, H, W)."""
        ledger = Ledger() if self.check else None
        heatmap = self._relevance(model, inputs, target, graph=graph, ledger=ledger)
        if ledger is not None:
            ledger.check(self.tolerance)
        return heatmap

    def conservation(
        self,
        model: Classifier,
        inputs: Inputs,
        target: Int[Tensor, " batch"],
    ) -> Conservation:
        """Where the logits of a batch end up: in the pixels, in biases and stabilizers, or nowhere."""
        ledger = Ledger()
        with torch.no_grad():
            heatmap = self._relevance(model, inputs, target, graph=False, ledger=ledger)
        return ledger.summary(float(heatmap.sum()))

    def _relevance(
        self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool, ledger: Ledger | None
    ) -> Tensor:
        composite, layers = self.composite, self.layers
        if not isinstance(composite, Composite):
            raise RuntimeError("a composite that was not made")
        choice = Choice(composite, {name: rule for name, rule in layers.items() if isinstance(rule, Rule)})
        with torch.set_grad_enabled(graph), eagerly(model.network), _full_precision(inputs):
            tape = Tape(inputs, graph=graph)
            with watching(model.network, tape, list(layers)), tape:
                logits = model(tape.start)
            place = tape.place(logits)
            if place is None:
                raise BadModel("the logits do not hang on the image by operators that could be followed")
            return swept(tape.finished(place), choice, target, ledger=ledger)


@dataclass(frozen=True)
class DeepTaylor(Attribution):
    """Deep Taylor decomposition: LRP with z+ for all layers and the box rule for what reads the image.

    A logit below zero gives a map below zero; the paper explains logits above zero only.

    Source: Montavon et al. 2017, arXiv:1512.02479, sections 3 and 4.

    Args:
        low: Lowest value of a pixel.
        high: Highest.
        check: Raise where an operator does not conserve relevance.
        tolerance: See :class:`LRP`.
    """

    differentiable: ClassVar[bool] = True
    signed: ClassVar[bool] = True

    low: float = 0.0
    high: float = 1.0
    check: bool = False
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        self._propagation()

    def attribute(self, model: Classifier, inputs: Tensor, target: Tensor, *, graph: bool) -> Tensor:
        """The relevance of each pixel and channel, (B, C, H, W)."""
        return self._propagation().attribute(model, inputs, target, graph=graph)

    def _propagation(self) -> LRP:
        return LRP(DeepTaylorBox(self.low, self.high), check=self.check, tolerance=self.tolerance)


def named(family: Catalogue[T], choice: str | Mapping[str, Any] | T) -> T:
    """A member of a catalogue: by name, by name and settings, or ready made.

    Raises:
        ValueError: There is none of that name, or it has no such setting.
    """
    if isinstance(choice, str):
        return family[choice]()
    if isinstance(choice, Mapping):
        settings = dict(choice)
        name = settings.pop("name", None)
        if not isinstance(name, str):
            raise ValueError(f"expected a name among the settings of a {family.family}, got {dict(choice)}")
        try:
            return family[name](**settings)
        except TypeError as error:
            raise ValueError(f"{family.family} {name!r}: {error}") from error
    family.name_of(choice)
    return choice


def _full_precision(inputs: Tensor) -> torch.autocast:
    """Without mixed precision, whose rounding the division by small sums does not bear."""
    return torch.autocast(inputs.device.type, enabled=False)
