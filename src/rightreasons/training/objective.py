"""What is minimized: the task loss plus weighted explanation losses, with named parts."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace
from typing import cast

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rightreasons.attribution.forward import autocast, channels_last
from rightreasons.core import Attribution, Batch, Classifier, ExplanationLoss, MissingAnnotation
from rightreasons.core.hooks import modes_kept
from rightreasons.models import AdaptedClassifier, record
from rightreasons.training.weights import Balance, Target, Weighing, Weight, share_at_irrelevant

Task = Callable[[Float[Tensor, "batch classes"], Int[Tensor, " batch"]], Float[Tensor, ""]]


class GroupTask(nn.Module, ABC):
    """A task loss that is told the group of each image, too: ``task(logits, target, group)``.

    Attributes:
        name: Under which it stands among the parts.
    """

    name: str

    @abstractmethod
    def forward(
        self, logits: Float[Tensor, "batch classes"], target: Int[Tensor, " batch"], group: Int[Tensor, " batch"]
    ) -> Float[Tensor, ""]:
        """The loss."""


@dataclass(frozen=True)
class Term:
    """An explanation loss and its weight: a number, or a rule by which it is found in training.

    A weight of 0 measures the loss without an effect on the weights.

    Raises:
        ValueError: The weight is negative or not finite, or a target is set for a loss that is not about a heatmap.
    """

    loss: ExplanationLoss
    weight: Weight = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.loss, ExplanationLoss):
            raise ValueError(f"expected an explanation loss, got {type(self.loss).__name__}")
        if isinstance(self.weight, Target) and self.loss.attribution is None:
            raise ValueError(
                f"{type(self.loss).__name__} is not about a heatmap, so there is no share to bring to a target; "
                "give it a number, or Balance()"
            )
        if isinstance(self.weight, Balance | Target):
            return
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"expected a finite weight of at least 0, got {self.weight}")


@dataclass(frozen=True)
class Objective:
    """``task + sum of weight * loss``; called, it returns the named parts.

    Attributes:
        terms: Explanation losses by the name under which they are logged.
        task: The loss on logits and classes, or also on groups.

    Raises:
        ValueError: A name is no identifier or is taken by the total or by the task, or a value is no ``Term``.
    """

    terms: Mapping[str, Term] = field(default_factory=dict)
    task: Task | GroupTask = F.cross_entropy

    def __post_init__(self) -> None:
        for name, term in self.terms.items():
            if not isinstance(term, Term):
                raise ValueError(f"expected a Term under {name!r}, got {type(term).__name__}; write Term(loss, weight)")
            if not name.isidentifier() or name in ("loss", self.task_name):
                raise ValueError(
                    f"expected an identifier other than 'loss' and {self.task_name!r} as a term's name, got {name!r}"
                )
        object.__setattr__(self, "terms", dict(self.terms))

    @property
    def task_name(self) -> str:
        """The name of the task loss among the parts."""
        if isinstance(self.task, GroupTask):
            return self.task.name
        return getattr(self.task, "__name__", type(self.task).__name__)

    def __call__(
        self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The total under ``loss``, then the task and each term, unweighted, under their names.

        Raises:
            ValueError: A weight is found in training: :class:`TrainingStep` knows it.
        """
        found = [name for name, term in self.terms.items() if isinstance(term.weight, Balance | Target)]
        if found:
            raise ValueError(f"the weight of {found[0]!r} is found in training; call a TrainingStep or fit")
        parts = self.parts(model, batch, logits)
        weights = {name: term.weight for name, term in self.terms.items() if isinstance(term.weight, int | float)}
        return {"loss": self.total(parts, weights), **parts}

    def parts(
        self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"], *, drawn: int = 0
    ) -> dict[str, Float[Tensor, ""]]:
        """The task and each term, unweighted, under their names.

        Args:
            model: The classifier.
            batch: The images.
            logits: Its answers.
            drawn: How many images at the end are there for the terms alone.

        Raises:
            MissingAnnotation: The task asks for groups and the batch has none.
        """
        own = len(batch) - drawn
        task = self._task(batch[:own], logits[:own]) if drawn else self._task(batch, logits)
        return {self.task_name: task, **{n: term.loss(model, batch, logits) for n, term in self.terms.items()}}

    def _task(self, batch: Batch, logits: Tensor) -> Tensor:
        if not isinstance(self.task, GroupTask):
            return self.task(logits, batch.target)
        if batch.group is None:
            raise MissingAnnotation(f"{self.task.name} needs the group of each image; wrap the data in Grouped(data)")
        value: Tensor = self.task(logits, batch.target, batch.group)
        return value

    def total(self, parts: Mapping[str, Float[Tensor, ""]], weights: Mapping[str, float | Tensor]) -> Float[Tensor, ""]:
        """The task plus the terms at these weights."""
        total = parts[self.task_name]
        for name in self.terms:
            total = total + weights[name] * parts[name]
        return total

    def modules(self) -> dict[str, nn.Module]:
        """The modules that losses hold in their fields (a learned imputation), by a name made of term and field."""
        found = {f"{name}_{path}": m for name, term in self.terms.items() for path, m in _modules_in(term.loss)}
        return found | ({"task": self.task} if isinstance(self.task, nn.Module) else {})

    def explains(self) -> bool:
        """Whether a term is about a heatmap, so that the recorded pass must reach back to the images."""
        losses = (term.loss for term in self.terms.values())
        return any(loss.attribution is not None or loss.differentiates for loss in losses)

    def layers(self, model: Classifier) -> tuple[str, ...]:
        """The layers whose activations the terms will ask for."""
        names: list[str | None] = []
        for term in self.terms.values():
            names += term.loss.tapped(model)
            if term.loss.attribution is not None:
                names += _layers_of(term.loss.attribution, model)
        return tuple(dict.fromkeys(name for name in names if name is not None))


