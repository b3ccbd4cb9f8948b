"""A network as the list of the operators it calls: what the methods that work by operator share."""

from rightreasons.attribution.tape.canonize import folded
from rightreasons.attribution.tape.linear_map import Kind, LinearMap, Weighted, weighted
from rightreasons.attribution.tape.step import Slot, Step
from rightreasons.attribution.tape.tape import Tape, watching

__all__ = ["Kind", "LinearMap", "Slot", "Step", "Tape", "Weighted", "folded", "watching", "weighted"]
