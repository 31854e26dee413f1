from __future__ import annotations

import copy
import json
import threading

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ppl.engine import EngineConfig, EpochBatches, Task, Trainer, open_accelerator
from ppl.errors import PPLValueError
from ppl.parallel.lock import FolderInUseError, folder_lock


class Line(Task):
    """Fit y = 2x + 1 to 12 points, with two phases in odd epochs; the score is the error of the slope."""

    def __init__(self, config, *, val=(), scores=None):
        x = torch.linspace(-1, 1, 12)[:, None]
        torch.manual_seed(0)
        self.config = config
        self.model = nn.Linear(1, 1)
        self.objective = nn.Sequential(self.model, nn.Dropout(0.1))
        self.batches = EpochBatches(DataLoader(TensorDataset(x, 2 * x + 1), config.batch_size))
        self.identity = config.identity()
        self.val = val or None
        self.scores = scores
        self.steps = []

    def parameter_groups(self):
        return [{"params": list(self.model.parameters()), "lr": self.config.lr}]

    def phases(self, epoch, update):
        return (0, 1) if epoch % 2 else (0,)

    def begin_step(self, phase, step, total):
        self.steps.append((phase, step, total))

    def losses(self, objective, batch):
        return {"loss": (objective(batch[0]) - batch[1]).square().mean()}

    def validate(self, model, accelerator):
        if self.scores is not None:
            return {"val_loss": self.scores.pop(0)}
        return {"val_loss": (model.weight - 2).abs().item()}

    def save(self, model, path):
        save_file(model.state_dict(), path)


def config(**options):
    return EngineConfig(**{"epochs": 4, "batch_size": 3, "lr": 0.1, "optimizer": "sgd", **options})


def train(out, settings=None, **options):
    task = Line(settings or config(), **options)
    with open_accelerator("no", "cpu", seed=1) as accelerator:
        return task, Trainer(task, accelerator).run(out)


def curve(out):
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{name: line[name] for name in ("epoch", "loss", "lr", "val_loss")} for line in lines]


def test_every_phase_of_every_update_is_one_step_and_the_rate_falls_over_all_of_them(tmp_path):
    task, summary = train(tmp_path)
    assert task.steps == [(phase, step, 24) for step, phase in enumerate([0] * 4 + [0, 1] * 4 + [0] * 4 + [0, 1] * 4)]
    assert summary.steps == 24
    assert summary.loss < 0.5 * summary.history[0]["loss"]
    last_steps = (3, 11, 15, 23)
    assert [line["lr"] for line in curve(tmp_path)] == pytest.approx([0.1 * (1 - s / 24) ** 0.9 for s in last_steps])


@pytest.mark.parametrize("last_step", [5, 9, 12])
def test_an_interrupted_run_goes_on_to_the_same_curve_and_weights(last_step, tmp_path, monkeypatch):
    settings = config(save_every=1, momentum=0.9, ema_decay=0.9, accumulate=2, epochs=5)
    train(tmp_path / "whole", settings, val=[1])
    step = Trainer.step

    def interrupted(self, batches, phase, number):
        if number == last_step:
            raise KeyboardInterrupt
        step(self, batches, phase, number)

    monkeypatch.setattr(Trainer, "step", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "resumed", settings, val=[1])
    monkeypatch.undo()
    train(tmp_path / "resumed", settings, val=[1])
    assert curve(tmp_path / "resumed") == curve(tmp_path / "whole")
    for name in ("best.safetensors", "last.safetensors"):
        found, expected = (load_file(tmp_path / run / name) for run in ("resumed", "whole"))
        assert all(torch.equal(found[key], expected[key]) for key in expected)


def test_the_lowest_loss_decides_and_patience_ends_the_run(tmp_path):
    settings = config(patience=2, epochs=9)
    _, summary = train(tmp_path, settings, val=[1], scores=[0.5, 0.3, 0.4, 0.35, 0.1])
    assert (summary.epochs, summary.best_epoch, summary.best_score) == (4, 1, 0.3)


def test_patience_without_validation_is_refused_before_any_file(tmp_path):
    with pytest.raises(PPLValueError, match="patience=2 waits for a better val_loss, and there are no validation"):
        train(tmp_path, config(patience=2))
    assert not list(tmp_path.iterdir())


def test_a_state_that_the_caller_has_read_is_used(tmp_path):
    settings = config()
    train(tmp_path, settings)
    state = copy.deepcopy(torch.load(tmp_path / "state.pt", weights_only=True))
    state["record"]["history"][0]["loss"] = 5.0
    with open_accelerator("no", "cpu") as accelerator:
        summary = Trainer(Line(settings), accelerator).run(tmp_path, state)
    assert summary.history[0]["loss"] == 5.0


def test_the_callers_random_numbers_go_on_as_if_nothing_had_been_trained(tmp_path):
    task = Line(config())
    state = torch.get_rng_state()
    expected = torch.rand(3)
    torch.set_rng_state(state)
    with open_accelerator("no", "cpu", seed=1) as accelerator:
        Trainer(task, accelerator).run(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_an_accelerator_made_before_training_works_afterwards(tmp_path):
    own = Accelerator(cpu=True, mixed_precision="bf16")
    train(tmp_path)
    model = own.prepare(nn.Linear(2, 2))
    own.backward(model(torch.ones(1, 2)).sum())
    assert own.mixed_precision == "bf16"
    assert Accelerator(cpu=True, mixed_precision="bf16").mixed_precision == "bf16"


def test_batches_start_anywhere_and_are_shared_among_processes():
    loader = DataLoader(torch.arange(10), batch_size=2)
    batches = EpochBatches(loader)
    assert [b.tolist() for b in batches.epoch(3, start=2)] == [[4, 5], [6, 7], [8, 9]]
    shares = [EpochBatches(loader, 2, index) for index in (0, 1)]
    assert [len(share) for share in shares] == [3, 3]
    assert sorted({int(i) for share in shares for batch in share.epoch(0) for i in batch}) == list(range(10))


def test_a_second_training_in_the_folder_is_refused_with_the_owner(tmp_path):
    held, done = threading.Event(), threading.Event()

    def train_elsewhere():
        with folder_lock(tmp_path):
            held.set()
            done.wait(60)

    thread = threading.Thread(target=train_elsewhere)
    thread.start()
    try:
        held.wait(60)
        with pytest.raises(FolderInUseError, match=r"another process is at work in .*: pid"):
            train(tmp_path)
    finally:
        done.set()
        thread.join()
    assert train(tmp_path)[1].epochs == 4
