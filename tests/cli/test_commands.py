"""The commands as a user types them: what they print, and how they end."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

import ppl
from ppl.cli import main
from ppl.cli.run import recipe_changes
from ppl.data import make_creatures
from ppl.models import load_model
from ppl.pipeline import check_recipe
from ppl.pipeline.recipe_file import with_overrides

TINY = [
    *("--backbone", "test_resnet", "--epochs", "1", "--quiet"),
    *("--set", "model.cuts=[layer2]", "--set", "model.pretrained=false", "--set", "train.size=[64, 64]"),
    *("--set", "train.num_workers=0", "--set", "train.batch_size=4", "--set", "cam.scales=[1.0]"),
    *("--set", "refine=[{crf: {iterations: 1}}]", "--set", "device=cpu", "--set", "num_workers=1"),
    *("--set", "segment=null", "--set", "faithfulness=0"),
]


@pytest.fixture(scope="module")
def creatures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_creatures(tmp_path_factory.mktemp("creatures") / "set", train=8, val=4, size=64)


@pytest.fixture(scope="module")
def run_folder(creatures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "run"
    assert call("run", creatures, "--out", out, *TINY) == 0
    return out


def call(*words: object) -> int:
    with pytest.raises(SystemExit) as leaving:
        main([str(word) for word in words])
    return int(leaving.value.code or 0)


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """Return the error of a command, which must be one line, and fail unless the exit code is 2."""
    capsys.readouterr()
    assert call(*words) == 2
    error = capsys.readouterr().err.strip()
    lines = [line for line in error.splitlines() if not line.startswith("warning:")]
    assert len(lines) == 1 and lines[0].startswith("error: "), error
    return lines[0]


def test_version_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("--version") == 0
    assert capsys.readouterr().out == f"ppl {ppl.__version__}\n"
    assert call("--help") == 0
    listed = capsys.readouterr().out
    commands = "run train cam refine segment predict evaluate export report import check demo env"
    for command in commands.split():
        assert f" {command} " in listed


def test_run_ends_with_a_table_and_the_paths_of_the_results(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("run", run_folder, "--quiet") == 0
    out = capsys.readouterr().out
    table = " ".join(out.split())
    assert "CAM best" in table and "refined" in table and "body" in table and "progressive" in table
    assert str(run_folder / "image_grid.png") in out and str(run_folder / "report.html") in out
    assert yaml.safe_load((run_folder / "recipe.yaml").read_text())["model"]["backbone"] == "test_resnet"


def test_evaluate_scores_a_run_and_any_folder_of_masks(
    run_folder: Path, creatures: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("evaluate", run_folder) == 0
    assert "CAM mIoU" in capsys.readouterr().out
    assert call("evaluate", creatures / "masks", "--data", creatures, "--split", "val") == 0
    assert "mIoU of 4 of 4 images: 100.0" in capsys.readouterr().out


def test_class_names_of_any_characters_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    Image.new("RGB", (8, 6)).save(tmp_path / "images" / "a.png")
    Image.fromarray(np.tile(np.array([0, 1, 2], np.uint8), (6, 4))[:, :8]).save(tmp_path / "masks" / "a.png")
    (tmp_path / "classes.txt").write_text("[bold]\n[/x] \u732b\n", encoding="utf-8")
    (tmp_path / "labels.csv").write_text("image,labels\na.png,[bold];[/x] \u732b\n", encoding="utf-8")
    assert call("evaluate", tmp_path / "masks", "--data", tmp_path) == 0
    out = capsys.readouterr().out
    assert "[bold]" in out and "[/x] \u732b" in out


def test_cam_of_any_folder_of_pictures(run_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "photos").mkdir()
    for name, size in (("a.b.jpg", (70, 50)), ("thin.png", (1, 40))):
        Image.fromarray(np.full((size[1], size[0], 3), 90, np.uint8)).save(tmp_path / "photos" / name)
    (tmp_path / "photos" / "broken.jpg").write_bytes(b"no picture")
    out = tmp_path / "out"
    with pytest.warns(UserWarning, match="broken"):
        assert call("cam", run_folder / "last.safetensors", "--images", tmp_path / "photos", "--out", out) == 0
    assert "maps of 2 images" in capsys.readouterr().out
    assert Image.open(out / "masks" / "a.b.png").size == (70, 50)
    assert Image.open(out / "masks" / "thin.png").size == (1, 40)


def test_cam_takes_tags_from_a_csv(run_folder: Path, creatures: Path, tmp_path: Path) -> None:
    words = ["--images", creatures / "images", "--labels", creatures / "labels.csv", "--out", tmp_path]
    assert call("cam", run_folder / "last.safetensors", *words, "--set", "cam.scales=[1.0]", "--quiet") == 0
    assert len(list((tmp_path / "cams").glob("*.npz"))) == 12


def test_refine_any_folder_of_cams(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--images", creatures / "images", "--out", tmp_path, "--refiners", "guided_filter: 2", "--quiet"]
    assert call("refine", run_folder / "cams" / "val", *words) == 0
    assert "4 masks" in capsys.readouterr().out
    assert call("refine", run_folder / "cams" / "val", *words) == 0
    assert "0 masks" in capsys.readouterr().out
    assert call("refine", run_folder / "cams" / "val", *words, "--overwrite") == 0
    assert "4 masks" in capsys.readouterr().out


def test_maps_of_irn_are_imported_and_refined(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "irn").mkdir()
    content = {"keys": torch.tensor([1]), "cam": torch.ones(1, 16, 16), "high_res": np.ones((1, 64, 64), np.float32)}
    np.save(tmp_path / "irn" / "val_0000.npy", content)  # type: ignore[arg-type]
    words = ["import", tmp_path / "irn", "--from", "irn", "--out", tmp_path / "cams", "--quiet"]
    assert "--allow-pickle" in refused(capsys, *words)
    assert call(*words, "--allow-pickle") == 0
    assert "1 image in" in capsys.readouterr().out
    export = ["export", tmp_path / "cams", "--to", "psa", "--quiet"]
    assert "--out FOLDER" in refused(capsys, *export)
    assert call(*export, "--out", tmp_path / "psa") == 0
    assert list(np.load(tmp_path / "psa" / "val_0000.npy", allow_pickle=True).item()) == [1]
    assert "--images needs --to" in refused(capsys, "export", tmp_path, "--images", tmp_path)
    refine = ["refine", tmp_path / "cams", "--images", creatures / "images", "--refiners", "guided_filter: 2"]
    assert call(*refine, "--background", "0.5", "--out", tmp_path / "masks", "--quiet") == 0
    assert (np.asarray(Image.open(tmp_path / "masks" / "val_0000.png")) == 2).all()


def test_a_data_set_is_trained_on_and_can_be_continued(creatures: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    assert call("train", creatures, "--out", out, "--mode", "baseline", *TINY) == 0
    model = load_model(out / "last.safetensors")
    assert (model.mode, model.classes) == ("baseline", ("cat", "owl", "frog", "ram"))
    assert call("cam", out, "--quiet") == 0
    assert len(list((out / "cams" / "val").glob("*.npz"))) == 4


def test_other_settings_in_a_run_folder_are_named(run_folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "lr" in refused(capsys, "train", run_folder, "--set", "train.lr=0.5", "--quiet")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["run", "nowhere"], "nothing at nowhere"),
        (["run", "SET", "--mode", "progresive"], "progressive"),
        (["run", "SET", "--set", "train.epochz=2"], "epochs"),
        (["run", "SET", "--backbone", "resnet5", "--set", "model.pretrained=false"], "resnet50"),
        (["run", "SET", *TINY, "--set", "model.cuts=[layer9]"], "layer2"),
        (["run", "SET", *TINY, "--set", "model.grids=99"], "use 792x792 or more"),
        (["run", "SET", *TINY, "--weights", "SET/classes.txt"], "classes.txt"),
        (["run", "SET", *TINY, "--set", "data.val=valid"], "valid"),
        (["run", "SET", *TINY, "--set", "device=cuda:77"], "cuda:77"),
        (["cam", "SET"], "--images"),
        (["refine", "SET"], "--images"),
        (["evaluate", "SET"], "--data"),
        (["cam", "SET/classes.txt", "--images", "SET/images", "--out", "OUT"], "classes.txt"),
    ],
)
def test_a_mistake_is_reported_in_one_line(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], told: str
) -> None:
    words = [word.replace("SET", str(creatures)).replace("OUT", str(tmp_path)) for word in words]
    if words[0] == "run":
        words += ["--out", str(tmp_path / "run")]
    assert told in refused(capsys, *words)
    assert not list(tmp_path.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        ("labels.csv", "image,labels\ntrain_0000,catt\n", "'cat'"),
        ("labels.csv", "image,labels\n", "no rows"),
        ("labels.csv", "", "empty"),
        ("train.txt", "train_0000\nghost\n", "ghost"),
        ("classes.txt", "", "empty"),
    ],
)
def test_a_faulty_data_set_is_reported_in_one_line(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], file: str, content: str, told: str
) -> None:
    root = tmp_path / "set"
    shutil.copytree(creatures, root)
    (root / file).write_text(content)
    assert told in refused(capsys, "run", root, "--out", tmp_path / "run", *TINY)


def test_a_full_disk_is_reported_in_one_line(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import errno
    import os

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    assert "free some space" in refused(capsys, "run", creatures, "--out", tmp_path / "run", *TINY)


def test_maps_of_other_settings_are_not_mixed_into_a_folder(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights, out = run_folder / "last.safetensors", tmp_path / "out"
    pictures = tmp_path / "pictures"
    shutil.copytree(creatures / "images", pictures)
    words = ("cam", weights, "--images", pictures, "--out", out, "--quiet", "--set", "cam.scales=[1.0]")
    assert call(*words) == 0
    count = len(list(pictures.iterdir()))
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.npz")}
    assert call(*words, "--set", "cam.background=0.9") == 0
    assert f"maps of {count} images in {out / 'cams'} (0 new)" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert not any(np.asarray(Image.open(path)).mean() > 1 for path in (out / "masks").glob("*.png"))
    assert "made in another way" in refused(capsys, *words, "--set", "cam.scales=[0.5]")
    assert call(*words, "--set", "cam.scales=[0.5]", "--overwrite") == 0
    assert "lies in" in refused(capsys, "cam", weights, "--images", pictures, "--out", pictures / "masks")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("cam", "RUN", "--labels", "tags.csv"), "--labels has no effect on a run folder"),
        (("cam", "RUN", "--out", "elsewhere"), "--out has no effect on a run folder"),
        (("cam", "RUN", "--set", "train.epochs=99"), "--set train.epochs=99 has no effect in `ppl cam`"),
        (("cam", "RUN/last.safetensors", "--images", "RUN", "--out", "o", "--set", "cam.labels=tags"), "add --labels"),
        (
            ("cam", "RUN/last.safetensors", "--images", "RUN", "--out", "o", "--set", "cam.checkpoint=best"),
            "checkpoint",
        ),
        (("refine", "RUN", "--overwrite"), "--overwrite has no effect on a run folder"),
        (("refine", "RUN", "--set", "cam.scales=[0.5]"), "has no effect in `ppl refine`"),
        (("refine", "RUN", "--images", "RUN", "--out", "o", "--set", "refine=[]"), "use --refiners"),
        (("evaluate", "RUN", "--split", "train"), "--split has no effect on a run folder"),
    ],
)
def test_an_option_without_effect_is_refused(
    run_folder: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], message: str
) -> None:
    before = (run_folder / "recipe.yaml").read_text()
    assert message in refused(capsys, *(word.replace("RUN", str(run_folder)) for word in words))
    assert (run_folder / "recipe.yaml").read_text() == before


def test_evaluate_says_which_masks_are_missing_or_wrong(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "masks"
    assert "holds no" in refused(capsys, "evaluate", folder, "--data", creatures, "--split", "val")
    shutil.copytree(run_folder / "masks" / "val", folder)
    first, second = sorted(folder.glob("*.png"))[:2]
    first.unlink()
    assert call("evaluate", folder, "--data", creatures, "--split", "val") == 0
    assert f"1 of 4 images have no file and count as background, as {first.name}" in capsys.readouterr().out
    Image.new("P", (3, 3)).save(second)
    assert second.name in refused(capsys, "evaluate", folder, "--data", creatures, "--split", "val")


def test_a_folder_that_cannot_be_made_is_reported_in_one_line(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    assert "no run folder can be made" in refused(capsys, "run", creatures, "--out", tmp_path / "file", *TINY)


def test_a_faulty_recipe_is_not_written_into_the_run_folder(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused(capsys, "run", creatures, "--out", tmp_path / "run", *TINY, "--set", "model.backbone=nosuch")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def test_maps_of_another_model_replace_all_maps_of_a_folder(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    full, part, out = tmp_path / "full", tmp_path / "part", tmp_path / "out"
    shutil.copytree(creatures / "images", full)
    part.mkdir()
    shutil.copy(next(iter(sorted(full.iterdir()))), part)
    words = ("cam", run_folder / "last.safetensors", "--out", out, "--quiet", "--set", "cam.scales=[1.0]")
    assert call(*words, "--images", full) == 0
    assert call(*words, "--images", part, "--set", "cam.flip=false", "--overwrite") == 0
    assert len(list((out / "cams").glob("*.npz"))) == len(list((out / "masks").glob("*.png"))) == 1
    (out / "cams" / "record.jsonl").unlink()
    assert "made in another way" in refused(capsys, *words, "--images", part)


def test_true_masks_beside_the_pictures_are_never_overwritten(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "data"
    shutil.copytree(creatures, data)
    before = {path: path.read_bytes() for path in (data / "masks").iterdir()}
    words = ("cam", run_folder / "last.safetensors", "--images", data / "images", "--out", data, "--overwrite")
    assert "made in another way or by somebody else" in refused(capsys, *words)
    assert {path: path.read_bytes() for path in (data / "masks").iterdir()} == before
    assert not (data / "cams").exists()


def test_the_path_of_weights_may_hold_any_characters() -> None:
    path = r'a\b "c": é # d.safetensors'
    changes = recipe_changes("baseline", ["control"], "test_resnet", Path(path), 2, ["train.lr=0.5"])
    recipe = check_recipe(with_overrides({"data": {"root": "here"}}, changes))
    assert recipe.model.checkpoint_path == Path(path)
    assert (recipe.model.mode, recipe.compare, recipe.train.epochs, recipe.train.lr) == (
        "baseline",
        ["control"],
        2,
        0.5,
    )


def test_a_file_in_place_of_a_run_folder_names_the_missing_options(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = "is not a run folder; for a checkpoint add --images FOLDER --out FOLDER"
    assert told in refused(capsys, "cam", run_folder / "last.safetensors")
    map_ = next((run_folder / "cams" / "val").glob("*.npz"))
    assert "for a folder of CAM files add --images FOLDER" in refused(capsys, "refine", map_)
    assert "add --data DATASET" in refused(capsys, "evaluate", next((run_folder / "masks" / "val").glob("*.png")))


def test_a_folder_without_cam_files_is_refused(
    creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    words = ("refine", tmp_path / "empty", "--images", creatures / "images", "--out", tmp_path / "out")
    assert "empty holds no CAM files (.npz)" in refused(capsys, *words)


@pytest.mark.parametrize("rest", [(), ("--images", "IMAGES", "--out", "OUT")])
def test_zero_workers_are_refused(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], rest: tuple[str, ...]
) -> None:
    places = {"IMAGES": creatures / "images", "OUT": tmp_path / "out"}
    target = run_folder / "cams" / "val" if rest else run_folder
    words = ("refine", target, "--num-workers", "0", *(places.get(word, word) for word in rest))
    assert "num_workers must be -1 (one worker per core) or at least 1, got 0" in refused(capsys, *words)


def test_a_refiner_with_a_missing_file_leaves_the_run_unchanged(
    run_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in (run_folder / "refined" / "val").iterdir()}
    words = ("refine", run_folder, "--refiners", "random_walk: typo.safetensors")
    assert "there is no file at typo.safetensors" in refused(capsys, *words)
    assert {path: path.stat().st_mtime_ns for path in (run_folder / "refined" / "val").iterdir()} == before != {}


def test_a_run_is_given_a_segmentation_network_which_segments_pictures(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = shutil.copytree(run_folder, tmp_path / "run")
    settings = "{decoder: fpn, epochs: 1, batch_size: 4, crop: 64, num_workers: 0}"
    assert call("segment", out, "--quiet", "--set", f"segment={settings}") == 0
    told = capsys.readouterr().out
    assert "segmenter" in told, told
    assert call("predict", out, "--images", creatures / "images", "--out", tmp_path / "predicted", "--quiet") == 0
    assert "12 pictures segmented (12 new)" in capsys.readouterr().out
    assert len(list((tmp_path / "predicted" / "masks").rglob("*.png"))) == 12
    told = refused(capsys, "predict", run_folder, "--images", creatures / "images", "--out", tmp_path / "none")
    assert "segmenter" in told


def test_a_checkpoint_of_a_classifier_cannot_predict(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = run_folder / "last.safetensors"
    told = refused(capsys, "predict", weights, "--images", creatures / "images", "--out", tmp_path / "none")
    assert "holds a classifier, which ppl.load_model reads" in told


def test_one_picture_is_enough(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = sorted((creatures / "images").iterdir())[:2]
    for picture in (first, second):
        words = ("cam", run_folder / "last.safetensors", "--images", picture, "--out", tmp_path / "out", "--quiet")
        assert call(*words, "--labels", creatures / "labels.csv", "--set", "cam.scales=[1.0]") == 0
    assert "maps of 1 images" in capsys.readouterr().out
    assert sorted(path.stem for path in (tmp_path / "out" / "masks").glob("*.png")) == [first.stem, second.stem]
    words = ("refine", tmp_path / "out" / "cams", "--images", first, "--out", tmp_path / "refined", "--quiet")
    assert call(*words, "--refiners", "guided_filter: 2") == 0
    assert [path.stem for path in (tmp_path / "refined").glob("*.png")] == [first.stem]


def test_scores_say_how_many_images_they_are_of(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run = tmp_path / "set", tmp_path / "run"
    shutil.copytree(creatures, data)
    shutil.copytree(run_folder, run)
    recipe = yaml.safe_load((run / "recipe.yaml").read_text())
    recipe["data"]["root"] = str(data)
    (run / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    names = (data / "val.txt").read_text().split()
    for name in names[1:]:
        (data / "masks" / f"{name}.png").unlink()
    assert call("evaluate", run) == 0
    out = capsys.readouterr().out
    assert "val, 1 of 4 images: percent" in out and "scores are of 1 of 4 images; the others have no mask" in out
    assert call("evaluate", creatures / "masks", "--data", data, "--split", "val") == 0
    assert "mIoU of 1 of 4 images: 100.0" in capsys.readouterr().out
    (data / "masks" / f"{names[0]}.png").unlink()
    assert "nothing to score" in refused(capsys, "evaluate", run)
    assert "has no masks to score against" in refused(
        capsys, "evaluate", creatures / "masks", "--data", data, "--split", "val"
    )


def test_weights_that_are_not_numbers_are_named(
    run_folder: Path, creatures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = load_model(run_folder / "last.safetensors")
    name, weight = next(iter(model.named_parameters()))
    weight.data.view(-1)[0] = float("nan")
    ppl.save_model(model, tmp_path / "broken.safetensors")
    words = ("cam", tmp_path / "broken.safetensors", "--images", creatures / "images", "--out", tmp_path / "out")
    assert name.rpartition(".")[0] in refused(capsys, *words, "--quiet")
    run = tmp_path / "run"
    shutil.copytree(run_folder, run)
    shutil.copy(tmp_path / "broken.safetensors", run / "last.safetensors")
    assert name.rpartition(".")[0] in refused(capsys, "cam", run, "--quiet")


def test_env_prints_what_a_bug_report_needs(capsys: pytest.CaptureFixture[str]) -> None:
    assert call("env") == 0
    told = capsys.readouterr().out
    assert f"torch: {torch.__version__.partition('+')[0]}" in told and "GPUs: " in told and "timm: " in told


def test_the_command_line_is_a_module_too() -> None:
    done = subprocess.run([sys.executable, "-m", "ppl", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout == f"ppl {ppl.__version__}\n"
