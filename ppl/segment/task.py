"""The segmentation network as a task of the training loop."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones.eval_mode import EvalMode
from ppl.data import TaggedImages
from ppl.data.views import IGNORED
from ppl.engine import Task
from ppl.engine.batch_norm import choose_batch_norm, set_train_mode
from ppl.engine.batches import Share
from ppl.engine.optimizer import param_groups
from ppl.engine.unused import unused_parameters
from ppl.errors import PPLValueError
from ppl.io import fingerprint, sha256
from ppl.io.confidence import confidence_file
from ppl.metrics import ConfusionMatrix
from ppl.segment.config import SegmentConfig
from ppl.segment.files import save_segmenter
from ppl.segment.losses import segmentation_loss
from ppl.segment.predict import iter_predict
from ppl.segment.samples import SegmentBatch, train_batches
from ppl.segment.segmenter import Segmenter

__all__ = ["SegmenterTask"]

_NETWORK_KEYS = {"encoder", "decoder", "pretrained", "checkpoint_path", "output_stride", "options"}


class SegmenterTask(Task):
    """Training of a `Segmenter` on images with masks.

    Args:
        model: the network, trained in place.
        train: training images, all of which have masks.
        val: validation images, all of which have masks, or None.
        config: the settings.
        accelerator: from `open_accelerator`.
        choices: the choices of the run that is continued; None for a new run.

    Raises:
        PPLValueError: if settings, model and data do not fit each other.
    """

    config: SegmentConfig
    model: Segmenter
    score = "val_mIoU"
    greater_is_better = True
    grows = ("training images",)

    def __init__(
        self,
        model: Segmenter,
        train: TaggedImages,
        val: TaggedImages | None,
        config: SegmentConfig,
        accelerator: Any,
        choices: Mapping[str, Any] | None = None,
    ) -> None:
        for images in (train, val):
            if images is not None:
                _check(model, images)
        if config.reads_confidence:
            _check_confidence(train)
        self.config, self.model = config, model
        share = Share.of(accelerator)
        self.batches = train_batches(train, config, model.data_config, share)
        if val is not None:
            self.val = val.samples[accelerator.process_index :: accelerator.num_processes]
        model.classes = train.classes
        self._batch_norm = choices["batch_norm"] if choices else choose_batch_norm(model.encoder, config.batch_norm)
        self.choices = {"batch_norm": self._batch_norm}
        self.objective = _Objective(model, config)
        self.loss_names = ("loss", "pixels", "classes") if config.class_loss else ("loss",)
        identity = {key: value for key, value in config.identity().items() if key not in _NETWORK_KEYS}
        identity |= {f"model.{key}": value for key, value in model.config.items()}
        identity["training images"] = _fingerprint(train, confidence=config.reads_confidence)
        identity["validation images"] = None if val is None else _fingerprint(val)
        identity["processes"] = accelerator.num_processes
        self.identity = identity

    @property
    def epochs(self) -> int:
        """The number of epochs, from `iterations` if they are given."""
        iterations = self.config.iterations
        return self.config.epochs if iterations is None else -(-iterations // self.updates)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return weights, biases and norms of the encoder, and of the decoder and head."""
        encoder = [(name, parameter) for name, parameter in self.model.encoder.named_parameters()]
        known = {id(parameter) for _, parameter in encoder}
        head = [(name, p) for name, p in self.model.named_parameters() if id(p) not in known]
        config = self.config
        return param_groups(
            encoder, head, lr=config.lr, weight_decay=config.weight_decay, head_lr_mult=config.head_lr_mult
        )

    def check(self) -> None:
        """Compute the losses of black crops."""
        with EvalMode(self.model.modules()), torch.no_grad():
            self.objective(*self._black_crops())

    def may_leave_out_parameters(self) -> bool:
        """Tell whether the loss of black crops does not depend on all trained parameters."""
        with EvalMode(self.model.modules()):
            return bool(unused_parameters(self.objective, self.objective(*self._black_crops())["loss"]))

    def _black_crops(self) -> SegmentBatch:
        device, crop = next(self.model.parameters()).device, self.config.crop
        return SegmentBatch(
            torch.zeros(2, 3, crop, crop, device=device),
            torch.zeros(2, crop, crop, dtype=torch.long, device=device),
            torch.ones(2, crop, crop, device=device),
        )

    def set_train_mode(self) -> None:
        """Put the network in train mode, frozen BatchNorm layers of the encoder in eval mode."""
        self.model.train()
        set_train_mode(self.model.encoder, self._batch_norm)

    def losses(self, objective: nn.Module, batch: SegmentBatch) -> Mapping[str, Tensor]:
        """Return the losses of a batch."""
        losses: Mapping[str, Tensor] = objective(*batch)
        return losses

    @torch.no_grad()
    def validate(self, model: nn.Module, accelerator: Any) -> dict[str, float]:
        """Return the mIoU of the whole validation images at their own size, without scales and mirror images."""
        assert isinstance(model, Segmenter) and self.val is not None
        confusion = ConfusionMatrix(model.num_classes + 1, ignore_index=IGNORED)
        with EvalMode(model.modules()), accelerator.autocast():
            pictures = [sample.picture for sample in self.val]
            results = iter_predict(model, pictures, scales=(1.0,), flip=False, batch_size=1, probs=False)
            for sample, result in zip(self.val, results, strict=True):
                confusion.update(torch.from_numpy(sample.read_mask()), result.mask)
        counts = accelerator.reduce(confusion.counts.to(accelerator.device), "sum")
        confusion.counts = counts.cpu()
        return {self.score: confusion.compute()["miou"]}

    def save(self, model: nn.Module, path: Path) -> None:
        """Write the network for `ppl.segment.load`."""
        assert isinstance(model, Segmenter)
        save_segmenter(model, path)


