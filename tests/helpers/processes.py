"""Fresh processes for tests, without the seconds of imports that each of them would begin with."""

from __future__ import annotations

import multiprocessing
import os
import pkgutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

import ppl

_CAN_FORK = "forkserver" in multiprocessing.get_all_start_methods()
_CONTEXT = multiprocessing.get_context("forkserver" if _CAN_FORK else "spawn")
if _CAN_FORK:  # from a server that has imported everything and computed nothing
    _LIBRARIES = ["torch.distributed", "torchvision", "timm", "accelerate", "skimage.data"]
    _OURS = [module.name for module in pkgutil.walk_packages(ppl.__path__, "ppl.") if "__main__" not in module.name]
    _CONTEXT.set_forkserver_preload([*_LIBRARIES, *_OURS])
PPL = "from ppl.cli import main; main()"
"""Code of the command `ppl`."""


class Child:
    """A process that runs code as `python -c CODE WORDS` does; what it prints is kept in files.

    Attributes:
        pid: its number.
        returncode: its exit code, negative for a signal, None while it runs.
    """

    def __init__(
        self, code: str, *words: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
    ) -> None:
        self._files = ExitStack()
        folder = Path(self._files.enter_context(tempfile.TemporaryDirectory()))
        self._texts = folder / "out", folder / "error"
        arguments = (code, [str(word) for word in words], dict(env or {}), cwd or Path.cwd(), self._texts)
        self._process = _CONTEXT.Process(target=_run, args=arguments)
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *error: object) -> None:
        self._process.kill()
        self._process.join()
        self._files.close()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait_for(self, text: str) -> None:
        """Return once the process has printed a text; fail if it ends before."""
        while text not in self._printed()[0]:
            assert self.returncode is None, self._printed()
            time.sleep(0.02)

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end and return standard output and standard error."""
        self._process.join(timeout)
        assert self.returncode is not None, f"still at work after {timeout} s: {self._printed()}"
        return self._printed()

    def _printed(self) -> tuple[str, str]:
        out, error = (path.read_text(encoding="utf-8") if path.exists() else "" for path in self._texts)
        return out, error


def run_code(
    code: str, *words: object, env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> tuple[int, str, str]:
    """Run code in a process of its own, and return exit code, standard output and standard error."""
    with Child(code, *words, env=env, cwd=cwd) as child:
        out, error = child.communicate()
        assert child.returncode is not None
        return child.returncode, out, error


def run_ranks(code: str, *words: object) -> list[tuple[int, str, str]]:
    """Run code in two processes that are the ranks of one launch, on the CPU; return what `run_code` does, for each."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    launch = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    launch |= {"ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}  # each of the two would take a GPU
    with ExitStack() as stack:
        ranks = [
            stack.enter_context(Child(code, *words, env=launch | {"RANK": rank, "LOCAL_RANK": rank})) for rank in "01"
        ]
        printed = [child.communicate() for child in ranks]
        return [(child.returncode or 0, *texts) for child, texts in zip(ranks, printed, strict=True)]


def _run(code: str, words: Sequence[str], env: Mapping[str, str], cwd: Path, texts: tuple[Path, Path]) -> None:
    import torch

    for path, stream in zip(texts, (1, 2), strict=True):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(file, stream)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background of a shell ignores it
    os.environ.update(env)
    os.chdir(cwd)
    sys.path.insert(0, "")
    sys.argv = ["-c", *words]
    torch.set_num_threads(1)
    exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
