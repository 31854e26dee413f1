"""The demo: a run on the built-in sample set, with a small network from scratch, in minutes on two cores."""

from __future__ import annotations

from pathlib import Path

from ppl.data import make_creatures
from ppl.pipeline.recipe import Recipe
from ppl.pipeline.recipe_file import check_recipe

__all__ = ["demo_recipe"]


def demo_recipe(out: Path, seed: int = 0) -> Recipe:
    """Draw the sample set into a run folder, unless it is there, and return the recipe of the demo.

    The network starts from random weights, so that nothing is downloaded. The settings are ours.

    Args:
        out: the run folder; the images are drawn into its sub-folder `creatures`.
        seed: seed of the images and of the training.

    Returns:
        A recipe that trains the patch-learning classifier, the plain classifier for comparison, and a segmentation
        network on the refined masks.
    """
    root = make_creatures(out / "creatures", train=400, val=100, size=128, seed=seed)
    return check_recipe(
        {
            "data": {"root": str(root)},
            "preset": None,
            "model": {
                "backbone": "test_resnet",
                "mode": "progressive",
                "output_stride": 16,
                "pretrained": False,
                # with zeros in the last norm of each residual branch, patches change nothing at the start
                "timm": {"zero_init_last": False},
            },
            "compare": ["baseline"],
            "train": {
                "epochs": 12,
                "size": [128, 128],
                "resize_long": [110, 160],
                "lr": 3e-3,
                "head_lr_mult": 1.0,
                "weight_decay": 0.05,
                "num_workers": 1,
                "seed": seed,
            },
            "cam": {"scales": [1.0, 1.5]},
            "refine": ["crf: irn"],
            "segment": {
                "decoder": "fpn",
                # the usual widths, 256 and 128, are meant for larger encoders: twice the time for the same score
                "options": {"decoder_pyramid_channels": 64, "decoder_segmentation_channels": 64},
                "epochs": 12,
                "crop": 128,
                "scale": [0.75, 1.25],
                "lr": 1e-3,
                "head_lr_mult": 1.0,
                "num_workers": 1,
                "seed": seed,
            },
        },
        source="demo",
    )
