"""Training of one segmentation network, from start to end."""

from __future__ import annotations

from pathlib import Path

from ppl.data import TaggedImages
from ppl.engine import Trainer, TrainSummary, open_accelerator
from ppl.engine.state_file import read_state
from ppl.errors import PPLTypeError
from ppl.segment.config import SegmentConfig
from ppl.segment.segmenter import Segmenter
from ppl.segment.task import SegmenterTask

__all__ = ["fit"]


def fit(
    model: Segmenter,
    train: TaggedImages,
    val: TaggedImages | None,
    config: SegmentConfig,
    out: str | Path,
    *,
    progress: bool = True,
    device: str = "auto",
) -> TrainSummary:
    """Train a segmentation network on images with masks, or continue an interrupted training.

    The folder gets `metrics.jsonl` and `metrics.csv` with one line per epoch, `last.safetensors`, `best.safetensors` of
    the epoch with the best validation mIoU, and `state.pt`, from which the same call continues to the same curve. The
    masks may be pseudo-masks (:func:`with_masks`) or drawn by hand. A finished training goes on from its last epoch if
    `config.epochs` is larger than before; then there may also be more images.

    Args:
        model: the network of :func:`create_segmenter`. It is trained in place and left with the weights of
            `last.safetensors`, in eval mode.
        train: images that all have masks; pixels of value 255 are ignored, and so is what a crop has beyond its image.
        val: images with masks for the mIoU after every epoch; None for no validation, and then `best` is `last`.
        config: the settings; the keys of the network (encoder to options) have no effect here.
        out: the folder of the run, made if missing.
        progress: show a progress bar if standard error is a terminal.
        device: "auto", "cpu", "cuda", "cuda:1", ...

    Returns:
        The summary of the training; `best_score` is the best mIoU in [0, 1].

    Raises:
        PPLTypeError: if `model` is no `Segmenter`, or `config` no `SegmentConfig`.
        PPLValueError: if settings, model and data do not fit each other, or the folder holds a run with other settings;
            the message names the keys that differ.
        NonFiniteLossError: if the loss becomes NaN or infinite; the last good checkpoint is kept.

    Example:
        >>> import tempfile
        >>> from ppl.data import make_creatures, read_folder
        >>> from ppl.segment import create_segmenter
        >>> folder = tempfile.TemporaryDirectory()
        >>> root = make_creatures(Path(folder.name) / "creatures", train=2, val=4, size=64)
        >>> images = read_folder(root, "val")  # the split that has masks
        >>> model = create_segmenter("test_resnet", len(images.classes), decoder="fpn", pretrained=False)
        >>> config = SegmentConfig(epochs=1, batch_size=2, crop=64, num_workers=0)
        >>> fit(model, images, None, config, Path(folder.name) / "run").steps
        2
        >>> folder.cleanup()
    """
    if not isinstance(model, Segmenter):
        raise PPLTypeError(f"model must come from create_segmenter or load, got {type(model).__name__}")
    if not isinstance(config, SegmentConfig):
        raise PPLTypeError(f"config must be a SegmentConfig, got {type(config).__name__}: write SegmentConfig()")
    with open_accelerator(config.precision, device, seed=config.seed) as accelerator:
        state = read_state(Path(out))
        task = SegmenterTask(model, train, val, config, accelerator, choices=state and state["choices"])
        summary = Trainer(task, accelerator).run(Path(out), state, progress=progress)
        model.eval()
    return summary
