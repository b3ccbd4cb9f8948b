"""The page of a table: what it says, in which words, and that it is whole."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace

import pytest

from rightreasons.core import NotWritten
from rightreasons.experiments.select import Chosen, Select
from rightreasons.experiments.table import PLAIN, Judged, mask_verdicts, table_record
from rightreasons.experiments.table import judged as judged_rows
from rightreasons.experiments.table.rows import NOTHING
from rightreasons.metrics import SeedSummary
from rightreasons.reports import TablePage, render_table, write_table
from rightreasons.reports.charts import learning
from rightreasons.reports.table_charts import learned
from rightreasons.reports.table_verdict import Group, listed, verdict
from tests.reports.invented_table import HOSTILE, MISLED, plan, rows, varied_plan, views
from tests.reports.test_browser import CHROMIUM, brightness, browser, opened  # noqa: F401
from tests.reports.test_quality import Open

TIMES = "\N{MULTIPLICATION SIGN}"
ESCAPED = "&lt;b&gt;RRR&lt;/b&gt; &amp; co"


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    found = rows(tmp_path_factory.mktemp("records"))
    return TablePage(plan(), found, views(), ("rightreasons table invented.toml --page a&b.html",))


@pytest.fixture(scope="module")
def html(page):
    return render_table(page)


def words(markup):
    return " ".join(re.sub(r"<[^>]*>", " ", markup).split())


def body_of(html, name):
    """The part of the table that belongs to an arm."""
    (found,) = [
        part for part in re.findall(r"<tbody.*?</tbody>", html, re.S) if f"<b>{name}</b>" in part and "own" in part
    ]
    return found


def test_the_page_is_whole_loads_nothing_and_escapes_what_users_wrote(html):
    parser = Open()
    parser.feed(html)
    assert (parser.tags, parser.wrong) == ([], [])
    assert "default-src 'none'" in html
    assert not re.findall(r"(?:src|href)=\"(?!data:|#|https://arxiv)", html)
    assert HOSTILE not in html
    assert "<invented>" not in html
    assert "a <table>" not in html
    assert html.count(ESCAPED) > 5


def test_the_verdict_names_the_first_arm_its_interval_and_what_its_controls_say(page):
    told = page.verdict.replace("\N{NO-BREAK SPACE}", " ")
    assert told == (
        f"{HOSTILE} comes first: it is right on 96.08 % of the test images (95 % interval 95.98 to 96.18, 5 seeds), "
        "46.0 points above plain training (+46.0 to +46.0). It is clearly ahead of the same with a random mask and a "
        "wrong mask; yet with a random mask alone it already gains 30.0 of the 46.0 points. Elsewhere the mask is not "
        f"what helps: a control does as well as useless. Masks that should not help bring {MISLED} clearly above plain "
        "all the same."
    )


def test_an_arm_stands_with_its_figures_and_what_was_published(html):
    told = words(body_of(html, ESCAPED))
    assert "96.08 ± 0.08" in told
    assert "+46.0" in told
    assert "95.5 ± 0.3 a &lt;table&gt;" in told
    assert "Worst class 91.25 the text" in told
    assert f"2.20{TIMES}" in told
    assert "memory" not in told
    assert "92 somewhere from memory, do not cite" in words(body_of(html, "late"))


def test_what_the_source_of_the_accuracy_tells_besides_stands_below_our_own_figures(page):
    (row,) = (row for row in page.rows if row.name == HOSTILE)
    accuracy, apart = page.published(row)
    assert (accuracy.value, apart.value) == (95.5, 91.25)
    assert page.beside(row, "worst_class") == ()
    same = replace(row, published=(accuracy, replace(apart, source=accuracy.source)))
    assert page.published(same) == (accuracy,)
    assert [value.value for value in page.beside(same, "worst_class")] == [91.25]
    told = render_table(replace(page, rows=tuple(same if one is row else one for one in page.rows)))
    assert "published 91.25" in words(body_of(told, ESCAPED))
    two = replace(row, published=(accuracy, replace(accuracy, source="another"), *same.published[1:]))
    assert page.beside(two, "worst_class") == ()
    assert len(page.published(two)) == 3


def test_the_worst_class_is_named_under_the_table(html):
    assert f"; it is 1 (4 of 5 seeds) with plain, clean bound, {ESCAPED} and 3 more." in words(html)


def test_a_choice_that_says_nothing_is_doubted(page):
    select = Select("terms.t.weight", (1.0, 2.0), "swap")
    arms = [replace(row, chosen=Chosen(select, 2.0, (0.04, 0.06))) for row in page.rows if row.name == HOSTILE]
    told = words(render_table(replace(page, rows=tuple(arms))))
    assert "seed 0 alone (1.0: 4.0, 2.0: 6.0); none is above chance (10.0), so the choice says nothing" in told
    assert table_record(page.plan, arms)["rows"][0]["chosen"].endswith("so the choice says nothing")


def test_each_control_stands_below_its_arm_with_its_verdict(html):
    told = words(body_of(html, ESCAPED))
    assert re.search(r"zero mask .* same as plain: the loss had nothing to do .* random mask", told)
    assert re.search(r"random mask .* ✓ arm ahead by 16\.0 by itself \+30\.0 over plain", told)
    assert re.search(r"wrong mask .* ✓ arm ahead by 47\.0 2\.20", told)
    assert "✕ as good as the arm" in words(body_of(html, "useless"))
    assert " checked" in body_of(html, "useless")
    assert "control" not in body_of(html, "late")


def judged(mean, low, high, *, arm=None):
    """A control of an arm that leads it by so much."""
    row = replace(rows_stub(80.0, lead=30.0), control="random mask")
    return Judged("random mask", row, arm or rows_stub(96.0, lead=14.0), SeedSummary(mean, 1.0, low, high, 5))


def rows_stub(accuracy, lead, name="arm"):
    from rightreasons.experiments.table import TableRow

    summary = SeedSummary(accuracy, 0.1, accuracy - 0.1, accuracy + 0.1, 5)
    own = SeedSummary(lead, 0.1, lead - 0.1, lead + 0.1, 5)
    return TableRow(name, summary, summary, own, 1.0, 1.0, 5)


def test_the_page_and_the_terminal_say_the_same_of_each_control(page):
    found = {control.row.name: control for group in page.arms for control in group.controls}
    found |= {group.row.name: group.itself for group in page.arms if group.itself is not None}
    assert {name: control.verdict for name, control in found.items()} == {
        control.row.name: control.verdict for control in judged_rows(page.rows)
    }
    assert [control.told for control in found.values() if control.told] == list(mask_verdicts(page.rows))


def test_an_arm_with_wrong_masks_never_comes_first(page, html):
    assert max(page.rows, key=lambda row: row.accuracy.mean).name == MISLED
    assert page.best.name == HOSTILE
    assert "a control: wrong mask by itself +48.0 over plain" in words(body_of(html, MISLED))
    alone = TablePage(page.plan, tuple(row for row in page.rows if row.name in (PLAIN, MISLED)))
    assert alone.best is None
    assert alone.verdict == f"Masks that should not help bring {MISLED} clearly above plain all the same."


def test_runs_that_diverged_stand_beside_the_seeds(page, html):
    told = words(body_of(html, "useless"))
    assert "3 2 diverged" in told
    assert "Every figure is over the runs that did not diverge." in html
    lost = replace(
        page.rows[2], seeds=0, diverged=5, records={}, columns={}, lead=None, cost=None, accuracy=NOTHING, name="lost"
    )
    bare = TablePage(page.plan, (*page.rows, lost))
    assert "5 diverged" in words(body_of(render_table(bare), "lost"))
    assert "nan" not in words(render_table(bare))
    assert "lost" not in [arm.name for arm in bare.learned]


def test_weights_too_far_apart_are_shown_in_the_place_of_a_verdict(page):
    def ended(row, weight):
        records = {
            s: replace(r, history=[*r.history[:-1], {**r.history[-1], "t_weight": weight}])
            for s, r in row.records.items()
        }
        return replace(row, records=records)

    weights = {HOSTILE: 0.06, f"{HOSTILE}, random mask": 423.0}
    rows = tuple(ended(row, weights[row.name]) if row.name in weights else row for row in page.rows)
    told = words(body_of(render_table(TablePage(page.plan, rows)), ESCAPED))
    assert "not comparable: weight 423, the arm's 0.06" in told
    assert "arm ahead by 16.0" not in told


def test_controls_that_had_nothing_to_do_are_no_evidence():
    flat = replace(rows_stub(50.0, lead=0.0), lead=SeedSummary(0.0, 0.0, 0.0, 0.0, 5))
    idle = replace(judged(40.0, 39.0, 41.0), row=flat)
    told = verdict([Group(rows_stub(96.0, lead=14.0), (idle,))], base="plain")
    assert "so it is the mask" not in told
    assert told.endswith(
        "No control tells yet whether it is the mask that helps. With a random mask its loss had nothing to do."
    )


def test_few_seeds_are_no_reason_to_blame_the_mask():
    arm = rows_stub(96.0, lead=14.0)
    told = verdict([Group(arm, (judged(13.7, -24.0, 51.0),))], base="plain")
    assert told.endswith("The seeds are too few to tell it from the same with a random mask.")
    told = verdict([Group(arm, (judged(0.2, -24.0, 0.9),))], base="plain")
    assert told.endswith("But the mask is not what helps: with a random mask it does as well.")
    low = rows_stub(60.0, lead=0.0)
    flat = verdict([Group(low, (judged(0.2, -1.0, 0.9, arm=low),))], base="plain")
    assert "not clearly 0.0 points above" in flat
    assert "But no mask helps here" in flat
    assert "no arm has a record" in verdict([], base="plain")


def test_an_arm_on_fewer_seeds_does_not_come_first():
    few = replace(rows_stub(99.0, lead=20.0, name="few"), seeds=1)
    told = verdict([Group(few), Group(rows_stub(96.0, lead=14.0))], base="plain")
    assert told.startswith("arm comes first")
    assert "few stands higher so far, but on fewer seeds." in told


def test_names_in_a_row():
    assert listed(["a"]) == "a"
    assert listed(["a", "b", "c", "d"]) == "a, b, c and d"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"


def test_the_chart_puts_values_and_published_marks_on_one_axis(page):
    whole, near = page.forest
    assert [line.name for line in whole.lines] == [MISLED, "clean bound", HOSTILE, "late", "useless", PLAIN]
    assert [line.name for line in near.lines] == [MISLED, "clean bound", HOSTILE]
    low = float(whole.ticks[0][0])
    assert whole.ticks[0][1] == 0.0
    assert whole.ticks[-1] == ("100", 100.0)
    line = whole.lines[2]
    assert line.at == pytest.approx(100 * (96.08 - low) / (100 - low), abs=0.01)
    assert [(mark.at, mark.memory) for mark in line.published] == [
        (pytest.approx(100 * (95.5 - low) / (100 - low), abs=0.01), False)
    ]
    assert whole.lines[3].published[0].memory


def test_an_arm_that_loses_what_it_had_is_said_to(page, html):
    told = {arm.name: (arm.fall, arm.returns) for arm in page.learned}
    assert told["late"] == (
        "Accuracy falls: 95.5\N{NO-BREAK SPACE}% at epoch 2, 5.4 points less at the end.",
        True,
    )
    assert told[HOSTILE] == ("", False)
    assert html.count('class="falls"') == 1


def test_the_shortcut_is_blamed_only_where_predictions_still_hang_on_the_decoy(page):
    (late,) = [row for row in page.rows if row.name == "late"]

    def fall(row):
        return learned([row])[0].fall.partition(":")[0]

    swaps = {
        share: replace(late, columns={**late.columns, "swap": SeedSummary(share, 0, share, share, 5)})
        for share in (5.0, 6.0)
    }
    assert [fall(row) for row in swaps.values()] == ["Accuracy falls", "The shortcut comes back"]
    bare = {name: value for name, value in late.columns.items() if name != "swap"}
    assert fall(replace(late, columns=bare)) == "Accuracy falls"


def test_the_last_value_is_that_of_the_weights_that_were_kept(page):
    (late,) = [row for row in page.rows if row.name == "late"]
    refitted = replace(late, accuracy=replace(late.accuracy, mean=95.4))
    (shown,) = learned([refitted])
    assert (shown.last, shown.fall, shown.returns) == (pytest.approx(95.4), "", False)


def test_nothing_was_selected_only_where_no_run_stops_early(page, html):
    assert "Nothing was selected by it: every run ends with its last epoch." in html
    config = replace(page.rows[2].config, training=replace(page.rows[2].config.training, patience=3))
    early = render_table(TablePage(page.plan, (*page.rows[:2], replace(page.rows[2], config=config))))
    assert "Nothing was selected" not in early
    assert "Some runs stopped early" in early


def test_curves_are_the_mean_over_the_epochs_that_all_seeds_have():
    picture = learning("arm <1>", [[0.5, 0.9, 0.8], [0.7, 0.7]], [0.5, 0.75, 1.0])
    assert "arm &lt;1&gt;: mean: from 60.0" in picture
    assert picture.count("line faint") == 2
    (path,) = re.findall(r'class="line after" d="([^"]*)"', picture)
    assert path.count("L") == 1
    assert "peak" not in picture
    assert "peak" in learning("arm", [[0.5, 0.9, 0.8]], [0.5, 1.0])
    assert "faint" not in learning("arm", [[0.5, 0.9, 0.8]], [0.5, 1.0])


def test_what_is_varied_has_a_table_and_a_line_of_its_own(tmp_path):
    made = varied_plan()
    found = TablePage(made, rows(tmp_path, seeds=2, made=made))
    base, block = found.sections
    assert [group.row.name for group in block.groups] == ["late, 0.5 weight", "late, 2.0 weight"]
    assert "late, 0.5 weight" not in [group.row.name for group in base.groups]
    (path,) = re.findall(r'class="line [^"]*" d="([^"]*)"', block.chart)
    assert path.count("L") == 2
    assert ">2.0</text>" in block.chart
    assert "Varied: weight" in render_table(found)


def test_without_two_epochs_there_are_no_curves(page):
    short = [
        replace(row, records={s: replace(r, history=r.history[:1]) for s, r in row.records.items()})
        for row in page.rows
    ]
    html = render_table(TablePage(page.plan, tuple(short)))
    assert "Over the epochs" not in html
    assert "Where they look" not in html


def test_the_same_images_stand_under_every_arm_and_missing_ones_are_named(page, html):
    assert [row.name for row in page.maps] == [PLAIN, HOSTILE]
    cells = page.maps[0].cells["Integrated gradients"]
    assert [cell.says for cell in cells] == ["0", "3"]
    assert [cell.correct for cell in cells] == [True, False]
    assert cells[0].inside == 1.0
    assert cells[1].inside is None
    assert page.maps[0].inside["Integrated gradients"] == 1.0
    assert "late weights not kept of seed 3" in words(html)
    assert html.count("data:image/png") == 1 + 2 * 2 + 2 * 2 * 2


def test_without_any_weights_every_arm_is_named(page):
    none = replace(
        views(), images=(), arms=(), explainers={}, untrained="", missing={PLAIN: "weights not kept of seed 0"}
    )
    told = words(render_table(replace(page, views=none)))
    assert "so there are no maps" in told
    assert "plain weights not kept of seed 0" in told


def test_what_no_arm_was_trained_on_stands_with_its_chance(page, html):
    assert [page.heading(name) for name in page.assessed] == [
        "Integrated gradients",
        "Saliency",
        "Decoy swap, %",
        "Linear probe, %",
    ]
    chance = [page.chance(name) for name in page.assessed]
    assert [text.replace("\N{NO-BREAK SPACE}", " ") for text in chance] == [
        f"1.00{TIMES} = 6.2 %",
        f"1.00{TIMES} = 6.2 %",
        "0 %",
        "11.0 %",
    ]
    (part,) = re.findall(r'<section aria-labelledby="untrained">.*?</section>', html, re.S)
    assert re.search(rf"plain 4\.00{TIMES} .* 40\.0 .* 35\.0", words(part))


def test_records_without_an_assessment_leave_that_part_out(page):
    bare = [
        replace(row, columns={name: row.columns[name] for name in ("accuracy", "worst_class")}) for row in page.rows
    ]
    html = render_table(replace(page, rows=tuple(bare)))
    assert "What no arm was trained on" not in html
    assert "Decoy swap" not in html


def test_the_protocol_can_be_read_back_and_environments_are_all_named(page, html):
    read = tomllib.loads(page.config)
    assert read["run"]["data"]["decoy"] == "decoy/rrr"
    assert read["arms"][HOSTILE] == {"terms": {"t": read["arms"][HOSTILE]["terms"]["t"]}}
    assert page.environment == {"torch": ("2.13",), "device": ("cuda", "cpu")}
    assert "a&amp;b.html" in html


def test_fewer_seeds_than_the_protocol_asks_for_are_said(tmp_path):
    found = TablePage(plan(), rows(tmp_path, seeds=1))
    assert found.seeds == "1 of the protocol's 5"
    assert "on one seed, so without an interval" in found.verdict
    assert "No control tells yet" in found.verdict
    assert "nan" not in render_table(found)


def test_a_page_without_plain_or_arms_can_be_made(tmp_path):
    only = TablePage(plan(), rows(tmp_path / "a", names=("late",)))
    assert only.verdict.startswith("late comes first")
    assert "Parser" not in render_table(only)
    none = TablePage(plan(), rows(tmp_path / "b", names=(PLAIN,)))
    assert "no arm has a record" in render_table(none)


def test_writing_is_whole_or_not_at_all(page, tmp_path):
    assert write_table(page, tmp_path / "table.html").read_text().startswith("<!doctype html>")
    with pytest.raises(NotWritten):
        write_table(page, tmp_path)
    with pytest.raises(ValueError, match="no record of a run of invented"):
        write_table(replace(page, rows=()), tmp_path / "table.html")


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="no chromium is installed")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 768, 1200])
def test_in_a_browser(browser, page, tmp_path, width, scheme):  # noqa: F811
    address = write_table(page, tmp_path / "index.html").as_uri()
    shown = opened(browser, address, width=width, scheme=scheme)
    assert shown.trouble == []
    assert [url for url in shown.requests if not url.startswith("data:")] == [address]
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert (brightness(shown) < 60) == (scheme == "dark")
    visible = "[...document.querySelectorAll('tr.control')].filter(row => row.offsetHeight > 0).length"
    before = shown.evaluate(visible)
    shown.locator(".unfold").first.click()
    assert shown.evaluate(visible) == before - 3
    shown.close()
