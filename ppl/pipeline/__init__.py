"""A whole run from one recipe: tags in; masks, scores and pictures out. Every step goes on where it was interrupted."""

from __future__ import annotations

from ppl.parallel.lock import FolderInUseError
from ppl.pipeline.cam_folder import cam_folder
from ppl.pipeline.demo import demo_recipe
from ppl.pipeline.exchange import MASK_FORMATS, export_folder, import_folder
from ppl.pipeline.named import RECIPES
from ppl.pipeline.networks import load_network, network_file
from ppl.pipeline.plan import PlanStep, plan_run
from ppl.pipeline.plugins import import_plugins
from ppl.pipeline.prediction import predict_folder
from ppl.pipeline.presets import PRESETS
from ppl.pipeline.recipe import AffinityRecipe, CamRecipe, Recipe
from ppl.pipeline.recipe_file import check_recipe, check_section, load_recipe
from ppl.pipeline.refinement import refine_cams
from ppl.pipeline.run import STEPS, RunResult, run_recipe
from ppl.pipeline.run_folder import RunFolder
from ppl.pipeline.scoring import score_masks
from ppl.pipeline.segmentation import segment_dataset
from ppl.pipeline.source import default_out, resolve_recipe

__all__ = [
    "MASK_FORMATS",
    "PRESETS",
    "RECIPES",
    "STEPS",
    "AffinityRecipe",
    "CamRecipe",
    "FolderInUseError",
    "PlanStep",
    "Recipe",
    "RunFolder",
    "RunResult",
    "cam_folder",
    "check_recipe",
    "check_section",
    "default_out",
    "demo_recipe",
    "export_folder",
    "import_folder",
    "import_plugins",
    "load_network",
    "load_recipe",
    "network_file",
    "plan_run",
    "predict_folder",
    "refine_cams",
    "resolve_recipe",
    "run_recipe",
    "score_masks",
    "segment_dataset",
]
