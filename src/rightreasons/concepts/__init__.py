"""Concepts: what a layer has a direction for."""

from rightreasons.concepts.directions import activations_at, orthonormal, signal_direction, svm_direction
from rightreasons.concepts.folding import fold
from rightreasons.concepts.projection import Projection, inserted

__all__ = ["Projection", "activations_at", "fold", "inserted", "orthonormal", "signal_direction", "svm_direction"]
