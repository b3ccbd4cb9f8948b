"""What a table's file may say, and what it is told when it says it wrong."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
import torch

from rightreasons.experiments.study import plain_arm
from rightreasons.experiments.table import read_table
from tests.experiments.table_files import QUICK, more_plan


@pytest.fixture
def more(tmp_path):
    """The quick table with everything that an arm may say."""
    return more_plan(tmp_path)


def test_an_arm_changes_any_part_of_the_protocol_and_keeps_the_rest(more):
    assert more.arms["cheap"].training == replace(more.plain.training, epochs=2)
    assert more.arms["cheap"].data == more.plain.data
    assert more.arms["wide"].model.settings == {"hidden": [8], "initial_sd": 0.1}
    # Another network has none of the settings of the protocol's.
    assert more.arms["linear"].model.settings == {"bias": False}


def test_only_arms_with_masks_have_controls_unless_they_want_none(more):
    names = list(more.runs(0, controls=True))
    assert {n for n in names if n.endswith("zero mask")} == {f"{a}, zero mask" for a in ("RRR", "tuned")}
    assert [n for n in more.runs(0, controls=False) if "mask" in n and "masks" not in n] == []


def test_an_arm_that_randomizes_marked_pixels_has_controls_too():
    plan = read_table("rrr")
    name = "noise in place, tuned"
    runs = plan.runs(0, controls=True)
    assert {n for n in runs if n.startswith(f"{name}, ")} == {f"{name}, {k} mask" for k in ("zero", "random", "wrong")}
    assert plain_arm(runs[name]).training.augmentation == {"shift": 1}


def test_each_value_is_varied_alone_and_a_run_of_the_base_is_not_run_twice(more):
    rows = {entry.name: entry for entry in more.entries()}
    assert rows["RRR, 10 masks"].config == replace(more.arms["RRR"], data=replace(more.plain.data, annotated=0.1))
    assert "RRR, all masks" not in rows
    assert more.aliases["RRR, all masks"] == "RRR"
    # Without names the values are their own; without arms every arm with that key takes part.
    assert [n for n in rows if n.endswith(", 3.0")] == ["RRR, 3.0", "cheap, 3.0", "tuned, 3.0"]
    assert rows["cheap, 4.0"].config.terms["rrr"].weight == 4.0
    assert rows["cheap, 4.0"].config.data.annotated == 1.0
    assert (rows["cheap, 4.0"].arm, rows["cheap, 4.0"].variation.block) == ("cheap", 1)


def test_a_weight_of_0_is_a_control_that_a_table_may_have(tmp_path):
    vary = '[[vary]]\nkey = "terms.rrr.weight"\nvalues = [0.0, 1.0]\ncontrols = "none"\n'
    (tmp_path / "zero.toml").write_text(QUICK + vary)
    assert read_table(str(tmp_path / "zero.toml")).runs(0, controls=False)["RRR, 0.0"].terms["rrr"].weight == 0


def test_controls_of_what_is_varied_stand_beside_the_last_value_unless_asked(tmp_path):
    def controlled(word):
        vary = f'[[vary]]\nkey = "data.annotated"\nvalues = [0.1, 0.5]\n{word}'
        (tmp_path / "vary.toml").write_text(QUICK + vary)
        names = read_table(str(tmp_path / "vary.toml")).runs(0, controls=True)
        return [n.removesuffix(", wrong mask") for n in names if n.endswith("wrong mask") and n.count(",") == 2]

    assert controlled("") == ["RRR, 0.5"]
    assert controlled('controls = "all"') == ["RRR, 0.1", "RRR, 0.5"]
    assert controlled('controls = "none"') == []


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ('columns = ["acuracy"]', "no column 'acuracy'. There are: accuracy"),
        ("seeds = 0", "at least one seed"),
        ("[arms.RRR]\ncontrols = 1", "true or false for controls of 'RRR'"),
        ('[[vary]]\nkey = "data.annotatd"\nvalues = [1]', "unknown key 'annotatd' in data"),
        ('[[vary]]\nkey = "terms.res.weight"\nvalues = [1]', "varies terms.res.weight, which no arm has"),
        ('[[vary]]\nkey = "data.annotated"\nvalues = []', "values for data.annotated, got none"),
        ('[[vary]]\nkey = "data.annotated"\nvalues = [0.5]\nnames = ["a", "b"]', "a name for each value"),
        ('[[vary]]\nkey = "data.annotated"\nvalues = [0.5]\narms = ["RES"]', "of 'RES', which is no arm"),
        ('[[vary]]\nkey = "data.annotated"\nvalues = [0.5]\ncontrols = "some"', "controls of last, all, none"),
        ('[arms.RRR]\nselect = { key = "terms.rrr.weight", values = [1, 2], by = "test" }', "nothing is chosen by the"),
        ('[arms.RRR]\nselect = { key = "terms.res.weight", values = [1, 2], by = "swap" }', "RRR has no"),
        ('[arms.RRR]\nselect = { key = "data.seed", values = [1, 2], by = "swap" }', "a choice must not change the"),
        ('[arms.RRR]\nselect = { key = "terms.rrr.weight", values = [1, 1.0], by = "swap" }', "got 1.0 twice"),
        ('[arms.RRR]\nselect = { key = "terms.rrr.weight", values = ["balence", 1], by = "swap" }', "got 'balence'"),
        ("[arms.RRR]\nselect = 3", "expected a table for arms.RRR.select, got 3"),
        (
            '[arms.RRR]\nselect = { key = "terms.rrr.weight", values = 3, by = "swap" }',
            "expected a list for arms.RRR.sel",
        ),
        ("[arms.RRR]\ndata = 3", "arm 'RRR': expected a table for data, got 3"),
        ('[arms.a]\nterms.a = { loss = "rr" }', "a: unknown explanation loss 'rr'. Did you mean 'rrr'?"),
        ('[arms.a]\nterms.a = { loss = "rrr", weight = "balence" }', "got 'balence'"),
        ('[arms.a]\nterms.a = { loss = "tap", weight = "target" }', "TAP is not about a heatmap"),
        (
            '[arms.a]\nterms.a = { loss = "ibp_ex", settings = { radis = 1 } }',
            "has no setting 'radis'. There are: radius",
        ),
        ('[arms.a]\nterms.a = { loss = "rrr", attribution = "salincy" }', "Did you mean 'saliency'?"),
        (
            '[arms.a.terms.a]\nloss = "rrr"\nattribution = "expected_gradients"\nattribution_settings = { n = 1 }',
            "has no setting 'n'. There are: references, samples",
        ),
        ('[arms.a]\nrecipe = { name = "jt" }', "Did you mean 'jtt'?"),
        ('[arms.a]\nrecipe = { name = "jtt", settings = { epoch = 1 } }', "a: recipe 'jtt' has no setting 'epoch'"),
        ('[arms.a]\ntraining = { augmentation = { irrelevant = "unifrom" } }', "'unifrom'"),
        ('[arms.a]\ntraining = { optimizer = "adm" }', "'adm'"),
        ('[arms.a]\nmodel = { name = "mlp", settings = { hiden = [3] } }', "no setting 'hiden'. There are: hidden"),
        (
            '[arms.a]\ndata = { name = "minst" }',
            "no data set and no folder of images is named 'minst'. Data sets: mnist",
        ),
        ("[arms.a]\ndata = { degrade = { mising = 0.5 } }", "degrade has no setting 'mising'. There are: boundary"),
        ('[[vary]]\nkey = "terms.rrr.weight"\nvalues = ["balence"]', "RRR, balence: expected a weight"),
        ('[[vary]]\nkey = "data.annotated"\nvalues = 0.5', "expected a list for vary (number 1).values, got 0.5"),
        (
            '[[vary]]\nkey = "data.annotated"\nvalues = [0.5]\nlable = "a"',
            "unknown key 'lable' in vary (number 1). There",
        ),
        ("seeds = 2.5", "expected int for table.seeds, got 2.5"),
        ("seeds = true", "expected int for table.seeds, got True"),
        ('vary = "x"', "expected a list for table.vary, got 'x'"),
        ("vary = [3]", "expected a table for vary (number 1), got 3"),
        ("published = 3", "expected a list for table.published, got 3"),
        ("collumns = []", "unknown key 'collumns' in table. There are: title"),
        ('columns = "accuracy"', "expected a list of names for table.columns"),
        ("arms = 3", "expected a table of plain values for table.arms, got 3"),
    ],
)
def test_a_mistake_in_what_an_arm_says_is_told_before_anything_runs(tmp_path, line, told):
    text = QUICK.replace("seeds = 2", "" if line.startswith("seeds") else "seeds = 2")
    if line.startswith(("published", "arms")):
        text = re.sub(
            r"\[\[published.*|\[arms.*?(?=\[\[)" if "arms" in line else r"\[\[published.*", "", text, flags=re.S
        )
    text = line + text if not line.startswith("[") else text.replace("[[published]]", f"{line}\n\n[[published]]")
    (tmp_path / "quick.toml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(told)):
        read_table(str(tmp_path / "quick.toml"))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            'title = "only"',
            "missing key 'description' in table. There are: title, description, source, run",
        ),
        (QUICK.replace("value = 90.5", 'value = "90.5"'), "expected float for published (number 1).value, got '90.5'"),
        (re.sub(r"\[run\.data.*(?=\[arms)", "", QUICK, flags=re.S), "missing key 'run'"),
        ("title = ", "is no table: Invalid value"),
    ],
)
def test_a_file_that_is_no_table_says_what_is_missing(tmp_path, text, told):
    (tmp_path / "quick.toml").write_text(text)
    with pytest.raises(ValueError, match=re.escape(told)):
        read_table(str(tmp_path / "quick.toml"))


HALF = '[[vary]]\nkey = "data.annotated"\nvalues = [0.5]\n'


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ('[arms."RRR, wrong mask".terms.rrr]\nloss = "rrr"\n', "two rows are called 'RRR, wrong mask'"),
        (f'{HALF}[[vary]]\nkey = "terms.rrr.weight"\nvalues = [0.5]\n', "two rows are called 'RRR, 0.5'"),
        ("[arms.rrr]\ntraining = { epochs = 2 }\n", "'RRR' and 'rrr' would share the file rrr.json"),
        ('[arms."%"]\ntraining = { epochs = 2 }\n', "expected letters or digits in the name of a row, got '%'"),
    ],
)
def test_two_rows_never_share_a_name_or_a_file(tmp_path, more, told):
    (tmp_path / "quick.toml").write_text(f"{QUICK}\n{more}")
    with pytest.raises(ValueError, match=re.escape(told)):
        read_table(str(tmp_path / "quick.toml"))


def test_the_same_run_may_be_named_twice(tmp_path):
    (tmp_path / "quick.toml").write_text(f"{QUICK}\n{HALF}{HALF}")
    plan = read_table(str(tmp_path / "quick.toml"))
    assert [entry.name for entry in plan.entries()].count("RRR, 0.5") == 1


def test_reading_a_table_leaves_the_random_numbers_alone():
    before = torch.get_rng_state()
    read_table("res-noise")
    assert torch.equal(before, torch.get_rng_state())
