"""Segmentation networks: a timm encoder under a decoder of segmentation-models-pytorch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ppl.backbones import data_config
from ppl.backbones.names import check_timm_name
from ppl.data.dataset import MAX_CLASSES
from ppl.errors import PPLValueError
from ppl.models.create_model import make_backbone, number_and_names
from ppl.models.hub import HubMixin
from ppl.models.weights import load_backbone_weights
from ppl.segment.batch_norm import accept_single_values
from ppl.segment.config import SegmentConfig
from ppl.segment.decoders import DECODERS, DILATED

__all__ = ["Segmenter", "create_segmenter"]

_DEFAULTS = SegmentConfig()


class Segmenter(HubMixin, nn.Module):
    """A segmentation network for images of any size.

    Args:
        network: the network of `segmentation_models_pytorch`, which takes sizes that its stride divides.
        num_classes: K, the number of classes without the background.
        config: the arguments of :func:`create_segmenter` that make the network again.

    Attributes:
        classes: names of the K classes, or None.
        config: see above.
        data_config: mean, std, input_size and interpolation of the images that the encoder was trained on.

    Example:
        >>> import torch
        >>> model = create_segmenter("test_resnet", 3, decoder="fpn", pretrained=False)
        >>> model(torch.zeros(2, 3, 50, 70)).shape
        torch.Size([2, 4, 50, 70])
    """

    def __init__(self, network: nn.Module, num_classes: int, config: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network
        self.num_classes = num_classes
        self.config = dict(config)
        self.classes: tuple[str, ...] | None = None
        self.data_config = data_config(self.encoder)

    @property
    def encoder(self) -> nn.Module:
        """The timm network, without its classifier."""
        return self.network.get_submodule("encoder.model")

    @property
    def stride(self) -> int:
        """The number of pixels that heights and widths are padded to a multiple of."""
        # DPT halves the token map once more
        return 32 if self.config["decoder"] == "dpt" else self.config["output_stride"] or 32

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (B,K+1,H,W) of normalised images (B,3,H,W); channel 0 is the background.

        Images are padded at the bottom and on the right with zeros, the mean colour, to a multiple of the stride. The
        logits of the padding are cut off.
        """
        height, width = x.shape[-2:]
        padding = (0, -width % self.stride, 0, -height % self.stride)
        # A compiled or exported graph must not depend on whether the size of its example needs padding.
        if torch.compiler.is_compiling() or any(padding):
            x = F.pad(x, padding)
        logits: Tensor = self.network(x)
        return logits[..., :height, :width]


