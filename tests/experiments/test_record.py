import json
import math
import resource
import signal
from pathlib import Path

import pytest

from rightreasons.core import CorruptData, NotWritten
from rightreasons.experiments import Record, RunConfig, as_dict, environment, make_record
from rightreasons.experiments import record as module
from rightreasons.experiments.record import key_of
from rightreasons.experiments.run import resolved
from rightreasons.experiments.study import arms_of, read_study


def test_a_record_reads_back_as_it_was_written(tmp_path):
    record = make_record("train", {"lr": 0.1, "none": None}, {"accuracy": 0.5}, history=[{"loss": 1.0}], seconds=2.5)
    again = Record.read(record.write(tmp_path / "new" / "record.json"))
    assert again == record
    assert again.created.endswith("+00:00")


def test_what_is_not_finite_becomes_null(tmp_path):
    path = make_record("x", {}, {"a": math.nan, "b": [math.inf, 1.0], "c": (-math.inf,)}).write(tmp_path / "r.json")
    assert json.loads(path.read_text())["results"] == {"a": None, "b": [None, 1.0], "c": [None]}
    assert "NaN" not in path.read_text()


@pytest.mark.parametrize("text", ["", "[]", "3", "{}", '{"kind": "train"}', '{"nope": 1}', '{"kind": "train", "con'])
def test_a_damaged_record_is_refused_and_named(tmp_path, text):
    path = tmp_path / "record.json"
    path.write_text(text)
    with pytest.raises(CorruptData, match=r"record\.json is no record"):
        Record.read(path)


@pytest.mark.wrong_types
def test_tables_that_are_none_are_refused(tmp_path):
    path = tmp_path / "record.json"
    path.write_text('{"kind": "train", "config": [], "results": {}}')
    with pytest.raises(CorruptData, match="expected tables"):
        Record.read(path)


def test_bytes_that_are_no_text_are_refused(tmp_path):
    (tmp_path / "record.json").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CorruptData):
        Record.read(tmp_path / "record.json")


def test_the_key_is_the_same_on_every_machine_and_in_every_order():
    config = {"seed": 1, "data": {"name": "digits"}}
    assert key_of("train", config) == "d18a21c8bb565bfc"
    assert key_of("train", dict(reversed(config.items()))) == "d18a21c8bb565bfc"
    assert key_of("prove", config) != key_of("train", config)
    assert key_of("train", as_dict(RunConfig(seed=1))) != key_of("train", as_dict(RunConfig()))


def test_a_full_disk_leaves_the_old_record(tmp_path):
    path = make_record("train", {}, {"accuracy": 0.5}).write(tmp_path / "record.json")
    before = path.read_bytes()
    limits, old = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(NotWritten, match=r"record\.json"):
            make_record("train", {}, {"long": "x" * 5000}).write(path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert path.read_bytes() == before
    assert [entry.name for entry in tmp_path.iterdir()] == ["record.json"]


def test_the_environment_names_versions_device_and_commit():
    found = environment("cpu")
    assert {"rightreasons", "torch", "python", "device", "commit", "threads", "machine"} <= set(found)
    assert found["device"] == "cpu"
    assert all(isinstance(value, str) and value for value in found.values())


def test_a_machine_without_git_still_writes_its_record(monkeypatch):
    monkeypatch.setattr(module.shutil, "which", lambda name: None)
    assert environment("cpu")["commit"] in ("unknown (git is not installed)", "released")


def test_records_that_ship_are_still_of_the_runs_they_are_of():
    """Keys that came later have defaults that change nothing, so no run is made again for their sake."""
    folder = Path(__file__).parents[2] / "benchmarks" / "records" / "decoy-rrr"
    for seed in range(5):
        arms = arms_of(read_study("decoy-rrr").with_seed(seed).run, controls=True)
        for name, config in arms.items():
            record = Record.read(folder / f"seed-{seed}" / f"{name.replace(' ', '-')}.json")
            assert resolved(record) == as_dict(config)
