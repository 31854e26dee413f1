"""A lock that lets one command at a time write into a folder, be it one process, several, or an array job."""

from __future__ import annotations

import json
import os
import shlex
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from filelock import BaseFileLock, FileLock, Timeout

from ppl.errors import PPLError
from ppl.io.files import FileWriteError, atomic_write
from ppl.parallel.share import Share, current_share

__all__ = ["FolderInUseError", "command_lock", "folder_lock"]

_LOCK, _SHARDS = ".ppl.lock", ".ppl.shards"
_MOMENT = 2.0
"""Seconds in which a process that only asks whether the lock is free has let go of it."""


class FolderInUseError(PPLError):
    """Another process is writing into the folder."""


@contextmanager
def command_lock(folder: str | os.PathLike[str], job: str = "") -> Iterator[None]:
    """Hold a folder's lock during a command that all processes of a launch do together; as `folder_lock`.

    No process begins before the first has the lock, and the lock is held until all have ended.
    """
    share = current_share()
    with folder_lock(folder, job):
        share.wait()
        yield
        share.wait()


@contextmanager
def folder_lock(folder: str | os.PathLike[str], job: str = "") -> Iterator[None]:
    """Hold a folder's lock while the block runs.

    The operating system owns the lock and releases it when the process ends, however it ends, so a killed process
    leaves no stale lock. The same thread may take the lock again inside the block. Of the processes that
    `accelerate launch` or `torchrun` started, only the first takes it. The shards of one array job hold the lock
    together; see `ppl.parallel.shard`.

    Args:
        folder: made if it is missing. It keeps an empty hidden file, `.ppl.lock`, and one for each shard,
            `.ppl.shards*.lock`, until the next call that is no shard.
        job: fingerprint of what a shard does: shards that do the same may be at work at the same time.

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
    share, folder = current_share(), Path(folder).resolve()
    if not share.is_first:
        yield
        return
    path = folder / (_shard_name(share, job) if share.is_shard else _LOCK)
    lock = FileLock(path, is_singleton=True)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _acquire(lock, path)
    except OSError as error:
        raise FileWriteError(f"cannot write into {folder}: {error}; choose another folder") from error
    outermost = lock.lock_counter == 1
    try:
        if outermost:
            with atomic_write(_owner_file(path), "w") as file:
                json.dump(_owner(), file)
            _check_others(path, share)
        yield
    finally:
        if outermost:
            _owner_file(path).unlink(missing_ok=True)
        lock.release()


def _shard_name(share: Share, job: str) -> str:
    """Return the name of a shard's lock; what comes before the last "+" is the same for all shards of a job."""
    return f"{_SHARDS}{share.count}-{job[:16]}+{share.index + 1}.lock"


def _check_others(own: Path, share: Share) -> None:
    """Raise FolderInUseError if another command holds a lock of the folder.

    Every process takes its own lock first and asks for those of others afterwards, so of two that begin at the same
    moment never both go on.
    """
    ours = own.name.rpartition("+")[0] if share.is_shard else None
    others = [path for path in own.parent.glob(f"{_SHARDS}*.lock") if path.name.rpartition("+")[0] != ours]
    for path in [*others, *([own.with_name(_LOCK)] if share.is_shard else [])]:
        lock = FileLock(path)
        _acquire(lock, path)
        if not share.is_shard:
            # A shard that has opened the file by now finds our lock next, so it cannot go on with a file that is gone.
            with suppress(OSError):  # Windows removes no open file
                path.unlink()
        lock.release()


def _acquire(lock: BaseFileLock, path: Path) -> None:
    try:
        lock.acquire(timeout=0 if _owner_file(path).exists() else _MOMENT)
    except Timeout:
        raise _in_use(path) from None


def _owner_file(lock: Path) -> Path:
    return lock.with_name(f"{lock.name}.json")


def _owner() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
    }


def _in_use(lock: Path) -> FolderInUseError:
    message = f"another process is at work in {lock.parent}"
    try:
        owner = json.loads(_owner_file(lock).read_text(encoding="utf-8"))
        message += f": pid {owner['pid']} on {owner['host']}, since {owner['since']}, `{owner['command']}`"
    except (OSError, ValueError, KeyError):  # the owner has just begun or just ended
        pass
    return FolderInUseError(f"{message}; wait until it ends, or choose another folder")
