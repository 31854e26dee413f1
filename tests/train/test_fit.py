from __future__ import annotations

import contextlib
import csv
import functools
import itertools
import json
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from processes import run_code
from torch import nn

from ppl.backbones import half
from ppl.engine import Trainer
from ppl.engine.batches import Share
from ppl.errors import PPLError, PPLTypeError, PPLValueError
from ppl.models import PPLNet, create_model, load_model
from ppl.train import NonFiniteLossError, fit
from ppl.train.loaders import val_batches


def curve(out):
    """Return the columns of metrics.jsonl that a repeated run must reproduce."""
    lines = [json.loads(line) for line in (Path(out) / "metrics.jsonl").read_text().splitlines()]
    return [{key: line[key] for key in ("epoch", "phase", "loss", "lr", "val_mAP")} for line in lines]


@pytest.mark.parametrize("mode", ["baseline", "control", "progressive", "explicit"])
def test_every_mode_learns_and_writes_its_files(mode, colours, colours_val, make_model, make_config, tmp_path):
    model = make_model(mode)
    summary = fit(model, colours, colours_val, make_config(epochs=3), tmp_path)
    losses = [line["loss"] for line in summary.history]
    assert losses[-1] < losses[0]
    assert summary.best_score == max(
        line["val_mAP"] for line in summary.history if line["phase"] == model.num_phases - 1
    )
    assert summary.epochs == 3
    assert summary.steps == 3 * 6
    assert {path.name for path in tmp_path.iterdir()} == {
        *("best.safetensors", "last.safetensors", "state.pt", "metrics.jsonl", "metrics.csv", ".ppl.lock")
    }


def test_the_trained_model_equals_the_last_checkpoint(colours, make_model, make_config, tmp_path):
    model = make_model()
    model.set_phase(0)
    summary = fit(model, colours, None, make_config(), tmp_path)
    loaded = load_model(summary.last_path).eval()
    image = torch.randn(1, 3, 64, 64)
    torch.testing.assert_close(loaded(image), model.cpu()(image))
    assert (model.training, model.phase, loaded.phase, loaded.classes) == (False, 1, 1, colours.classes)
    assert (summary.best_score, summary.best_epoch) == (None, 1)


