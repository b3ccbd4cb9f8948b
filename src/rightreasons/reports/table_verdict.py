"""What a table says in words: which arm leads, by how much, and whether it is the mask that helps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rightreasons.experiments.table import Judged, TableRow
from rightreasons.experiments.table.rows import paired
from rightreasons.metrics import SeedSummary

_MINUS = "\N{MINUS SIGN}"
_THIN = "\N{NO-BREAK SPACE}"
_NAMED = 3


@dataclass(frozen=True)
class Group:
    """An arm with its controls.

    Attributes:
        row: The arm.
        controls: Those that came with it.
        itself: What it is as a control, where its own masks are such that should not help.
    """

    row: TableRow
    controls: tuple[Judged, ...] = ()
    itself: Judged | None = None

    @property
    def failed(self) -> tuple[Judged, ...]:
        """The controls that do as well as the arm."""
        return self.judged("as good")

    def judged(self, *verdicts: str) -> tuple[Judged, ...]:
        """The controls of which this is said."""
        return tuple(control for control in self.controls if control.verdict in verdicts)

    @property
    def opened(self) -> bool:
        """Whether a reader should see the controls at once."""
        return any(control.told for control in self.controls)


def leading(arms: Sequence[Group]) -> Group | None:
    """The arm with the highest mean accuracy among those that stand on the most seeds; ``None`` without one.

    An arm whose masks should not help is a control wherever it stands, and comes first in nothing.
    """
    true = [group for group in arms if group.itself is None and group.row.seeds]
    most = max((group.row.seeds for group in true), default=0)
    full = [group for group in true if group.row.seeds == most]
    return max(full, key=lambda group: group.row.accuracy.mean, default=None)


def verdict(arms: Sequence[Group], *, base: str) -> str:
    """The result in a few plain sentences.

    Args:
        arms: The arms in comparison, without ``base`` and the clean bound.
        base: Name of the training without an explanation loss.
    """
    best = leading(arms)
    if best is None:
        only = f"So far there are only runs of {base} training and its bound: no arm has a record."
        return _standing(arms) or only
    true = [group for group in arms if group.itself is None]
    said = (_first(best.row, base), _close(best, true), _higher(best, true), _mask(best, true), _standing(arms))
    return " ".join(told for told in said if told)


def _first(row: TableRow, base: str) -> str:
    """The first arm, how often it is right, and how far that is from plain."""
    found, lead = row.accuracy, row.lead
    seeds = "on one seed, so without an interval" if row.seeds == 1 else f"{row.seeds} seeds"
    between = between_ends(found)
    behind = lead is not None and lead.mean <= 0
    rank = f"No arm is ahead of {base} training; {row.name} comes nearest" if behind else f"{row.name} comes first"
    told = f"{rank}: it is right on {percent(found.mean)} of the test images "
    told += f"({f'95{_THIN}% interval {between}, ' * bool(between)}{seeds})"
    if lead is None:
        return f"{told}."
    where = "above" if lead.mean >= 0 else "below"
    clear = "" if math.isnan(lead.low) or lead.low > 0 or lead.high < 0 else "not clearly "
    between = between_ends(lead, digits=1, sign=True)
    return f"{told}, {clear}{abs(lead.mean):.1f} points {where} {base} training{f' ({between})' * bool(between)}."


def _higher(best: Group, arms: Sequence[Group]) -> str:
    """The arms that stand higher, but on fewer seeds."""
    names = [group.row.name for group in arms if group.row.accuracy.mean > best.row.accuracy.mean]
    stand = "stands" if len(names) == 1 else "stand"
    return f"{listed(names)} {stand} higher so far, but on fewer seeds." if names else ""


def _close(best: Group, arms: Sequence[Group]) -> str:
    """The arms that the first one does not clearly lead."""
    others = {group.row.name: paired(best.row.records, group.row.records) for group in arms if group is not best}
    near = [name for name, lead in others.items() if lead is not None and lead.low <= 0]
    if not near:
        return ""
    return f"{listed(near)} {'is' if len(near) == 1 else 'are'} not clearly behind it."


def _names_no_mask(group: Group) -> bool:
    """Whether the arm is a run that reads no masks, and has no control."""
    return bool(group.row.records) and not (group.controls or group.itself or group.row.config.uses_masks)


def _mask(best: Group, arms: Sequence[Group]) -> str:
    """What the controls say: of the first arm, and of the others."""
    telling = [group for group in arms if group.judged("behind", "as good", "too few seeds to tell")]
    if arms and all(_names_no_mask(group) for group in arms):
        return ""
    if not telling:
        return "No control tells yet whether it is the mask that helps." + _only_idle(best)
    said = [_helped(best)] if best in telling else ["No control of the first arm tells yet whether it is the mask."]
    bad = [group.row.name for group in telling if group.failed and group is not best]
    if bad:
        said.append(f"Elsewhere the mask is not what helps: a control does as well as {listed(bad)}.")
    return " ".join(said)


def _only_idle(group: Group) -> str:
    same = group.judged("same as plain")
    return f" With {_kinds(same)} its loss had nothing to do." if same else ""


def _helped(group: Group) -> str:
    """Whether the controls of an arm fall behind it, and what they bring by themselves."""
    if group.failed:
        return f"But {group.failed[0].blamed}: with {_kinds(group.failed)} it does as well."
    unclear = group.judged("too few seeds to tell")
    if unclear:
        return f"The seeds are too few to tell it from the same with {_kinds(unclear)}."
    behind = group.judged("behind")
    alone = max((c for c in group.controls if c.helps), key=lambda c: c.row.accuracy.mean, default=None)
    own, other = group.row.lead, None if alone is None else alone.row.lead
    if own is not None and alone is not None and other is not None and own.mean > 0:
        return (
            f"It is clearly ahead of the same with {_kinds(behind)}; yet with a {alone.kind} alone it already gains "
            f"{other.mean:.1f} of the {own.mean:.1f} points."
        )
    return f"The same with {_kinds(behind)} falls clearly behind it, so it is the mask that helps." + _not_compared(
        group
    )


def _not_compared(group: Group) -> str:
    apart = group.judged("not comparable")
    return f" With {_kinds(apart)} its weight ended elsewhere, so that does not compare." if apart else ""


def _standing(arms: Sequence[Group]) -> str:
    """Of the arms that are controls themselves, those that gain all the same."""
    helped = [group.row.name for group in arms if group.itself is not None and group.itself.helps]
    return f"Masks that should not help bring {listed(helped)} clearly above plain all the same." if helped else ""


def _kinds(controls: Sequence[Judged]) -> str:
    return listed([f"a {control.kind}" for control in controls])


def listed(names: Sequence[str]) -> str:
    """Some names in words, and how many more there are."""
    if len(names) == 1:
        return names[0]
    shown, more = names[:_NAMED], len(names) - _NAMED
    if more == 1:
        shown, more = names, 0
    return f"{', '.join(shown)} and {more} more" if more > 0 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def percent(value: float) -> str:
    """A value that is in per cent already."""
    return f"{value:.2f}{_THIN}%" if math.isfinite(value) else "an unknown share"


def between_ends(found: SeedSummary, *, digits: int = 2, sign: bool = False) -> str:
    """The 95 % interval in words; empty without one."""
    if not (math.isfinite(found.low) and math.isfinite(found.high)):
        return ""
    low, high = (f"{end:{'+' if sign else ''}.{digits}f}".replace("-", _MINUS) for end in (found.low, found.high))
    return f"{low} to {high}"
