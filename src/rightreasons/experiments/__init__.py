"""Prove: a configuration in, a record out, and what two models say about each other."""

from rightreasons.experiments.build import Splits, build_attribution, build_data, build_loss, build_model
from rightreasons.experiments.compare import Compared, CompareSettings, compare
from rightreasons.experiments.config import (
    DataConfig,
    ModelConfig,
    RunConfig,
    TermConfig,
    TrainingConfig,
    as_dict,
    parse_run,
    read_toml,
    to_toml,
)
from rightreasons.experiments.explain import Explained, explain
from rightreasons.experiments.proof import Comparison, Control, Proof, figures
from rightreasons.experiments.prove import Bound, ProofSettings, prove
from rightreasons.experiments.record import Record, environment, make_record
from rightreasons.experiments.reveal import Revealed, RevealSettings, reveal_images
from rightreasons.experiments.run import Resources, Run, load_run, train
from rightreasons.experiments.study import STUDIES, Study, StudyResult, demonstrate, read_study, run_study
from rightreasons.experiments.subject import Question, Subject, describe, open_subject

__all__ = [
    "STUDIES",
    "Bound",
    "CompareSettings",
    "Compared",
    "Comparison",
    "Control",
    "DataConfig",
    "Explained",
    "ModelConfig",
    "Proof",
    "ProofSettings",
    "Question",
    "Record",
    "Resources",
    "RevealSettings",
    "Revealed",
    "Run",
    "RunConfig",
    "Splits",
    "Study",
    "StudyResult",
    "Subject",
    "TermConfig",
    "TrainingConfig",
    "as_dict",
    "build_attribution",
    "build_data",
    "build_loss",
    "build_model",
    "compare",
    "demonstrate",
    "describe",
    "environment",
    "explain",
    "figures",
    "load_run",
    "make_record",
    "open_subject",
    "parse_run",
    "prove",
    "read_study",
    "read_toml",
    "reveal_images",
    "run_study",
    "to_toml",
    "train",
]
