"""Records that are damaged, of other images, without an assessment, or of runs that diverged."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial

import pytest

from rightreasons.core import DataUnavailable, TrainingDiverged
from rightreasons.experiments import Record, as_dict
from rightreasons.experiments.build import build_data, build_test
from rightreasons.experiments.table import Records, mixed, read_table, run_table, running, table_rows
from rightreasons.experiments.table.assess import assessment
from tests.experiments.table_files import QUICK, RESOURCES

pytestmark = pytest.mark.usefixtures("quick_assessment")
TEST = {"accuracy": 0.5, "worst_class": 0.1}


@pytest.fixture
def quick_assessment(monkeypatch):
    monkeypatch.setattr(running, "assessment", partial(assessment, images=32))


@pytest.fixture
def plan(tmp_path):
    (tmp_path / "quick.toml").write_text(QUICK)
    return read_table(str(tmp_path / "quick.toml"))


def record_of(config, **results):
    return Record("train", as_dict(config), {"test": TEST, "assessment": {}, **results})


def run(plan, folder, **more):
    asked = {"seeds": 1, "only": ["plain"], "out": folder / "runs", "resources": RESOURCES}
    return list(run_table(plan, Records([folder / "records"]), **{**asked, **more}))


def test_a_damaged_file_is_named_one_about_something_else_is_passed_over_and_the_rest_is_read(plan, tmp_path):
    config = plan.runs(0, controls=False)["plain"]
    whole = record_of(config).write(tmp_path / "good.json").read_text()
    values = json.loads(whole)
    bad = {
        "cut.json": whole[: len(whole) // 2],
        "record.json": "",
        "list.json": "[1, 2]",
        "number.json": "3",
        "latin.json": b"\xff\xfe\x00",
        "no-results.json": json.dumps({**values, "results": {}}),
        "no-config.json": json.dumps({**values, "config": {"dat": {}}}),
        "candidate.json": json.dumps({**values, "kind": "select"}),
        "bad-candidate.json": json.dumps({**values, "kind": "select", "config": {"run": 3}, "results": {"score": 1}}),
        "history.json": json.dumps({**values, "history": 3}),
    }
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "foreign.json").write_text('{"setting": 1}')
    (tmp_path / "proof.json").write_text(json.dumps({**values, "kind": "prove"}))
    (tmp_path / "gone.json").symlink_to(tmp_path / "nowhere")
    (tmp_path / "folder.json").mkdir()
    records = Records([tmp_path])
    assert {file.path.name for file in records.unread} == {*bad, "gone.json"}
    assert all(file.reason for file in records.unread)
    assert records.of(config).results["test"] == TEST


def test_what_is_written_over_a_damaged_file_is_no_longer_unread(plan, tmp_path):
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "plain.json").write_text("{")
    records = Records([tmp_path])
    records.add(record_of(plan.plain), "quick/plain")
    assert records.unread == []


def test_an_assessed_record_counts_before_one_that_is_not(plan, tmp_path):
    bare = replace(record_of(plan.plain), results={"test": TEST})
    bare.write(tmp_path / "a" / "a.json")
    assert "assessment" not in Records([tmp_path / "a"]).of(plan.plain).results
    record_of(plan.plain).write(tmp_path / "b" / "b.json")
    assert "assessment" in Records([tmp_path / "a", tmp_path / "b"]).of(plan.plain).results


def test_the_test_images_alone_are_those_of_the_whole(plan):
    for config in plan.base.values():
        data = replace(config.data, test_images=50)
        whole = build_data(data, seed=3).test.sampled_fingerprint()
        assert build_test(data, seed=3).sampled_fingerprint() == whole


def test_a_record_of_other_test_images_is_refused_before_anything_runs(plan, tmp_path):
    config = plan.runs(0, controls=False)["plain"]
    now = build_test(config.data, seed=0).sampled_fingerprint()
    record_of(config, test_fingerprint=now).write(tmp_path / "records" / "p.json")
    assert run(plan, tmp_path) == []
    record_of(config, test_fingerprint="of other images").write(tmp_path / "records" / "p.json")
    with pytest.raises(ValueError, match=r"1 of 1 records were tested on other images .*quick, seed 0, plain"):
        run(plan, tmp_path)
    (shown,) = table_rows(plan, Records([tmp_path / "records"]))
    assert shown.name == "plain"


def test_without_the_images_what_is_done_is_not_compared_and_that_is_said(plan, tmp_path, monkeypatch):
    config = plan.runs(0, controls=False)["plain"]
    record_of(config, test_fingerprint="any").write(tmp_path / "records" / "p.json")

    def without(*args, **more):
        raise DataUnavailable("no network")

    monkeypatch.setattr(running, "build_test", without)
    assert run(plan, tmp_path) == ["not compared with the test images of the records: no network"]


def test_records_without_an_assessment_get_one_where_the_weights_are_kept(plan, tmp_path):
    assert run(plan, tmp_path) == ["quick, seed 0, plain"]
    path = tmp_path / "records" / "quick" / "seed-0" / "plain.json"
    full = Record.read(path)
    replace(full, results={k: v for k, v in full.results.items() if k != "assessment"}).write(path)
    assert run(plan, tmp_path, out=tmp_path / "elsewhere") == [
        f"not assessed: 1 records hold no assessment, and the weights of their runs are not in "
        f"{tmp_path / 'elsewhere'}; their columns stay blank"
    ]
    assert run(plan, tmp_path) == ["quick, seed 0, plain, assessment"]
    assert Record.read(path).results == full.results
    assert run(plan, tmp_path) == []


def test_weights_of_another_run_are_not_assessed(plan, tmp_path):
    run(plan, tmp_path)
    path = tmp_path / "records" / "quick" / "seed-0" / "plain.json"
    replace(Record.read(path), results={"test": TEST}).write(path)
    (told,) = run(plan, tmp_path)
    assert told.startswith("not assessed: 1 records")


def test_a_run_that_diverged_is_written_down_and_not_run_again(plan, tmp_path, monkeypatch):
    def diverging(*args):
        raise TrainingDiverged("loss is nan")

    monkeypatch.setattr(running, "train", diverging)
    told = ["quick, seed 0, plain", "diverged: quick, seed 0, plain: loss is nan"]
    assert run(plan, tmp_path) == told
    assert run(plan, tmp_path) == []
    records, config = Records([tmp_path / "records"]), plan.runs(0, controls=False)["plain"]
    assert records.of(config) is None
    found = records.diverged(config)
    assert (found.kind, found.results) == ("diverged", {"message": "loss is nan", "seed": 0})
    assert records.diverged(replace(config, seed=1)) is None
    records.add(record_of(config), "later")
    assert records.diverged(config) is None


def test_rows_of_several_versions_commits_and_devices_are_told(plan, tmp_path):
    assert mixed(()) == ()
    for seed, device in enumerate(("cpu", "cuda:0")):
        config = plan.runs(seed, controls=False)["plain"]
        made = {"rightreasons": "1", "torch": "2", "commit": f"c{seed}", "device": device}
        replace(record_of(config), environment=made).write(tmp_path / f"{seed}.json")
    records = Records([tmp_path])
    assert mixed(table_rows(plan, records, seeds=1)) == ()
    assert mixed(table_rows(plan, records)) == (
        "the records are of 2 commits: c0 (1), c1 (1)",
        "the records are of 2 devices: cpu (1), cuda (1)",
    )
