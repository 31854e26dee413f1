"""Masks of every CAM method of one plain timm classifier, which is trained first: mIoU and seconds an image.

    python benchmarks/cam/methods.py train DATA OUT --weights WEIGHTS --images 600 --epochs 3
    python benchmarks/cam/methods.py score DATA OUT --split cam_val --every 4 --csv benchmarks/cam/results/methods.csv

The classifier is timm's `tf_efficientnet_lite0` with its ImageNet weights, trained without any part of patch learning:
the last blocks and the head on features of the first blocks, which stay frozen and are computed once. An interrupted
training goes on by the same command. Image tags are known. "auto" cuts each image at Otsu's threshold of its own maps;
"best" is the constant threshold with the highest mIoU, which is chosen on the scored masks. A method that is in the
table already is not scored again.
"""

from __future__ import annotations

import argparse
import csv
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from ppl.cam import CamConfig, generate
from ppl.data import TaggedImages, eval_loader, eval_transform, open_dataset
from ppl.engine import EngineConfig, EpochBatches, Task, Trainer, open_accelerator
from ppl.engine.batch_norm import set_train_mode
from ppl.engine.optimizer import param_groups
from ppl.metrics import ConfusionMatrix, ThresholdSweep, mean_average_precision

NAME = "tf_efficientnet_lite0"
FROZEN = 5
"""The number of blocks that keep their weights."""

METHODS = ("cam", "hirescam", "gradcam", "gradcam++", "layercam", "sharpened_cam", "propagated_cam")


class PlainClassifier(Task):
    """Training of the last blocks and the head on features of the first blocks; BatchNorm statistics are frozen."""

    score = "val_mAP"
    greater_is_better = True

    def __init__(self, model: nn.Module, train: TensorDataset, val: TensorDataset, config: EngineConfig) -> None:
        tail = model.blocks[FROZEN:], model.conv_head, model.bn2, model.global_pool, model.classifier
        self.config, self.whole, self.model = config, model, nn.Sequential(*tail)
        self.objective = self.model
        self.batches = EpochBatches(
            DataLoader(train, config.batch_size, shuffle=True, drop_last=True, generator=torch.Generator())
        )
        self.val = DataLoader(val, config.batch_size)
        self.identity = config.identity() | {"images": len(train)}

    def parameter_groups(self) -> list[dict[str, Any]]:
        config, head = self.config, self.whole.classifier
        return param_groups(
            self.model[:-1].named_parameters(), head.named_parameters(), lr=config.lr, weight_decay=config.weight_decay
        )

    def set_train_mode(self) -> None:
        set_train_mode(self.model, "frozen")

    def losses(self, objective: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        return {"loss": F.multilabel_soft_margin_loss(objective(batch[0]), batch[1])}

    @torch.no_grad()
    def validate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        model.eval()
        logits, targets = (torch.cat(parts) for parts in zip(*((model(x), y) for x, y in self.val), strict=True))
        return {self.score: float(mean_average_precision(logits, targets))}

    def save(self, model: nn.Module, path: Path) -> None:
        save_file({name: value.contiguous() for name, value in self.whole.state_dict().items()}, path)


def features(model: nn.Module, images: TaggedImages, size: int, path: Path) -> TensorDataset:
    """Features of the first blocks, and tags; computed once and kept in a file."""
    if not path.exists():
        own = model.pretrained_cfg
        front = nn.Sequential(model.conv_stem, model.bn1, model.blocks[:FROZEN]).eval()
        with torch.inference_mode():
            found = [
                front(batch.images.contiguous(memory_format=torch.channels_last))
                for batch in eval_loader(images, eval_transform(size, own["mean"], own["std"]), 16)
            ]
        path.parent.mkdir(parents=True, exist_ok=True)
        save_file({"features": torch.cat(found).contiguous()}, path)
        print(f"features of {len(images)} images in {path}", flush=True)
    return TensorDataset(load_file(path)["features"], images.targets())


def spread(images: TaggedImages, count: int) -> TaggedImages:
    """Return `count` images at equal distances in the list."""
    count = min(count, len(images))
    return images.subset(images[position * len(images) // count].image_id for position in range(count))


def train(options: argparse.Namespace) -> None:
    images = open_dataset(options.data, "train")
    val = spread(open_dataset(options.data, "val"), options.val_images)
    torch.manual_seed(0)
    model = timm.create_model(NAME, num_classes=len(images.classes))
    state = load_file(options.weights)
    head = model.get_classifier()
    names = {name for name, module in model.named_modules() if module is head}
    kept = {name: value for name, value in state.items() if name.rpartition(".")[0] not in names}
    missing, unexpected = model.load_state_dict(kept, strict=False)
    assert not unexpected and all(name.rpartition(".")[0] in names for name in missing), (missing, unexpected)
    config = EngineConfig.checked(epochs=options.epochs, batch_size=16, lr=options.lr, save_every=10)
    data = [
        features(model, part, options.size, options.out / f"{name}_features.safetensors")
        for name, part in (("train", spread(images, options.images)), ("val", val))
    ]
    with open_accelerator(config.precision, "cpu") as accelerator:
        print(Trainer(PlainClassifier(model, *data, config), accelerator).run(options.out), flush=True)


def score(options: argparse.Namespace) -> None:
    images = open_dataset(options.data, options.split)
    model = timm.create_model(NAME, num_classes=len(images.classes))
    model.load_state_dict(load_file(options.out / "last.safetensors"))
    images = images[:: options.every]
    for method in options.methods:
        row = {"data": options.data.name, "split": options.split, "images": str(len(images)), "method": method}
        if all(any(row[key] != old.get(key) for key in row) for old in read_rows(options.csv)):
            row |= score_method(model.eval(), images, method)
            print(row, flush=True)
            write_rows(options.csv, [*read_rows(options.csv), row])


def score_method(model: nn.Module, images: TaggedImages, method: str) -> dict[str, str]:
    channels = len(images.classes) + 1
    sweep, cut, seconds = ThresholdSweep(channels), ConfusionMatrix(channels), 0.0
    for sample in images:
        started = time.process_time()
        (result,) = generate(model, [sample.image], [list(sample.labels)], method=method, scales=CamConfig().scales)
        mask = result.to_mask("auto")
        seconds += time.process_time() - started
        truth = sample.read_mask()
        cut.update(truth, mask)
        sweep.update(truth, result.maps, result.classes)
    best = sweep.best()
    return {
        "auto": f"{100 * cut.compute()['miou']:.2f}",
        "best": f"{100 * sweep.scores(best)['miou']:.2f}",
        "at": f"{best:.2f}",
        "seconds": f"{seconds / len(images):.3f}",
    }


def read_rows(path: Path) -> list[dict[str, str]]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: list[dict[str, str]]) -> None:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("step", choices=("train", "score"))
    parser.add_argument("data", type=Path, help="folder of the data set")
    parser.add_argument("out", type=Path, help="folder of the trained classifier")
    parser.add_argument("--weights", type=Path, help="weights of ImageNet in timm's names")
    parser.add_argument("--images", type=int, default=600, help="training images, at equal distances in the list")
    parser.add_argument("--val-images", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--split", default="cam_val")
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--methods", nargs="+", default=METHODS)
    parser.add_argument("--csv", type=Path, default=Path("cam_methods.csv"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    train(options) if options.step == "train" else score(options)


if __name__ == "__main__":
    main()
