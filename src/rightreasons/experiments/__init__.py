"""Prove: a configuration in, a record out, and what two models say about each other."""

from rightreasons.experiments.build import Splits, build_attribution, build_data, build_loss, build_model
from rightreasons.experiments.compare import Compared, CompareSettings, compare
from rightreasons.experiments.config import (
    DataConfig,
    ModelConfig,
    RecipeConfig,
    RunConfig,
    TermConfig,
    TrainingConfig,
    as_dict,
    parse_run,
    read_toml,
    to_toml,
)
from rightreasons.experiments.counterfactual import Answers, CounterfactualSettings, counterfactuals
from rightreasons.experiments.explain import Explained, explain
from rightreasons.experiments.inside import FeatureSettings, InsideView, look_inside, offered
from rightreasons.experiments.proof import Comparison, Control, Proof, figures
from rightreasons.experiments.prove import Bound, ProofSettings, prove
from rightreasons.experiments.quality import QualitySettings, assess, read_quality
from rightreasons.experiments.record import Record, environment, make_record
from rightreasons.experiments.reveal import (
    Conduct,
    MethodConfig,
    Revealed,
    RevealedMaps,
    RevealSettings,
    Storage,
    Summary,
    read_methods,
    reveal_all,
    reveal_images,
    reveal_picture,
    summarize,
)
from rightreasons.experiments.run import Resources, Run, load_run, train
from rightreasons.experiments.study import STUDIES, Study, StudyResult, demonstrate, read_study, run_study
from rightreasons.experiments.subject import Question, Subject, describe, open_subject

__all__ = [
    "STUDIES",
    "Answers",
    "Bound",
    "CompareSettings",
    "Compared",
    "Comparison",
    "Conduct",
    "Control",
    "CounterfactualSettings",
    "DataConfig",
    "Explained",
    "FeatureSettings",
    "InsideView",
    "MethodConfig",
    "ModelConfig",
    "Proof",
    "ProofSettings",
    "QualitySettings",
    "Question",
    "RecipeConfig",
    "Record",
    "Resources",
    "RevealSettings",
    "Revealed",
    "RevealedMaps",
    "Run",
    "RunConfig",
    "Splits",
    "Storage",
    "Study",
    "StudyResult",
    "Subject",
    "Summary",
    "TermConfig",
    "TrainingConfig",
    "as_dict",
    "assess",
    "build_attribution",
    "build_data",
    "build_loss",
    "build_model",
    "compare",
    "counterfactuals",
    "demonstrate",
    "describe",
    "environment",
    "explain",
    "figures",
    "load_run",
    "look_inside",
    "make_record",
    "offered",
    "open_subject",
    "parse_run",
    "prove",
    "read_methods",
    "read_quality",
    "read_study",
    "read_toml",
    "reveal_all",
    "reveal_images",
    "reveal_picture",
    "run_study",
    "summarize",
    "to_toml",
    "train",
]
