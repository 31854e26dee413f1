"""Training of one classifier, from start to end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ppl.data import TaggedImages
from ppl.data.pairs import training_images
from ppl.engine import Trainer, TrainSummary, open_accelerator
from ppl.engine.state_file import read_state
from ppl.errors import PPLTypeError
from ppl.models import PPLNet
from ppl.train.config import TrainConfig
from ppl.train.task import ClassifierTask

__all__ = ["check_fit", "fit"]


def fit(
    model: PPLNet,
    train: TaggedImages | Any,
    val: TaggedImages | Any | None,
    config: TrainConfig,
    out: str | Path,
    *,
    progress: bool = True,
    device: str = "auto",
) -> TrainSummary:
    """Train a classifier on tagged images, or continue an interrupted training.

    A finished training goes on from its last epoch if `config.epochs` is larger than before; then there may also be
    other training images. The learning rate starts again where it would be in a run of the new length.

    The folder gets `metrics.jsonl` and `metrics.csv` with one line per epoch; `last.safetensors`; `best.safetensors`
    of the epoch with the best validation mAP among the epochs that trained the last phase; and `state.pt`, from which
    the same call continues after any interruption, to the same curve (on a GPU up to rounding, because a GPU adds in
    no fixed order). Validation always scores the classifier of the last phase, from which CAMs are read. These rules
    are ours.

    Args:
        model: the classifier. It is trained in place and left with the weights of `last.safetensors`, in eval mode, at
            its last phase; changes by `freeze` and `grad_checkpointing` are undone. Its first weights are the
            caller's: seed torch before `create_model`.
        train: images with tags; or any torch `Dataset` of pairs (image, target), see `ppl.data.PairImages`.
        val: likewise, images for the mAP after every epoch; None for no validation, and then `best` is `last`.
        config: the settings.
        out: the folder of the run, made if missing.
        progress: show a progress bar if standard error is a terminal.
        device: "auto", "cpu", "cuda", "cuda:1", ...

    Returns:
        The summary of the training.

    Raises:
        PPLValueError: if the settings do not fit model or data, or the folder holds a run with other settings; the
            message names the keys that differ.
        PPLTypeError: if `model` is no `PPLNet` or `config` no `TrainConfig`, the model was created with arguments that
            a checkpoint cannot hold, or the images are of a kind that is not understood.
        NonFiniteLossError: if the loss becomes NaN or infinite; the last good checkpoint is kept.

    Example:
        >>> import tempfile
        >>> from ppl import create_model
        >>> from ppl.data import make_creatures, read_folder
        >>> folder = tempfile.TemporaryDirectory()
        >>> root = make_creatures(Path(folder.name) / "creatures", train=6, val=2, size=64)
        >>> images = read_folder(root, "train")
        >>> model = create_model("test_resnet", len(images.classes), mode="baseline", pretrained=False)
        >>> config = TrainConfig(epochs=1, batch_size=3, size=(64, 64), num_workers=0)
        >>> summary = fit(model, images, None, config, Path(folder.name) / "run")
        >>> summary.steps, summary.last_path.name
        (2, 'last.safetensors')
        >>> folder.cleanup()
    """
    with _prepared(model, train, val, config, Path(out), device) as (trainer, state):
        summary = trainer.run(Path(out), state, progress=progress)
        model.set_phase(model.num_phases - 1)
        model.eval()
    return summary


def check_fit(
    model: PPLNet,
    train: TaggedImages | Any,
    val: TaggedImages | Any | None,
    config: TrainConfig,
    out: str | Path,
    *,
    device: str = "auto",
) -> None:
    """Raise the errors that `fit` would raise before its first step; train and write nothing.

    Args:
        model: the classifier.
        train: images with tags.
        val: validation images, or None.
        config: the settings.
        out: the folder of the run; it need not exist.
        device: "auto", "cpu", "cuda", "cuda:1", ...

    Raises:
        PPLValueError: as `fit`.
        PPLTypeError: as `fit`.
    """
    with _prepared(model, train, val, config, Path(out), device) as (trainer, state):
        if state is not None:
            trainer.task.check_state(Path(out), state)


@contextmanager
def _prepared(
    model: PPLNet, train: Any, val: Any, config: TrainConfig, out: Path, device: str
) -> Iterator[tuple[Trainer, dict[str, Any] | None]]:
    """Yield the trainer and the training state of the folder; afterwards undo all changes but weights and classes."""
    if not isinstance(model, PPLNet):
        raise PPLTypeError(f"model must be a PPLNet, got {type(model).__name__}: make one with PPLNet.from_classifier")
    if not isinstance(config, TrainConfig):
        raise PPLTypeError(f"config must be a TrainConfig, got {type(config).__name__}: write TrainConfig(epochs=5)")
    trains = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    checkpointing = model.grad_checkpointing
    try:
        with open_accelerator(config.precision, device, seed=config.seed) as accelerator:
            state = read_state(out)
            train = training_images(train, model.num_classes, model.classes)
            val = None if val is None else training_images(val, model.num_classes, train.classes)
            task = ClassifierTask(model, train, val, config, accelerator, choices=state and state["choices"])
            yield Trainer(task, accelerator), state
    finally:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trains[name])
        model.set_grad_checkpointing(checkpointing)
