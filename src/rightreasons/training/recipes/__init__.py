"""Ways to train in stages: other explanations, a new last layer, errors or groups that weigh more, an artifact out."""

from rightreasons.core import Catalogue
from rightreasons.training.recipes.clarc import AClArC, PClArC, RRClArCRecipe
from rightreasons.training.recipes.dfr import DFR
from rightreasons.training.recipes.find_another import FindAnotherExplanation
from rightreasons.training.recipes.group_dro import GroupDRO, GroupDROLoss
from rightreasons.training.recipes.jtt import JTT
from rightreasons.training.recipes.recipe import Recipe, RecipeResult

RECIPES: Catalogue[Recipe] = Catalogue(
    "recipe",
    find_another=FindAnotherExplanation,
    dfr=DFR,
    jtt=JTT,
    group_dro=GroupDRO,
    rr_clarc=RRClArCRecipe,
    p_clarc=PClArC,
    a_clarc=AClArC,
)

__all__ = [
    "DFR",
    "JTT",
    "RECIPES",
    "AClArC",
    "FindAnotherExplanation",
    "GroupDRO",
    "GroupDROLoss",
    "PClArC",
    "RRClArCRecipe",
    "Recipe",
    "RecipeResult",
]
