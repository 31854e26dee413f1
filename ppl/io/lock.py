"""A lock that lets one process at a time write into a folder."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from ppl.errors import PPLError
from ppl.io.files import FileWriteError, atomic_write

__all__ = ["FolderInUseError", "folder_lock", "is_main_process"]

_LOCK, _OWNER = ".ppl.lock", ".ppl.lock.json"


class FolderInUseError(PPLError):
    """Another process is writing into the folder."""


@contextmanager
def folder_lock(folder: str | os.PathLike[str]) -> Iterator[None]:
    """Hold a folder's lock while the block runs.

    The operating system owns the lock and releases it when the process ends, however it ends, so a killed process
    leaves no stale lock. The same thread may take the lock again inside the block. Of the processes that
    `accelerate launch` or `torchrun` started, only the main process takes it.

    Args:
        folder: made if it is missing. It keeps an empty hidden file, `.ppl.lock`.

    Raises:
        FolderInUseError: if another process or thread holds the lock. The message names its host, process id, start
            and command.
        FileWriteError: if the folder cannot be written to.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as name, folder_lock(name):
        ...     json.loads((Path(name) / ".ppl.lock.json").read_text())["pid"] == os.getpid()
        True
    """
    if not is_main_process():
        yield
        return
    folder = Path(folder).resolve()
    lock = FileLock(folder / _LOCK, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise FolderInUseError(_in_use(folder)) from None
    except OSError as error:
        raise FileWriteError(f"cannot write into {folder}: {error}; choose another folder") from error
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            with atomic_write(folder / _OWNER, "w") as file:
                json.dump(_owner(), file)
        yield
    finally:
        if outermost:
            (folder / _OWNER).unlink(missing_ok=True)
        lock.release()


def is_main_process() -> bool:
    """Return False in the processes of rank 1 and up that `accelerate launch` or `torchrun` started."""
    return os.environ.get("RANK", "0") == "0"


def _owner() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _in_use(folder: Path) -> str:
    message = f"another process is at work in {folder}"
    try:
        owner = json.loads((folder / _OWNER).read_text(encoding="utf-8"))
        message += f": pid {owner['pid']} on {owner['host']}, since {owner['since']}, `{owner['command']}`"
    except (OSError, ValueError, KeyError):  # the owner has just begun or just ended
        pass
    return f"{message}; wait until it ends, or choose another folder"
