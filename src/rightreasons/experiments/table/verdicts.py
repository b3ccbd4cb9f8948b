"""What a table's controls say: is it the mask that helps? The terminal and the page both read it here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from rightreasons.experiments.config import RunConfig
from rightreasons.experiments.study import CONTROLS, bound_arm, control_arms
from rightreasons.experiments.table.plan import TablePlan
from rightreasons.experiments.table.rows import TableRow, last_of, paired
from rightreasons.metrics import SeedSummary

AS_GOOD = 1.0
"""A control is as good as its arm only where the interval of the arm's lead over it ends below so many points."""
APART = 3.0
"""Reached weights that differ by more than this factor are those of two trainings that cannot be compared."""

Verdict = Literal["behind", "as good", "too few seeds to tell", "same as plain", "not comparable", "not judged"]
KINDS = {masks: kind for kind, masks in CONTROLS.items()}
SHOWN = 3


@dataclass(frozen=True)
class Judged:
    """A control, held against its arm and against plain.

    Attributes:
        kind: Which control.
        row: Its figures.
        arm: The same with the true masks; ``None`` where the table has no such row.
        ahead: The arm's lead over it in points, paired by seed; ``None`` where no seed has both.
    """

    kind: str
    row: TableRow
    arm: TableRow | None
    ahead: SeedSummary | None

    @property
    def verdict(self) -> Verdict:
        """Whether it falls behind its arm, does as well, or cannot tell.

        - ``same as plain``: its loss had nothing to do, so it tells nothing about the mask;
        - ``not comparable``: the weight that was found in training ended elsewhere than the arm's;
        - ``behind``: the 95 % interval of the arm's lead over it lies above zero;
        - ``as good``: that interval reaches down to zero and ends below :data:`AS_GOOD` points;
        - ``too few seeds to tell``: neither; ``not judged``: no two seeds have both, so there is no interval.
        """
        if self.idle:
            return "same as plain"
        if self.weights is not None:
            return "not comparable"
        if self.ahead is None or math.isnan(self.ahead.low):
            return "not judged"
        if self.ahead.low > 0:
            return "behind"
        return "as good" if self.ahead.high < AS_GOOD else "too few seeds to tell"

    @property
    def helps(self) -> bool:
        """Whether it is clearly ahead of plain training, which a mask that means nothing should not be."""
        return self.row.lead is not None and self.row.lead.low > 0

    @property
    def idle(self) -> bool:
        """Whether it trained as plain did: its terms never left 0, or every seed is as accurate as plain's."""
        lead = self.row.lead
        same = lead is not None and lead.count == self.row.seeds
        if same and lead is not None and lead.mean == 0 and (lead.count == 1 or lead.sd == 0):
            return True
        return _terms_are_zero(self.row)

    @property
    def weights(self) -> tuple[float, float] | None:
        """The weights that the arm and its control reached, where both tell one and they are too far apart."""
        if self.arm is None:
            return None
        for term in self.row.config.terms:
            own, other = (last_of(row.records, f"{term}_weight") for row in (self.arm, self.row))
            if not math.isnan(own + other) and max(own, other) > APART * min(own, other):
                return own, other
        return None

    @property
    def blamed(self) -> str:
        """What it speaks against where it is as good as its arm."""
        lead = None if self.arm is None else self.arm.lead
        return "the mask is not what helps" if lead is None or lead.mean > 0 else "no mask helps here"

    @property
    def told(self) -> str:
        """What has to be warned of, in a sentence; empty where it fell behind its arm and brings nothing by itself."""
        parts = [part for part in (self._beside_the_arm(), self._alone() if self.helps else "") if part]
        return "; ".join(parts)

    def _beside_the_arm(self) -> str:
        if self.arm is None or self.ahead is None:
            return ""
        if self.verdict == "not comparable" and self.weights is not None:
            own, other = self.weights
            return (
                f"not comparable: with a {self.kind} the weight of {self.arm.name} ended at {other:.3g}, "
                f"with the true one at {own:.3g}"
            )
        what = {
            "as good": self.blamed,
            "too few seeds to tell": "too few seeds to tell whether the mask is what helps",
        }.get(self.verdict)
        if what is None:
            return ""
        return (
            f"{what}: with a {self.kind} {self.arm.name} reaches {self.row.accuracy.mean:.2f}, with the true one "
            f"{self.arm.accuracy.mean:.2f} (lead {_interval(self.ahead)} on {self.ahead.count} seeds)"
        )

    def _alone(self) -> str:
        """What it brings over plain, beside what the arm brings."""
        lead = self.row.lead
        if lead is None:
            return ""
        if self.arm is None:
            return f"{self.row.name} has a {self.kind}, yet is {_interval(lead)} points over plain"
        whole = self.arm.lead
        of = f" of {whole.mean:.1f}" if whole is not None and whole.mean > 0 else ""
        return f"the {self.kind} alone brings {self.arm.name} {lead.mean:.1f}{of} points over plain {_ends(lead)}"


