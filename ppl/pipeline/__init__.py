"""A whole run from one recipe: tags in, masks, scores and pictures out, every step resumable."""

from __future__ import annotations

from ppl.pipeline.cams import cam_folder
from ppl.pipeline.checking import check_recipe, check_section, load_recipe
from ppl.pipeline.demo import demo_recipe
from ppl.pipeline.evaluation import score_masks
from ppl.pipeline.folder import RunFolder
from ppl.pipeline.recipe import AffinityRecipe, CamRecipe, Recipe
from ppl.pipeline.refinement import refine_cams
from ppl.pipeline.run import STEPS, RunResult, run_recipe
from ppl.pipeline.target import default_out, resolve

__all__ = [
    "STEPS",
    "AffinityRecipe",
    "CamRecipe",
    "Recipe",
    "RunFolder",
    "RunResult",
    "cam_folder",
    "check_recipe",
    "check_section",
    "default_out",
    "demo_recipe",
    "load_recipe",
    "refine_cams",
    "resolve",
    "run_recipe",
    "score_masks",
]