def create_segmenter(
    encoder: str = "resnet50",
    num_classes: int | list[str] | tuple[str, ...] = 20,
    *,
    decoder: str = _DEFAULTS.decoder,
    pretrained: bool = _DEFAULTS.pretrained,
    checkpoint_path: str | os.PathLike[str] | None = _DEFAULTS.checkpoint_path,
    output_stride: int | None = _DEFAULTS.output_stride,
    **options: Any,
) -> Segmenter:
    """Build a segmentation network on a timm encoder.

    Args:
        encoder: name of a timm model that returns feature maps at strides 2 or 4, up to 32.
        num_classes: K, the number of classes without the background, or their names, which become `model.classes`.
        decoder: a key of `ppl.segment.DECODERS`: "deeplabv3plus", "deeplabv3", "fpn", "upernet", "segformer", "unet" or
            "dpt".
        pretrained: start the encoder from timm's weights, which timm downloads if they are not in its cache.
        checkpoint_path: a file with weights of the encoder under timm's keys, or a classifier of
            :func:`ppl.save_model` on the same backbone; nothing is downloaded then.
        output_stride: stride of the encoder's last map: 8 or 16 for the DeepLab decoders, 32 for the others. None takes
            16 and 32.
        **options: further arguments of the decoder, such as `decoder_channels=128`.

    Returns:
        The network, in training mode.

    Raises:
        PPLTypeError: if `num_classes` is neither a number nor a list of names.
        PPLValueError: if there are more than 254 classes, the encoder or decoder is unknown, they do not fit together,
            the encoder cannot have the stride, or the weights are those of another network.
        PPLFileNotFoundError: if `checkpoint_path` does not exist.
        PPLError: if the pretrained weights cannot be downloaded.

    Example:
        >>> model = create_segmenter("test_resnet", 2, decoder="unet", pretrained=False)
        >>> model.num_classes, model.stride
        (2, 32)
    """
    import segmentation_models_pytorch as smp

    check_timm_name(encoder)
    num_classes, classes = number_and_names(num_classes)
    architecture = getattr(smp, DECODERS.find(decoder))
    if not 1 <= num_classes <= MAX_CLASSES:
        raise PPLValueError(
            f"num_classes must be 1 to {MAX_CLASSES}, the background not counted, for masks of 8 bits, in which 255 "
            f"is ignored, got {num_classes}"
        )
    if output_stride not in (None, 8, 16, 32):
        raise PPLValueError(f"output_stride must be 8, 16 or 32, got {output_stride}")
    output_stride = output_stride or DILATED.get(decoder)
    config = {"encoder": encoder, "num_classes": num_classes, "decoder": decoder, "output_stride": output_stride}
    arguments = dict(options)
    if decoder in DILATED:
        arguments["encoder_output_stride"] = output_stride
    elif output_stride not in (None, 32):
        raise PPLValueError(
            f"decoder {decoder!r} needs maps whose strides double from stage to stage, so it cannot have output_stride="
            f"{output_stride}: leave output_stride out, or take decoder='deeplabv3plus'"
        )
    if _takes_dynamic_sizes(encoder):
        arguments["dynamic_img_size"] = True
    weights = _encoder_weights(encoder, pretrained, checkpoint_path)
    if weights is not None:
        arguments["pretrained_cfg_overlay"] = {"state_dict": weights}
    try:
        network = architecture(
            encoder_name=f"tu-{encoder}",
            encoder_weights=None if weights is None else True,
            classes=num_classes + 1,
            **arguments,
        )
    except (TypeError, ValueError, NotImplementedError, AssertionError, RuntimeError, KeyError) as error:
        raise PPLValueError(_no_network(encoder, decoder, arguments, error)) from error
    accept_single_values(network.decoder)
    model = Segmenter(network, num_classes, {**config, "options": options})
    model.classes = classes
    return model


def _takes_dynamic_sizes(encoder: str) -> bool:
    """Tell whether a timm model takes images of other sizes than its own only if asked to, as ViT and Swin do."""
    import timm

    try:
        with torch.device("meta"):
            timm.create_model(encoder, pretrained=False, dynamic_img_size=True)
    except (TypeError, NotImplementedError, RuntimeError):  # unknown argument, or layers that need real numbers
        return False
    return True


def _encoder_weights(
    encoder: str, pretrained: bool, checkpoint_path: str | os.PathLike[str] | None
) -> dict[str, Tensor] | None:
    """Return the weights of the encoder under timm's keys, or None for random ones.

    timm loads them into the feature extractor by itself, but passes over weights that do not fit. So they are loaded
    into the whole network first, which refuses weights of another network.
    """
    if checkpoint_path is None and not pretrained:
        return None
    source: dict[str, Any] = {"backbone": encoder, "output_stride": None, "timm_kwargs": {}}
    network = make_backbone(source, pretrained=checkpoint_path is None)
    if checkpoint_path is not None:
        load_backbone_weights(network, checkpoint_path)
    weights: dict[str, Tensor] = network.state_dict()
    return weights


def _no_network(encoder: str, decoder: str, arguments: Mapping[str, Any], error: Exception) -> str:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    if "downsampling pattern" in reason:
        return f"encoder {encoder!r} has one map at one stride: take decoder='dpt', or an encoder with several stages"
    stride = arguments.get("encoder_output_stride")
    if stride is not None:
        return (
            f"encoder {encoder!r} cannot be built under decoder {decoder!r} with output_stride={stride} ({reason}): "
            "leave output_stride out and take a decoder without dilation, such as decoder='fpn'"
        )
    return f"encoder {encoder!r} cannot be built under decoder {decoder!r} ({reason}): choose another pair"
