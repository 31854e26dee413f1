"""Machine code of kernels: made by LLVM when first needed, kept on disk, called through ctypes.

The code is made for the very processor, so its name and features are part of the name of the file; so are the sources.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import llvmlite.binding as llvm
import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from ppl.io.files import FileWriteError, atomic_write
from ppl.refine.kernel.language import F32, I32, I64, U8, Kernel
from ppl.refine.kernel.translate import translate

__all__ = ["cache_folder", "compiled"]

_lock = threading.Lock()


def cache_folder() -> Path:
    """Where machine code is kept: `PPL_CACHE_DIR` if that is set, else the user's folder of caches."""
    chosen = os.environ.get("PPL_CACHE_DIR")
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ppl"


def compiled(entry: Kernel, **constants: int) -> Callable[..., Any]:
    """A kernel as a function of numpy arrays and numbers, in the order of its parameters without its constants.

    It runs without the GIL. Arrays have to be contiguous and of the kernel's type; that they are long enough is the
    caller's business.

    Args:
        entry: what to compile.
        **constants: a value for each of its constants.
    """
    with _lock:  # one thread compiles, those that need the same wait
        return _compiled(entry, tuple(constants.items()))


@cache
def _compiled(entry: Kernel, constants: tuple[tuple[str, int], ...]) -> Callable[..., Any]:
    name = "_".join([entry.name, *(str(value) for _, value in constants)])
    engine = _engine()
    engine.add_object_file(llvm.ObjectFileRef.from_data(_machine_code(entry, dict(constants), name)))
    engine.finalize_object()
    kinds = [kind for kind in entry.parameters.values() if kind is not None]
    prototype: Any = ctypes.CFUNCTYPE(
        _CTYPES.get(entry.returns), *(_CTYPES.get(kind, ctypes.c_void_p) for kind in kinds)
    )
    function = prototype(engine.get_function_address(name))
    converters = [_converter(kind) for kind in kinds]

    def call(*arguments: Any) -> Any:
        return function(*(convert(value) for convert, value in zip(converters, arguments, strict=True)))

    return call


def _converter(kind: Any) -> Callable[[Any], Any]:
    """What makes a ctypes argument of a Python or numpy number, or of an array."""
    if not isinstance(kind, ir.PointerType):
        return float if kind == F32 else int
    dtype = _DTYPES[kind.pointee]

    def address(array: NDArray[Any]) -> int:
        if array.dtype != dtype or not array.flags.c_contiguous:
            raise TypeError(f"this kernel takes a contiguous array of {dtype}, not {array.dtype} with {array.strides}")
        return array.ctypes.data

    return address


_CTYPES: dict[Any, Any] = {F32: ctypes.c_float, I64: ctypes.c_int64}
_DTYPES: dict[Any, Any] = {
    U8: np.dtype(np.uint8),
    I32: np.dtype(np.int32),
    I64: np.dtype(np.int64),
    F32: np.dtype(np.float32),
}


def _machine_code(entry: Kernel, constants: dict[str, int], name: str) -> bytes:
    try:
        path = cache_folder() / f"{name}-{_fingerprint(entry.scope['__file__'])}.bin"
    except RuntimeError:  # a user without a home
        return _compile(translate(entry, constants, name))
    with suppress(OSError, ValueError):
        digest, code = path.read_bytes().split(b"\n", 1)
        if digest == _digest(code):
            return code
    code = _compile(translate(entry, constants, name))
    # Where nothing can be written the code serves this process alone.
    with suppress(OSError, FileWriteError), atomic_write(path) as handle:
        handle.write(_digest(code) + b"\n" + code)
    return code


def _digest(code: bytes) -> bytes:
    return hashlib.sha256(code).hexdigest().encode()


@cache
def _fingerprint(source: str) -> str:
    """Of the file that kernels stand in, of the compiler and of the processor."""
    parts = [llvmlite.__version__, llvm.get_host_cpu_name(), llvm.get_host_cpu_features().flatten()]
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(source)]
    parts += [path.read_text(encoding="utf-8") for path in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:24]


def _compile(assembly: str) -> bytes:
    module = llvm.parse_assembly(assembly)
    options = llvm.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = True
    builder = llvm.create_pass_builder(_machine(), options)
    builder.getModulePassManager().run(module, builder)
    code: bytes = _machine().emit_object(module)
    return code


@cache
def _machine() -> Any:
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    features = llvm.get_host_cpu_features().flatten()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=features, opt=3, jit=True, codemodel="jitdefault"
    )


@cache
def _engine() -> Any:
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), _machine())
