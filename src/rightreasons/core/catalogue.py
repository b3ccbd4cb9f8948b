"""A family of methods by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import TypeVar

from rightreasons.core.errors import UnknownName

T = TypeVar("T")


class Catalogue(Mapping[str, type[T]]):
    """A read-only mapping from a name to a class.

    The command line's choices, the configuration's names and the contract tests all read it. Adding a method is
    one class and one line in the catalogue of its family.
    """

    def __init__(self, family: str, /, **classes: type[T]) -> None:
        self.family = family
        self._classes = dict(classes)

    def __getitem__(self, name: str) -> type[T]:
        if name in self._classes:
            return self._classes[name]
        near = get_close_matches(name, self._classes, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise UnknownName(f"unknown {self.family} {name!r}.{hint} There are: {', '.join(self._classes)}")

    def __contains__(self, name: object) -> bool:
        return name in self._classes

    def __iter__(self) -> Iterator[str]:
        return iter(self._classes)

    def __len__(self) -> int:
        return len(self._classes)

    def __repr__(self) -> str:
        return f"Catalogue({self.family}: {', '.join(self._classes)})"

    def name_of(self, method: T) -> str:
        """The name under which the class of ``method`` stands here."""
        for name, class_ in self._classes.items():
            if type(method) is class_:
                return name
        raise ValueError(f"{type(method).__name__} is no {self.family} of this catalogue")
