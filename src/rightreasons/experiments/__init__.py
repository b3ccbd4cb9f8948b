"""Prove: a configuration in, a record out, and what two records say about each other."""

from rightreasons.experiments.build import Splits, build_attribution, build_data, build_loss, build_model
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
from rightreasons.experiments.prove import Bound, Comparison, Control, Proof, ProofSettings, figures, prove
from rightreasons.experiments.record import Record, environment, make_record
from rightreasons.experiments.run import Run, load_run, train
from rightreasons.experiments.study import STUDIES, Study, StudyResult, read_study, run_study

__all__ = [
    "STUDIES",
    "Bound",
    "Comparison",
    "Control",
    "DataConfig",
    "ModelConfig",
    "Proof",
    "ProofSettings",
    "Record",
    "Run",
    "RunConfig",
    "Splits",
    "Study",
    "StudyResult",
    "TermConfig",
    "TrainingConfig",
    "as_dict",
    "build_attribution",
    "build_data",
    "build_loss",
    "build_model",
    "environment",
    "figures",
    "load_run",
    "make_record",
    "parse_run",
    "prove",
    "read_study",
    "read_toml",
    "run_study",
    "to_toml",
    "train",
]