def test_curves_are_kept_as_lines_of_json_and_as_csv(colours, colours_val, make_model, make_config, tmp_path):
    summary = fit(make_model(), colours, colours_val, make_config(), tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == summary.history
    assert {"epoch", "phase", "loss", "lr", "val_mAP", "seconds"} <= set(lines[0])
    with (tmp_path / "metrics.csv").open() as file:
        assert [float(row["loss"]) for row in csv.DictReader(file)] == [line["loss"] for line in lines]


def test_the_same_seed_gives_the_same_curve_and_another_one_does_not(colours, make_model, make_config, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        fit(make_model(drop_rate=0.1), colours, None, make_config(seed=seed), tmp_path / name, device="cpu")
    assert curve(tmp_path / "a") == curve(tmp_path / "b") != curve(tmp_path / "c")


KILLED = """
import json, os, signal, sys
import torch
from ppl.data import read_folder
from ppl.models import create_model
from ppl.engine import Trainer
from ppl.train import TrainConfig, fit

root, runs = sys.argv[1], json.loads(sys.argv[2])
step_of = Trainer.step

def train(out, config, last_step):
    def step(self, batches, phase, step):
        if step == last_step:
            os.kill(os.getpid(), signal.SIGKILL)
        step_of(self, batches, phase, step)

    Trainer.step = step
    torch.manual_seed(0)
    model = create_model("test_resnet", 3, cuts=["layer2", "layer3"], pretrained=False, drop_path_rate=0.2)
    train, val = read_folder(root, "train"), read_folder(root, "val")
    fit(model, train, val, TrainConfig.model_validate(config), out, device="cpu")

for run in runs:
    child = os.fork()
    if not child:
        train(*run)
        os._exit(0)
    assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
"""


def test_runs_killed_within_an_epoch_resume_to_the_curve_of_an_unbroken_one(
    colours_root, colours, colours_val, make_model, make_config, tmp_path, monkeypatch
):
    options = {"epochs": 3, "epochs_per_phase": [1, 2], "ema_decay": 0.9, "clip_grad": 1.0}
    configs = {"by epoch": make_config(**options), "within epochs": make_config(**options, save_every=2)}
    runs = [
        [str(tmp_path / name), configs[name].model_dump(), step] for name, step in zip(configs, (9, 11), strict=True)
    ]
    code, _, error = run_code(KILLED, colours_root, json.dumps(runs))
    assert code == 0, error
    model = make_model(seed=0, drop_path_rate=0.2)
    fit(model, colours, colours_val, configs["by epoch"], tmp_path / "unbroken", device="cpu")
    steps, whole = [], Trainer.step
    monkeypatch.setattr(
        Trainer,
        "step",
        lambda self, batches, phase, step: (steps.append(step), whole(self, batches, phase, step)),
    )
    for (name, config), first_step in zip(configs.items(), (6, 10), strict=True):
        assert len(curve(tmp_path / name)) == 1
        steps.clear()
        # other first weights, so that a tensor that is not restored shows
        model = make_model(seed=5, drop_path_rate=0.2)
        fit(model, colours, colours_val, config, tmp_path / name, device="cpu")
        assert steps[0] == first_step
        assert curve(tmp_path / name) == curve(tmp_path / "unbroken")
        for file in ("last.safetensors", "best.safetensors"):
            found, expected = (load_model(tmp_path / run / file).state_dict() for run in (name, "unbroken"))
            assert all(torch.equal(found[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("cores", "processes", "wanted", "expected"),
    [(2, 1, None, 2), (64, 1, None, 8), (16, 4, None, 4), (2, 4, None, 1), (64, 1, 0, 0), (2, 1, 12, 12)],
)
def test_loaders_share_the_cores_unless_told_otherwise(
    cores, processes, wanted, expected, colours_val, make_config, monkeypatch
):
    monkeypatch.setattr("joblib.cpu_count", lambda: cores)
    normal = {"mean": (0.5,) * 3, "std": (0.25,) * 3}
    batches = val_batches(colours_val, make_config(num_workers=wanted), normal, Share(processes))
    assert batches.num_workers == expected


def test_a_finished_run_is_not_trained_again(colours, make_model, make_config, tmp_path, monkeypatch):
    first = fit(make_model(), colours, None, make_config(), tmp_path)
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("trained again"))
    again = fit(make_model(seed=3), colours, None, make_config(), tmp_path)
    assert again.history == first.history


def test_a_finished_run_writes_its_weights_again_if_they_were_deleted(colours, make_model, make_config, tmp_path):
    summary = fit(make_model(), colours, None, make_config(), tmp_path)
    expected = load_model(summary.last_path).state_dict()
    summary.last_path.unlink()
    summary.best_path.unlink()
    fit(make_model(seed=3), colours, None, make_config(), tmp_path)
    for path in (summary.last_path, summary.best_path):
        assert all(torch.equal(value, expected[name]) for name, value in load_model(path).state_dict().items())


def test_a_run_resumes_with_the_model_whose_statistics_it_changed(colours, make_model, make_config, tmp_path):
    model = make_model()
    first = fit(model, colours, None, make_config(freeze_bn_affine=True), tmp_path)
    assert fit(model, colours, None, make_config(freeze_bn_affine=True), tmp_path).history == first.history


@pytest.mark.parametrize("fails", [False, True])
def test_freezing_and_recomputation_are_undone_after_a_run(
    fails, colours, make_model, make_config, tmp_path, monkeypatch
):
    model = make_model()
    own = model.backbone.layer4[0].conv1.weight.requires_grad_(False)
    config = make_config(freeze="layer2", freeze_bn_affine=True, batch_norm="frozen", grad_checkpointing=True)
    if fails:
        monkeypatch.setattr(Trainer, "step", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError) if fails else contextlib.nullcontext():
        fit(model, colours, None, config, tmp_path)
    assert [parameter for parameter in model.parameters() if not parameter.requires_grad] == [own]
    assert not model.grad_checkpointing


def test_resuming_with_other_settings_names_the_changed_keys(colours, make_model, make_config, tmp_path):
    fit(make_model(), colours, None, make_config(), tmp_path)
    with pytest.raises(PPLValueError, match=r"other settings: lr \(0.003 -> 0.001\);"):
        fit(make_model(), colours, None, make_config(epochs=3, lr=1e-3), tmp_path)
    with pytest.raises(PPLValueError, match=r"model.grids"):
        fit(make_model(grids=[2, 1]), colours, None, make_config(), tmp_path)
    with pytest.raises(PPLValueError, match=r"training images \('24 images"):
        fit(make_model(), colours[:20], None, make_config(), tmp_path)
    fit(make_model(), colours, None, make_config(num_workers=1), tmp_path)  # num_workers does not change the curve


def test_a_file_without_a_training_state_is_refused(colours, make_model, make_config, tmp_path):
    (tmp_path / "state.pt").write_bytes(b"not a state")
    with pytest.raises(PPLValueError, match="is not a training state"):
        fit(make_model(), colours, None, make_config(), tmp_path)


def test_an_infinite_loss_names_step_and_remedy_and_the_good_checkpoint_stays(
    colours, make_model, make_config, tmp_path, monkeypatch
):
    whole = Trainer.step

    def poisoned(self, batches, phase, step):
        if step == 8:
            with torch.no_grad():
                self.task.model.fusion.classifiers[0].weight.fill_(math.nan)
        whole(self, batches, phase, step)

    monkeypatch.setattr(Trainer, "step", poisoned)
    with pytest.raises(NonFiniteLossError, match=r"not finite since step 8 \(epoch 1\): lower lr"):
        fit(make_model(), colours, None, make_config(), tmp_path)
    assert all(tensor.isfinite().all() for tensor in load_model(tmp_path / "last.safetensors").state_dict().values())
    assert len(curve(tmp_path)) == 1


def test_weights_broken_by_the_last_step_are_not_saved(colours, make_model, make_config, tmp_path, monkeypatch):
    whole = Trainer.step

    def poisoned(self, batches, phase, step):
        whole(self, batches, phase, step)
        if step == 11:
            with torch.no_grad():
                self.task.model.fusion.classifiers[0].weight[0].fill_(math.inf)

    monkeypatch.setattr(Trainer, "step", poisoned)
    with pytest.raises(NonFiniteLossError, match="weights are not finite after step 11"):
        fit(make_model(), colours, None, make_config(), tmp_path)
    assert len(curve(tmp_path)) == 1


def test_accumulated_batches_make_the_step_of_one_large_batch(colours, make_model, make_config, tmp_path):
    # AdamW would magnify the rounding of tiny gradients
    same = {"batch_norm": "frozen", "optimizer": "sgd", "lr": 0.01}
    for name, options in (("small", {"batch_size": 4, "accumulate": 2}), ("large", {"batch_size": 8})):
        fit(make_model(), colours, None, make_config(**same, **options), tmp_path / name)
    small, large = (load_model(tmp_path / name / "last.safetensors").state_dict() for name in ("small", "large"))
    for key, tensor in large.items():
        torch.testing.assert_close(small[key], tensor, rtol=1e-3, atol=1e-4)
    losses = [[line["loss"] for line in curve(tmp_path / name)] for name in ("small", "large")]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)


@pytest.mark.parametrize(("schedule", "steps"), [("within_batch", 2 * 6 * 2), ("alternate", 2 * 6)])
def test_schedules_within_an_epoch_train_and_keep_the_best_of_all_phases(
    schedule, steps, colours, make_model, make_config, tmp_path
):
    summary = fit(make_model(), colours, None, make_config(schedule=schedule), tmp_path)
    assert summary.steps == steps
    assert [line["phase"] for line in summary.history] == [[0, 1], [0, 1]]
    assert summary.best_epoch == 1
    assert summary.best_path.is_file()


def test_warm_up_trains_the_plain_classifier_without_patches(colours, make_model, make_config, tmp_path, monkeypatch):
    from ppl.backbones import CutBackbone

    patched, passes = CutBackbone.patched, []
    monkeypatch.setattr(
        CutBackbone,
        "patched",
        lambda self, *args: (passes.append(torch.is_grad_enabled()), patched(self, *args))[1],
    )
    summary = fit(make_model(), colours, None, make_config(warmup_epochs=1, epochs=3), tmp_path)
    assert [line["phase"] for line in summary.history] == [-1, 0, 1]
    assert sum(passes) == 2 * 6


def test_training_stops_early_when_validation_no_longer_improves(
    colours, colours_val, make_model, make_config, tmp_path, monkeypatch
):
    scores = iter([0.5, 0.6, 0.6, 0.55, 0.9])
    monkeypatch.setattr("ppl.train.task.validate", lambda *_: next(scores))
    summary = fit(make_model("baseline"), colours, colours_val, make_config(epochs=5, patience=2), tmp_path)
    assert (summary.epochs, summary.best_epoch, summary.best_score) == (4, 1, 0.6)


def test_best_is_chosen_among_epochs_that_trained_the_last_phase(
    colours, colours_val, make_model, make_config, tmp_path, monkeypatch
):
    scores = iter([0.9, 0.5, 0.4])
    monkeypatch.setattr("ppl.train.task.validate", lambda *_: next(scores))
    summary = fit(make_model(), colours, colours_val, make_config(epochs=3, epochs_per_phase=[1, 2]), tmp_path)
    assert (summary.best_epoch, summary.best_score) == (1, 0.5)


def test_the_moving_average_of_the_weights_is_saved(colours, make_model, make_config, tmp_path):
    fit(make_model(), colours, None, make_config(), tmp_path / "plain", device="cpu")
    fit(make_model(), colours, None, make_config(ema_decay=0.999), tmp_path / "average", device="cpu")
    state = torch.load(tmp_path / "average" / "state.pt", weights_only=True)
    key = "fusion.classifiers.0.weight"
    shipped = load_model(tmp_path / "average" / "last.safetensors").state_dict()[key]
    assert torch.equal(shipped, state["average"][key])
    assert not torch.equal(shipped, state["model"][key])
    assert torch.equal(load_model(tmp_path / "plain" / "last.safetensors").state_dict()[key], state["model"][key])


def test_half_precision_learns_too(colours, make_model, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr(half, "_cpu_has_bfloat16", lambda: True)
    summary = fit(make_model(), colours, None, make_config(precision="bf16", epochs=3), tmp_path)
    assert summary.history[-1]["loss"] < summary.history[0]["loss"]
    with pytest.raises(PPLValueError, match='"fp16" needs a GPU'):
        fit(make_model(), colours, None, make_config(precision="fp16"), tmp_path / "b", device="cpu")


@pytest.mark.timm_model("test_vit_relpos")
def test_a_size_that_the_model_does_not_take_is_refused_before_any_file(colours, make_config, tmp_path):
    model = create_model("test_vit_relpos", 3, mode="baseline", pretrained=False)
    with pytest.raises(PPLValueError, match="built for images of 160x160 and does not take 192x192"):
        fit(model, colours, None, make_config(size=(192, 192)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_unfit_settings_are_refused_before_any_file(colours, colours_val, make_model, make_config, tmp_path):
    with pytest.raises(PPLValueError, match="the model has 4 classes"):
        fit(make_model(num_classes=4), colours, None, make_config(), tmp_path)
    with pytest.raises(PPLValueError, match="they must agree"):
        fit(make_model(), colours, replace(colours_val, classes=("a", "b", "c")), make_config(), tmp_path)
    with pytest.raises(PPLValueError, match="too small for the model's cuts"):
        fit(make_model(), colours, None, make_config(size=(16, 16)), tmp_path)
    with pytest.raises(PPLValueError, match="patience=2 waits for a better val_mAP"):
        fit(make_model(), colours, None, make_config(patience=2), tmp_path)
    untagged = replace(colours_val, samples=tuple(replace(sample, labels=()) for sample in colours_val))
    with pytest.raises(PPLValueError, match=r"patience=2 waits .* and no image of .* has a tag to score"):
        fit(make_model(), colours, untagged, make_config(patience=2), tmp_path)
    with pytest.raises(PPLValueError, match=r"'equivariance' fails in phase 1 on images of 64x64 \(grid 3x3 is"):
        fit(make_model(grids=[2, 3]), colours, None, make_config(auxiliary={"equivariance": 1.0}), tmp_path)
    with pytest.raises(PPLValueError, match="'alternate' never trains the last of 2 phases in 2 epochs of 1 updates"):
        fit(make_model(), colours, None, make_config(schedule="alternate", batch_size=24), tmp_path)
    model = make_model(norm_layer=torch.nn.BatchNorm2d)
    with pytest.raises(PPLTypeError, match="JSON cannot represent"):
        fit(model, colours, None, make_config(), tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_model_whose_classes_are_in_another_order_is_refused(colours, make_model, make_config, tmp_path):
    model = make_model("baseline")
    model.classes = ("green", "red", "blue")
    with pytest.raises(PPLValueError, match="in another order"):
        fit(model, colours, None, make_config(), tmp_path)
    model.classes = None
    fit(model, colours, None, make_config(epochs=1), tmp_path)
    assert model.classes == colours.classes


def test_epochs_per_phase_are_ignored_by_the_other_modes_of_a_recipe(colours, make_model, make_config, tmp_path):
    for schedule in ("auto", "progressive"):
        config = make_config(schedule=schedule, epochs_per_phase=[1, 1])
        assert fit(make_model("baseline"), colours, None, config, tmp_path / schedule).epochs == 2


def test_a_folder_without_write_access_is_found_before_any_step(
    colours, make_model, make_config, tmp_path, monkeypatch
):
    monkeypatch.setattr(Trainer, "step", lambda *_: pytest.fail("trained first"))
    (tmp_path / "run").write_text("a file where the folder should be")
    with pytest.raises(PPLError, match="cannot write"):
        fit(make_model(), colours, None, make_config(), tmp_path / "run")


def test_nothing_is_printed_when_there_is_no_terminal(colours, make_model, make_config, tmp_path, capfd):
    fit(make_model(), colours, None, make_config(), tmp_path)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    "options",
    [
        {"grad_checkpointing": True, "batch_norm": "live"},
        {"channels_last": False, "batch_norm": "live"},
        {"num_workers": 1, "batch_norm": "live"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_settings_that_save_time_or_memory_do_not_change_the_curve(options, colours, make_model, make_config, tmp_path):
    plain = make_config(batch_norm="live")
    fit(make_model("explicit"), colours, None, plain, tmp_path / "as it is", device="cpu")
    fit(make_model("explicit"), colours, None, make_config(**options), tmp_path / "saving", device="cpu")
    losses = [[line["loss"] for line in curve(tmp_path / name)] for name in ("as it is", "saving")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


@pytest.mark.parametrize("recompute", [False, True])
def test_a_compiled_step_gives_the_same_curve(recompute, colours, make_config, tmp_path, monkeypatch):
    def small_model():
        torch.manual_seed(0)
        widths = [(3, 8), (8, 16), (16, 16)]
        stages = [nn.Sequential(nn.Conv2d(*pair, 3, 2, 1), nn.BatchNorm2d(pair[1]), nn.ReLU()) for pair in widths]
        return PPLNet(nn.Sequential(*stages), 3, cuts=["0", "1"], stages=["0", "1", "2"])

    # the default backend takes a minute; this one traces in the same way but generates no code
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    for name, compiled in (("eager", False), ("compiled", True)):
        fit(
            small_model(),
            colours[:8],
            None,
            make_config(compile=compiled, grad_checkpointing=recompute),
            tmp_path / name,
        )
    losses = [[line["loss"] for line in curve(tmp_path / name)] for name in ("eager", "compiled")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)


def test_auxiliary_losses_and_sgd_train_and_are_logged(colours, make_model, make_config, tmp_path):
    config = make_config(
        optimizer="sgd",
        lr=0.01,
        loss="bce",
        loss_options={"label_smoothing": 0.05},
        auxiliary={"branches": 0.5, "consistency": 1.0, "patches": {"weight": 0.5, "pool": "max"}, "equivariance": 1.0},
        auxiliary_ramp=0.5,
    )
    summary = fit(make_model(), colours, None, config, tmp_path)
    parts = {"loss_class", "loss_branches", "loss_consistency", "loss_patches", "loss_equivariance"}
    assert parts <= set(summary.history[0])
    assert all(math.isfinite(line[name]) for line in summary.history for name in parts)


def test_the_speed_counts_the_images_of_short_groups(colours, make_model, make_config, tmp_path, monkeypatch):
    ticks = itertools.count(step=10)
    monkeypatch.setattr("ppl.engine.trainer.time.perf_counter", lambda: next(ticks))
    config = make_config(epochs=1, accumulate=4)  # five batches: a group of four and a group of one
    assert fit(make_model("baseline"), colours[:20], None, config, tmp_path).history[0]["images_per_second"] == 2.0


def test_each_epoch_is_written_to_tensorboard_on_request(colours, make_model, make_config, tmp_path, monkeypatch):
    written = []
    writer = SimpleNamespace(add_scalar=lambda *scalar: written.append(scalar), flush=lambda: None)
    module = SimpleNamespace(SummaryWriter=lambda folder, purge_step: writer)
    monkeypatch.setattr("ppl.engine.history.require", lambda *_: module)
    summary = fit(make_model(), colours, None, make_config(tensorboard=True), tmp_path)
    assert [(name, step) for name, _, step in written if name == "loss"] == [("loss", 0), ("loss", 1)]
    assert next(value for name, value, _ in written if name == "loss") == summary.history[0]["loss"]


@pytest.mark.parametrize("mode", ["baseline", "progressive", "explicit"])
def test_frozen_stages_keep_weights_and_statistics(mode, colours, make_model, make_config, tmp_path):
    model = make_model(mode)
    before = {name: value.clone() for name, value in model.backbone.state_dict().items()}
    fit(model, colours, None, make_config(freeze="layer2", batch_norm="live"), tmp_path)
    same = {name for name, value in model.cpu().backbone.state_dict().items() if torch.equal(value, before[name])}
    shallow = {name for name in before if name.split(".")[0] in ("conv1", "bn1", "layer1", "layer2")}
    assert shallow <= same
    assert {name for name in before if "running_mean" in name} - same == {
        name for name in before if "running_mean" in name and name.startswith(("layer3", "layer4"))
    }
    assert not any(name.endswith("conv1.weight") and "layer4" in name for name in same)


def test_frozen_norms_without_scale_keep_their_statistics_too(colours, make_model, make_config, tmp_path):
    model = make_model("baseline")
    for block in (model.backbone.layer1[0], model.backbone.layer3[0]):
        block.bn1 = torch.nn.BatchNorm2d(block.bn1.num_features, affine=False)
    fit(model, colours, None, make_config(freeze="layer2", batch_norm="live", epochs=1), tmp_path)
    assert not model.backbone.layer1[0].bn1.running_mean.any()
    assert model.backbone.layer3[0].bn1.running_mean.any()


def test_freezing_an_unknown_stage_is_refused_before_training(colours, make_model, make_config, tmp_path):
    with pytest.raises(PPLValueError, match=r"no stage 'layer9'.*'layer2'"):
        fit(make_model(), colours, None, make_config(freeze="layer9"), tmp_path)
    assert not list(tmp_path.iterdir())


def test_classes_may_be_a_list(colours, make_model, make_config, tmp_path):
    model = make_model("baseline")
    model.classes = list(colours.classes)
    fit(model, colours, None, make_config(epochs=1), tmp_path)
    assert model.classes == colours.classes


def test_a_finished_run_goes_on_for_more_epochs_and_with_more_images(colours, make_model, make_config, tmp_path):
    few = colours.subset(colours.image_ids[:16])
    first = fit(make_model("baseline"), few, None, make_config(epochs=2), tmp_path)
    with pytest.raises(PPLValueError, match=r"training images .*; to go on training with them, set epochs above 2"):
        fit(make_model("baseline"), colours, None, make_config(epochs=2), tmp_path)
    with pytest.raises(PPLValueError, match=r"epochs \(2 -> 1\); use another folder"):
        fit(make_model("baseline"), few, None, make_config(epochs=1), tmp_path)
    with pytest.raises(PPLValueError, match=r"lr \(0\.003 -> 0\.1\); use another folder"):
        fit(make_model("baseline"), few, None, make_config(epochs=4, lr=0.1), tmp_path)
    model = make_model("baseline", seed=7)  # its weights are those of the run
    second = fit(model, colours, None, make_config(epochs=4), tmp_path)
    assert second.history[:2] == first.history and second.epochs == 4
    assert second.steps == 4 * 6  # as if all epochs had had 24 images
    rates = [line["lr"] for line in second.history]
    assert rates[1] < rates[2] and rates[2] > rates[3]
    assert second.history[3]["loss"] < first.history[0]["loss"]


def test_an_unfinished_run_keeps_its_length(colours, make_model, make_config, tmp_path, monkeypatch):
    monkeypatch.setattr("ppl.engine.trainer.Trainer._save_weights", stop_after(1, Trainer._save_weights))
    with pytest.raises(KeyboardInterrupt):
        fit(make_model("baseline"), colours, None, make_config(epochs=3), tmp_path)
    monkeypatch.undo()
    with pytest.raises(PPLValueError, match=r"epochs \(3 -> 5\); use another folder"):
        fit(make_model("baseline"), colours, None, make_config(epochs=5), tmp_path)


def stop_after(count, method):
    """Return a method that raises Ctrl-C at the call after `count` calls."""
    calls = itertools.count()

    def call(self, *args, **kwargs):
        if next(calls) == count:
            raise KeyboardInterrupt
        return method(self, *args, **kwargs)

    return call


def test_arguments_of_another_kind_are_named(colours, make_model, make_config, tmp_path):
    with pytest.raises(PPLTypeError, match=r"got Linear: make one with PPLNet\.from_classifier"):
        fit(torch.nn.Linear(1, 1), colours, None, make_config(epochs=1), tmp_path)
    with pytest.raises(PPLTypeError, match=r"got dict: write TrainConfig\(epochs=5\)"):
        fit(make_model("baseline"), colours, None, {"epochs": 1}, tmp_path)
