"""Networks for programs without ppl: ONNX files."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import torch
from torch import nn

from ppl.backbones.eval_mode import EvalMode
from ppl.errors import PPLError
from ppl.extras import require
from ppl.io import atomic_write

__all__ = ["export_onnx"]

_TOLERANCE = 1e-4
_EXAMPLE, _CHECKED = (2, 3, 128, 160), ((1, 3, 97, 64), (3, 3, 160, 224))


def export_onnx(model: nn.Module, path: str | os.PathLike[str]) -> float:
    """Write a network as an ONNX file for batches and images of any size, and check the file.

    The file maps `images` (B,3,H,W), normalised as `model.data_config` says, to `logits`. The check runs the file in
    onnxruntime on images of other sizes and compares with the network.

    Args:
        model: a network of :func:`ppl.segment.create_segmenter` or any module from images to one tensor, on the CPU.
        path: the file, which appears only if the check passes.

    Returns:
        The largest absolute difference of the logits in the check.

    Raises:
        MissingExtraError: if the packages of the extra `onnx` are not installed.
        PPLError: if torch cannot export the network, or the logits of the file differ by more than 1e-4 of the largest
            logit.
        FileWriteError: if the disk is full or the place cannot be written to.
    """
    runtime = require("onnxruntime", extra="onnx")
    require("onnxscript", extra="onnx")
    dynamic = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with EvalMode(model.modules()), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        try:
            torch.onnx.export(
                model,
                (torch.zeros(_EXAMPLE),),
                str(file),
                dynamo=True,
                dynamic_shapes=(dynamic,),
                input_names=["images"],
                output_names=["logits"],
                external_data=False,
                verbose=False,
            )
        except torch.onnx.OnnxExporterError as error:
            raise PPLError(
                f"torch cannot export {type(model).__name__} to ONNX: {str(error).splitlines()[0]}"
            ) from error
        difference = _largest_difference(model, runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"]))
        with atomic_write(path) as handle:
            handle.write(file.read_bytes())
    return difference


def _largest_difference(model: nn.Module, session: object) -> float:
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for shape in _CHECKED:
        images = torch.randn(shape, generator=generator)
        expected = model(images)
        (found,) = session.run(None, {"images": images.numpy()})  # type: ignore[attr-defined]
        difference = float((torch.from_numpy(found) - expected).abs().max())
        if difference > _TOLERANCE * max(1.0, float(expected.abs().max())):
            raise PPLError(f"the logits of the ONNX file differ from the network's by {difference:.2g} at {shape}")
        largest = max(largest, difference)
    return largest
