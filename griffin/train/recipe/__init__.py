"""Everything that decides what a training run does, section by section."""

from griffin.train.recipe.data import DataRecipe, TokenizerRecipe
from griffin.train.recipe.recipe import Recipe, load_recipe, recipe_of
from griffin.train.recipe.source import SourceRecipe
from griffin.train.recipe.train import TrainRecipe
from griffin.train.recipe.tune import ONLINE, Reads, TuneRecipe

__all__ = [
    "ONLINE",
    "DataRecipe",
    "Reads",
    "Recipe",
    "SourceRecipe",
    "TokenizerRecipe",
    "TrainRecipe",
    "TuneRecipe",
    "load_recipe",
    "recipe_of",
]
