"""What a caller may want to catch.

RightReasonsError
├── NotDifferentiable   an attribution that cannot be trained through, in a loss
├── MissingAnnotation   a loss or metric asks for masks that the data does not carry
├── MissingExtra        an optional library is not installed
├── CorruptData         a file is not what it should be
└── BadModel            a network or its weights cannot be used

A wrong setting is a plain ``ValueError`` from the constructor: "expected ..., got ...".
"""


class RightReasonsError(Exception):
    """The root of the tree; the command line prints it as one line and exits with 2."""


class NotDifferentiable(RightReasonsError, ValueError):
    """An attribution without a graph to the weights was given to an explanation loss."""


class MissingAnnotation(RightReasonsError, ValueError):
    """Masks are needed and the batch has none."""


class MissingExtra(RightReasonsError, ImportError):
    """An optional dependency is missing; the message says which extra brings it."""


class CorruptData(RightReasonsError, ValueError):
    """A file is damaged, of the wrong size or not what its checksum promises."""


class BadModel(RightReasonsError, ValueError):
    """A network, a layer name or a weights file cannot be used as asked."""
