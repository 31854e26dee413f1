"""Class activation maps in your own code: generate, cut masks, save, load, draw.

The model here has random weights, so its maps mean nothing: train a model first (`training_loop.py`), load yours with
`ppl.load_model`, or pass any trained classifier of timm, torchvision or transformers.
"""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image

import ppl
from ppl.cam import CamResult, PowerBackground, generate, iter_generate
from ppl.data import make_creatures, open_dataset
from ppl.io import write_mask
from ppl.report import overlay


def main(size: int = 96, out: Path = Path("runs/examples/cams")) -> None:
    samples = open_dataset(make_creatures(out / "creatures", train=4, val=2, size=size), "train")
    torch.manual_seed(0)
    model = ppl.create_model("test_resnet", len(samples.classes), cuts=["layer3"], pretrained=False)

    # Images are paths, PIL images, arrays or tensors of any size; labels name the classes that get a map.
    results = generate(model, [sample.image for sample in samples], [list(sample.labels) for sample in samples])
    for sample, result in zip(samples, results, strict=True):
        names = [samples.classes[index] for index in result.classes.tolist()]
        print(f"{sample.image_id}: maps {tuple(result.maps.shape)} of {', '.join(names)}")

    # As a stream, for a folder of any length. Without labels, the classes that the model predicts get a map.
    predicted = sum(len(result.classes) for result in iter_generate(model, [sample.image for sample in samples]))
    print(f"without labels, {predicted} maps of the classes that the untrained model predicts")

    first = results[0]
    for background in (0.2, PowerBackground(alpha=4), "auto"):
        mask = first.to_mask(background=background)
        print(f"background {background!r}: {(mask > 0).float().mean():.0%} of the image is foreground")
    write_mask(out / "mask.png", first.to_mask(background="auto").numpy())

    first.save(out / "cam.npz")  # Plain arrays, never a pickle.
    assert torch.equal(CamResult.load(out / "cam.npz").maps, first.maps)
    Image.fromarray(overlay(samples[0].read_image(), first.maps, first.classes)).save(out / "overlay.png")
    print(f"files: {', '.join(sorted(path.name for path in out.glob('*.*')))} in {out}")


if __name__ == "__main__":
    main()
