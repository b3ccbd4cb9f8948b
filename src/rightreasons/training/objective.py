"""What is minimized: the task loss plus weighted explanation losses, with named parts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass, replace

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from rightreasons.core import Attribution, Batch, Classifier, ExplanationLoss
from rightreasons.models import AdaptedClassifier, record

Task = Callable[[Float[Tensor, "batch classes"], Int[Tensor, " batch"]], Float[Tensor, ""]]


@dataclass(frozen=True)
class Term:
    """An explanation loss and its weight; a weight of 0 measures the loss without an effect on the weights.

    Raises:
        ValueError: The weight is negative or not finite.
    """

    loss: ExplanationLoss
    weight: float = 1.0

    def __post_init__(self) -> None:
        if not isinstance(self.loss, ExplanationLoss):
            raise ValueError(f"expected an explanation loss, got {type(self.loss).__name__}")
        if not (math.isfinite(self.weight) and self.weight >= 0):
            raise ValueError(f"expected a finite weight of at least 0, got {self.weight}")


@dataclass(frozen=True)
class Objective:
    """``task + sum of weight * loss``; called, it returns the named parts.

    Attributes:
        terms: Explanation losses by the name under which they are logged.
        task: The loss on logits and classes.

    Raises:
        ValueError: A name is no identifier or is taken by the total or by the task, or a value is no ``Term``.
    """

    terms: Mapping[str, Term] = field(default_factory=dict)
    task: Task = F.cross_entropy

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
        return getattr(self.task, "__name__", type(self.task).__name__)

    def __call__(
        self, model: Classifier, batch: Batch, logits: Float[Tensor, "batch classes"]
    ) -> dict[str, Float[Tensor, ""]]:
        """The total under ``loss``, then the task and each term, unweighted, under their names."""
        task = self.task(logits, batch.target)
        parts = {name: term.loss(model, batch, logits) for name, term in self.terms.items()}
        total = task
        for name, term in self.terms.items():
            total = total + term.weight * parts[name]
        return {"loss": total, self.task_name: task, **parts}

    def modules(self) -> dict[str, nn.Module]:
        """The modules that losses hold in their fields (a learned imputation), by a name made of term and field."""
        found = {f"{name}_{path}": m for name, term in self.terms.items() for path, m in _modules_in(term.loss)}
        return found | ({"task": self.task} if isinstance(self.task, nn.Module) else {})

    def explains(self) -> bool:
        """Whether a term is about a heatmap, so that the pass must be recorded."""
        return any(term.loss.attribution is not None for term in self.terms.values())

    def layers(self, model: Classifier) -> tuple[str, ...]:
        """The layers whose activations the terms will ask for."""
        attributions = (term.loss.attribution for term in self.terms.values())
        names = (a.layer or model.layer for a in attributions if a is not None and _has_layer(a))
        return tuple(dict.fromkeys(name for name in names if name is not None))


def _has_layer(attribution: Attribution) -> bool:
    """Whether it explains a layer at all: those that do have a field for it."""
    return is_dataclass(attribution) and any(item.name == "layer" for item in fields(attribution))


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

    def __init__(self, model: AdaptedClassifier, objective: Objective) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.modules_of_losses = nn.ModuleDict(objective.modules())
        self._layers = objective.layers(model)
        self._explains = objective.explains()

    def forward(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The total under ``loss`` and the unweighted parts under their names."""
        if self._explains:
            # A leaf of its own: the caller's tensor is left alone, and every heatmap hangs on this one.
            inputs = batch.inputs.detach().requires_grad_()
            recorded = record(self.model, inputs, self._layers)
            parts = self.objective(recorded, replace(batch, inputs=inputs), recorded.logits)
        else:
            parts = self.objective(self.model, batch, self.model(batch.inputs))
        return self._all_used(parts)

    def _all_used(self, parts: dict[str, Tensor]) -> dict[str, Tensor]:
        """Tie the losses' own weights to the total.

        A batch without annotations does not touch them, and DistributedDataParallel would wait for their gradient.
        """
        own = [p.sum() for p in self.modules_of_losses.parameters() if p.requires_grad]
        return parts | {"loss": parts["loss"] + 0 * sum(own)} if own else parts
