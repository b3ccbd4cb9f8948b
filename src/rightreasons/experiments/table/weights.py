"""What became of weights that are found in training: where they ended, and did one have to be swept?"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

from rightreasons.experiments.config import RunConfig, TermConfig
from rightreasons.experiments.table.rows import TableRow, last_of, paired
from rightreasons.experiments.table.verdicts import is_control
from rightreasons.training import Target

MET = 1.1
"""A target counts as missed where the share reached is more than so many times the one asked for."""


def weight_verdicts(rows: Sequence[TableRow]) -> tuple[str, ...]:
    """For each arm whose weight is found in training: the weight it reached, and how far it is from the best swept one.

    Swept are the arms, variations and choices of the table that differ in nothing but a number as that term's weight.
    The best of them is taken by their test accuracy, which flatters the sweep: nobody could have chosen it so. Of a
    target it is told whether it was met.
    """
    arms = [row for row in rows if row.records and not is_control(row)]
    found = []
    for row in arms:
        for name, term in row.config.terms.items():
            if isinstance(term.weight, str) and term.weight.partition(":")[0] in ("balance", "target"):
                found.append(_told(row, name, term) + _beside(row, list(_swept(arms, row.config, name))))
    return tuple(found)


def _told(row: TableRow, name: str, term: TermConfig) -> str:
    reached, share = (last_of(row.records, f"{name}_{part}") for part in ("weight", "share"))
    told = f"{row.name}: weight {term.weight!r}"
    if not math.isnan(reached):
        told += f" ended at {reached:.3g}"
    kind, _, given = str(term.weight).partition(":")
    if kind != "target" or math.isnan(share):
        return told
    asked = float(given) if given else Target().share
    met = "met" if share <= MET * asked else "missed"
    return f"{told}, target {met}: {share:.3g} of chance reached, at most {asked:.3g} asked"


def _beside(row: TableRow, swept: Sequence[tuple[TableRow, float]]) -> str:
    """How far it is from the best of the weights that somebody named."""
    if not swept:
        return ""
    best, weight = max(swept, key=lambda other: other[0].accuracy.mean)
    behind = paired(best.records, row.records)
    if behind is None:
        return ""
    place = f"{behind.mean:.2f} points behind" if behind.mean > 0 else f"{-behind.mean:.2f} points ahead of"
    weights = len({value for _, value in swept})
    what = f"the best of {weights} swept weights" if weights > 1 else "the one weight given as a number"
    return f", {place} {what} ({weight:g}, {best.name})"


def _swept(rows: Sequence[TableRow], found: RunConfig, name: str) -> Iterator[tuple[TableRow, float]]:
    """The rows that differ in nothing but a number as the weight of that term, with the number."""
    for row in rows:
        term = row.config.terms.get(name)
        if term is not None and isinstance(term.weight, float) and _without(row.config, name) == _without(found, name):
            yield row, term.weight


def _without(config: RunConfig, name: str) -> RunConfig:
    """The run without its seed and without that weight."""
    return replace(config, seed=0, terms={**config.terms, name: replace(config.terms[name], weight=0.0)})
