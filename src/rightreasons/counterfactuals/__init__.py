"""The smallest change that flips a prediction."""

from rightreasons.core import Catalogue, Counterfactual
from rightreasons.counterfactuals.amortized import Amortized
from rightreasons.counterfactuals.anytime import AnytimeCounterfactual
from rightreasons.counterfactuals.contrastive import ContrastiveExplanation, PertinentNegative, PertinentPositive
from rightreasons.counterfactuals.gradient import Wachter
from rightreasons.counterfactuals.growing_spheres import GrowingSpheres
from rightreasons.counterfactuals.latent import LatentSearch
from rightreasons.counterfactuals.neighbors import NearestNeighbor
from rightreasons.counterfactuals.overlay import Overlay, edges, overlay, way, way_probabilities
from rightreasons.counterfactuals.prototype import PrototypeGuided
from rightreasons.counterfactuals.search import Limits, Search
from rightreasons.counterfactuals.targets import misclassified, random_other, runner_up

COUNTERFACTUALS: Catalogue[Counterfactual] = Catalogue(
    "counterfactual",
    growing_spheres=GrowingSpheres,
    wachter=Wachter,
    cem=PertinentNegative,
    nearest_neighbor=NearestNeighbor,
    prototype_guided=PrototypeGuided,
    latent_search=LatentSearch,
    amortized=Amortized,
)

__all__ = [
    "COUNTERFACTUALS",
    "Amortized",
    "AnytimeCounterfactual",
    "ContrastiveExplanation",
    "GrowingSpheres",
    "LatentSearch",
    "Limits",
    "NearestNeighbor",
    "Overlay",
    "PertinentNegative",
    "PertinentPositive",
    "PrototypeGuided",
    "Search",
    "Wachter",
    "edges",
    "misclassified",
    "overlay",
    "random_other",
    "runner_up",
    "way",
    "way_probabilities",
]
