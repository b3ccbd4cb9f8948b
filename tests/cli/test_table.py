"""The table command: what it lists, writes, and says of what failed."""

import csv
import json
import re
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from rightreasons.cli import show, show_table
from rightreasons.experiments.table import PublishedValue, tables
from tests.cli.conftest import cli
from tests.experiments.table_files import QUICK
from tests.reports.invented_table import HOSTILE, MISLED, plan, rows

COLUMNS = 'columns = ["accuracy", "swap", "saliency"]\n'


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """A folder in which the quick table was run with its controls, and what was said."""
    folder = tmp_path_factory.mktemp("tables")
    (folder / "quick.toml").write_text(COLUMNS + QUICK)
    return folder, table(folder, "--seeds", 1)


def table(folder, *options):
    where = ("--records", folder / "records", "--out", folder / "runs", "--device", "cpu")
    return cli("table", folder / "quick.toml", *where, *options)


def words(said):
    return " ".join((said.out + said.err).split())


def test_the_columns_of_the_file_are_shown_and_told(ran):
    _, said = ran
    assert said.code == 0, said
    for told in ("accuracy", "swap", "saliency", "as a multiple of chance", "RRR, wrong mask", "90.5 ± 1"):
        assert told in words(said)
    assert "worst class" not in said.out
    assert "RRR: weight 'balance' ended at" in words(said)


def test_the_table_is_written_to_files(ran):
    folder, _ = ran
    said = table(folder, "--show", "--csv", folder / "t.csv", "--json", folder / "t.json", "--seeds", 1)
    assert said.code == 0, said
    lines = list(csv.DictReader((folder / "t.csv").read_text().splitlines()))
    held = json.loads((folder / "t.json").read_text())
    assert [line["row"] for line in lines] == [row["name"] for row in held["rows"]]
    assert held["table"] == "quick"
    assert "t.json" in said.out


def test_a_run_that_fails_is_named_the_others_are_shown_and_the_code_is_2(tmp_path):
    arm = '\n[arms.broken]\nmodel = { name = "lenet" }\ncontrols = false\n'
    (tmp_path / "quick.toml").write_text(QUICK + arm)
    said = table(tmp_path, "--seeds", 1, "--only", "plain", "--only", "broken")
    assert said.code == 2
    assert "failed: quick, seed 0, broken: " in words(said)
    assert "error: 1 of 2 runs failed: quick, seed 0, broken" in words(said)
    assert "plain" in said.out.rpartition("seeds")[2]
    only = table(tmp_path, "--seeds", 1, "--only", "broken", "--records", tmp_path / "new")
    assert only.code == 2


def test_all_tables_can_be_listed():
    said = cli("table", "--list")
    assert said.code == 0, said
    assert all(name in said.out for name in tables())
    one = cli("table", "rrr", "--list").out.splitlines()
    assert {"plain", "clean bound", "RRR", "RRR, wrong mask"} <= set(one)
    assert "expected a table. There are: " in cli("table").mistake


@pytest.mark.parametrize(
    ("options", "told"), [(("--jobs", 0), "at least one job"), (("--seeds", 0), "at least one seed")]
)
def test_a_number_that_makes_no_sense_is_refused(tmp_path, options, told):
    (tmp_path / "quick.toml").write_text(QUICK)
    assert told in table(tmp_path, *options).mistake


@pytest.fixture(scope="module")
def invented(tmp_path_factory):
    """A plan with every mark and its rows, one of which has a column on fewer seeds than it stands on."""
    values = (*plan().published, PublishedValue("useless", 79.2, "their logs", sd=2.0, mark="derived"))
    made = replace(plan(), published=values, columns=("accuracy", "swap"))
    found = rows(tmp_path_factory.mktemp("records"), made=made)
    few = replace(found[2].columns["swap"], count=3)
    return made, (*found[:2], replace(found[2], columns={**found[2].columns, "swap": few}), *found[3:])


def printed(invented, monkeypatch, width):
    """What a terminal of that width shows, one line a line."""
    screen = StringIO()
    for module in (show, show_table):
        for name in ("console", "notes"):
            if hasattr(module, name):
                monkeypatch.setattr(module, name, Console(file=screen, width=width, emoji=False, highlight=False))
    show_table.published_table(*invented)
    return screen.getvalue()


@pytest.mark.parametrize(("width", "intervals"), [(80, 0), (150, 2), (200, 3)])
def test_as_many_means_have_their_interval_as_the_width_allows(invented, monkeypatch, width, intervals):
    said = printed(invented, monkeypatch, width)
    arm = said.partition("clean bound")[2].partition(HOSTILE[:6])[0]
    # The lead's interval is the first to come and the last to go.
    assert arm.count("[") == intervals
    table = said.partition("accuracy: test accuracy in per cent")[0]
    assert "…" not in table
    assert ("[+46.0, +46.0]" in table) == bool(intervals)
    assert re.search(r"clean bound .* 5\s*$", table, re.M)


