"""A data set that lacks a split list, and every command on the run that was made of it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from ppl.cli import main
from ppl.data import make_creatures

TINY = [
    *("--backbone", "test_resnet", "--mode", "baseline", "--epochs", "1", "--quiet"),
    *("--set", "model.cuts=[layer3]", "--set", "model.pretrained=false", "--set", "train.size=[64, 64]"),
    *("--set", "train.num_workers=0", "--set", "train.batch_size=4", "--set", "cam.scales=[1.0]"),
    *("--set", "refine=[]", "--set", "device=cpu", "--set", "num_workers=1"),
    *("--set", "segment=null", "--set", "preset=null", "--set", "faithfulness=0"),
]


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    return int(leaving.value.code or 0)


@pytest.mark.parametrize(
    ("lists", "split", "images"), [([], "all", 12), (["train.txt"], "train", 8), (["val.txt"], "val", 4)]
)
def test_its_run_can_be_continued_scored_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], lists: list[str], split: str, images: int
) -> None:
    root, out = make_creatures(tmp_path / "set", train=8, val=4, size=64), tmp_path / "run"
    for name in {"train.txt", "val.txt"} - set(lists):
        (root / name).unlink()
    assert call("run", root, "--out", out, *TINY) == 0
    weights = (out / "last.safetensors").stat().st_mtime_ns
    shutil.rmtree(out / "cams")
    (out / "report.html").unlink()
    for words in (("cam", out, "--quiet"), ("evaluate", out), ("report", out), ("run", out, "--quiet")):
        assert call(*words) == 0, (words, capsys.readouterr().err)
    assert len(list((out / "cams" / split).glob("*.npz"))) == images
    assert (out / "report.html").is_file()
    assert (out / "last.safetensors").stat().st_mtime_ns == weights
    again = tmp_path / "again.yaml"
    shutil.copy(out / "recipe.yaml", again)  # a recipe of one's own, made of that of a run
    assert call("train", again, "--out", tmp_path / "second", "--quiet") == 0
