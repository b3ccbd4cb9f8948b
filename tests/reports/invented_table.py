"""A table of invented results, for the tests of its page and to look at."""

from __future__ import annotations

from dataclasses import replace

import torch

from rightreasons.experiments import DataConfig, ModelConfig, Record, RunConfig, TermConfig, TrainingConfig, as_dict
from rightreasons.experiments.table import PLAIN, PublishedValue, Records, TablePlan, Vary, table_rows
from rightreasons.experiments.table_views import ArmView, ShownImage, TableViews

CLASSES = [str(k) for k in range(10)]
HOSTILE = "<b>RRR</b> & co"
PLAIN_RUN = RunConfig(
    data=DataConfig(name="digits", decoy="decoy/rrr", decoy_size=2),
    model=ModelConfig(name="mlp", settings={"hidden": [8]}),
    training=TrainingConfig(epochs=3),
)
MISLED = "CDEP, wrong masks"
ARMS = {HOSTILE: "rrr", "late": "rbr", "useless": "counterexamples", MISLED: "cdep"}
ACCURACIES = {
    PLAIN: 0.50,
    "clean bound": 0.97,
    HOSTILE: 0.96,
    f"{HOSTILE}, zero mask": 0.50,
    f"{HOSTILE}, random mask": 0.80,
    f"{HOSTILE}, wrong mask": 0.49,
    "late": 0.90,
    "late, 0.5 weight": 0.70,
    "late, 2.0 weight": 0.92,
    "useless": 0.60,
    "useless, zero mask": 0.60,
    "useless, random mask": 0.59,
    MISLED: 0.98,
}
DIVERGED = {("useless, random mask", 1), ("useless, random mask", 4)}
ENDS = {PLAIN: [0.3, 0.5], "late": [0.5, 0.955]}


def plan() -> TablePlan:
    return TablePlan(
        name="invented",
        title="An <invented> table",
        description="Four arms and what was published about them.",
        source="nobody 2017, arXiv:1703.03717",
        plain=PLAIN_RUN,
        arms={name: _arm(name, loss) for name, loss in ARMS.items()},
        published=(
            PublishedValue(HOSTILE, 95.5, "a <table>", sd=0.3),
            PublishedValue(HOSTILE, 91.25, "the text", column="worst_class"),
            PublishedValue("late", 92.0, "somewhere", mark="memory"),
        ),
        seeds=5,
    )


def _arm(name: str, loss: str) -> RunConfig:
    masks = "wrong" if name == MISLED else "true"
    return replace(PLAIN_RUN, data=replace(PLAIN_RUN.data, masks=masks), terms={"t": TermConfig(loss)})


def rows(folder, *, seeds=5, names=tuple(ACCURACIES), made=None):
    """The rows of records whose seeds differ a little, so that intervals are narrow."""
    held, made = Records([folder]), made or plan()
    for seed in range(seeds):
        for name, config in made.runs(seed, controls=True).items():
            if (name, seed) in DIVERGED:
                held.add(Record("diverged", as_dict(config), {}), f"{seed}/lost")
            elif name in names:
                held.add(_record(name, config, seed), f"{seed}/{len(list(folder.rglob('*.json')))}")
    return table_rows(made, held)


def _record(name, config, seed):
    accuracy = ACCURACIES[name] + 0.001 * (seed % 3)
    assessment = {
        "swap": 0.4 if name == PLAIN else 0.02,
        "saliency": 3.0,
        "unseen": 4.0 if name == PLAIN else 1.1,
        "unseen_explainer": "integrated_gradients",
        "chance": 0.0625,
        "probe": 0.35,
        "probe_chance": 0.11,
    }
    return Record(
        "train",
        as_dict(config),
        {
            "test": {"accuracy": accuracy, "worst_class": accuracy - 0.1, "worst_class_name": str(min(seed, 1))},
            "classes": CLASSES,
            "assessment": assessment,
        },
        history=[{"test_accuracy": value} for value in [*ENDS.get(name, [0.4, accuracy]), accuracy]],
        seconds=10.0 if name == PLAIN else 22.0,
        environment={"torch": "2.13", "device": "cpu" if seed else "cuda"},
    )


def views() -> TableViews:
    """Two images under two of the arms."""
    torch.manual_seed(0)
    mask = torch.zeros(8, 8)
    mask[:2, :2] = 1
    maps = {"Saliency": torch.randn(2, 8, 8), "Integrated gradients": mask.expand(2, 8, 8)}
    return TableViews(
        seed=3,
        rule="The first test image of each of 2 classes, evenly spaced: 0, 5.",
        classes=tuple(CLASSES),
        images=(ShownImage(0, torch.rand(1, 8, 8), 0, mask), ShownImage(7, torch.rand(1, 8, 8), 5, None)),
        explainers={"Saliency": True, "Integrated gradients": True},
        untrained="Integrated gradients",
        arms=(ArmView(PLAIN, (0, 3), maps), ArmView(HOSTILE, (0, 5), maps)),
        missing={"late": "weights not kept of seed 3"},
    )


def varied_plan() -> TablePlan:
    """The same with the weight of one arm varied, one value of which is the arm's own."""
    vary = Vary("terms.*.weight", (0.5, 1.0, 2.0), label="weight", arms=("late",), controls="none")
    return replace(plan(), vary=(vary,))