def _layers_of(attribution: Attribution, model: Classifier) -> list[str | None]:
    """The layers that it explains: those that have any have a field for it, or for several."""
    names: set[str] = {item.name for item in fields(attribution)} if is_dataclass(attribution) else set()
    if "layer" in names:
        return [attribution.layer or model.layer]
    several = getattr(attribution, "layers", ()) if "layers" in names else ()
    # Relevance propagation has rules by layer, and takes a pass of its own.
    return list(several) if isinstance(several, tuple) else []


def _modules_in(method: object) -> Iterator[tuple[str, nn.Module]]:
    """The modules in a dataclass's fields and in those of the dataclasses it holds."""
    for item in fields(method):  # type: ignore[arg-type]
        value = getattr(method, item.name)
        if isinstance(value, nn.Module):
            yield item.name, value
        elif is_dataclass(value) and not isinstance(value, type):
            yield from ((f"{item.name}_{path}", module) for path, module in _modules_in(value))


class TrainingStep(nn.Module):
    """A batch in, the parts of the loss out: classifier, task loss and explanation losses as one module.

    Accelerate prepares this module as a whole, so that mixed precision covers the explanations too and the inner
    ``torch.autograd.grad`` of an attribution happens inside the forward pass of ``DistributedDataParallel``, before its
    reducer is armed. The one forward pass is recorded: attributions on it cost no pass of their own.

    Attributes:
        model: The classifier.
        modules_of_losses: Modules found in the losses, trained and synchronized along.
    """

    def __init__(self, model: AdaptedClassifier, objective: Objective, *, bfloat16: bool = False) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.halved = bfloat16
        self.channels_last = False
        self.modules_of_losses = nn.ModuleDict(objective.modules())
        rules = {name: term.weight for name, term in objective.terms.items()}
        self.weighings = nn.ModuleDict(
            {name: Weighing(rule) for name, rule in rules.items() if isinstance(rule, Balance | Target)}
        )
        self._layers = objective.layers(model)
        self._explains = objective.explains()

    def lay_out(self, inputs: Float[Tensor, "images channels height width"]) -> None:
        """In bfloat16 take channels last in memory, which convolutions are fastest in, if the network's pass can.

        A network that calls ``view`` on its maps cannot.

        Args:
            inputs: Some images, of which an evaluation pass is made.
        """
        if not self.halved or inputs.ndim != 4:
            return
        try:
            with torch.no_grad(), modes_kept(self.model):
                self.model.eval()(channels_last(inputs))
        except RuntimeError as error:
            if "view size is not compatible" not in str(error):
                raise
            return
        self.channels_last = True

    def forward(self, batch: Batch, drawn: int = 0) -> dict[str, Float[Tensor, ""]]:
        """The total under ``loss``, the unweighted parts under their names, and weights that are found in training.

        The last ``drawn`` images are there for the explanation losses alone; the task's loss does not count them.
        """
        if self.channels_last:
            batch = replace(batch, inputs=channels_last(batch.inputs))
        with autocast(batch.inputs, bfloat16=self.halved):
            return self._parts(batch, drawn)

    def _parts(self, batch: Batch, drawn: int) -> dict[str, Float[Tensor, ""]]:
        if self._explains or self._layers:
            # A tensor of its own: the caller's is left alone, and every heatmap hangs on this one.
            inputs = batch.inputs.detach().requires_grad_(self._explains)
            model: Classifier = record(self.model, inputs, self._layers)
            batch = replace(batch, inputs=inputs)
        else:
            model = self.model
        parts = self.objective.parts(model, batch, model(batch.inputs), drawn=drawn)
        weights = self._weights(parts, model, batch)
        found = {f"{name}_weight": torch.as_tensor(weights[name]).detach() for name in self.weighings}
        for name, weighing in self.weighings.items():
            if isinstance(weighing, Weighing) and isinstance(weighing.rule, Target):
                # Before the first measurement nothing is known, and a part must be finite.
                found[f"{name}_share"] = weighing.share.nan_to_num(0.0).clone()
        return self._all_used({"loss": self.objective.total(parts, weights), **parts, **found})

    def _weights(self, parts: Mapping[str, Tensor], model: Classifier, batch: Batch) -> dict[str, float | Tensor]:
        task = parts[self.objective.task_name]
        weights: dict[str, float | Tensor] = {}
        for name, term in self.objective.terms.items():
            if isinstance(term.weight, Balance | Target):
                weighing = cast(Weighing, self.weighings[name])
                if self.training and torch.is_grad_enabled() and weighing.due():
                    self._measure(weighing, term, task, parts[name], model, batch)
                weights[name] = weighing.weight(task)
            else:
                weights[name] = term.weight
        return weights

    def _measure(
        self, weighing: Weighing, term: Term, task: Tensor, value: Tensor, model: Classifier, batch: Batch
    ) -> None:
        trained = [p for p in self.model.parameters() if p.requires_grad]
        if isinstance(term.weight, Balance):
            weighing.balance(task, value, trained, term.weight)
        elif isinstance(term.weight, Target):
            weighing.balance(task, value, trained, Balance())
            weighing.ascend(share_at_irrelevant(term.loss, model, batch), term.weight)

    def _all_used(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tie the losses' own weights to the total.

        A batch without annotations does not touch them, and DistributedDataParallel would wait for their gradient.
        """
        own = [p.sum() for p in self.modules_of_losses.parameters() if p.requires_grad]
        return parts | {"loss": parts["loss"] + 0 * sum(own)} if own else parts
