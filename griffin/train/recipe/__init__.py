"""Everything that decides what a training run does, section by section."""

from griffin.train.recipe.data import DataRecipe, TokenizerRecipe
from griffin.train.recipe.recipe import Recipe, load_recipe
from griffin.train.recipe.source import SourceRecipe
from griffin.train.recipe.train import TrainRecipe

__all__ = ["DataRecipe", "Recipe", "SourceRecipe", "TokenizerRecipe", "TrainRecipe", "load_recipe"]
