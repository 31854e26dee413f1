from __future__ import annotations

import json

import pytest
import torch
from processes import run_ranks

from ppl.engine import open_accelerator
from ppl.models import load_model
from ppl.train import fit
from ppl.train.loaders import val_batches
from ppl.train.validation import validate

SHARE = """
import sys
import torch
from ppl.data import read_folder
from ppl.models import create_model
from ppl.train import TrainConfig, fit

root, out, config = sys.argv[1], sys.argv[2], TrainConfig.model_validate_json(sys.argv[3])
torch.manual_seed(0)
mode, spare = sys.argv[4:] or ("progressive", "")
model = create_model("test_resnet", 3, mode=mode, cuts=["layer2", "layer3"], pretrained=False)
if spare:
    model.backbone.spare = torch.nn.Linear(2, 2)
fit(model, read_folder(root, "train"), read_folder(root, "val"), config, out, device="cpu")
torch.distributed.destroy_process_group()
"""


def train_in_two_processes(*arguments):
    for code, _, error in run_ranks(SHARE, *arguments):
        assert code == 0, error


def test_two_processes_train_as_one_with_twice_the_batch(
    colours_root, colours, colours_val, make_model, make_config, tmp_path
):
    options = {"epochs": 3, "warmup_epochs": 1, "batch_norm": "frozen", "clip_grad": 1.0, "ema_decay": 0.5}
    config = make_config(batch_size=3, accumulate=2, **options)
    train_in_two_processes(str(colours_root), str(tmp_path / "two"), config.model_dump_json())
    config = make_config(batch_size=6, accumulate=2, **options)
    fit(make_model(), colours, colours_val, config, tmp_path / "one", device="cpu")
    two, one = (
        [json.loads(line) for line in (tmp_path / name / "metrics.jsonl").read_text().splitlines()]
        for name in ("two", "one")
    )
    assert [line["loss"] for line in two] == pytest.approx([line["loss"] for line in one], rel=1e-4)
    assert [line["val_mAP"] for line in two] == pytest.approx([line["val_mAP"] for line in one], abs=1e-2)
    weights = [load_model(tmp_path / name / "last.safetensors").state_dict() for name in ("two", "one")]
    for key, tensor in weights[1].items():
        torch.testing.assert_close(weights[0][key], tensor, rtol=1e-2, atol=1e-3)


def test_the_score_of_two_processes_is_the_score_of_the_saved_weights(colours_root, colours_val, make_config, tmp_path):
    config = make_config(epochs=1, schedule="last", batch_norm="live", hflip=False, lr=3e-4)
    train_in_two_processes(str(colours_root), str(tmp_path), config.model_dump_json())
    logged = json.loads((tmp_path / "metrics.jsonl").read_text())["val_mAP"]
    model = load_model(tmp_path / "last.safetensors")
    batches = val_batches(colours_val, config, model.data_config)
    with open_accelerator(device="cpu") as accelerator:
        assert validate(model, batches, accelerator) == pytest.approx(logged, abs=1e-6)


@pytest.mark.parametrize("mode", ["baseline", "progressive"])
def test_two_processes_do_not_search_for_parameters_that_all_get_a_gradient(colours_root, make_config, tmp_path, mode):
    config = make_config(epochs=3, schedule="auto", warmup_epochs=1)
    for code, _, error in run_ranks(SHARE, colours_root, tmp_path, config.model_dump_json(), mode, ""):
        assert code == 0, error
        assert "find_unused_parameters" not in error  # torch warns of a search in vain


def test_two_processes_train_a_backbone_with_parameters_that_it_does_not_use(colours_root, make_config, tmp_path):
    config = make_config(epochs=1, schedule="last")
    for code, _, error in run_ranks(SHARE, colours_root, tmp_path, config.model_dump_json(), "baseline", "spare"):
        assert code == 0, error
