"""Which rule an operator gets: by its kind, and by whether it reads the image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from rightreasons.attribution.lrp.rules import AlphaBeta, Epsilon, Flat, Gamma, Rule, ZBox, ZPlus
from rightreasons.attribution.tape.linear_map import Kind
from rightreasons.core import Catalogue


@dataclass(frozen=True)
class Composite(ABC):
    """A choice of rules; operators without a weight need none."""

    @abstractmethod
    def rule(self, kind: Kind, *, first: bool) -> Rule:
        """The rule of a dense layer or a convolution; ``first`` if it reads the image itself."""


@dataclass(frozen=True)
class ByOperator(Composite):
    """A rule for each kind of operator.

    Args:
        dense: For dense layers.
        convolution: For convolutions.
        first: For the operators that read the image; ``None`` means no other than the rest.
    """

    dense: Rule = field(default_factory=Epsilon)
    convolution: Rule = field(default_factory=Epsilon)
    first: Rule | None = None

    def rule(self, kind: Kind, *, first: bool) -> Rule:
        """By kind."""
        if first and self.first is not None:
            return self.first
        return self.dense if kind == "dense" else self.convolution


@dataclass(frozen=True)
class EpsilonEverywhere(Composite):
    """The epsilon rule for all; LRP-0 with ``epsilon=0``.

    Args:
        epsilon: Its stabilizer.
    """

    epsilon: float = 1e-6

    def rule(self, kind: Kind, *, first: bool) -> Rule:
        """Epsilon."""
        return Epsilon(self.epsilon)


@dataclass(frozen=True)
class EpsilonPlus(Composite):
    """Epsilon for dense layers, z+ for convolutions.

    Source: Kohlbrenner et al. 2020, arXiv:1910.09840, section 3; the name is zennit's.

    Args:
        epsilon: Stabilizer of the dense layers.
    """

    epsilon: float = 1e-6

    def rule(self, kind: Kind, *, first: bool) -> Rule:
        """By kind."""
        return Epsilon(self.epsilon) if kind == "dense" else ZPlus()


@dataclass(frozen=True)
class EpsilonPlusFlat(EpsilonPlus):
    """Epsilon for dense layers, z+ for convolutions, flat for whatever reads the image."""

    def rule(self, kind: Kind, *, first: bool) -> Rule:
        """By kind and place."""
        return Flat() if first else super().rule(kind, first=first)


@dataclass(frozen=True)
class EpsilonAlpha2Beta1(Composite):
    """Epsilon for dense layers, alpha 2 beta 1 for convolutions.

    Args:
        epsilon: Stabilizer of the dense layers.
    """

    epsilon: float = 1e-6

    def rule(self, kind: Kind, *, first: bool) -> Rule:
        """By kind."""
        return Epsilon(self.epsilon) if kind == "dense" else AlphaBeta(alpha=2.0, beta=1.0)


@dataclass(frozen=True)
class EpsilonAlpha2Beta1Flat(EpsilonAlpha2Beta1):
    """Epsilon for dense layers, alpha 2 beta 1 for convolutions, flat for whatever reads the image."""

    def rule(self, kind: Kind, *, first: bool) -> Rule:
        """By kind and place."""
        return Flat() if first else super().rule(kind, first=first)


@dataclass(frozen=True)
class EpsilonGammaBox(Composite):
    """Epsilon for dense layers, gamma for convolutions, the box for convolutions that read the image.

    Source: Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10, section 10.3; the name is zennit's.

    Args:
        low: Lowest value of a pixel.
        high: Highest.
        epsilon: Stabilizer of the dense layers.
        gamma: How much convolutions favor what agrees with the output.
    """

    low: float = 0.0
    high: float = 1.0
    epsilon: float = 1e-6
    gamma: float = 0.25

    def __post_init__(self) -> None:
        ZBox(low=self.low, high=self.high)
        Gamma(gamma=self.gamma)

    def rule(self, kind: Kind, *, first: bool) -> Rule:
        """By kind and place."""
        if kind == "dense":
            return Epsilon(self.epsilon)
        return ZBox(low=self.low, high=self.high) if first else Gamma(gamma=self.gamma)


@dataclass(frozen=True)
class DeepTaylorBox(Composite):
    """Deep Taylor decomposition of pixels between two bounds: z+ for all, the box for whatever reads the image.

    Source: Montavon et al. 2017, arXiv:1512.02479, section 4.

    Args:
        low: Lowest value of a pixel.
        high: Highest.
    """

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        ZBox(low=self.low, high=self.high)

    def rule(self, kind: Kind, *, first: bool) -> Rule:
        """By place."""
        return ZBox(low=self.low, high=self.high) if first else ZPlus()


COMPOSITES: Catalogue[Composite] = Catalogue(
    "relevance composite",
    epsilon=EpsilonEverywhere,
    epsilon_plus=EpsilonPlus,
    epsilon_plus_flat=EpsilonPlusFlat,
    epsilon_gamma_box=EpsilonGammaBox,
    epsilon_alpha2_beta1=EpsilonAlpha2Beta1,
    epsilon_alpha2_beta1_flat=EpsilonAlpha2Beta1Flat,
    deep_taylor=DeepTaylorBox,
    by_operator=ByOperator,
)