class _Objective(nn.Module):
    """The network and its losses."""

    def __init__(self, model: Segmenter, config: SegmentConfig) -> None:
        super().__init__()
        self.model, self.config = model, config

    def forward(self, images: Tensor, masks: Tensor, weights: Tensor) -> dict[str, Tensor]:
        logits = self.model(images)
        config = self.config
        pixels = segmentation_loss(
            logits,
            masks,
            weight=weights,
            balanced=config.balanced,
            label_smoothing=config.label_smoothing,
            ignore_index=IGNORED,
        )
        if not config.class_loss:
            return {"loss": pixels}
        classes = _class_loss(logits, masks)
        return {"loss": pixels + config.class_loss * classes, "pixels": pixels, "classes": classes}


def _class_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the multi-label loss of the mean logits of a crop against the classes in its mask."""
    present = F.one_hot(masks.where(masks != IGNORED, 0), logits.shape[1]).amax(dim=(1, 2))[:, 1:]
    return F.multilabel_soft_margin_loss(logits.float().mean(dim=(2, 3))[:, 1:], present.float())


def _check(model: Segmenter, images: TaggedImages) -> None:
    if model.num_classes != len(images.classes):
        raise PPLValueError(
            f"the network has {model.num_classes} classes, {images.name} has {len(images.classes)}: create the network "
            f"with num_classes={len(images.classes)}"
        )
    bare = [sample.image_id for sample in images if sample.mask is None]
    if bare:
        raise PPLValueError(
            f"{len(bare)} of {len(images)} images of {images.name} have no mask, such as {bare[0]!r}: give masks "
            "(ppl.segment.with_masks), or leave the images out"
        )
    if not len(images):
        raise PPLValueError(f"{images.name} holds no images")


def _check_confidence(images: TaggedImages) -> None:
    bare = [s.image_id for s in images if not (isinstance(s.mask, Path) and confidence_file(s.mask).is_file())]
    if bare:
        raise PPLValueError(
            f"{len(bare)} of {len(images)} images of {images.name} have no file with the confidence of their labels "
            f"beside their mask, such as {bare[0]}.npz: refine with keep='confidence', or set confidence to false and "
            "min_confidence to 0"
        )


def _fingerprint(images: TaggedImages, *, confidence: bool = False) -> str:
    """Hash classes, image ids and the content of the masks: a run does not continue on other masks."""
    masks = []
    for sample in images:
        mask = sample.mask
        masks.append([sample.image_id, sha256(mask) if isinstance(mask, Path) else str(mask)])
        if confidence and isinstance(mask, Path):
            masks[-1].append(sha256(confidence_file(mask)))
    return f"{len(images)} images, {fingerprint([list(images.classes), masks])}"
