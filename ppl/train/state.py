"""How far a run is, and how that comes to the disk and back."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ppl.errors import PPLValueError
from ppl.train.assemble import Parts
from ppl.train.checkpoint import changed_keys, load_state, rng_state, save_state, set_rng_state
from ppl.train.logs import write_history

__all__ = ["RunState", "check_same_run", "read_run", "resume_run", "save_run"]


@dataclass
class RunState:
    """How far a run is: what the checkpoint holds besides tensors."""

    epoch: int = 0
    update: int = 0
    step: int = 0
    best_map: float | None = None
    best_epoch: int = -1
    stopped: bool = False
    history: list[dict[str, Any]] = field(default_factory=list)

    def close_epoch(self, line: dict[str, Any], stages: list[int], num_stages: int, patience: int | None) -> bool:
        """Book an epoch; returns whether it is the best so far of those that trained the last stage."""
        stage = stages[0] if len(stages) == 1 else stages
        self.history.append({"epoch": self.epoch, "stage": stage, **line})
        improved = False
        if num_stages - 1 in stages:
            # a score that is no number beats nothing but its like
            score = None if line["val_map"] is None or math.isnan(line["val_map"]) else line["val_map"]
            improved = self.best_map is None or (score is not None and score > self.best_map)
            if improved:
                self.best_map, self.best_epoch = score, self.epoch
            self.stopped = patience is not None and self.epoch - self.best_epoch >= patience
        self.epoch, self.update = self.epoch + 1, 0
        return improved

    def title(self, epochs: int) -> str:
        """What stands before the progress bar: the epoch under way, and how the one before it ended."""
        title = f"epoch {self.epoch + 1}/{epochs}"
        if self.history:
            line = self.history[-1]
            score = "" if line["val_map"] is None else f", mAP {line['val_map']:.3f}"
            title += f" (loss {line['loss']:.3f}{score})"
        return title


def save_run(out: Path, parts: Parts, done: RunState) -> None:
    """Write the state of all processes to `state.pt`, and the curves."""
    from accelerate.utils import gather_object

    accelerator = parts.accelerator
    own = {"rng": rng_state(accelerator.device), "meter": parts.meter.state_dict()}
    processes = gather_object([own])
    if accelerator.is_main_process:
        state = {
            "identity": parts.identity,
            "done": asdict(done),
            "batch_norm": parts.batch_norm,
            "model": parts.model.state_dict(),
            "average": None if parts.average is None else parts.average.module.state_dict(),
            "optimizer": parts.stepper.optimizer.state_dict(),
            "scaler": None if accelerator.scaler is None else accelerator.scaler.state_dict(),
            "processes": processes,
        }
        save_state(out / "state.pt", state)
        write_history(out, done.history)
    accelerator.wait_for_everyone()


def read_run(out: Path) -> dict[str, Any] | None:
    """The state that a folder holds, if it holds one."""
    path = out / "state.pt"
    return load_state(path) if path.is_file() else None


def check_same_run(out: Path, parts: Parts, state: dict[str, Any]) -> None:
    """Raise PPLValueError, with the keys that differ, if a saved state is of a run with other settings."""
    changed = changed_keys(state["identity"], parts.identity)
    if changed:
        raise PPLValueError(
            f"{out} holds a run with other settings: {', '.join(changed)}; use another folder, or delete state.pt "
            "to start afresh"
        )


def resume_run(out: Path, parts: Parts, state: dict[str, Any] | None) -> RunState:
    """Put a saved state, from `read_run`, into the parts, if there is one."""
    if state is None:
        if parts.accelerator.is_main_process:
            write_history(out, [])  # a folder that cannot be written to is found now, not after an epoch
        return RunState()
    check_same_run(out, parts, state)
    parts.model.load_state_dict(state["model"])
    if parts.average is not None:
        parts.average.module.load_state_dict(state["average"])
    parts.stepper.optimizer.load_state_dict(state["optimizer"])
    if parts.accelerator.scaler is not None:
        parts.accelerator.scaler.load_state_dict(state["scaler"])
    own = state["processes"][parts.accelerator.process_index]
    parts.meter.load_state_dict(own["meter"])
    set_rng_state(own["rng"], parts.accelerator.device)
    done = RunState(**state["done"])
    if parts.accelerator.is_main_process:
        write_history(out, done.history)  # a kill may have come between the state and the curve
    return done
