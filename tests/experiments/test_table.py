"""A table: what is run, what is taken from records, and what it says."""

from __future__ import annotations

import json

import pytest

from rightreasons.experiments import Record, Resources, as_dict
from rightreasons.experiments.table import PLAIN, Records, read_table, run_table, table_rows, tables

QUICK = """
title = "Quick"
description = "Two epochs."
source = "our own"
seeds = 2

[run.data]
name = "digits"
decoy = "decoy/rrr"
decoy_size = 2

[run.model]
name = "mlp"
settings = { hidden = [8] }

[run.training]
epochs = 1
batch_size = 256

[arms.RRR.terms.rrr]
loss = "rrr"
weight = "balance"

[[published]]
arm = "RRR"
value = 90.5
sd = 1.0
source = "nowhere"
"""
RESOURCES = Resources("cpu", progress=False)


@pytest.fixture(scope="module")
def quick(tmp_path_factory):
    """A table that was run once, with what was said."""
    folder = tmp_path_factory.mktemp("table")
    (folder / "quick.toml").write_text(QUICK)
    plan = read_table(str(folder / "quick.toml"))
    records = Records([folder / "records"])
    told = list(run_table(plan, records, out=folder / "runs", resources=RESOURCES))
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
    runs = plan.runs(0, controls=True)
    assert len({json.dumps(as_dict(config)) for config in runs.values()}) == len(runs)


@pytest.mark.parametrize(
    ("old", "new", "told"),
    [
        ('arm = "RRR"', 'arm = "CDEP"', "published value for 'CDEP', which is no arm"),
        ("value = 90.5", "valeu = 90.5", "no table"),
        ("[arms.RRR.terms.rrr]", "[run.terms.rrr]", "terms of quick in its arms"),
        ("[arms.RRR.terms.rrr]", "[arms.plain.terms.rrr]", "another name than 'plain'"),
        ('source = "nowhere"', 'source = "nowhere"\nmark = "sure"', "expected mark to be one of"),
    ],
)
def test_a_table_with_a_mistake_says_which(tmp_path, old, new, told):
    (tmp_path / "quick.toml").write_text(QUICK.replace(old, new))
    with pytest.raises(ValueError, match=told):
        read_table(str(tmp_path / "quick.toml"))


def test_a_table_that_does_not_exist_is_a_list_of_those_that_do():
    with pytest.raises(ValueError, match=r"no table 'rr'\. There are: cdep-decoy, digits, rrr"):
        read_table("rr")
    with pytest.raises(ValueError, match=r"no file mine\.toml"):
        read_table("mine.toml")
