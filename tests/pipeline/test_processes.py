"""Every step on two processes, and on the shards of an array job."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import pytest
from processes import run_ranks

from ppl.cam import CamResult
from ppl.cli import main
from ppl.errors import PPLValueError
from ppl.io import read_mask
from ppl.parallel import shard
from ppl.pipeline import CamRecipe, Recipe, RunFolder, RunResult, cam_folder, predict_folder, refine_cams, run_recipe
from ppl.segment import create_segmenter
from ppl.segment.files import save_segmenter

MakeRecipe = Callable[..., Recipe]

COMMANDS = """
import os, signal, sys
from ppl.cam import CamResult
from ppl.cli import main

out, pictures, network, dies = sys.argv[1:]
each = "--set", "cam.batch_size=1"
commands = [
    ("run", f"{out}/run", "--set", "data.splits=[train, val]", "--set", "compare=[]", *each),
    ("cam", f"{out}/run/last.safetensors", "--images", pictures, "--out", f"{out}/cam", *each),
    ("refine", f"{out}/cam/cams", "--images", pictures, "--out", f"{out}/refined", "--refiners", "guided_filter: 2"),
    ("predict", network, "--images", pictures, "--out", f"{out}/predicted"),
]
made, save = [], CamResult.save

def save_and_die(result, path):
    save(result, path)
    made.append(path)
    if dies == os.environ["RANK"] and len(made) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

CamResult.save = save_and_die
for words in commands:
    try:
        main([*words, "--quiet"])
    except SystemExit as end:
        if end.code:
            raise
"""


def contents(folder: Path, *suffixes: str) -> dict[str, bytes]:
    found = (path for path in sorted(folder.rglob("*")) if path.suffix in suffixes)
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("network") / "network.safetensors"
    save_segmenter(create_segmenter("test_resnet", 4, decoder="fpn", pretrained=False), path)
    return path


def test_two_processes_make_the_files_of_one_also_after_one_was_killed(
    finished: tuple[Path, RunResult], tiny_recipe: MakeRecipe, creatures: Path, network: Path, tmp_path: Path
) -> None:
    one, two, pictures = tmp_path / "one", tmp_path / "two", creatures / "images"
    for out in (one, two):
        shutil.copytree(finished[0], out / "run")
    killed, done = (run_ranks(COMMANDS, two, pictures, network, dies) for dies in ("1", "nobody"))
    assert [code for code, _, _ in killed] == [2, -9]
    assert "error: process 1 of 2: another process of this launch has ended" in killed[0][2]
    assert [code for code, _, _ in done] == [0, 0], done
    lines = [line for _, out, _ in done for line in out.splitlines()]
    made = [line.split(maxsplit=1)[1] for line in lines if line.startswith("progressive: ") and "trained" not in line]
    # rank 0 finished its half before rank 1 died; maps of one process are kept by two
    assert made == [
        "maps of 8 images of train (3 new)",
        "refined 8 masks of train (8 new)",
        "maps of 4 images of val (0 new)",
        "refined 4 masks of val (0 new)",
    ]

    each = {"scales": [1.0], "batch_size": 1}  # maps of a batch differ by rounding from those of another batch
    recipe = tiny_recipe(creatures, cam=each, data={"root": str(creatures), "splits": ["train", "val"]})
    scores = run_recipe(recipe, one / "run", progress=False).scores
    settings = CamRecipe(labels="predicted", batch_size=1)
    cam_folder(one / "run" / "last.safetensors", pictures, one / "cam", settings=settings, progress=False)
    refine_cams(one / "cam" / "cams", pictures, one / "refined", "guided_filter: 2", progress=False)
    predict_folder(network, pictures, one / "predicted", progress=False)
    assert contents(one, ".npz", ".png", ".jpg") == contents(two, ".npz", ".png", ".jpg")
    assert contents(one / "predicted", ".html") == contents(two / "predicted", ".html")
    assert manifest(two)["scores"] == manifest(one)["scores"] == scores["progressive"]
    assert not list(two.rglob("record.part-*"))

    lines = []
    run_recipe(recipe, two / "run", ("cam", "refine"), progress=False, log=lines.append)
    assert len(lines) == 4 and all("(0 new)" in line for line in lines)


def manifest(folder: Path) -> Any:
    return json.loads((folder / "run" / "manifest.json").read_text())


def test_shards_make_each_picture_once_and_the_last_call_closes_the_work(
    finished: tuple[Path, RunResult], creatures: Path, network: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, pictures = finished[0] / "last.safetensors", creatures / "images"
    whole, out = tmp_path / "whole", tmp_path / "shards"
    commands = {
        "cam": ("cam", model, "--images", pictures, "--set", "cam.batch_size=1"),
        "refined": ("refine", whole / "cam" / "cams", "--images", pictures, "--refiners", "guided_filter: 2"),
        "predicted": ("predict", network, "--images", pictures),
    }
    for name, words in commands.items():
        run(*words, "--out", whole / name)
        made = [run(*words, "--out", out / name, "--shard", f"{index}/3") for index in (1, 2, 3)]
        capsys.readouterr()
        assert not (out / name / "index.html").exists()
        run(*words, "--out", out / name)
        assert re.search(r"\b0 (new|masks)", capsys.readouterr().out), made
    assert contents(whole, ".npz", ".png", ".jpg", ".html") == contents(out, ".npz", ".png", ".jpg", ".html")
    assert not list(out.rglob("record.part-*"))


def run(*words: object) -> None:
    with pytest.raises(SystemExit) as end:
        main([*map(str, words), "--quiet"])
    assert not end.value.code


def test_shards_of_a_run_leave_scores_and_manifest_to_the_last_call(
    finished: tuple[Path, RunResult], tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished[0], out)
    before = (out / "manifest.json").read_bytes()
    recipe = tiny_recipe(creatures, cam={"scales": [1.0, 0.5], "batch_size": 2})
    for name in ("1/2", "2/2"):
        with shard(name):
            run_recipe(recipe, out, ("cam", "refine"), progress=False)
    assert (out / "manifest.json").read_bytes() == before
    lines: list[str] = []
    run_recipe(recipe, out, ("cam", "refine"), progress=False, log=lines.append)
    assert len(lines) == 2 and all("(0 new)" in line for line in lines)
    assert "scores" not in RunFolder(out).read_manifest() or not RunFolder(out).read_manifest()["scores"]
    with shard("1/2"), pytest.raises(PPLValueError, match="the step 'evaluate' needs all images"):
        run_recipe(recipe, out, ("evaluate",), progress=False)


def test_checks_and_masks_go_to_the_workers_of_joblib(
    finished: tuple[Path, RunResult], creatures: Path, tmp_path: Path
) -> None:
    model, pictures = finished[0] / "last.safetensors", creatures / "images"
    with joblib.parallel_config(backend="multiprocessing", n_jobs=2):
        summary = cam_folder(model, pictures, tmp_path / "out", num_workers=2, progress=False)
    assert (summary.done, summary.bad) == (12, ())
    for path in (tmp_path / "out" / "cams").glob("*.npz"):
        mask = CamResult.load(path).to_mask(background=CamRecipe().background).numpy()
        assert (read_mask(tmp_path / "out" / "masks" / f"{path.stem}.png") == mask).all()