def is_control(row: TableRow) -> bool:
    """Whether its masks should not help: a control of an arm, or an arm that was given such masks itself."""
    return bool(row.control) or (row.config.uses_masks and row.config.data.masks in KINDS)


def judged(rows: Sequence[TableRow]) -> tuple[Judged, ...]:
    """Every control of the table, wherever it stands, with its arm under the same variation where there is one."""
    arms = [row for row in rows if not is_control(row)]
    found = []
    for row in rows:
        if is_control(row) and row.records:
            arm = next((own for own in arms if _is_arm_of(own, row)), None)
            kind = row.control or KINDS[row.config.data.masks]
            found.append(Judged(kind, row, arm, None if arm is None else paired(arm.records, row.records)))
    return tuple(found)


def _is_arm_of(arm: TableRow, control: TableRow) -> bool:
    """A control that comes with its arm bears its name; one that stands by itself is the same run but for the masks."""
    if control.control:
        return (arm.arm, arm.variation) == (control.arm, control.variation)
    return arm.config == replace(control.config, data=replace(control.config.data, masks="true"))


def _terms_are_zero(row: TableRow) -> bool:
    """Whether no explanation loss was ever above 0, where the masks act through such losses alone."""
    terms, drawn = row.config.terms, row.config.training.augmentation.get("irrelevant", "keep")
    values = [line[name] for r in row.records.values() for line in r.history for name in terms if name in line]
    told = all(any(name in line for line in r.history) for r in row.records.values() for name in terms)
    return bool(values) and told and drawn == "keep" and all(value == 0 for value in values)


def mask_verdicts(rows: Sequence[TableRow]) -> tuple[str, ...]:
    """What has to be warned of, a sentence a control: see :class:`Judged`."""
    return tuple(control.told for control in judged(rows) if control.told)


def idle_controls(rows: Sequence[TableRow]) -> str:
    """The controls that trained as plain did, in one line; empty without any."""
    names = [control.row.name for control in judged(rows) if control.verdict == "same as plain"]
    return f"same as plain, the loss had nothing to do, so no evidence: {'; '.join(names)}" if names else ""


def worst_classes(rows: Sequence[TableRow]) -> str:
    """Which class fares worst with which arms, in one line; empty where no seeds agree or older records do not tell."""
    arms: dict[str, list[str]] = {}
    for row in rows:
        if row.worst and not row.control:
            arms.setdefault(row.worst, []).append(row.name)
    return "; ".join(f"{name} with {_some(names)}" for name, names in arms.items())


def lacking(plan: TablePlan) -> str:
    """Which controls or bound the table cannot have, in one line; empty where it has all."""
    masked = {name: control_arms(config) for name, config in plan.arms.items() if not _stands_alone(config)}
    none = [name for name, kinds in masked.items() if not kinds]
    told = [] if bound_arm(plan.plain) else ["no clean bound, as there is no decoy to leave out"]
    for kind in CONTROLS:
        without = [name for name, kinds in masked.items() if kinds and kind not in kinds]
        if without:
            told.append(f"no {kind} for {_some(without)}, as there is no patch of whose size it could be")
    if none:
        told.append(f"no controls for {_some(none)}, which use{'s' * (len(none) == 1)} no masks")
    return "; ".join(told)


def _stands_alone(config: RunConfig) -> bool:
    return config.uses_masks and config.data.masks in KINDS


def _some(names: Sequence[str]) -> str:
    """The first of the names, and how many more there are."""
    more = len(names) - SHOWN
    return ", ".join(names) if more <= 1 else f"{', '.join(names[:SHOWN])} and {more} more"


def _interval(found: SeedSummary) -> str:
    return f"{found.mean:+.2f} {_ends(found)}"


def _ends(found: SeedSummary) -> str:
    return f"[{found.low:+.2f}, {found.high:+.2f}]"
