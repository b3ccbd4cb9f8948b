"""Two models of the user's own, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from rightreasons.data import DATASETS
from rightreasons.experiments.config import RunConfig, as_dict
from rightreasons.experiments.proof import Proof
from rightreasons.experiments.prove import ProofSettings, prove
from rightreasons.experiments.run import Resources, Run, make_folder
from rightreasons.experiments.study import (
    AFTER,
    BEFORE,
    BOUND,
    bound_arm,
    control_arms,
    explainers_of,
    prove_runs,
    through,
    train_arms,
    write_proof,
)
from rightreasons.experiments.subject import Question, Subject, open_subject


@dataclass(frozen=True)
class CompareSettings:
    """How two models are compared.

    Attributes:
        explained: How many test images are explained.
        controls: Train the clean bound and the masks that should not help, too.
    """

    explained: int = 1000
    controls: bool = False


@dataclass(frozen=True, eq=False)
class Compared:
    """Two models compared.

    Attributes:
        proof: The numbers.
        runs: The runs behind them, as far as there are any.
        trained_through: Title of the explainer in the loss, if there was one.
        own_test: The images are the revised run's own test images, not named for the comparison.
    """

    proof: Proof
    runs: Mapping[str, Run]
    trained_through: str | None
    own_test: bool


def compare(
    paths: tuple[Path, Path],
    question: Question,
    settings: CompareSettings,
    *,
    out: Path,
    resources: Resources,
) -> Compared:
    """Prove a change between two runs, or two files of weights of one network; the numbers go to ``out/proof.json``.

    Without named images both are shown the test images of the second run.

    Raises:
        BadModel, ValueError: See ``open_subject``; controls were asked for and the second model is no revised run.
    """
    make_folder(out)
    second = open_subject(paths[1], question, resources)
    first = open_subject(paths[0], _same_images(question, second), resources)
    _refuse_leak(first, second, question)
    if first.data.pixel_range != second.data.pixel_range:
        raise ValueError(
            f"expected models on one pixel range, got {first.data.pixel_range} for {paths[0]} "
            f"and {second.data.pixel_range} for {paths[1]}"
        )
    runs = {name: s.run for name, s in ((BEFORE, first), (AFTER, second)) if s.run is not None}
    config = second.run.config if second.run is not None else None
    explainers = explainers_of(config, second.data, second.model)
    proof_settings = ProofSettings(explainers=explainers, explained=settings.explained, seed=question.seed)
    if settings.controls:
        runs |= train_arms(_arms(config, runs), out / "controls", resources)
        proof = prove_runs(runs, second.data, proof_settings, resources)
    else:
        proof = prove(first.model, second.model, second.data, proof_settings)
    asked = {"before": str(paths[0]), "after": str(paths[1]), "data": second.data.name, "seed": question.seed}
    write_proof(proof, asked | ({"run": as_dict(config)} if config else {}), out, resources)
    return Compared(proof, runs, through(config, second.data), own_test=question.data is None)


def _refuse_leak(first: Subject, second: Subject, question: Question) -> None:
    """Two runs over one folder hold out the same images only if their data have the same seed."""
    if question.data is not None or first.run is None or second.run is None:
        return
    one, other = first.run.config, second.run.config
    drawn = one.data.name == other.data.name and one.data.name not in DATASETS and not one.data.test
    if drawn and one.data_seed != other.data_seed:
        raise ValueError(
            f"the runs hold out different images of {one.data.name}, so each would be tested on what the other was "
            "trained on; train both with the same seed, or with a folder to test on (--test)"
        )


def _same_images(question: Question, second: Subject) -> Question:
    """The first model is shown what the second is."""
    if question.data is not None or second.run is None:
        return question
    run = second.run.config
    return replace(question, data=run.data, seed=run.data_seed)


def _arms(config: RunConfig | None, runs: Mapping[str, Run]) -> dict[str, RunConfig]:
    if config is None or not config.uses_masks or BEFORE not in runs:
        raise ValueError("expected two runs, the second with an explanation loss, to train controls for")
    bound = bound_arm(config)
    return control_arms(config) | ({BOUND: bound} if bound is not None else {})
