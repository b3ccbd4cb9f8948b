"""From a proof to the page that shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Float
from torch import Tensor

from rightreasons.experiments import Compared, Proof, Run, StudyResult, as_dict, to_toml
from rightreasons.experiments.proof import Control, View
from rightreasons.experiments.proof import Example as ProofExample
from rightreasons.metrics import Estimate
from rightreasons.reports.figures import Heatmap
from rightreasons.reports.page import Comparison, ControlRow, Curve, Example, PageContent, Panel, Protocol, Published

WITHIN = 0.015
"""A revised model this close to the clean bound counts as repaired: our own line, said on the page."""

_CONTROLS = {
    "zero mask": "The same loss and weight with nothing marked: is it the mask that helps?",
    "random mask": "As many pixels marked, at a random place in each image.",
    "wrong mask": "A block marked where the shortcut never is.",
}


@dataclass(frozen=True)
class Story:
    """What a page says around its numbers.

    Attributes:
        title: Of the page.
        protocol: How the numbers were made.
        rerun: Commands that make them again.
        notes: What a careful reader should know.
        trained_through: Name of the explainer in the loss, if there was one.
    """

    title: str
    protocol: Protocol
    rerun: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    trained_through: str | None = None


def study_page(result: StudyResult, *, rerun: tuple[str, ...], notes: tuple[str, ...] = ()) -> PageContent:
    """The page of a study."""
    study = result.study
    protocol = Protocol(
        id=study.run.data.decoy or study.name,
        description=study.description,
        source=study.source,
        published=tuple(Published(p.label, f"{100 * p.value:.2f} %", p.source) for p in study.published),
    )
    story = Story(study.title, protocol, rerun, notes, result.trained_through)
    return proof_page(result.proof, result.runs, story)


def comparison_page(compared: Compared, *, rerun: tuple[str, ...]) -> PageContent:
    """The page of two models of the user's own."""
    protocol = Protocol(
        id=compared.proof.data,
        description=_told(compared),
        source="the user's own data",
    )
    return proof_page(
        compared.proof,
        compared.runs,
        Story("Before and after", protocol, rerun, trained_through=compared.trained_through),
    )


def _told(compared: Compared) -> str:
    """What is known of the images: only a run's own test images are known to be apart from its training."""
    if compared.own_test:
        return "Two models on the same images: the test images of the revised run, which it was not trained on."
    return "Two models on the same images, which were named for this comparison; nothing checked that they are new."


def proof_page(proof: Proof, runs: Mapping[str, Run], story: Story) -> PageContent:
    """The page of a proof over two models.

    Args:
        proof: The numbers.
        runs: The runs behind it, as far as there are any: ``before``, ``after``, ``clean bound``.
        story: What is said around the numbers.
    """
    environment = dict(runs["after"].record.environment) if "after" in runs else {}
    return PageContent(
        title=story.title,
        verdict=verdict(proof),
        protocol=story.protocol,
        device=", ".join(environment[k] for k in ("device", "machine") if k in environment) or "not recorded",
        data_note=f"{proof.data}: {proof.images:,} test images; {proof.explained:,} drawn at random are explained.",
        headline=tuple(Comparison(**{f.name: getattr(c, f.name) for f in fields(c)}) for c in proof.comparisons),
        examples=tuple(_example(example, proof) for example in proof.examples),
        curves=_curves(runs),
        controls=_bound_row(proof) + tuple(_control_row(control) for control in proof.controls),
        config=to_toml(as_dict(runs["after"].config)) if "after" in runs else "",
        rerun=story.rerun,
        environment=environment,
        notes=story.notes,
        trained_through=story.trained_through,
    )


def verdict(proof: Proof) -> str:
    """The result in a plain sentence or two."""
    accuracy = proof["Accuracy"]
    said = (
        f"The model as it was is right on {_percent(accuracy.before)} of the test images, the revised one on "
        f"{_percent(accuracy.after)}"
    )
    if accuracy.bound is not None:
        said += f"; one that never saw the shortcut, on {_percent(accuracy.bound)} of clean ones"
    said += "."
    swap = next((c for c in proof.comparisons if c.name == "Decoy swap"), None)
    if swap is not None:
        said += (
            f" When only the decoy changes, {_percent(swap.before)} of the answers change before the revision and "
            f"{_percent(swap.after)} after it."
        )
    failed = [control.name for control in proof.controls if not control.passed]
    if failed:
        said += f" But the gain is not the mask's alone: the revised model does not clearly lead {_listed(failed)}."
    return said


def _listed(names: list[str]) -> str:
    return "the control " + names[0] if len(names) == 1 else "the controls " + ", ".join(names)


def _percent(estimate: Estimate) -> str:
    return f"{100 * estimate.value:.1f} %" if np.isfinite(estimate.value) else "an undefined share"


def _example(example: ProofExample, proof: Proof) -> Example:
    image = example.image.permute(1, 2, 0).numpy()
    return Example(
        image=image[..., 0] if image.shape[-1] == 1 else image,
        truth=proof.classes[example.truth],
        mask=None if example.irrelevant is None else example.irrelevant.numpy(),
        panels=(_panel("before", example.before, example, proof), _panel("after", example.after, example, proof)),
    )


def _panel(run: str, view: View, example: ProofExample, proof: Proof) -> Panel:
    return Panel(
        run="before" if run == "before" else "after",
        prediction=proof.classes[view.prediction],
        confidence=view.confidence,
        correct=view.prediction == example.truth,
        heatmaps={name: Heatmap(_array(values), proof.explainers[name]) for name, values in view.heatmaps.items()},
    )


def _array(values: Float[Tensor, "height width"]) -> np.ndarray:
    return np.asarray(values.numpy())


def _curves(runs: Mapping[str, Run]) -> tuple[Curve, ...]:
    """Accuracy of every run, then each explanation loss of the revised one."""
    accuracies = {
        name: [epoch["test_accuracy"] for epoch in run.record.history]
        for name, run in runs.items()
        if run.record.history and "test_accuracy" in run.record.history[0]
    }
    curves = []
    if any(len(values) > 1 for values in accuracies.values()):
        note = "Nothing was selected by these: every run ends with its last epoch."
        curves.append(Curve("Test accuracy", "epoch", accuracies, note=note, unit="%"))
    after = runs.get("after")
    if after is not None and len(after.record.history) > 1:
        for term in after.config.terms:
            values = [epoch[term] for epoch in after.record.history]
            note = "Unweighted, in training."
            curves.append(Curve(f"Explanation loss {term}", "epoch", {"after": values}, note=note))
    return tuple(curves)


def _bound_row(proof: Proof) -> tuple[ControlRow, ...]:
    accuracy = proof["Accuracy"]
    if accuracy.bound is None:
        return ()
    return (
        ControlRow(
            "clean bound",
            "A plain model trained and tested without the shortcut.",
            accuracy.bound,
            f"The revised model is at most {100 * WITHIN:.1f} points below it.",
            passed=accuracy.after.value >= accuracy.bound.value - WITHIN,
        ),
    )


def _control_row(control: Control) -> ControlRow:
    lead = f"{100 * control.lead.value:+.1f} [{100 * control.lead.low:+.1f}, {100 * control.lead.high:+.1f}]"
    return ControlRow(
        control.name,
        _CONTROLS.get(control.name, "Should not help."),
        control.accuracy,
        f"Clearly below the revised model, which leads by {lead} points.",
        passed=control.passed,
    )
