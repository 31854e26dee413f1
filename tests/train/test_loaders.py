from __future__ import annotations

from pathlib import Path

import pytest

from ppl.data import make_creatures, open_dataset
from ppl.engine.batches import Share
from ppl.errors import PPLValueError
from ppl.train import TrainConfig
from ppl.train.loaders import train_batches

NORMAL = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


@pytest.mark.parametrize("batch_size", [4, 6, 8])
def test_too_few_images_for_the_processes_are_refused(tmp_path: Path, batch_size: int) -> None:
    images = open_dataset(make_creatures(tmp_path / "set", train=7, val=1, size=64), "train")
    config = TrainConfig(batch_size=batch_size, size=(32, 32), num_workers=0)
    with pytest.raises(PPLValueError, match=f"7 images do not fill a batch of {batch_size} for each of 2 processes"):
        train_batches(images, config, NORMAL, Share(processes=2))
    alone = train_batches(images, config, NORMAL)
    assert sorted(int(i) for batch in alone.epoch(0) for i in batch.indices)[-1] <= 6
