"""A table: what is run, what is taken from records, and what it says."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from functools import partial

import pytest

from rightreasons.core import DataUnavailable
from rightreasons.experiments import Record, as_dict
from rightreasons.experiments.table import (
    PLAIN,
    Records,
    RunsFailed,
    read_table,
    run_table,
    running,
    table_record,
    table_rows,
    tables,
    write_csv,
    write_json,
)
from rightreasons.experiments.table.assess import assessment
from rightreasons.experiments.table.running import unseen_explainer
from tests.experiments.table_files import QUICK, RESOURCES, more_plan


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A table that was run once, with what was said."""
    folder = tmp_path_factory.mktemp("table")
    patch = pytest.MonkeyPatch()
    patch.setattr(running, "assessment", partial(assessment, images=64))
    (folder / "quick.toml").write_text(QUICK)
    plan = read_table(str(folder / "quick.toml"))
    records = Records([folder / "records"])
    told = list(run_table(plan, records, out=folder / "runs", resources=RESOURCES))
    patch.undo()
    return folder, plan, told


def test_every_arm_runs_over_every_seed_with_its_controls(quick):
    _, plan, told = quick
    rows = ["plain", "clean bound", "RRR", "RRR, zero mask", "RRR, random mask", "RRR, wrong mask"]
    assert told == [f"quick, seed {seed}, {row}" for seed in range(2) for row in rows]
    assert list(plan.runs(3, controls=False)) == rows[:3]
    assert all(config.seed == 3 for config in plan.runs(3, controls=True).values())


def test_what_a_record_holds_is_never_run_again(quick):
    folder, plan, _ = quick
    again = Records([folder / "records"])
    assert list(run_table(plan, again, out=folder / "elsewhere", resources=RESOURCES)) == []
    (folder / "records" / "quick" / "seed-1" / "rrr.json").unlink()
    missing = Records([folder / "records"])
    assert [row.seeds for row in table_rows(plan, missing)] == [2, 2, 1, 2, 2, 2]
    assert list(run_table(plan, missing, out=folder / "runs", resources=RESOURCES)) == ["quick, seed 1, RRR"]
    assert [row.seeds for row in table_rows(plan, missing)] == [2] * 6


def test_a_row_is_the_mean_over_its_records(quick):
    folder, plan, _ = quick
    rows = {row.name: row for row in table_rows(plan, Records([folder / "records"]))}
    found = {}
    for name in ("plain", "rrr"):
        paths = [folder / "records" / "quick" / f"seed-{seed}" / f"{name}.json" for seed in range(2)]
        found[name] = [100 * Record.read(path).results["test"]["accuracy"] for path in paths]
    assert rows["RRR"].accuracy.mean == pytest.approx(sum(found["rrr"]) / 2)
    leads = [a - b for a, b in zip(found["rrr"], found["plain"], strict=True)]
    assert rows["RRR"].lead.mean == pytest.approx(sum(leads) / 2)
    assert rows[PLAIN].lead is None
    assert rows[PLAIN].cost == 1.0
    assert rows["RRR"].published[0].value == 90.5
    assert rows["RRR, zero mask"].published == ()
    # Nothing marked is no explanation loss at all.
    assert rows["RRR, zero mask"].accuracy.mean == pytest.approx(rows[PLAIN].accuracy.mean)


def test_records_of_other_folders_and_older_forms_count(quick, tmp_path):
    folder, plan, _ = quick
    other = tmp_path / "old"
    other.mkdir()
    record = json.loads((folder / "records" / "quick" / "seed-0" / "plain.json").read_text())
    del record["config"]["data"]["annotations"]
    (other / "any-name.json").write_text(json.dumps(record))
    (other / "no-record.json").write_text("{}")
    held = Records([tmp_path / "new", other])
    assert held.of(plan.runs(0, controls=False)[PLAIN]) is not None
    assert held.of(plan.runs(1, controls=False)[PLAIN]) is None


def test_only_some_rows_run_if_asked(quick, tmp_path):
    _, plan, _ = quick
    told = list(run_table(plan, Records([tmp_path]), seeds=1, only=["plain"], out=tmp_path, resources=RESOURCES))
    assert told == ["quick, seed 0, plain"]
    with pytest.raises(ValueError, match=r"no row 'CDEP' in quick\. There are: plain, clean bound, RRR"):
        list(run_table(plan, Records([tmp_path]), only=["CDEP"], out=tmp_path, resources=RESOURCES))


