"""What a caller may want to catch.

RightReasonsError
├── NotDifferentiable   an attribution that cannot be trained through, in a loss
├── MissingAnnotation   a loss or metric asks for masks that the data does not carry
├── MissingExtra        an optional library is not installed
├── CorruptData         a file is not what it should be
├── DataUnavailable     a data set cannot be had from any of its sources
├── BadModel            a network or its weights cannot be used
├── TrainingDiverged    a loss or a weight is no longer finite
├── ResumeRefused       a checkpoint belongs to another run
└── NotWritten          a file could not be written; the old one is still there

A wrong setting is a plain ``ValueError`` from the constructor: "expected ..., got ..."; a name that a catalogue does
not have is an ``UnknownName``, which is one too.
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


class DataUnavailable(RightReasonsError, OSError):
    """A data set cannot be had; the message says what was tried and what to do."""


class BadModel(RightReasonsError, ValueError):
    """A network, a layer name or a weights file cannot be used as asked."""


class NotConserved(RightReasonsError, ArithmeticError):
    """Relevance was lost or made on the way back beyond the tolerance; the message names the operator."""


class TrainingDiverged(RightReasonsError, ArithmeticError):
    """A part of the loss, or a weight, is NaN or infinite; the message names the step, the epoch and the part."""


class ResumeRefused(RightReasonsError, ValueError):
    """A run is to be resumed with settings other than its own; the message says what differs."""


class UnknownName(ValueError, KeyError):
    """A catalogue has no method of that name; a ``KeyError`` too, as a mapping's must be."""

    def __str__(self) -> str:
        """The message as it is; a ``KeyError`` would put it into quotes."""
        return str(self.args[0]) if self.args else ""


class NotWritten(RightReasonsError, OSError):
    """A file could not be written, on a full disk for example; what stood under its name before is untouched."""
