"""What a training step through each differentiable map costs, over twice the map's own cost and a plain step.

    python benchmarks/second_order.py --rounds 5 --threads 1 --out second_order.json

LeNet, 64 digits, every method of the catalogue that can be trained through. The step is the training loop's: forward,
RRR on the map, and the gradient with respect to the weights; a method of the images themselves shares the forward pass.
The map's own cost is that of a call off the graph.

Counting passes, forward being 1 and the way back to the images 1: a plain step is 3; a map of n passes of its own costs
2n off the graph and 6n in a step, since each of its products is differentiated twice. So with many passes of its own
the ratio is (3 + 6n) / (3 + 4n), up to 1.5, and with the step's own pass it is 6 / 7.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from measure import Case, Floor, Make, heatmap, main
from workloads import Run, Workload, digits

from rightreasons.attribution import ATTRIBUTIONS
from rightreasons.core import Attribution, BadModel, Batch
from rightreasons.models import adapt
from rightreasons.supervision import RRR
from rightreasons.training.objective import Objective, Term, TrainingStep

SETTINGS: dict[str, dict[str, Any]] = {
    "smooth_grad": {"samples": 4},
    "integrated_gradients": {"steps": 4},
    "smoothed": {"samples": 4},
    "lime": {"cells": 4, "samples": 20},
    "kernel_shap": {"cells": 4, "samples": 20},
    "feature_ablation": {"cells": 4},
    "rise": {"masks": 20},
    "occlusion": {"window": 7},
}
"""Fewer passes than by default, of the methods that take many."""


def made(name: str) -> Attribution:
    """The method; one that asks for reference images gets some."""
    class_ = ATTRIBUTIONS[name]
    settings = dict(SETTINGS.get(name, {}))
    if "references" in getattr(class_, "__dataclass_fields__", {}):
        settings = {"references": digits()[0][-4:], **settings}
    if name == "expected_gradients":
        settings["samples"] = 4
    return class_(**settings)


def step(attribution: Attribution | None) -> Make:
    """A step through the map, or a plain one."""

    def make(work: Workload) -> Run | None:
        if attribution is not None and not explains(attribution, work):
            return None
        terms = {} if attribution is None else {"term": Term(RRR(attribution))}
        training = TrainingStep(adapt(work.network, work.layer), Objective(terms))
        weights = list(training.parameters())
        batch = Batch(work.inputs, work.target, irrelevant=torch.ones_like(work.inputs))
        return lambda: torch.autograd.grad(training(batch)["loss"], weights)

    return make


def explains(attribution: Attribution, work: Workload) -> bool:
    """Whether it is for networks such as this one: some are for transformers, or for a pooled head."""
    try:
        attribution(adapt(work.network, work.layer), work.inputs[:1], work.target[:1])
    except BadModel:
        return False
    return True


def twice(attribution: Attribution) -> Floor:
    """Two maps off the graph and a plain step."""

    def parts(work: Workload) -> Sequence[tuple[int, Run]]:
        runs = ((1, step(None)(work)), (2, heatmap(attribution)(work)))
        return [(count, run) for count, run in runs if run is not None]

    return Floor("2 maps + step", parts)


def cases() -> list[Case]:
    """The catalogue, as far as it is differentiable."""
    listed = []
    for name in ATTRIBUTIONS:
        method = made(name)
        if method.differentiable:
            listed.append(Case("LeNet", 64, name, step(method), twice(method), 1.0))
    return listed


CASES = cases()

if __name__ == "__main__":
    main(__doc__, CASES)
