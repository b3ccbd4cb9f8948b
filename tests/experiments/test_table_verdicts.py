"""What the numbers of a table say in words: is it the mask, and had a weight to be swept?"""

from __future__ import annotations

import csv
import math
from dataclasses import replace

import pytest

from rightreasons.experiments import Record, RunConfig, TermConfig, TrainingConfig, as_dict
from rightreasons.experiments.table import (
    Judged,
    Records,
    TableRow,
    idle_controls,
    is_control,
    judged,
    lacking,
    mask_verdicts,
    read_table,
    table_record,
    table_rows,
    weight_verdicts,
    worst_classes,
    write_csv,
)
from rightreasons.experiments.table.plan import slug
from rightreasons.experiments.table.rows import _cost, _worst, paired
from rightreasons.metrics import SeedSummary, mean_sd_interval
from tests.experiments.table_files import QUICK


def seeds(*accuracies, **last):
    """Records of as many seeds, with what the last line of their history says."""
    return {s: Record("train", {}, {"test": {"accuracy": a / 100}}, [last]) for s, a in enumerate(accuracies)}


def row(name, records, *, arm="", control="", config=None, plain=(50, 50.1, 49.9)):
    summary = paired(records, seeds(*[0] * len(records)))
    lead = paired(records, seeds(*plain))
    more = {} if config is None else {"config": config}
    return TableRow(
        name, summary, summary, lead, 1.0, 1.0, len(records), records=records, arm=arm or name, control=control, **more
    )


def given(masks="true", weight="balance", **more):
    """A run with one term under the name ``t``."""
    config = RunConfig(terms={"t": TermConfig("rrr", weight)}, **more)
    return replace(config, data=replace(config.data, masks=masks))


def only(*rows):
    (found,) = judged(rows)
    return found


@pytest.mark.parametrize(
    ("control", "verdict", "told"),
    [
        ((90.1, 90.0, 90.2), "as good", "the mask is not what helps: with a zero mask RRR reaches 90.10"),
        ((91.1, 91.2, 91.0), "as good", "the mask is not what helps"),
        ((50.2, 50.0, 50.1), "behind", None),
        ((20.0, 89.0, 80.0), "too few seeds to tell", "too few seeds to tell"),
        ((30.0, 151.4, 90.4), "too few seeds to tell", "too few seeds to tell"),
        ((90.1,), "not judged", None),
    ],
)
def test_a_control_is_judged_by_the_interval_of_the_lead_over_it(control, verdict, told):
    rows = [
        row("RRR", seeds(90.2, 90.1, 90.0)),
        row("RRR, zero mask", seeds(*control), arm="RRR", control="zero mask", plain=(50.3, 50.3, 49.7)),
    ]
    assert only(*rows).verdict == verdict
    found = [text for text in mask_verdicts(rows) if not text.startswith("the zero mask alone")]
    assert len(found) == (told is not None)
    assert told is None or found[0].startswith(told)


@pytest.mark.parametrize(
    ("named", "told"),
    [
        (["8"], "8"),
        (["8", "8", "8"], "8"),
        (["3", "8", "8"], "8 (2 of 3 seeds)"),
        (["3", "8"], ""),
        (["8", None, None], ""),
    ],
)
def test_the_worst_class_is_named_where_most_seeds_agree(named, told):
    records = {
        seed: Record("train", {}, {"test": {} if name is None else {"worst_class_name": name}})
        for seed, name in enumerate(named)
    }
    assert _worst(records) == told


def test_worst_classes_are_told_by_class_and_arm():
    found = [
        replace(row(name, seeds(90.0)), worst=worst)
        for name, worst in (("plain", "8"), ("RRR", "3"), ("TAP", "8"), ("late", ""))
    ]
    found.append(replace(row("RRR, zero mask", seeds(90.0), control="zero mask"), worst="5"))
    assert worst_classes(found) == "8 with plain, TAP; 3 with RRR"


@pytest.mark.parametrize(("high", "verdict"), [(0.99, "as good"), (1.01, "too few seeds to tell")])
def test_as_good_is_only_what_cannot_be_a_point_behind(high, verdict):
    control = row("c", seeds(70, 70), arm="a", control="zero mask", plain=(50, 51))
    assert Judged("zero mask", control, row("a", seeds(70, 70)), SeedSummary(-0.5, 1, -2, high, 3)).verdict == verdict


