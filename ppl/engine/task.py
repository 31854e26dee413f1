"""The interface between the training loop and the tasks that it trains."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ppl.engine.batches import EpochBatches
from ppl.engine.config import EngineConfig
from ppl.engine.state_file import check_same_run

__all__ = ["Task"]


class Task(ABC):
    """One kind of training: which model, which batches, which losses, which score.

    A subclass sets the attributes in its constructor and implements the three abstract methods. The defaults of the
    other methods describe a training in one phase, without validation.

    Attributes:
        config: the settings.
        model: the module whose weights are trained, averaged, validated and saved.
        objective: a module around `model` whose `forward` returns the losses. The trainer compiles it, wraps it for
            mixed precision and for several processes, and hands the wrapped module to `losses`.
        batches: the training batches of this process; a batch is a tuple of tensors, the images first.
        val: the validation batches, or None.
        identity: everything that decides the loss curve, as JSON can hold it; a resumed run must have the same.
        grows: keys of the identity that may change when a finished run is given more epochs.
        choices: choices made at the first start that a resumed run keeps; saved with the training state.
        loss_names: the keys of the losses; the first is the loss to descend.
        score: the key in the result of `validate` that decides which epoch is the best.
        greater_is_better: False if a lower score is the better one.

    Example:
        >>> import torch
        >>> from torch.utils.data import DataLoader, TensorDataset
        >>> class Regression(Task):
        ...     def __init__(self, config, accelerator):
        ...         data = TensorDataset(torch.eye(4), torch.arange(4.0)[:, None])
        ...         self.config, self.model = config, nn.Linear(4, 1)
        ...         self.objective, self.batches = self.model, EpochBatches(DataLoader(data, config.batch_size))
        ...         self.identity = config.identity()
        ...     def parameter_groups(self):
        ...         return [{"params": list(self.model.parameters()), "lr": self.config.lr}]
        ...     def losses(self, objective, batch):
        ...         return {"loss": (objective(batch[0]) - batch[1]).square().mean()}
        ...     def save(self, model, path):
        ...         torch.save(model.state_dict(), path)
        >>> import tempfile
        >>> from ppl.engine import Trainer, open_accelerator
        >>> config = EngineConfig(epochs=20, batch_size=2, lr=0.3)
        >>> with tempfile.TemporaryDirectory() as folder, open_accelerator(device="cpu", seed=0) as accelerator:
        ...     summary = Trainer(Regression(config, accelerator), accelerator).run(Path(folder))
        >>> summary.steps, summary.loss < 0.1
        (40, True)
    """

    config: EngineConfig
    model: nn.Module
    objective: nn.Module
    batches: EpochBatches
    identity: Mapping[str, Any]
    val: Iterable[Any] | None = None
    grows: tuple[str, ...] = ()
    choices: Mapping[str, Any] = {}
    loss_names: tuple[str, ...] = ("loss",)
    score: str = "val_loss"
    greater_is_better: bool = False

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameter groups of the optimizer, each with its `lr`."""

    @abstractmethod
    def losses(self, objective: nn.Module, batch: Any) -> Mapping[str, Tensor]:
        """Return the scalar losses of a batch, one for each of `loss_names`; the gradient is that of the first.

        Args:
            objective: the task's objective, compiled and wrapped.
            batch: a batch on the device.
        """

    @abstractmethod
    def save(self, model: nn.Module, path: Path) -> None:
        """Write the weights for users.

        Args:
            model: `self.model`, or the moving average of its weights.
            path: a file name that ends in `.safetensors`.
        """

    @property
    def epochs(self) -> int:
        """The number of epochs."""
        return self.config.epochs

    @property
    def updates(self) -> int:
        """The number of updates of an epoch; an update is one group of accumulated batches."""
        return -(-len(self.batches) // self.config.accumulate)

    def check_state(self, out: Path, state: Mapping[str, Any]) -> bool:
        """Raise PPLValueError if a training state is not one of this task; return whether it goes on for more epochs.

        Args:
            out: the folder of the state.
            state: what `ppl.engine.state_file.read_state` returned.
        """
        done = state["record"]["epoch"]
        if state["record"]["stopped"]:
            done = max(done, state["identity"].get("epochs", 0))
        return check_same_run(out, state["identity"], self.identity, done=done, grows=self.grows)

    def check(self) -> None:
        """Find faults of settings and model before the first step; called when the model is on its device."""
        return

    def may_leave_out_parameters(self) -> bool:
        """Tell whether a step may leave trained parameters without a gradient; asked of several processes alone.

        If so, the processes search for such parameters in every step. Without the search, a step that leaves out a
        parameter ends the training with an error.
        """
        return True

    def set_train_mode(self) -> None:
        """Put the model in train mode; called at the start of every epoch."""
        self.model.train()

    def phases(self, epoch: int, update: int) -> tuple[int, ...]:
        """Return the phases that train on the batches of an update, one optimizer step each."""
        return (0,)

    def begin_step(self, phase: int, step: int, total: int) -> None:
        """Prepare for an optimizer step.

        Args:
            phase: the phase that trains.
            step: the step, from 0.
            total: the number of steps of the whole run.
        """
        return

    def describe_epoch(self, epoch: int) -> dict[str, Any]:
        """Return further columns of an epoch's line in `metrics.jsonl`."""
        return {}

    def check_epoch(self, losses: Mapping[str, float]) -> None:
        """Raise if the mean losses of an epoch show that training is pointless; nothing of the epoch is saved then."""
        return

    def validate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        """Return the scores on the validation batches; called in all processes, only if `val` is not None.

        Args:
            model: `self.model`, or the moving average of its weights.
            accelerator: the accelerator, for `autocast` and `gather`.
        """
        return {}

    def may_be_best(self, epoch: int) -> bool:
        """Tell whether the weights after an epoch may become the best ones."""
        return True
