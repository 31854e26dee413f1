"""Networks for programs without ppl: ONNX files, and programs of `torch.export`."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ppl.backbones.eval_mode import EvalMode
from ppl.errors import PPLError
from ppl.extras import require
from ppl.io import atomic_write
from ppl.models.ppl_net import PPLNet

__all__ = ["export_onnx", "export_torch"]

_TOLERANCE = 1e-4
_EXAMPLE, _CHECKED = (2, 128, 160), ((1, 97, 64), (3, 160, 224))


def export_onnx(model: nn.Module, path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> float:
    """Write a network as an ONNX file, and check the file in onnxruntime.

    The file maps `images` (B,3,H,W), normalised by the mean and std that its metadata `ppl` hold as JSON beside the
    classes, to the following. The batch has any size, and so have the images unless `size` is given.

    * a segmentation network, and any other module that returns one tensor: `logits`, (B,K+1,H,W) for the former;
    * a `PPLNet`: `logits` (B,K), and `class_maps` (B,K,h,w) of the un-patched branch, from which
      :func:`ppl.cam.generate` reads CAMs by default: ReLU, then division by the maximum. Patches are a matter of
      training and are not in the file.

    Args:
        model: a network of :func:`ppl.segment.create_segmenter`, a :class:`ppl.PPLNet`, or any module from images to
            one tensor; on the CPU.
        path: the file, which appears only if the check passes.
        size: (H,W) of the images, for networks that take no other size.

    Returns:
        The largest absolute difference between file and network in the check.

    Raises:
        MissingExtraError: if the packages of the extra `onnx` are not installed.
        PPLError: if torch cannot export the network, or an output of the file differs by more than 1e-4 of the largest
            value.
        FileWriteError: if the disk is full or the place cannot be written to.
    """
    runtime = require("onnxruntime", extra="onnx")
    for package in ("onnx", "onnxscript"):
        require(package, extra="onnx")
    network = _network(model)

    def write(program: Any, file: Path) -> None:
        onnx = torch.onnx.export(
            program, (), dynamo=True, input_names=["images"], output_names=list(network.outputs), verbose=False
        )
        assert onnx is not None
        onnx.model.metadata_props["ppl"] = network.facts()
        onnx.save(str(file), external_data=False)

    def read(file: Path) -> Callable[[Tensor], list[Tensor]]:
        session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return lambda images: [torch.from_numpy(found) for found in session.run(None, {"images": images.numpy()})]

    return _export(network, Path(path), size, write, read)


def export_torch(model: nn.Module, path: str | os.PathLike[str], *, size: tuple[int, int] | None = None) -> float:
    """Write a network as a program of `torch.export` (.pt2), which `torch.export.load` reads, and check the file.

    The inputs and outputs are those of :func:`export_onnx`; the metadata are the extra file `ppl.json`.

    Args:
        model: see :func:`export_onnx`.
        path: the file, which appears only if the check passes.
        size: see :func:`export_onnx`.

    Returns:
        The largest absolute difference between file and network in the check.

    Raises:
        PPLError: if torch cannot export the network, or the file differs from the network.
        FileWriteError: if the disk is full or the place cannot be written to.
    """
    network = _network(model)

    def write(program: Any, file: Path) -> None:
        torch.export.save(program, file, extra_files={"ppl.json": network.facts()})

    def read(file: Path) -> Callable[[Tensor], list[Tensor]]:
        module = torch.export.load(file).module()
        return lambda images: list(module(images))

    return _export(network, Path(path), size, write, read)


class _Exported(nn.Module):
    """A network whose outputs are a tuple of tensors."""

    outputs: tuple[str, ...] = ("logits",)

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        return (self.model(images),)

    def facts(self) -> str:
        """Return what a program needs to know beside the file, as JSON."""
        config = getattr(self.model, "data_config", {})
        facts = {"classes": getattr(self.model, "classes", None)} | {key: config.get(key) for key in ("mean", "std")}
        return json.dumps(facts, default=list)


class _ExportedNet(_Exported):
    """The logits and the class maps of a `PPLNet`, read from the un-patched map."""

    outputs = ("logits", "class_maps")

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        assert isinstance(self.model, PPLNet)
        branches = self.model.unpatched_class_maps(images)
        return self.model.pool(torch.stack(branches).sum(0)), branches[-1]


def _network(model: nn.Module) -> _Exported:
    return _ExportedNet(model) if isinstance(model, PPLNet) else _Exported(model)


def _export(
    network: _Exported,
    path: Path,
    size: tuple[int, int] | None,
    write: Callable[[Any, Path], None],
    read: Callable[[Path], Callable[[Tensor], list[Tensor]]],
) -> float:
    with EvalMode(network.modules()), torch.no_grad(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / path.name
        try:
            write(_program(network, size), file)
        except Exception as error:  # Tracing and translation raise errors of many types.
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            fix = "" if size else "; a network of one image size needs that size (size=..., --size)"
            raise PPLError(f"torch cannot export {type(network.model).__name__}: {reason}{fix}") from error
        difference = _largest_difference(network, read(file), size)
        with atomic_write(path) as handle:
            handle.write(file.read_bytes())
    return difference


def _program(network: _Exported, size: tuple[int, int] | None) -> Any:
    any_size = torch.export.Dim.DYNAMIC
    dynamic = {0: any_size} if size else {0: any_size, 2: any_size, 3: any_size}
    return torch.export.export(
        network, (torch.zeros(_shape(network.model, _EXAMPLE, size)),), dynamic_shapes=(dynamic,), strict=False
    )


def _shape(model: nn.Module, example: tuple[int, int, int], size: tuple[int, int] | None) -> tuple[int, ...]:
    """Return the shape of example images that the network takes."""
    multiple, least = getattr(model, "size_multiple", 1), getattr(model, "min_size", (1, 1))
    batch, *sides = example
    free = [-(-max(side, low) // multiple) * multiple for side, low in zip(sides, least, strict=True)]
    return (batch, 3, *(size or free))


def _largest_difference(
    network: _Exported, exported: Callable[[Tensor], list[Tensor]], size: tuple[int, int] | None
) -> float:
    generator = torch.Generator().manual_seed(0)
    largest = 0.0
    for example in _CHECKED:
        images = torch.randn(_shape(network.model, example, size), generator=generator)
        for name, found, expected in zip(network.outputs, exported(images), network(images), strict=True):
            difference = float((found - expected).abs().max())
            if not difference <= _TOLERANCE * max(1.0, float(expected.abs().max())):
                raise PPLError(
                    f"the {name} of the exported file differ from the network's by {difference:.2g} for images "
                    f"{tuple(images.shape)}"
                )
            largest = max(largest, difference)
    return largest