def test_where_no_arm_leads_no_mask_helps():
    arm = row("RRR", seeds(50.0, 49.9, 49.8))
    found = mask_verdicts([arm, row("RRR, wrong mask", seeds(50, 50, 50), arm="RRR", control="wrong mask")])
    assert found[0].startswith("no mask helps here: with a wrong mask")


def test_what_a_mask_that_should_not_help_brings_over_plain_is_told():
    rows = [
        row("RRR", seeds(68.6, 68.5, 68.4)),
        row("RRR, wrong mask", seeds(68.1, 68.1, 68.1), arm="RRR", control="wrong mask"),
        row("RRR, zero mask", seeds(50.2, 50.0, 49.7), arm="RRR", control="zero mask"),
    ]
    wrong, zero = judged(rows)
    assert (wrong.verdict, wrong.helps) == ("behind", True)
    assert (zero.verdict, zero.helps) == ("behind", False)
    assert mask_verdicts(rows) == ("the wrong mask alone brings RRR 18.1 of 18.5 points over plain [+17.85, +18.35]",)


def test_an_arm_with_masks_that_should_not_help_is_a_control_wherever_it_stands():
    arms = [row("CDEP, wrong masks", seeds(95, 95.2, 95.1), config=given("wrong"))]
    assert is_control(arms[0])
    assert mask_verdicts(arms) == (
        "CDEP, wrong masks has a wrong mask, yet is +45.10 [+44.85, +45.35] points over plain",
    )
    true = row("CDEP", seeds(95.1, 95.3, 95.2), config=given("true"))
    assert only(true, *arms).arm is true
    assert only(true, *arms).ahead.mean == pytest.approx(0.1)
    other = replace(true, config=given("true", weight=1.0))
    assert only(other, *arms).arm is None
    for masks in ("true", "incomplete"):
        assert not is_control(row("arm", seeds(95, 95), config=given(masks)))
    assert not is_control(row("JTT", seeds(95, 95), config=replace(given("wrong"), terms={})))


def test_a_control_whose_weight_ended_elsewhere_is_not_compared():
    def pair(weight):
        control = seeds(90.3, 90.1, 90.2, t_weight=weight)
        return [
            row("RRR", seeds(90.2, 90.1, 90.0, t_weight=0.06), config=given()),
            row("RRR, random mask", control, arm="RRR", control="random mask", config=given("random")),
        ]

    assert only(*pair(0.17)).verdict == "as good"
    apart = pair(423.0)
    assert only(*apart).verdict == "not comparable"
    (told,) = mask_verdicts(apart)
    assert told.startswith(
        "not comparable: with a random mask the weight of RRR ended at 423, with the true one at 0.06; the random mask "
    )
    assert only(*pair(0.01)).verdict == "not comparable"


def test_intervals_of_shares_end_at_0_and_100_alike_in_every_output(tmp_path):
    (tmp_path / "quick.toml").write_text(QUICK)
    plan = read_table(str(tmp_path / "quick.toml"))
    held = Records([tmp_path / "records"])
    for seed, (accuracy, worst, loss) in enumerate([(0.96, 0.0, 0.1), (1.0, 0.03, 0.5)]):
        figures = {"accuracy": accuracy, "worst_class": worst, "loss": loss}
        for name, config in plan.runs(seed, controls=False).items():
            held.add(Record("train", as_dict(config), {"test": figures}), f"{name}-{seed}")
    plain = table_rows(plan, held)[0]
    free = {
        name: mean_sd_interval([100 * a, 100 * b]) for name, a, b in (("accuracy", 0.96, 1), ("worst_class", 0, 0.03))
    }
    assert free["accuracy"].high > 100
    assert plain.accuracy == replace(free["accuracy"], high=100.0)
    assert plain.worst_class == replace(free["worst_class"], low=0.0)
    assert plain.columns["loss"] == mean_sd_interval([0.1, 0.5])
    assert plain.columns["loss"].low < 0
    assert table_record(plan, [plain])["rows"][0]["accuracy"]["high"] == 100
    write_csv(plan, [plain], tmp_path / "t.csv")
    (line,) = csv.DictReader((tmp_path / "t.csv").read_text().splitlines())
    assert (line["accuracy_high"], line["worst_class_low"]) == ("100", "0")
    (one,) = table_rows(plan, held, seeds=1)[:1]
    assert math.isnan(one.accuracy.high)