@pytest.mark.parametrize("width", [64, 80])
def test_a_table_that_is_too_wide_goes_on_below_with_every_name_and_figure(invented, monkeypatch, width):
    made, found = invented
    columns = ("accuracy", "swap", "worst_class", "average_group")
    worst = dict.fromkeys(columns, found[0].columns["accuracy"])
    wide = tuple(
        replace(row, name="plain" if row is found[0] else "arm", columns={**worst, **row.columns}) for row in found[:3]
    )
    said = printed((replace(made, columns=columns), wide), monkeypatch, width).partition("accuracy: test")[0]
    lines = said.splitlines()
    assert max(map(len, lines)) <= width
    heads = [line.split() for line in lines if line.startswith("arm ") and "±" not in line and not line[-1].isdigit()]
    assert len(heads) > 1
    for title in ("accuracy", "swap", "seeds", "cost", "lead"):
        assert sum(head.count(title) for head in heads) == 1
    assert sum(line.startswith("plain ") for line in lines) == len(heads)
    assert "…" not in said


def test_what_a_figure_stands_on_is_said_beside_it_and_below(invented, monkeypatch):
    said = " ".join(printed(invented, monkeypatch, 200).split())
    assert "2.00 ± 0.00 (n=3)" in said
    assert "3, 2 diverged" in said
    assert "diverged: useless, random mask (2 of 5 seeds); the means are over the seeds that did not" in said


def test_published_values_have_their_source_and_how_sure_it_is_below(invented, monkeypatch):
    said = printed(invented, monkeypatch, 200)
    assert "92†" in said
    assert "79.2 ± 2*" in said
    assert "95.5 ± 0.3," in said
    lines = said.splitlines()
    assert "published†: somewhere, from memory: not to be cited (late)" in lines
    assert "published*: their logs, derived from the authors' logs (useless)" in lines
    assert f"published: a <table> ({HOSTILE})" in lines


def test_the_terminal_warns_of_controls_as_the_page_does(invented, monkeypatch):
    lines = printed(invented, monkeypatch, 200).splitlines()
    assert f"the random mask alone brings {HOSTILE} 30.0 of 46.0 points over plain [+30.00, +30.00]" in lines
    assert any(line.startswith(f"{MISLED} has a wrong mask, yet is +48.00") for line in lines)
    assert any(line.startswith("the mask is not what helps: with a zero mask useless reaches 60.08") for line in lines)
    assert f"same as plain, the loss had nothing to do, so no evidence: {HOSTILE}, zero mask" in lines


def test_what_a_table_cannot_have_is_said(invented, monkeypatch):
    made, found = invented
    bare = replace(made, plain=replace(made.plain, data=replace(made.plain.data, decoy="")))
    assert "no clean bound, as there is no decoy to leave out" in printed((bare, found), monkeypatch, 200)
    assert "no clean bound" not in printed(invented, monkeypatch, 200)


def test_the_table_of_counterfactual_methods_goes_on_where_it_was_and_fits_the_terminal(tmp_path, monkeypatch):
    from rightreasons.experiments import ModelConfig, TrainingConfig
    from rightreasons.experiments.counterfactual import MethodsProtocol

    small = MethodsProtocol(
        data=("digits",),
        methods=("wachter", "nearest_neighbor"),
        first=40,
        images=8,
        real=40,
        model=ModelConfig("mlp"),
        oracle=ModelConfig("mlp", {"hidden": [9]}),
        training=TrainingConfig(epochs=1),
        steps=1,
    )
    monkeypatch.setattr("rightreasons.experiments.counterfactual.MethodsProtocol", lambda: small)
    monkeypatch.setattr(show, "console", Console(width=80, emoji=False, highlight=False))
    where = ("--records", tmp_path / "records", "--out", tmp_path / "runs", "--device", "cpu")
    first = cli("table", "counterfactuals", *where, "--only", "runner-up", "--csv", tmp_path / "t.csv")
    assert first.code == 0, first
    assert "2 of 2: digits-nearest_neighbor-runner-up-0" in first.out
    drawn = first.out[first.out.index("method") : first.out.index("IM1 of real")]
    assert max(map(len, drawn.splitlines())) <= 80
    assert drawn.count("nearest_neighbor") == drawn.count("method") > 1
    assert len((tmp_path / "t.csv").read_text().splitlines()) == 3
    again = cli("table", "counterfactuals", *where, "--show")
    assert "2 of 4 rows have no record yet" in again.err
    assert "digits-wachter-runner-up-0" not in again.out


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--page", "p.html"), "does not take --page"),
        (("--seeds", 0), "at least one seed"),
        (("--only", "wachtr"), "no row 'wachtr'"),
        (("--show", "--records", "nowhere"), "no record of such a row"),
    ],
)
def test_what_the_table_of_counterfactual_methods_cannot_do_is_said(options, told):
    said = cli("table", "counterfactuals", *options)
    assert said.code == 2
    assert told in words(said)
