"""What a person sees in the terminal."""

from __future__ import annotations

import math
import os
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

if TYPE_CHECKING:
    from rightreasons.experiments import Proof, Run
    from rightreasons.metrics import Estimate
    from rightreasons.reports import Gallery

FEW = 0.25
"""Share of the images of a step; an explanation loss that counts fewer says little."""

# Of several processes that were started together, one speaks. No :emoji: is read into the names of classes.
console = Console(emoji=False, highlight=False, quiet=os.environ.get("RANK", "0") != "0")
notes = Console(emoji=False, highlight=False, stderr=True)

NARROW = 80
_COLORS = {"better": "green", "worse": "red"}


def proof_table(proof: Proof) -> None:
    """The measures before and after, then the controls; the page holds every interval."""
    bound = any(c.bound is not None for c in proof.comparisons)
    shown = plain_table(f"{proof.data}, {proof.images:,} images")
    shown.caption = "per cent; difference in points with its 95 % interval (paired bootstrap; worst class exact)"
    shown.add_column("measure", overflow="fold", min_width=14)
    for name in ("before", "after", *(["clean"] if bound else [])):
        shown.add_column(name, justify="right", no_wrap=True)
    shown.add_column("difference", justify="right", no_wrap=True)
    narrow = console.width < NARROW
    if not narrow:
        shown.add_column("", no_wrap=True)
    for row in proof.comparisons:
        cells = [_value(row.before), _value(row.after)] + ([_value(row.bound)] if bound else [])
        judged = f"[{_COLORS.get(row.judgement, 'dim')}]{row.judgement}[/]"
        told = [f"{_interval(row.difference)}\n{judged}"] if narrow else [_interval(row.difference), judged]
        shown.add_row(escape(row.name), *cells, *told)
    console.print(shown)
    for row in proof.comparisons:
        if row.of:
            note(f"{row.name}: {row.of}")
    if proof.controls:
        _controls_table(proof)


def _controls_table(proof: Proof) -> None:
    shown = plain_table("Controls: revised with masks that should not help")
    for name in ("control", "accuracy", "lead of the revised model", ""):
        shown.add_column(name, justify="left" if name in ("control", "") else "right")
    for control in proof.controls:
        told = "[green]as expected[/]" if control.passed else "[red]not as expected[/]"
        shown.add_row(escape(control.name), _value(control.accuracy), _interval(control.lead), told)
    console.print(shown)


def plain_table(title: str | None = None) -> Table:
    """An empty table that leaves a narrow terminal its columns; nothing in the title is markup."""
    shown = Table(title=title and escape(title), title_justify="left", caption_justify="left")
    shown.box, shown.show_edge, shown.pad_edge, shown.padding = box.SIMPLE_HEAD, False, False, (0, 0, 0, 1)
    return shown


def _value(estimate: Estimate | None) -> str:
    return "" if estimate is None or math.isnan(estimate.value) else f"{100 * estimate.value:.1f}"


def _interval(estimate: Estimate) -> str:
    if math.isnan(estimate.value):
        return "not defined"
    value, low, high = (f"{100 * v:+.1f}" for v in (estimate.value, estimate.low, estimate.high))
    return f"{value} [dim]\\[{low}, {high}][/]"


def run_table(run: Run, *, held: bool = False) -> None:
    """The scores of a run; ``held``: it was over before, and nothing ran."""
    scores = run.record.results["test"]
    unlisted = ("images", "loss", "worst_class_name")
    # Records of older runs do not name the class.
    which = {"worst_class": f" ({scores['worst_class_name']})"} if "worst_class_name" in scores else {}
    titles = {name: name.replace("_", " ") + which.get(name, "") for name in scores if name not in unlisted}
    lines = [(title, _percent(scores[name])) for name, title in titles.items()]
    last = run.record.history[-1] if run.record.history else {}
    unsaid = ("epoch", "stage", "seconds", "cpu_seconds")
    parts = {k: v for k, v in last.items() if k not in unsaid and not k.endswith("_accuracy")}
    lines += [(f"last epoch's {name}", f"{value:.4g}") for name, value in parts.items() if value is not None]
    if run.model.layer is not None:
        lines.append(("layer explained", run.model.layer))
    table(("on the test images", f"{scores['images']:,.0f} images"), lines)
    if held:
        note(f"{run.out} was finished before, and nothing ran; where pictures have changed since, name another --out")
    else:
        written(run.out, "model.safetensors", "record.json", "config.toml")
    if last.get("cross_entropy", 0.0) > 1.5 * math.log(len(run.record.results["classes"])):
        lighter = "a lower --weight, --weight balance with --fresh, or " if run.config.terms else ""
        note(f"far worse than guessing on its own training images, so it diverged: take {lighter}a lower --lr")
    if last.get("annotated_share", 1.0) < FEW:
        size = run.config.training.batch_size
        few = f"the explanation loss counted {last['annotated_share'] * size:.2g} annotated images a step"
        note(f"{few}, which says little; --annotated-batch {size} draws as many more for it (best with --fresh)")


def revealed(gallery: Gallery) -> None:
    """What the maps of a whole data set say on average, and where they are."""
    maps, summary = gallery.maps, gallery.summary
    rows = []
    for name, told in summary.methods.items():
        shares = [getattr(told, kind).value for kind in gallery.masks]
        rows.append((maps.titles[name], *map(_percent, shares), f"{told.empty:,}"))
    right = f"{summary.images:,} images, {100 * summary.right / summary.images:.1f} % right"
    table((right, *(f"share {kind}" for kind in gallery.masks), "maps of zeros"), rows)
    for name, told in summary.methods.items():
        if told.undefined:
            warn(f"{maps.titles[name]}: {told.undefined:,} maps are not finite; the index leaves their numbers empty")
    unfit(maps.unfit)
    written(maps.out, "shards/", "index.jsonl", "index.csv", "index.html", "reveal.json")


def say(text: str) -> None:
    """One line about what is being done."""
    console.print(escape(text), soft_wrap=True)


def note(text: str) -> None:
    """A quiet line."""
    console.print(f"[dim]{escape(text)}[/]", soft_wrap=True)


def unfit(reasons: Mapping[str, str]) -> None:
    """Which methods cannot explain the network, and why."""
    for name, reason in reasons.items():
        console.print(f"[dim]left out[/] {escape(name)}: {escape(reason)}", soft_wrap=True)


def _percent(value: float | None) -> str:
    """A share; a record has no NaN, so it reads ``None`` from the file where the run itself says NaN."""
    return "not defined" if value is None or math.isnan(value) else f"{100 * value:.2f} %"


def page(path: Path) -> None:
    """Where the page is."""
    console.print(f"The page: [bold]{escape(str(path))}[/]", soft_wrap=True)


def progress(quiet: bool) -> bool:
    """Whether to show bars: not in a file."""
    return not quiet and sys.stderr.isatty()


def written(folder: Path, *names: str) -> None:
    """What was written, and where."""
    console.print(f"written to [bold]{escape(str(folder))}[/]: {escape(', '.join(names))}", soft_wrap=True)


def warn(text: str) -> None:
    """Something that must not be overlooked."""
    notes.print(f"[yellow]{escape(text)}[/]", soft_wrap=True)


def this_command() -> str:
    """The command that is running, as one would type it."""
    return shlex.join(["rightreasons", *sys.argv[1:]])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """A plain table."""
    shown = plain_table()
    for index, name in enumerate(header):
        shown.add_column(escape(name), justify="right" if index else "left", overflow="fold")
    for row in rows:
        shown.add_row(*map(escape, row))
    console.print(shown)