def test_a_loss_that_had_nothing_to_do_is_no_evidence():
    arm = row("RRR", seeds(90.2, 90.1, 90.0), config=given())

    def zero(*accuracies, value, **more):
        own = given("zero", **more)
        return row("RRR, zero mask", seeds(*accuracies, t=value), arm="RRR", control="zero mask", config=own)

    assert only(arm, zero(70.2, 70.1, 70, value=0.0)).verdict == "same as plain"
    assert only(arm, zero(50.3, 50.1, 49.8, value=0.1)).verdict == "behind"
    assert only(arm, zero(50, 50.1, 49.9, value=0.1)).verdict == "same as plain"
    drawn = TrainingConfig(augmentation={"irrelevant": "uniform"})
    assert only(arm, zero(70.2, 70.1, 70, value=0.0, training=drawn)).verdict == "behind"
    rows = [arm, zero(50, 50.1, 49.9, value=0.0)]
    assert mask_verdicts(rows) == ()
    assert idle_controls(rows).endswith("so no evidence: RRR, zero mask")
    assert idle_controls(rows[:1]) == ""


def test_what_a_table_cannot_have_is_said_in_one_line(tmp_path):
    assert lacking(read_table("toy-colors")) == (
        "no clean bound, as there is no decoy to leave out; no wrong mask for RRR, RRR, target, cosine RRR and 2 more, "
        "as there is no patch of whose size it could be; no controls for find another, one round, find another, two "
        "rounds, which use no masks"
    )
    (tmp_path / "quick.toml").write_text(QUICK)
    assert lacking(read_table(str(tmp_path / "quick.toml"))) == ""


def test_a_weight_that_was_found_is_held_against_the_best_swept_one():
    rows = [
        row("found", seeds(95, 96, t_weight=40.0), config=given()),
        row("low", seeds(80, 81), config=given(weight=1.0)),
        row("high", seeds(96, 97), config=given(weight=100.0)),
    ]
    (told,) = weight_verdicts(rows)
    assert told == ("found: weight 'balance' ended at 40, 1.00 points behind the best of 2 swept weights (100, high)")
    assert weight_verdicts(rows[:1]) == ("found: weight 'balance' ended at 40",)
    assert weight_verdicts(rows[1:]) == ()
    (one,) = weight_verdicts([rows[0], rows[2]])
    assert one.endswith("1.00 points behind the one weight given as a number (100, high)")
    again = replace(rows[2], name="again")
    assert "the one weight" in weight_verdicts([rows[0], rows[2], again])[0]


@pytest.mark.parametrize(
    "other",
    [
        given(weight=1.0, training=TrainingConfig(epochs=9)),
        given("incomplete", weight=1.0),
        given("wrong", weight=1.0),
        replace(given(), terms={"t": TermConfig("rrr", 1.0), "more": TermConfig("rbr", 1.0)}),
        replace(given(), terms={"t": TermConfig("rrr", 1.0, attribution="grad_cam")}),
        replace(given(), terms={"t": TermConfig("cdep", 1.0)}),
    ],
)
def test_a_weight_is_held_against_none_of_another_configuration(other):
    rows = [row("found", seeds(95, 96, t_weight=40.0), config=given()), row("other", seeds(99, 99), config=other)]
    assert weight_verdicts(rows) == ("found: weight 'balance' ended at 40",)


@pytest.mark.parametrize(
    ("weight", "share", "told"),
    [
        ("target:0.1", 0.1, "target met: 0.1 of chance reached, at most 0.1 asked"),
        ("target:0.1", 0.3, "target missed: 0.3 of chance reached, at most 0.1 asked"),
        ("target", 0.05, "target missed: 0.05 of chance reached, at most 0.02 asked"),
    ],
)
def test_a_target_that_was_missed_is_told(weight, share, told):
    found = row("RRR", seeds(95, 96, t_weight=4.0, t_share=share), config=given(weight=weight))
    assert weight_verdicts([found]) == (f"RRR: weight {weight!r} ended at 4, {told}",)