@pytest.mark.parametrize("name", tables())
def test_every_table_that_ships_can_be_read_and_says_where_its_numbers_come_from(name):
    plan = read_table(name)
    assert plan.title
    assert plan.description
    assert plan.arms
    assert all(value.source for value in plan.published)
    weights = [term.weight for arm in plan.arms.values() for term in arm.terms.values()]
    assert all(isinstance(weight, str) or weight >= 0 for weight in weights)
    # An arm whose value is still to be chosen may begin as another arm.
    entries = [entry for entry in plan.entries() if entry.arm not in plan.selections]
    assert len({json.dumps(as_dict(entry.config)) for entry in entries}) == len(entries)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('arm = "RRR"', 'arm = "CDEP"', "published value for 'CDEP', which is no arm"),
        ("value = 90.5", "valeu = 90.5", "no table"),
        ("[arms.RRR.terms.rrr]", "[run.terms.rrr]", "expected the terms in the arms"),
        ("[arms.RRR.terms.rrr]", "[arms.plain.terms.rrr]", "another name than 'plain'"),
        ('source = "nowhere"', 'source = "nowhere"\nmark = "sure"', "expected mark to be one of"),
    ],
)
def test_a_table_with_a_mistake_says_which(tmp_path, old, new, told):
    (tmp_path / "quick.toml").write_text(QUICK.replace(old, new))
    with pytest.raises(ValueError, match=told):
        read_table(str(tmp_path / "quick.toml"))


def test_a_table_that_does_not_exist_is_a_list_of_those_that_do():
    with pytest.raises(ValueError, match=r"no table 'rr'\. There are: .*\bdigits, .*rrr"):
        read_table("rr")
    with pytest.raises(ValueError, match=r"no file mine\.toml"):
        read_table("mine.toml")


@pytest.fixture
def more(tmp_path):
    """The quick table with everything that an arm may say."""
    return more_plan(tmp_path)


def test_a_value_published_for_a_run_of_the_base_stands_in_its_row(quick, tmp_path):
    folder, _, _ = quick
    vary = '[[vary]]\nkey = "data.annotated"\nvalues = [0.5, 1.0]\nnames = ["half", "all"]\n'
    value = '[[published]]\narm = "RRR, all"\nvalue = 7\nsource = "there"\ncolumn = "worst_class"\n'
    (tmp_path / "quick.toml").write_text(QUICK + vary + value)
    plan = read_table(str(tmp_path / "quick.toml"))
    row = next(row for row in table_rows(plan, Records([folder / "records"])) if row.name == "RRR")
    assert [(p.value, p.column) for p in row.published] == [(90.5, "accuracy"), (7, "worst_class")]


def test_runs_are_assessed_and_older_records_are_blank_there(quick, tmp_path):
    folder, plan, _ = quick
    rows = {row.name: row for row in table_rows(plan, Records([folder / "records"]))}
    assert set(rows["RRR"].records) == {0, 1}
    for name in ("swap", "saliency", "unseen", "probe"):
        found = [rows["RRR"].records[seed].results["assessment"][name] for seed in range(2)]
        scale = 1 if name in ("saliency", "unseen") else 100
        assert rows["RRR"].columns[name].mean == pytest.approx(scale * sum(found) / 2)
    assert "swap" not in rows["clean bound"].columns
    assert "iou" not in rows["RRR"].columns
    record = json.loads((folder / "records" / "quick" / "seed-0" / "rrr.json").read_text())
    del record["results"]["assessment"]
    (tmp_path / "old.json").write_text(json.dumps(record))
    (old,) = table_rows(plan, Records([tmp_path]))
    assert "swap" not in old.columns
    assert old.columns["accuracy"].count == 1


def test_a_gain_is_relative_to_plain_of_the_same_seed(quick):
    folder, plan, _ = quick
    plan = replace(plan, columns=("accuracy", "accuracy_gain"))
    rows = {row.name: row for row in table_rows(plan, Records([folder / "records"]))}
    own, plain = ([r.results["test"]["accuracy"] for r in rows[n].records.values()] for n in ("RRR", PLAIN))
    expected = [100 * (a / b - 1) for a, b in zip(own, plain, strict=True)]
    assert rows["RRR"].columns["accuracy_gain"].mean == pytest.approx(sum(expected) / 2)
    assert rows[PLAIN].columns["accuracy_gain"].mean == 0.0


def test_a_choice_is_made_first_and_once_and_stands_in_every_seed(more, tmp_path):
    records, asked = Records([tmp_path / "records"]), {"seeds": 2, "out": tmp_path / "runs", "resources": RESOURCES}
    assert table_rows(more, records) == ()
    told = list(run_table(more, records, only=["tuned", "tuned, 10 masks"], **asked))
    assert told == [
        "more, choosing terms.rrr.weight of tuned, 0.5",
        "more, choosing terms.rrr.weight of tuned, 2.0",
        "more, seed 0, tuned",
        "more, seed 0, tuned, 10 masks",
        "more, seed 1, tuned",
        "more, seed 1, tuned, 10 masks",
    ]
    again = Records([tmp_path / "records"])
    assert list(run_table(more, again, only=["tuned"], **asked)) == []
    rows = {row.name: row for row in table_rows(more, again)}
    kept = {v: json.loads((tmp_path / f"records/more/choice/tuned-{v}.json").read_text()) for v in ("0.5", "2.0")}
    best = max(kept, key=lambda v: kept[v]["results"]["score"])
    assert rows["tuned"].chosen.value == float(best)
    used = {r.config["terms"]["rrr"]["weight"] for row in rows.values() for r in row.records.values()}
    assert used == {float(best)}
    assert "worst of 2 swaps" in table_record(more, list(rows.values()))["rows"][0]["chosen"]


