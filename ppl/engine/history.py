"""The curves of a run: `metrics.jsonl`, `metrics.csv`, and TensorBoard on request."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ppl.extras import require
from ppl.io import atomic_write

__all__ = ["TensorBoardLog", "write_history"]


def write_history(out: Path, history: Sequence[Mapping[str, Any]]) -> None:
    r"""Write all epochs so far to `metrics.jsonl`, one line each, and to `metrics.csv`.

    Both files are rewritten as a whole, so a resumed run leaves no line twice. NaN becomes null.

    Example:
        >>> import tempfile
        >>> folder = tempfile.TemporaryDirectory()
        >>> write_history(Path(folder.name), [{"epoch": 0, "loss": 0.5, "val_mAP": math.nan}])
        >>> (Path(folder.name) / "metrics.jsonl").read_text()
        '{"epoch": 0, "loss": 0.5, "val_mAP": null}\n'
        >>> folder.cleanup()
    """
    lines = [{key: None if _is_nan(value) else value for key, value in line.items()} for line in history]
    with atomic_write(out / "metrics.jsonl", "w") as handle:
        handle.writelines(json.dumps(line) + "\n" for line in lines)
    with atomic_write(out / "metrics.csv", "w") as handle:
        columns = list(dict.fromkeys(key for line in lines for key in line))
        writer = csv.DictWriter(handle, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


class TensorBoardLog:
    """A writer of all numbers of an epoch as TensorBoard scalars.

    Args:
        out: the folder of the run; the events go to its subfolder `tensorboard/`.
        first_epoch: events of an interrupted run from this epoch on are dropped.

    Raises:
        MissingExtraError: if TensorBoard is not installed.
    """

    def __init__(self, out: Path, first_epoch: int = 0) -> None:
        module = require("torch.utils.tensorboard", "tensorboard")
        self._writer = module.SummaryWriter(str(out / "tensorboard"), purge_step=first_epoch)

    def write(self, line: Mapping[str, Any]) -> None:
        """Add one epoch."""
        for key, value in line.items():
            if key != "epoch" and isinstance(value, (int, float)) and not _is_nan(value):
                self._writer.add_scalar(key, value, line["epoch"])
        self._writer.flush()
