"""Try settings of `ppl.cam.propagate` on a trained cell: layers, sharpness, scale of the features.

    python benchmarks/study/propagation.py DATASET SPLIT WEIGHTS EPOCH.pt --settings none blocks.2=1,blocks.4=3

A setting is a sharpness for each layer. Maps and features are computed once per image; one row per setting has the mIoU
of the masks cut by the background rule "auto" (Otsu), at the best constant threshold, and after the CRF.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from score_maps import append, score
from torch import Tensor, nn
from trained_cells import arm_of, build, cell_maps, load_cell, part

from ppl.backbones import data_config
from ppl.cam import CamResult, propagate
from ppl.cam.capture import captured_output
from ppl.data import Sample, open_dataset

HERE = Path(__file__).parent


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("split")
    parser.add_argument("weights", type=Path)
    parser.add_argument("cell", type=Path, help="weights of one epoch, as train_cells.py keeps them")
    parser.add_argument("--method", default="sharpened_cam")
    parser.add_argument("--settings", nargs="+", required=True, help="LAYER=SHARPNESS,LAYER=SHARPNESS; or none")
    parser.add_argument("--frozen", action="store_true", help="features of the pretrained network, not of the cell")
    parser.add_argument("--feature-scale", type=float, default=2.0, help="of the image whose features are compared")
    parser.add_argument("--scales", type=float, nargs="+", default=[1.0, 1.5])
    parser.add_argument("--refine", default="crf: irn")
    parser.add_argument("--images", default="::3", help="START:STOP:STEP of the split")
    parser.add_argument("--out", type=Path, default=HERE / "results" / "propagation.csv")
    options = parser.parse_args()
    torch.set_num_threads(1)
    images = part(open_dataset(options.data, options.split), options.images)
    if options.frozen:
        source, network = options.weights, build(arm_of(options.cell), options.weights, len(images.classes))
    else:
        source, network = options.cell, load_cell(options.cell, options.weights, len(images.classes))
    settings = {words: parsed(words) for words in options.settings}
    layers = sorted({layer for setting in settings.values() for layer in setting})
    results = list(cell_maps(options.cell, images, options, method=options.method))
    features = [read(network.backbone, sample, layers, options.feature_scale) for sample in images]
    for words, setting in settings.items():
        row = {
            "data": options.data.name,
            "split": options.split,
            "images": options.images,
            "cell": f"{options.cell.parent.name}/{options.cell.stem}",
            "method": options.method,
            "scales": " ".join(f"{scale:g}" for scale in options.scales),
            "features": f"{source.stem} at {options.feature_scale:g}",
            "setting": words,
            "refine": options.refine,
        }
        walked = (propagated(result, own, setting) for result, own in zip(results, features, strict=True))
        row |= score(images, walked, options.refine)
        print(row, flush=True)
        append(options.out, row)


def parsed(words: str) -> dict[str, float]:
    """Return the sharpness of each layer."""
    if words == "none":
        return {}
    return {layer: float(sharpness) for layer, sharpness in (pair.split("=") for pair in words.split(","))}


@torch.inference_mode()
def read(network: nn.Module, sample: Sample, layers: Sequence[str], scale: float) -> dict[str, Tensor]:
    """Return the features (C,h,w) of one image by layer, float16."""
    config = data_config(network)
    mean, std = (torch.tensor(config[key])[:, None, None] for key in ("mean", "std"))
    pixels = torch.from_numpy(np.array(sample.read_image())).permute(2, 0, 1) / 255
    x = F.interpolate(((pixels - mean) / std)[None], scale_factor=scale, mode="bilinear", align_corners=False)
    with ExitStack() as stack:
        captured = [stack.enter_context(captured_output(network.get_submodule(layer))) for layer in layers]
        with torch.autocast("cpu", torch.bfloat16):
            network(x.contiguous(memory_format=torch.channels_last))
    return {layer: outputs[0][0].half() for layer, outputs in zip(layers, captured, strict=True)}


def propagated(result: CamResult, features: dict[str, Tensor], setting: dict[str, float]) -> CamResult:
    """Return the result with its maps propagated and divided by their maximum."""
    if not setting or not len(result.maps):
        return result
    maps = propagate(result.maps, [features[layer] for layer in setting], list(setting.values()))
    maps = maps / (maps.amax(dim=(1, 2), keepdim=True) + 1e-5)
    fields: dict[str, Any] = {"classes": result.classes, "scores": result.scores, "size": result.size}
    return CamResult(maps, **fields)


if __name__ == "__main__":
    main()
