"""Trained networks in a folder of a test's own."""

from __future__ import annotations

from dataclasses import replace

from rightreasons.experiments.parts import Keep, learnt_parts


def kept_in(folder):
    """Like ``learnt_parts``, in that folder and by a single step, or as few as there are."""

    def learnt(class_, model, training, keep=None, **more):
        return learnt_parts(class_, model, training, replace(keep or Keep(), folder=folder, steps=1), **more)

    return learnt
