"""A study: one question with its arms. Plain, revised, the clean bound and the controls differ in one thing each."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from rightreasons.attribution import ATTRIBUTIONS, GradCAM
from rightreasons.core import Attribution
from rightreasons.data import ImageDataset
from rightreasons.experiments.build import build_attribution, build_data, build_objective
from rightreasons.experiments.config import Masks, RunConfig, parse_run
from rightreasons.experiments.prove import Bound, Proof, ProofSettings, prove
from rightreasons.experiments.run import Run, train
from rightreasons.models import AdaptedClassifier

CONTROLS: Mapping[str, Masks] = {"zero mask": "zero", "random mask": "random", "wrong mask": "wrong"}


@dataclass(frozen=True)
class Published:
    """A number that others published under the same protocol.

    Attributes:
        label: What was measured.
        value: As a fraction.
        source: Where it stands.
    """

    label: str
    value: float
    source: str


@dataclass(frozen=True)
class Study:
    """A question with its arms.

    Attributes:
        name: Under which it is asked for.
        title: What a reader sees first.
        description: The protocol in some sentences.
        source: Who published it.
        run: The revised arm; the others follow from it.
        published: Numbers of others under the same protocol.
        fallback: The study to take where the data of this one cannot be had.
    """

    name: str
    title: str
    description: str
    source: str
    run: RunConfig
    published: tuple[Published, ...] = ()
    fallback: str = ""

    def arms(self, *, controls: bool = False) -> dict[str, RunConfig]:
        """The configurations by name: ``before``, ``after``, ``clean bound`` and, if asked for, the controls."""
        plain = replace(self.run, terms={})
        arms = {"before": plain, "after": self.run}
        if self.run.data.decoy:
            arms["clean bound"] = replace(plain, data=replace(plain.data, decoy=""))
        if controls:
            arms |= {n: replace(self.run, data=replace(self.run.data, masks=m)) for n, m in CONTROLS.items()}
        return arms

    def with_seed(self, seed: int) -> Study:
        """The same with another seed."""
        return replace(self, run=replace(self.run, seed=seed))


STUDIES = ("decoy-rrr", "fashion-typology", "digits")


def read_study(name: str) -> Study:
    """A study of ours.

    Raises:
        ValueError: No such study.
    """
    if name not in STUDIES:
        raise ValueError(f"no study {name!r}. There are: {', '.join(STUDIES)}")
    text = files("rightreasons.experiments").joinpath("studies", f"{name}.toml").read_text(encoding="utf-8")
    values: dict[str, Any] = tomllib.loads(text)
    published = tuple(Published(**row) for row in values.pop("published", []))
    return Study(name=name, run=parse_run(values.pop("run")), published=published, **values)


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A study that was run.

    Attributes:
        study: Which, with its seed.
        runs: Its arms.
        proof: What came out.
        trained_through: Name of the explainer in the loss.
    """

    study: Study
    runs: Mapping[str, Run]
    proof: Proof
    trained_through: str


def run_study(
    study: Study,
    out: Path,
    *,
    controls: bool = False,
    device: str = "auto",
    folder: Path | None = None,
    progress: bool = True,
) -> StudyResult:
    """Train what is not yet in ``out``, one folder an arm, and prove.

    Raises:
        RightReasonsError: See ``train``; ``DataUnavailable`` where the data cannot be had.
    """
    runs = {
        name: train(config, out / name.replace(" ", "-"), device=device, folder=folder, progress=progress)
        for name, config in study.arms(controls=controls).items()
    }
    test = build_data(study.run.data, seed=study.run.data_seed, folder=folder).test
    explainers = explainers_of(study.run, test, runs["after"].model)
    bound = None
    if "clean bound" in runs:
        config = runs["clean bound"].config
        bound = Bound(runs["clean bound"].model, build_data(config.data, seed=config.data_seed, folder=folder).test)
    proof = prove(
        runs["before"].model,
        runs["after"].model,
        test,
        ProofSettings(explainers=explainers, seed=study.run.seed),
        bound=bound,
        controls={name: runs[name].model for name in CONTROLS if name in runs},
    )
    return StudyResult(study, runs, proof, next(iter(explainers)))


def explainers_of(config: RunConfig, data: ImageDataset, model: AdaptedClassifier) -> dict[str, Attribution]:
    """The explainer of the run's loss first, then those that it was not trained through."""
    losses = [term.loss for term in build_objective(config.terms, data).terms.values()]
    own = [loss.attribution for loss in losses if loss.attribution is not None][:1]
    others = [build_attribution("integrated_gradients", data, {"score": "log_probability"})]
    if model.layer is not None:
        others.append(GradCAM())
    taken = {type(method) for method in own}
    return {title_of(method): method for method in [*own, *(m for m in others if type(m) not in taken)]}


def title_of(attribution: Attribution) -> str:
    """Its name for a reader."""
    return ATTRIBUTIONS.name_of(attribution).replace("_", " ").capitalize()
