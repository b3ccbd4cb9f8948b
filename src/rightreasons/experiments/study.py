"""A study: one question with its arms. Plain, revised, the clean bound and the controls differ in one thing each."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from rightreasons.attribution import GradCAM
from rightreasons.core import Attribution, DataUnavailable
from rightreasons.data import DECOYS, WITHOUT_SIGN, ImageDataset, PatchProtocol, TagProtocol
from rightreasons.experiments.build import build_attribution, build_data, build_objective, title_of
from rightreasons.experiments.config import Masks, RecipeConfig, RunConfig, as_dict, parse_run
from rightreasons.experiments.proof import Proof, figures
from rightreasons.experiments.prove import Bound, ProofSettings, prove
from rightreasons.experiments.record import environment, make_record
from rightreasons.experiments.run import Resources, Run, device_name, train
from rightreasons.models import AdaptedClassifier

BEFORE, AFTER, BOUND = "before", "after", "clean bound"
CONTROLS: Mapping[str, Masks] = {"zero mask": "zero", "random mask": "random", "wrong mask": "wrong"}
PROOF = "proof.json"
STUDIES = ("decoy-rrr", "fashion-typology", "digits")


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

    def with_seed(self, seed: int) -> Study:
        """The same with another seed."""
        return replace(self, run=replace(self.run, seed=seed))


@dataclass(frozen=True, eq=False)
class StudyResult:
    """A study that was run.

    Attributes:
        study: Which, with its seed.
        runs: Its arms.
        proof: What came out.
        trained_through: Title of the explainer in the loss.
    """

    study: Study
    runs: Mapping[str, Run]
    proof: Proof
    trained_through: str | None


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


def plain_arm(revised: RunConfig) -> RunConfig:
    """The same training without an explanation loss, a recipe, or irrelevant pixels randomized in place."""
    kept = {
        key: value for key, value in revised.training.augmentation.items() if key not in ("irrelevant", "low", "high")
    }
    return replace(revised, terms={}, recipe=RecipeConfig(), training=replace(revised.training, augmentation=kept))


def bound_arm(revised: RunConfig) -> RunConfig | None:
    """The plain training on images without the decoy; ``None`` where there is none to leave out."""
    if not revised.data.decoy or revised.data.decoy in WITHOUT_SIGN.values():
        return None
    free = WITHOUT_SIGN.get(revised.data.decoy, "")
    return replace(plain_arm(revised), data=replace(revised.data, decoy=free, masks="true", annotated=1.0))


def control_arms(revised: RunConfig) -> dict[str, RunConfig]:
    """The revised training with masks that should not help; only a patch has a size for wrong ones.

    There are none for a training that uses no masks.
    """
    if not revised.uses_masks:
        return {}
    patched = isinstance(DECOYS.get(revised.data.decoy), PatchProtocol | TagProtocol)
    kinds = {name: masks for name, masks in CONTROLS.items() if patched or masks != "wrong"}
    return {name: replace(revised, data=replace(revised.data, masks=masks)) for name, masks in kinds.items()}


def arms_of(revised: RunConfig, *, controls: bool = False) -> dict[str, RunConfig]:
    """The configurations by name: before, after, the clean bound where there is a decoy, and the controls if asked."""
    bound = bound_arm(revised)
    arms = {BEFORE: plain_arm(revised), AFTER: revised} | ({BOUND: bound} if bound else {})
    return arms | (control_arms(revised) if controls else {})


def run_study(study: Study, out: Path, *, controls: bool = False, resources: Resources) -> StudyResult:
    """Train what is not yet in ``out``, one folder an arm, and prove; the numbers go to ``out/proof.json``.

    Raises:
        RightReasonsError: See ``train``; ``DataUnavailable`` where the data cannot be had.
    """
    runs = train_arms(arms_of(study.run, controls=controls), out, resources)
    test = build_data(study.run.data, seed=study.run.data_seed, folder=resources.folder).test
    explainers = explainers_of(study.run, test, runs[AFTER].model)
    settings = ProofSettings(explainers=explainers, seed=study.run.seed)
    proof = prove_runs(runs, test, settings, resources)
    write_proof(proof, {"study": study.name, "run": as_dict(study.run)}, out, resources)
    return StudyResult(study, runs, proof, through(study.run, test))


def train_arms(arms: Mapping[str, RunConfig], out: Path, resources: Resources) -> dict[str, Run]:
    """Each arm in a folder of its name."""
    return {name: train(config, out / name.replace(" ", "-"), resources) for name, config in arms.items()}


def prove_runs(runs: Mapping[str, Run], test: ImageDataset, settings: ProofSettings, resources: Resources) -> Proof:
    """The proof over runs by the names of a study's arms."""
    bound = None
    if BOUND in runs:
        config = runs[BOUND].config
        clean = build_data(config.data, seed=config.data_seed, folder=resources.folder).test
        bound = Bound(runs[BOUND].model, clean)
    controls = {name: runs[name].model for name in CONTROLS if name in runs}
    return prove(runs[BEFORE].model, runs[AFTER].model, test, settings, bound=bound, controls=controls)


def write_proof(proof: Proof, config: Mapping[str, Any], out: Path, resources: Resources) -> None:
    """The numbers of a proof as a record."""
    record = make_record("prove", config, figures(proof), environment=environment(device_name(resources)))
    record.write(out / PROOF)


def explainers_of(config: RunConfig | None, data: ImageDataset, model: AdaptedClassifier) -> dict[str, Attribution]:
    """The explainer of the run's loss first, then those that it was not trained through."""
    trained = trained_through(config, data)
    own = [trained] if trained is not None else []
    others = [
        build_attribution("saliency", data, {"score": "sum_log_probabilities"}),
        build_attribution("integrated_gradients", data, {"score": "log_probability"}),
    ]
    if model.layer is not None:
        others.append(GradCAM())
    taken = {type(method) for method in own}
    return {title_of(method): method for method in [*own, *(m for m in others if type(m) not in taken)]}


def trained_through(config: RunConfig | None, data: ImageDataset) -> Attribution | None:
    """The explainer of the run's first loss that has one."""
    terms = build_objective(config.terms, data).terms.values() if config is not None else ()
    return next((term.loss.attribution for term in terms if term.loss.attribution is not None), None)


def through(config: RunConfig | None, data: ImageDataset) -> str | None:
    """Title of the explainer that the run was trained through, if any."""
    trained = trained_through(config, data)
    return None if trained is None else title_of(trained)


def demonstrate(
    name: str,
    out: Path,
    *,
    seed: int = 0,
    controls: bool = False,
    resources: Resources,
    say: Callable[[str], None],
) -> tuple[StudyResult, str]:
    """Run a study, or its fallback where its data cannot be had, which is said aloud and on the page.

    Returns:
        The result, and what was said; empty if nothing had to be.
    """
    study = read_study(name).with_seed(seed)
    try:
        return run_study(study, out / study.name, controls=controls, resources=resources), ""
    except DataUnavailable as error:
        if not study.fallback:
            raise
        note = f"{error} So this is study {study.fallback!r}, on data that need no network, not {study.name!r}."
    say(note)
    study = read_study(study.fallback).with_seed(seed)
    return run_study(study, out / study.name, controls=controls, resources=resources), note
