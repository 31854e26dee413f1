from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import ppl
from ppl.cam import CamResult
from ppl.cam.images import to_tensor
from ppl.data import open_dataset
from ppl.pipeline import Recipe, RunFolder, RunResult, run_recipe
from ppl.pipeline import faithfulness as module

MakeRecipe = Callable[..., Recipe]


@pytest.fixture
def run(finished: tuple[Path, RunResult], tmp_path: Path) -> RunFolder:
    return RunFolder(Path(shutil.copytree(finished[0], tmp_path / "run")))


def test_the_manifest_holds_what_a_loop_over_the_files_finds(
    run: RunFolder, tiny_recipe: MakeRecipe, creatures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def some_maps(path: Path) -> CamResult:  # the network has hardly learnt anything, so most of its maps are empty
        maps = torch.rand(2, 64, 64, generator=torch.Generator().manual_seed(len(path.name)))
        return CamResult(maps, torch.tensor([0, 1]), torch.ones(2), (64, 64))

    monkeypatch.setattr(module.CamResult, "load", some_maps)
    run_recipe(tiny_recipe(creatures, faithfulness=2), run.path, ("evaluate",), progress=False)
    entry = run.read_manifest()["faithfulness"]["val"]
    model = ppl.load_model(run.weights("last")).eval()
    samples = open_dataset(creatures, "val")
    energy, peak, removed = [], [], []
    for sample in (samples[0], samples[len(samples) - 1]):
        cam, truth = CamResult.load(run.cams("val") / f"{sample.image_id}.npz"), sample.read_mask()
        image = to_tensor(sample.image, model.data_config, 0)
        for label, values in zip(cam.classes.tolist(), cam.maps.numpy(), strict=True):
            inside = truth == label + 1
            if inside.any():
                energy.append(values[inside].sum() / values.sum())
                peak.append(float(inside.flat[values.argmax()]))
            order = np.argsort(-values.reshape(-1), kind="stable")
            scores = []
            for step in range(11):
                painted = image.clone()
                painted.view(3, -1)[:, order[: round(step * len(order) / 10)]] = 0
                with torch.no_grad():
                    scores.append(float(model(painted[None])[0, label].sigmoid()))
            removed.append((sum(scores) - scores[0] / 2 - scores[-1] / 2) / 10)
    assert (entry["images"], entry["maps"]) == (2, len(removed))
    assert entry["scores"]["CAM"]["energy"] == pytest.approx(np.mean(energy), abs=1e-4)
    assert entry["scores"]["CAM"]["peak"] == pytest.approx(np.mean(peak), abs=1e-4)
    assert entry["scores"]["CAM"]["deletion"] == pytest.approx(np.mean(removed), abs=1e-4)


def test_nothing_is_measured_twice_and_new_maps_are_measured(
    run: RunFolder, tiny_recipe: MakeRecipe, creatures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    monkeypatch.setattr(module, "_measure", lambda model, sample, *others: calls.append(sample.image_id))
    for steps, expected in ((("evaluate",), 1), (("evaluate",), 1), (("cam", "evaluate"), 2)):
        scales = [1.0] if "cam" not in steps else [1.0, 0.5]
        recipe = tiny_recipe(creatures, faithfulness=1, cam={"scales": scales, "batch_size": 2})
        run_recipe(recipe, run.path, steps, progress=False)
        assert len(calls) == expected


def test_without_masks_there_is_no_peak_and_no_energy(
    run: RunFolder, tiny_recipe: MakeRecipe, creatures: Path, tmp_path: Path
) -> None:
    data = Path(shutil.copytree(creatures, tmp_path / "data"))
    shutil.rmtree(data / "masks")
    run_recipe(tiny_recipe(data, faithfulness=1), run.path, ("evaluate", "report"), progress=False)
    scores = run.read_manifest()["faithfulness"]["val"]["scores"]
    assert [sorted(found) for found in scores.values()] == [["deletion", "insertion"]] * 2
    assert not run.read_manifest().get("scores")  # those of the masks that are gone
    page = run.report.read_text(encoding="utf-8")
    assert "Faithfulness on val" in page and "peak in mask" not in page
    assert "Threshold curve" not in page
