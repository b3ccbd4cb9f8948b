"""Which of a file's labels mean relevant and which irrelevant."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from rightreasons.core import CorruptData
from rightreasons.data.masks.annotations import KINDS, Kind

NAMES: Mapping[Kind, tuple[str, ...]] = {
    "relevant": ("relevant", "right", "good", "positive"),
    "irrelevant": ("irrelevant", "wrong", "bad", "negative", "artifact", "artefact"),
}


@dataclass(frozen=True)
class Labels:
    """A file's labels sorted into the two kinds; upper and lower case are the same.

    Attributes:
        relevant: Labels of what a model should look at; by default relevant, right, good and positive.
        irrelevant: Labels of what it should not; by default irrelevant, wrong, bad, negative, artifact and artefact.
        ignore: Labels that say nothing about it; ``*`` for all others.

    Raises:
        ValueError: A label is named twice.
    """

    relevant: Sequence[str] | None = None
    irrelevant: Sequence[str] | None = None
    ignore: Sequence[str] = ()

    def __post_init__(self) -> None:
        named = (("relevant", self.relevant or ()), ("irrelevant", self.irrelevant or ()), ("ignore", self.ignore))
        for key, labels in named:
            if isinstance(labels, str):
                raise ValueError(f"expected a list of labels for {key}, got the text {labels!r}")
        spoken = [plain(label) for _, labels in named for label in labels]
        twice = sorted({label for label in spoken if spoken.count(label) > 1})
        if twice:
            raise ValueError(
                f"expected each label under one of relevant, irrelevant and ignore, got {twice[0]!r} twice"
            )

    def kinds(self, used: Iterable[str], known: Iterable[str], source: str) -> dict[str, Kind | None]:
        """The kind of each label; ``None`` for those to be ignored.

        Args:
            used: The labels of what was drawn.
            known: Further labels that the file has.
            source: The file, for the message.

        Raises:
            CorruptData: A label has no kind, or one that was named is not in the file.
        """
        found = list(dict.fromkeys([*used, *known]))
        present = {plain(label) for label in found}
        kinds = self._mapping()
        named = [*(self.relevant or ()), *(self.irrelevant or ()), *(label for label in self.ignore if label != "*")]
        for label in named:
            if plain(label) not in present:
                raise CorruptData(f"{source} has no label {label!r}. There are: {', '.join(found) or 'none'}")
        unknown = [label for label in dict.fromkeys(used) if plain(label) not in kinds and "*" not in self.ignore]
        if unknown:
            raise CorruptData(
                f"{source} has labels that are neither relevant nor irrelevant: {', '.join(unknown)}; say which they "
                "are: rightreasons masks FILE --relevant LABEL --irrelevant LABEL --ignore LABEL --out sorted.json "
                f"(in Python relevant=, irrelevant=, ignore=). There are: {', '.join(found)}"
            )
        return {label: kinds.get(plain(label)) for label in found}

    def _mapping(self) -> dict[str, Kind | None]:
        """The usual names, and over them what was said."""
        kinds: dict[str, Kind | None] = {}
        for kind in KINDS:
            said = self.relevant if kind == "relevant" else self.irrelevant
            if said is None:
                kinds |= dict.fromkeys(NAMES[kind], kind)
        kinds |= {plain(label): "relevant" for label in self.relevant or ()}
        kinds |= {plain(label): "irrelevant" for label in self.irrelevant or ()}
        return kinds | {plain(label): None for label in self.ignore}


def plain(label: str) -> str:
    """A label as labels are compared."""
    return label.strip().casefold()