@pytest.mark.parametrize(
    ("own", "plain", "expected"),
    [([2.0, 4.0], [1.0, 2.0], 2.0), ([2.0, None], [1.0, 2.0], 50.0), ([2.0, 4.0], [None, 2.0], 50.0)],
)
def test_a_cost_is_in_cpu_time_where_both_tell_it(own, plain, expected):
    def run(cpu, wall):
        lines = [{"epoch": 1.0} | ({} if seconds is None else {"cpu_seconds": seconds}) for seconds in cpu]
        return Record("train", {}, {}, history=lines, seconds=wall)

    assert _cost([(run(own, 500.0), run(plain, 10.0))]) == expected


def test_what_took_no_time_costs_nothing_that_could_be_told():
    nothing = Record("train", {}, {})
    assert _cost([(nothing, nothing)]) is None
    assert _cost([]) is None


def test_times_of_different_devices_are_no_cost():
    def run(device):
        return Record("train", {}, {}, seconds=3.0, environment={"device": device})

    assert _cost([(run("cpu"), run("cpu")), (run("cuda"), run("cuda"))]) == 1.0
    assert _cost([(run("cpu"), run("cpu")), (run("cuda"), run("cpu"))]) is None


VARIED = """
[[vary]]
key = "data.annotated"
values = [0.5]
names = ["half"]
arms = ["plain", "RRR"]
controls = "none"
"""


def varied_rows(folder, accuracies, *, lost=(), seeds=2):
    """The rows of the quick table with a value varied, of records with these accuracies; what is lost diverged."""
    folder.mkdir(exist_ok=True)
    (folder / "quick.toml").write_text(QUICK + VARIED)
    plan, records = read_table(str(folder / "quick.toml")), Records([folder / "records"])
    for seed in range(seeds):
        for name, config in plan.runs(seed, controls=True).items():
            kind = "diverged" if (name, seed) in lost else "train"
            results = {"test": {"accuracy": accuracies.get(name, 0.0) + seed / 100, "worst_class": 0.1}}
            if name in accuracies:
                told = {} if kind == "diverged" else results
                records.add(Record(kind, as_dict(config), told), f"{seed}/{slug(name)}")
    return plan, {row.name: row for row in table_rows(plan, records)}


def test_a_varied_row_is_held_against_plain_under_the_same_value(tmp_path):
    base = {"plain": 0.5, "RRR": 0.9, "RRR, half": 0.8}
    _, rows = varied_rows(tmp_path / "a", base | {"plain, half": 0.3})
    assert rows["RRR"].lead.mean == pytest.approx(40)
    assert rows["RRR, half"].lead.mean == pytest.approx(50)
    _, rows = varied_rows(tmp_path / "b", base)
    assert rows["RRR, half"].lead.mean == pytest.approx(30)


def test_what_diverged_is_counted_beside_the_seeds_and_is_in_no_figure(tmp_path):
    accuracies = {"plain": 0.5, "RRR": 0.9, "RRR, zero mask": 0.4}
    lost = {("RRR", 1), ("RRR, zero mask", 0), ("RRR, zero mask", 1)}
    plan, rows = varied_rows(tmp_path, accuracies, lost=lost)
    assert {name: (row.seeds, row.diverged) for name, row in rows.items()} == {
        "plain": (2, 0),
        "RRR": (1, 1),
        "RRR, zero mask": (0, 2),
    }
    assert rows["RRR"].accuracy.mean == pytest.approx(90)
    assert rows["RRR, zero mask"].accuracy.count == 0
    assert mask_verdicts(list(rows.values())) == weight_verdicts([rows["RRR, zero mask"]]) == ()
    write_csv(plan, list(rows.values()), tmp_path / "t.csv")
    lines = {line["row"]: line for line in csv.DictReader((tmp_path / "t.csv").read_text().splitlines())}
    assert [lines[name]["diverged"] for name in rows] == ["0", "1", "2"]
    assert lines["RRR, zero mask"]["accuracy_mean"] == lines["RRR, zero mask"]["seconds"] == ""
    assert table_record(plan, list(rows.values()))["rows"][2]["accuracy"]["mean"] is None