def test_an_arm_whose_choice_is_not_made_has_no_row_and_takes_no_other_with_it(more, quick):
    folder, _, _ = quick
    names = [row.name for row in table_rows(more, Records([folder / "records"]))]
    assert "RRR" in names
    assert not any(name.startswith("tuned") for name in names)


def test_a_table_is_written_as_csv_and_json(quick, tmp_path):
    folder, plan, _ = quick
    rows = table_rows(plan, Records([folder / "records"]))
    write_csv(plan, rows, tmp_path / "t.csv")
    write_json(plan, rows, tmp_path / "t.json")
    lines = {line["row"]: line for line in csv.DictReader((tmp_path / "t.csv").read_text().splitlines())}
    assert list(lines) == [row.name for row in rows]
    assert float(lines["RRR"]["accuracy_mean"]) == pytest.approx(rows[2].accuracy.mean, rel=1e-5)
    assert lines["RRR"]["published"] == "accuracy 90.5 (nowhere)"
    assert (lines["RRR, zero mask"]["arm"], lines["RRR, zero mask"]["control"]) == ("RRR", "zero mask")
    assert lines["clean bound"]["swap_mean"] == lines["plain"]["lead_mean"] == ""
    held = json.loads((tmp_path / "t.json").read_text())
    assert held["rows"][2]["columns"]["accuracy"]["mean"] == pytest.approx(rows[2].accuracy.mean)
    assert held["rows"][2]["config"]["terms"]["rrr"]["loss"] == "rrr"
    assert "records" not in held["rows"][2]


def test_the_unseen_explainer_is_one_that_no_arm_is_trained_through(quick):
    _, plan, _ = quick
    assert unseen_explainer(plan) == "integrated_gradients"

    def through(name):
        arm = plan.arms["RRR"]
        return replace(arm, terms={"t": replace(arm.terms["rrr"], attribution=name)})

    arms = {name: through(name) for name in ("integrated_gradients", "occlusion")}
    assert unseen_explainer(replace(plan, arms={"a": arms["integrated_gradients"]})) == "occlusion"
    with pytest.raises(ValueError, match="to be used by no arm"):
        unseen_explainer(replace(plan, arms=arms))


def test_the_error_of_one_run_is_told_and_the_others_go_on(quick, tmp_path, monkeypatch):
    _, plan, _ = quick

    def breaking(task, **more):
        if task.config.data.masks == "random":
            raise ValueError("no luck")
        return Record("train", as_dict(task.config), {"test": {"accuracy": 0.5, "worst_class": 0.1}})

    monkeypatch.setattr(running, "carry_out", breaking)
    records, told = Records([tmp_path]), []
    with pytest.raises(RunsFailed, match="2 of 12 runs failed: the first, quick, seed 0, RRR, random mask: no luck"):
        told.extend(run_table(plan, records, out=tmp_path, resources=RESOURCES))
    rows = table_rows(plan, records)
    assert [row.seeds for row in rows] == [2] * 5
    assert len(list(tmp_path.rglob("*.json"))) == 10


def test_without_data_nothing_is_tried_again(quick, tmp_path, monkeypatch):
    _, plan, _ = quick
    tried = []

    def without(task, **more):
        tried.append(task)
        raise DataUnavailable("no network")

    monkeypatch.setattr(running, "carry_out", without)
    with pytest.raises(DataUnavailable, match="no network"):
        list(run_table(plan, Records([tmp_path]), out=tmp_path, resources=RESOURCES))
    assert len(tried) == 1


@pytest.mark.slow
def test_two_runs_at_once_give_the_numbers_of_one_after_the_other(quick, tmp_path):
    folder, plan, _ = quick
    records = Records([tmp_path / "records"])
    resources = replace(RESOURCES, jobs=2)
    told = list(run_table(plan, records, seeds=1, only=["plain", "RRR"], out=tmp_path / "runs", resources=resources))
    assert told == ["quick, seed 0, plain", "quick, seed 0, RRR"]
    for name in ("plain", "rrr"):
        one, two = (Record.read(f / "quick" / "seed-0" / f"{name}.json") for f in (folder / "records", records.home))
        assert one.results["test"] == pytest.approx(two.results["test"])
        assert (one.results["assessment"]["images"], two.results["assessment"]["images"]) == (64, 359)
        assert two.environment["threads"] == "1"
