"""Maps of the photos of a test."""

from dataclasses import replace

from rightreasons.experiments import (
    Conduct,
    RevealSettings,
    Storage,
    reveal_all,
)

CPU = Conduct("cpu")
ALL = RevealSettings(("saliency", "grad_cam"), images=None)


def revealed(subject, out, settings=ALL, storage=Storage(size=7), **conduct):
    return reveal_all(subject, settings, out, storage, replace(CPU, **conduct))
