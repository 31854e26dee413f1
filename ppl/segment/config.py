"""The settings of a segmentation network and of its training."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator

from ppl.engine import EngineConfig
from ppl.segment.decoders import DECODERS

__all__ = ["SegmentConfig"]


class SegmentConfig(EngineConfig):
    """The network (`create_segmenter`) and its training (`ppl.segment.fit`).

    The paper does not say how its segmentation network was trained: every default is ours.

    Example:
        >>> SegmentConfig(epochs=4, decoder="fpn").crop
        384
    """

    # network
    encoder: str | None = Field(
        None, description="timm model under the decoder; null: the backbone of the run's classifier"
    )
    decoder: str = Field("deeplabv3plus", description="decoder: " + ", ".join(DECODERS))
    pretrained: bool = Field(True, description="start the encoder from timm's weights")
    checkpoint_path: Path | None = Field(
        None, description="start the encoder from a file of timm-keyed weights, or from a classifier of ppl"
    )
    output_stride: Literal[8, 16, 32] | None = Field(
        None, description="stride of the encoder's last map; null: 16 under the DeepLab decoders, else 32"
    )
    options: dict[str, Any] = Field({}, description="further arguments of the decoder, such as decoder_channels: 128")

    iterations: int | None = Field(
        None, ge=1, description="optimizer steps, rounded up to whole epochs, in place of `epochs`; null: by `epochs`"
    )

    # images
    crop: int = Field(384, ge=32, description="side of the square training crops, in pixels")
    scale: tuple[float, float] = Field((0.5, 2.0), description="range of the random factor of an image's size")
    jitter: float = Field(
        0.3, ge=0, le=1.5, description="strength of changes of brightness, contrast and saturation; 0: none"
    )

    # loss
    balanced: bool = Field(False, description="average background and foreground pixels apart")
    label_smoothing: float = Field(0.0, ge=0, lt=1, description="part of the target that is spread over all labels")
    class_loss: float = Field(
        0.0, ge=0, description="weight of a loss on the classes of the whole crop, beside the loss of the pixels"
    )

    # noise of the masks
    confidence: bool = Field(False, description="weight the loss of each pixel by the confidence of its label")
    min_confidence: float = Field(0.0, ge=0, le=1, description="ignore pixels whose label is less confident; 0: none")
    rounds: int = Field(
        1,
        ge=1,
        description="trainings in a row, each from the same initial weights; from the second on, the masks are the "
        "predictions of the network before, cut to the tags of each image",
    )

    # optimizer
    head_lr_mult: float = Field(10.0, gt=0, description="factor of the decoder's learning rate")
    batch_norm: Literal["auto", "frozen", "live"] = Field(
        "auto", description="statistics of the encoder's BatchNorm; auto: frozen if they were learned before"
    )

    # prediction
    scales: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (1.0,), min_length=1, description="input scales whose logits are averaged"
    )
    flip: bool = Field(True, description="average the logits of the mirrored image as well")
    crf: str | None = Field(None, description='preset of the CRF that refines predictions, such as "deeplab"')

    def prediction(self) -> dict[str, Any]:
        """Return the keyword arguments of :func:`ppl.segment.predict`."""
        return {"scales": self.scales, "flip": self.flip, "crf": self.crf}

    @property
    def reads_confidence(self) -> bool:
        """Whether the training needs the confidence of the masks' labels."""
        return self.confidence or self.min_confidence > 0

    @field_validator("decoder")
    @classmethod
    def _known_decoder(cls, value: str) -> str:
        DECODERS.find(value)
        return value

    @field_validator("scale")
    @classmethod
    def _rising(cls, value: tuple[float, float]) -> tuple[float, float]:
        if not 0 < value[0] <= value[1]:
            raise ValueError(f"scale must be a rising range of factors above 0, got {value}")
        return value
