"""A folder of pictures to maps and masks: `ppl cam` against the loop that one would write, in wall time.

The loop computes and writes one picture after the other and then cuts the masks; `cam_folder` writes by threads while
it computes, and cuts by threads. Both read pictures ahead, as `iter_generate` does. What is gained depends on how long
the model takes for a picture: beside a GPU writing is most of the time, and a light model stands in for one here
(`--backbone test_resnet`). Both run in turn; the ratio is the median over the repeats.

    python benchmarks/cam/folder.py --backbone test_resnet --images 64
"""

from __future__ import annotations

import argparse
import csv
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from ppl.cam import CamResult, iter_generate
from ppl.io import write_mask
from ppl.models import PPLNet, create_model, load_model, save_model
from ppl.pipeline import CamRecipe, cam_folder


def draw(folder: Path, count: int, height: int, width: int) -> None:
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(count):
        pixels = random.integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
        picture = Image.fromarray(pixels).resize((width, height), Image.Resampling.BICUBIC)
        picture.save(folder / f"{number:05}.jpg")


def loop(model: PPLNet, pictures: list[Path], out: Path, settings: CamRecipe) -> None:
    results = iter_generate(model, pictures, **settings.arguments())
    for picture, result in zip(pictures, results, strict=True):
        result.save(out / "cams" / f"{picture.stem}.npz")
    for picture in pictures:
        result = CamResult.load(out / "cams" / f"{picture.stem}.npz")
        write_mask(out / "masks" / f"{picture.stem}.png", result.to_mask().numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backbone", default="test_resnet")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--size", type=int, nargs=2, default=(375, 500), help="height and width")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--num-workers", type=int, default=-1)
    parser.add_argument("--threads", type=int, default=1, help="threads of torch")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--csv", type=Path, default=Path("cam_folder.csv"))
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    settings = CamRecipe(scales=[1.0], labels="predicted")
    with tempfile.TemporaryDirectory() as work:
        pictures, weights = Path(work) / "pictures", Path(work) / "model.safetensors"
        draw(pictures, options.images, *options.size)
        save_model(create_model(options.backbone, 20, pretrained=False), weights)
        model = load_model(weights).to(options.device)
        found: dict[str, list[float]] = {"loop": [], "folder": []}
        for repeat in range(options.repeats + 1):
            start = time.perf_counter()
            loop(model, sorted(pictures.iterdir()), Path(work) / f"loop{repeat}", settings)
            middle = time.perf_counter()
            out = Path(work) / f"folder{repeat}"
            cam_folder(
                weights,
                pictures,
                out,
                settings=settings,
                device=options.device,
                num_workers=options.num_workers,
                progress=False,
            )
            end = time.perf_counter()
            if repeat:  # The first round warms up.
                found["loop"].append(middle - start)
                found["folder"].append(end - middle)
    ratio = statistics.median(one / other for one, other in zip(found["loop"], found["folder"], strict=True))
    row = {
        "backbone": options.backbone,
        "images": options.images,
        "jobs": options.num_workers,
        "threads": options.threads,
        "loop_s": round(statistics.median(found["loop"]), 2),
        "folder_s": round(statistics.median(found["folder"]), 2),
        "loop / folder": round(ratio, 2),
    }
    print("  ".join(f"{key}: {value}" for key, value in row.items()))
    with options.csv.open("w", newline="") as file:
        writer = csv.DictWriter(file, row)
        writer.writeheader()
        writer.writerow(row)


if __name__ == "__main__":
    main()
